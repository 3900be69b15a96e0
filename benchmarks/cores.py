"""Time a training step of every video core at its published size against the floor of its own products.

``python benchmarks/cores.py``: forward and backward through core and readout, one clip of ``--frames`` frames (20
beyond what the core consumes) of 36 x 64 pixels with two channels each of behavior and pupil (those of 2023),
``--neurons`` neurons (1000), float32, 2 threads, each in a process of its own. The floor is what the step's matrix
products and convolutions would take at the speed of one product of 2048 x 2048 matrices in the same process: a
yardstick, itself measured, so that a step may come out near it or a little below. Speed choices (fused attention,
running blocks again on the way back, showing blocks half of the places) are to be held against the same core without.
With dropout of maps torch's attention is not fused on a CPU: maps are held.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_process import answered, measured, parser_of, timed, written
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neuroint import registry
from neuroint.data.base import Inputs
from neuroint.memory import peak_mb
from neuroint.sweep.flops import step_counter

HEIGHT, WIDTH, THREADS, SIDE = 36, 64, 2, 2048
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")  # and whatever is attention


@dataclass(frozen=True)
class Case:
    """A core as it was published, or with a choice on speed; ``math`` has torch's attention hold its maps."""

    core: str
    options: dict[str, Any] = field(default_factory=dict)
    readout: str = "gaussian"
    math: bool = False


READOUTS: dict[str, dict[str, Any]] = {"gaussian": {"grid": "free"}, "cortex": {}}
FUSED = {"dropout": 0.0}  # torch's fused attention on a CPU knows no dropout
AGAIN = FUSED | {"recompute": True}
HALF = FUSED | {"token_share": 0.5}
CASES = {
    "factorized_conv3d": Case("factorized_conv3d"),
    "conv3d": Case("conv3d"),
    "depthwise_conv3d": Case("depthwise_conv3d", {"causal": False, "square": True}, "cortex"),
    "depthwise_conv3d, causal": Case("depthwise_conv3d", {"square": True}, "cortex"),
    "conv_gru": Case("conv_gru"),
    "v1t": Case("v1t"),
    "v1t, fused": Case("v1t", FUSED),
    "v1t, not fused": Case("v1t", FUSED, math=True),
    "v1t, fused, blocks run again": Case("v1t", AGAIN),
    "v1t, fused, half of the patches": Case("v1t", HALF),
    "vivit": Case("vivit"),
    "vivit, fused": Case("vivit", FUSED),
    "vivit, not fused": Case("vivit", FUSED, math=True),
    "vivit, fused, blocks run again": Case("vivit", AGAIN),
    "vivit, fused, half of the places": Case("vivit", HALF),
}


def step_of(
    case: Case, neurons: int, frames: int, clips: int = 1, device: str = "cpu"
) -> tuple[torch.nn.ModuleList, Callable[[], torch.Tensor]]:
    """Build core and readout; returns both, and what runs them forward."""
    facts: dict[str, Any] = {"stimulus_shape": (1, HEIGHT, WIDTH), "behavior_channels": 2, "pupil_channels": 2}
    core = registry.cores[case.core].build(case.options, facts)
    given = {
        **facts,
        "n_neurons": neurons,
        "feature_shape": core.feature_shape,
        "mean_drive": np.zeros(neurons, np.float32),
    }
    readout = registry.readouts[case.readout].build(READOUTS[case.readout], given)
    shown = frames + core.lost_frames
    inputs = Inputs(
        stimulus=torch.randn(clips, shown, 1, HEIGHT, WIDTH),
        behavior=torch.randn(clips, shown, 2),
        pupil=torch.randn(clips, shown, 2),
    ).map(lambda x: x.to(device))

    def forward() -> torch.Tensor:
        pupil = None if inputs.pupil is None else inputs.pupil[:, core.lost_frames :]
        return functional.softplus(readout(core(inputs), pupil, None))

    return torch.nn.ModuleList([core, readout]).to(device), forward


def measure(name: str, neurons: int, frames: int, repeats: int) -> dict[str, Any]:
    """Count and time forward and backward in this process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    case = CASES[name]
    parts, forward = step_of(case, neurons, frames)
    parts.train()
    with sdpa_kernel(SDPBackend.MATH) if case.math else nullcontext():
        with step_counter() as counter:
            forward().mean().backward()
        times = [timed(lambda: forward().mean().backward()) for _ in range(repeats)]
    seconds, speed = statistics.median(times), products_per_s()
    gflop = products(counter) / 1e9
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


def products(counter: FlopCounterMode) -> int:
    """Operations of matrix products, convolutions and fused attention alone."""
    found = counter.get_flop_counts()["Global"]
    names = {packet: str(packet).split(".")[-1] for packet in found}
    return sum(found[packet] for packet, name in names.items() if name in PRODUCTS or "attention" in name)


def products_per_s() -> float:
    """GFLOP/s of one large product of matrices, the best of five."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / 1e9 / min(timed(lambda: a @ b) for _ in range(5))


def main() -> None:
    """Measure and print JSON."""
    parser = parser_of(__doc__, quick="fewer frames and neurons, once")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--neurons", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=20)
    options = parser.parse_args()
    if answered(options, measure):
        return
    neurons, frames, repeats = (100, 4, 1) if options.quick else (options.neurons, options.frames, options.repeats)
    sizes = {"neurons": neurons, "frames": frames, "repeats": repeats}
    jobs = [{"name": name, **sizes} for name in options.cases]
    written(measured(Path(__file__), jobs, options), options.out)


if __name__ == "__main__":
    main()
