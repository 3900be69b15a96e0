"""Time a training step of every video core at its published size against the floor of its own products.

``python benchmarks/cores.py``: forward and backward through core and readout, one clip of ``--frames`` frames (20
beyond what the core consumes) of 36 x 64 pixels with behavior and pupil, ``--neurons`` neurons (1000), float32, 2
threads, each in a process of its own. The floor is what the step's matrix products and convolutions would take at the
speed of one product of 2048 x 2048 matrices in the same process: no formulation of the same operations is faster on
this machine. Speed choices (fused attention, running blocks again on the way back) are to be held against the same core
without. With dropout of maps torch's attention is not fused on a CPU: maps are held.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scaling import in_own_process
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neuroint import registry
from neuroint.data.base import Inputs
from neuroint.memory import peak_mb
from neuroint.sweep.flops import step_counter

HEIGHT, WIDTH, THREADS, SIDE = 36, 64, 2, 2048
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "attention")
WITHOUT_DROPOUT = {"dropout": 0.0}  # torch's fused attention on a CPU knows no dropout
READOUTS: dict[str, dict[str, Any]] = {"gaussian": {"grid": "free"}, "cortex": {}}
CORES: dict[str, tuple[str, dict[str, Any], str]] = {  # name: core, options, readout
    "factorized_conv3d": ("factorized_conv3d", {}, "gaussian"),
    "conv3d": ("conv3d", {}, "gaussian"),
    "depthwise_conv3d": ("depthwise_conv3d", {"causal": False, "square": True}, "cortex"),
    "depthwise_conv3d, causal": ("depthwise_conv3d", {"square": True}, "cortex"),
    "conv_gru": ("conv_gru", {}, "gaussian"),
    "v1t": ("v1t", {}, "gaussian"),
    "v1t, fused": ("v1t", WITHOUT_DROPOUT, "gaussian"),
    "v1t, not fused": ("v1t", WITHOUT_DROPOUT, "gaussian"),
    "v1t, fused, blocks run again": ("v1t", WITHOUT_DROPOUT | {"recompute": True}, "gaussian"),
    "vivit": ("vivit", {}, "gaussian"),
    "vivit, fused": ("vivit", WITHOUT_DROPOUT, "gaussian"),
    "vivit, not fused": ("vivit", WITHOUT_DROPOUT, "gaussian"),
    "vivit, fused, blocks run again": ("vivit", WITHOUT_DROPOUT | {"recompute": True}, "gaussian"),
}


def step_of(name: str, neurons: int, frames: int) -> tuple[torch.nn.ModuleList, Callable[[], torch.Tensor]]:
    """Build core and readout; returns both, and what runs them forward."""
    core_name, options, readout_name = CORES[name]
    facts: dict[str, Any] = {"stimulus_shape": (1, HEIGHT, WIDTH), "behavior_channels": 2, "pupil_channels": 2}
    core = registry.cores[core_name].build(options, facts)
    given = {
        **facts,
        "n_neurons": neurons,
        "feature_shape": core.feature_shape,
        "mean_drive": np.zeros(neurons, np.float32),
    }
    readout = registry.readouts[readout_name].build(READOUTS[readout_name], given)
    shown = frames + core.lost_frames
    inputs = Inputs(
        stimulus=torch.randn(1, shown, 1, HEIGHT, WIDTH),
        behavior=torch.randn(1, shown, 2),
        pupil=torch.randn(1, shown, 2),
    )

    def forward() -> torch.Tensor:
        pupil = None if inputs.pupil is None else inputs.pupil[:, core.lost_frames :]
        return functional.softplus(readout(core(inputs), pupil, None))

    return torch.nn.ModuleList([core, readout]), forward


def measure(name: str, neurons: int, frames: int, repeats: int) -> dict[str, Any]:
    """Count and time forward and backward in this process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    parts, forward = step_of(name, neurons, frames)
    parts.train()
    attention = sdpa_kernel(SDPBackend.MATH) if "not fused" in name else nullcontext()
    with attention:
        with step_counter() as counter:
            forward().mean().backward()
        times = [_timed(lambda: forward().mean().backward()) for _ in range(repeats)]
    seconds, speed = statistics.median(times), _products_per_s()
    gflop = _products(counter) / 1e9
    return {
        "core_parameters": sum(p.numel() for p in parts[0].parameters()),
        "gflop_of_products": round(gflop, 1),
        "seconds": round(seconds, 3),
        "frames_per_s": round(frames / seconds, 2),
        "floor_s": round(gflop / speed, 3),
        "share_of_floor": round(gflop / speed / seconds, 3),
        "machine_gflop_per_s": round(speed, 1),
        "peak_mb": round(peak_mb(torch.device("cpu"))),
    }


def _products(counter: FlopCounterMode) -> int:
    """Operations of matrix products, convolutions and fused attention alone."""
    found = counter.get_flop_counts()["Global"]
    names = {packet: str(packet).split(".")[-1] for packet in found}
    return sum(found[packet] for packet, name in names.items() if name in PRODUCTS or "attention" in name)


def _products_per_s() -> float:
    """GFLOP/s of one large product of matrices, the best of five."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / 1e9 / min(_timed(lambda: a @ b) for _ in range(5))


def _timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", nargs="+", choices=CORES, default=list(CORES), metavar="NAME")
    parser.add_argument("--neurons", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-gib", type=float, default=20.0, help="most memory a process may take")
    parser.add_argument("--patience-s", type=float, default=300.0, help="most seconds a process may take")
    parser.add_argument("--quick", action="store_true", help="fewer frames and neurons, once")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    size = (100, 4, 1) if options.quick else (options.neurons, options.frames, options.repeats)
    found = []
    for name in options.cores:
        job: dict[str, Any] = dict(zip(("name", "neurons", "frames", "repeats"), (name, *size), strict=True))
        found.append(in_own_process(Path(__file__), job, options.memory_gib, options.patience_s))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text)


if __name__ == "__main__":
    main()
