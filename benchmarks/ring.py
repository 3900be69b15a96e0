"""Time one update of the input-separated network with its fused pass against the plain formulation in autograd.

``python benchmarks/ring.py``: windows of 100 x 50 steps of 200 units (100 observed, 100 driven), 1 thread. Updates of
A and B alternate; the figure is the median ratio of pairs, in processor seconds, which a busy machine distorts least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.core.input_separated_rnn import InputSeparatedRnn
from neuroint.seeding import torch_generator

BATCH, STEPS, OBSERVED, HIDDEN = 100, 50, 100, 100


def plain(core: Any, inputs: Inputs) -> Tensor:
    """The equation frame by frame, in autograd's own operations; rates of observed units from the second frame on."""
    observed, behavior = inputs.observed, inputs.behavior
    if observed is None or behavior is None:
        raise ValueError("give recorded activity and behavior")
    u, rates = functional.pad(observed[:, 1], (0, HIDDEN)), []
    w, driven = core.connectivity(), functional.pad(core.input(behavior), (OBSERVED, 0))
    for t in range(1, STEPS):
        rate = torch.relu(torch.tanh(u @ w + core.bias + driven[:, t]))
        u = (1 - core.alpha) * u + core.alpha * rate
        rates.append(rate[:, :OBSERVED])
    return torch.stack(rates, dim=1)


def fused(core: Any, inputs: Inputs) -> Tensor:
    """The core as it is."""
    return core(inputs)[:, 1:, :, 0, 0]


def gradients(core: Any, run: Callable[..., Tensor], inputs: Inputs, target: Tensor) -> Tensor:
    """Gradients of the loss of one batch, flat."""
    core.zero_grad(set_to_none=True)
    functional.mse_loss(run(core, inputs), target).backward()
    return torch.cat([p.grad.flatten() for p in core.parameters() if p.grad is not None])


def measure(updates: int) -> dict[str, Any]:
    """Alternate plain and fused updates."""
    torch.manual_seed(0)
    core = InputSeparatedRnn(observed_channels=OBSERVED, behavior_channels=1, hidden=HIDDEN)
    draw = torch_generator(0, "ring", "benchmark")
    observed = torch.rand(BATCH, STEPS, OBSERVED, generator=draw)
    inputs = Inputs(behavior=2 * torch.randn(BATCH, STEPS, 1, generator=draw), observed=observed)
    target = observed[:, 1:]
    optimizer = torch.optim.Adam(core.parameters(), 1e-4)
    apart = (gradients(core, plain, inputs, target) - gradients(core, fused, inputs, target)).abs().max()
    times: dict[str, list[float]] = {"plain": [], "fused": []}
    for _ in range(updates):
        for name, run in (("plain", plain), ("fused", fused)):
            began = time.process_time()
            gradients(core, run, inputs, target)
            optimizer.step()
            times[name].append(time.process_time() - began)
    pairs = sorted(a / b for a, b in zip(times["plain"], times["fused"], strict=True))
    return {
        "updates": updates,
        "plain_ms": 1000 * statistics.median(times["plain"]),
        "fused_ms": 1000 * statistics.median(times["fused"]),
        "ratio": statistics.median(pairs),
        "ratio_middle_half": [pairs[len(pairs) // 4], pairs[-1 - len(pairs) // 4]],
        "largest_gradient_difference": float(apart),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="20 updates")
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(20 if options.quick else options.updates)
    print(json.dumps(found, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
