"""Measure the shipped core and readout against their plain conv3d and grid_sample formulation.

    python benchmarks/formulation.py --neurons 1000 8000 [--quick] [--out formulation.json]

The factorized core with its defaults and the Gaussian readout, sampling on, on 4 clips of 80 frames, 36x64 pixels and
two behavior channels: forward and backward, torch on 2 threads. Both formulations hold the same weights and draw the
same points; before they are timed, outputs and all gradients are compared in float64 on shorter clips. Runs of both
alternate; what is reported is the median, and the middle half of the ratios as the machine's noise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.core.factorized_conv3d import FactorizedConv3d
from neuroint.modules.readout.gaussian import Gaussian

BATCH, FRAMES, HEIGHT, WIDTH, THREADS = 4, 80, 36, 64, 2
SAME = 1e-9  # largest difference allowed in float64, as a share of the largest entry

Run = Callable[[Inputs], Tensor]


class PlainCore(nn.Module):
    """The same core as pairs of 3-D convolutions, torch's batch normalization and ELU, with a given core's weights."""

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(part for layer in core.layers for part in _plain_layer(layer)))

    def forward(self, inputs: Inputs) -> Tensor:
        """Features ``batch channel time height width``."""
        if inputs.stimulus is None or inputs.behavior is None:
            raise ValueError("the benchmark's inputs hold a stimulus and behavior; one of them is missing")
        planes = inputs.behavior[..., None, None].expand(-1, -1, -1, HEIGHT, WIDTH)
        return self.layers(torch.cat([inputs.stimulus, planes], dim=2).transpose(1, 2))


def _plain_layer(layer: Any) -> list[nn.Module]:
    spatial, temporal = layer.spatial.weight[:, :, None], layer.temporal.weight[..., None]
    first = nn.Conv3d(spatial.shape[1], spatial.shape[0], tuple(spatial.shape[2:]))
    second = nn.Conv3d(temporal.shape[1], temporal.shape[0], tuple(temporal.shape[2:]))
    first.load_state_dict({"weight": spatial, "bias": layer.spatial.bias})
    second.load_state_dict({"weight": temporal, "bias": layer.temporal.bias})
    norm = nn.BatchNorm3d(spatial.shape[0], momentum=layer.norm.momentum)
    norm.load_state_dict(layer.norm.state_dict())
    return [first, second, norm, nn.ELU()]


def plain_run(core: PlainCore, readout: Any) -> Run:
    """Core and readout as they are usually written; the readout's parameters are shared with the shipped one."""

    def run(inputs: Inputs) -> Tensor:
        features = core(inputs)
        frames = features.transpose(1, 2).flatten(0, 1)
        mean = readout.grid(None).expand(len(frames), -1, -1)
        points = (mean + torch.einsum("nij,fnj->fni", readout.sigma, torch.randn_like(mean))).clamp(-1, 1)
        if inputs.pupil is None:
            raise ValueError("the benchmark's inputs hold a pupil; it is missing")
        shift = readout.shifter(inputs.pupil[:, -features.shape[2] :].flatten(0, 1))
        sampled = functional.grid_sample(frames, (points + shift[:, None])[:, :, None], align_corners=True)[..., 0]
        drive = (sampled * readout.weights.T).sum(1) + readout.bias
        return drive.unflatten(0, (len(features), -1))

    return run


def shipped_run(core: Any, readout: Any) -> Run:
    """Core and readout as they are in neuroint."""
    return lambda inputs: readout(core(inputs), inputs.pupil)


def build(neurons: int) -> tuple[Any, Any]:
    """Build the baseline's core and readout for one session."""
    torch.manual_seed(0)
    core = FactorizedConv3d(stimulus_shape=(1, HEIGHT, WIDTH), behavior_channels=2)
    positions = np.random.default_rng(0).uniform(0, 600, (neurons, 3)).astype(np.float32)
    readout = Gaussian(
        feature_shape=core.feature_shape,
        n_neurons=neurons,
        mean_drive=np.zeros(neurons, np.float32),
        positions_um=positions,
        pupil_channels=2,
    )
    return core, readout


def inputs(frames: int, dtype: torch.dtype) -> Inputs:
    """Draw a batch of clips."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"stimulus": (1, HEIGHT, WIDTH), "behavior": (2,), "pupil": (2,)}
    return Inputs(**{k: torch.randn(BATCH, frames, *s, generator=generator).to(dtype) for k, s in shapes.items()})


def step(run: Run, given: Inputs, seed: int) -> Tensor:
    """One forward and backward pass; the loss weighs all outputs differently."""
    torch.manual_seed(seed)
    drive = run(given)
    (drive * torch.linspace(-1, 1, drive.numel(), dtype=drive.dtype).view_as(drive)).mean().backward()
    return drive.detach()


def largest_difference(neurons: int = 200) -> float:
    """Compare outputs and every gradient in float64 on shorter clips; the largest difference as a share of the largest.

    Raises:
        ValueError: the formulations are not equal.
    """
    core, readout = build(neurons)
    plain = PlainCore(core).double()
    core, readout, given = core.double(), readout.double(), inputs(22, torch.float64)
    found = []
    for run, own in ((shipped_run(core, readout), core), (plain_run(plain, readout), plain)):
        readout.zero_grad()
        drive = step(run, given, seed=2)
        parameters = [*own.parameters(), *readout.parameters()]
        found.append([drive, *(p.grad.clone().flatten() for p in parameters if p.grad is not None)])
    top = max(float(gradient.abs().max()) for gradient in found[1][1:])  # biases before batch normalization have none
    scales = [float(found[1][0].abs().max()), *([top] * (len(found[1]) - 1))]
    worst = max(float((a - b).abs().max()) / s for a, b, s in zip(found[0], found[1], scales, strict=True))
    if worst > SAME:
        raise ValueError(f"the formulations differ by {worst:.1e} of the largest entry, at most {SAME} was expected")
    return worst


def measure(neurons: int, repeats: int) -> dict[str, Any]:
    """Alternate both formulations after one warm-up each."""
    core, readout = build(neurons)
    plain, given = PlainCore(core), inputs(FRAMES, torch.float32)
    pairs = []
    for repeat in range(repeats + 1):
        pair = []
        for run, own in ((shipped_run(core, readout), core), (plain_run(plain, readout), plain)):
            own.zero_grad()
            readout.zero_grad()
            start = time.perf_counter()
            step(run, given, seed=repeat)
            pair.append(time.perf_counter() - start)
        pairs.append(pair)
    seconds = np.array(pairs[1:])
    ratios = seconds[:, 1] / seconds[:, 0]
    low, high = np.quantile(ratios, [0.25, 0.75])
    return {
        "neurons": neurons,
        "shipped_s": round(float(np.median(seconds[:, 0])), 3),
        "plain_s": round(float(np.median(seconds[:, 1])), 3),
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_middle_half": [round(float(low), 2), round(float(high), 2)],
        "repeats": repeats,
    }


def main() -> None:
    """Run what the command line asks for and print it as JSON."""
    parser = argparse.ArgumentParser(description="Measure the shipped core and readout against the plain formulation.")
    parser.add_argument("--neurons", type=int, nargs="+", default=[1000, 8000])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    report = {
        "machine": {"cores": os.cpu_count(), "threads": THREADS, "load": os.getloadavg(), "torch": torch.__version__},
        "largest_difference": largest_difference(),
        "results": [measure(neurons, repeats=2 if options.quick else 5) for neurons in options.neurons],
    }
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
