"""Time and peak memory of every interaction and normalization over numbers of neurons, and how they grow.

``python benchmarks/scaling.py``: forward and backward through one clip of 300 frames, batch 1, embeddings of width 64,
2 threads, float32, next to the plain step of core ``factorized_conv3d`` and readout ``gaussian`` at 36 x 64 pixels.
Each figure comes from a process of its own, so that its peak memory is its own. Designs that are quadratic in neurons
stop at 8000; what is refused, runs out of memory or out of time is written down as such.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_process import answered, measured, parser_of, written
from torch import Tensor, nn

from neuroint import registry
from neuroint.data.base import Inputs, Recorded
from neuroint.model import PopulationModel
from neuroint.modules.base import RECORDED, Context

EMBEDDING, FRAMES, SHORT, HEIGHT, WIDTH = 64, 300, 100, 36, 64
SIZES = (1000, 2000, 4000, 8000, 16000, 32000, 64000)
LARGEST_QUADRATIC = 8000
FITTED_FROM = 2000  # neurons: below it calls cost more than arithmetic
# Designs whose cost grows with neurons squared, as their docstrings say; all others are held to be linear.
QUADRATIC = ("attention", "dynamic_attention", "full_coupling")
PLAIN = "core and readout"
DENSITY_UM = 20.0  # side of the cortex per root of a neuron: a density like that of real recordings


def facts_of(neurons: int) -> dict[str, Any]:
    """What stages may ask of the data."""
    draw = np.random.default_rng(neurons)
    side = DENSITY_UM * neurons**0.5
    return {
        "n_neurons": neurons,
        "positions_um": (draw.uniform(0, 1, (neurons, 3)) * (side, side, 150)).astype(np.float32),
        "mean_responses": draw.uniform(0.1, 1, neurons).astype(np.float32),
        "mean_drive": np.zeros(neurons, np.float32),
        "bin_s": 1 / 30,
        "embedding_channels": EMBEDDING,
        "observed_channels": neurons,
        "observed_neurons": np.arange(neurons),
        "observed_lag_bins": 1,
        "stimulus_shape": (1, HEIGHT, WIDTH),
    }


class Embedded(nn.Module):
    """A readout that hands the drive on and has embeddings."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(neurons, EMBEDDING))

    def embedding(self) -> Tensor:
        """Embeddings of all neurons."""
        return self.vectors


def plain_step(neurons: int, frames: int, device: str = "cpu") -> tuple[nn.Module, Callable[[], Tensor]]:
    """The core and the readout without stages."""
    facts = facts_of(neurons)
    core = registry.cores["factorized_conv3d"].build({}, facts)
    given = facts | {"feature_shape": core.feature_shape}
    readout = registry.readouts["gaussian"].build({}, given)
    stages = {slot: kind["none"].build({}, given) for slot, kind in KINDS.items()}
    model = PopulationModel(core, {"one": readout}, {"one": stages}, registry.links["softplus"].build({}, {}))
    inputs = Inputs(stimulus=torch.randn(1, frames, 1, HEIGHT, WIDTH).to(device))
    return model.to(device), lambda: model(inputs, "one")


def stage_step(
    kind: str, name: str, neurons: int, frames: int, device: str = "cpu"
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """One stage and the link, on a drive that gradients flow back to."""
    facts, component = facts_of(neurons), KINDS[kind][name]
    if getattr(component.factory, "on_features", False):
        return _feature_step(component, facts, frames, device)
    stage = component.build({}, facts)
    model = PopulationModel(
        nn.Identity(),
        {"one": Embedded(neurons)},
        {"one": {kind: stage}},
        registry.links["softplus"].build({}, {}),
        recorded=Recorded("recorded_past", 1, 1) if stage.reads.information in RECORDED else None,
    ).to(device)
    drive = torch.randn(1, frames, neurons).to(device).requires_grad_()
    observed = torch.rand(1, frames, neurons).to(device)

    def forward() -> Tensor:
        context = Context(model.readouts["one"].embedding(), None, observed)  # pyright: ignore[reportCallIssue]
        return model.respond(drive, "one", context, None)[0]

    return model, forward


def _feature_step(
    component: registry.Component[Any], facts: dict[str, Any], frames: int, device: str
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A normalization inside the core, on the features that the plain core would give it; neurons play no part."""
    core = registry.cores["factorized_conv3d"].build({}, facts)
    stage = component.build({}, facts | {"feature_shape": core.feature_shape})
    stage.to(device)
    features = torch.rand(1, frames - core.lost_frames, *core.feature_shape).to(device).requires_grad_()

    def forward() -> Tensor:
        if hasattr(stage, "scan"):
            return stage.scan(features, stage.initial_state(features[:, 0]))[0]
        return stage(features)

    return stage, forward


KINDS = {"normalization": registry.normalizations, "interaction": registry.interactions}


def measure(kind: str, name: str, neurons: int, frames: int, repeats: int) -> dict[str, Any]:
    """Time forward and backward in this process, and take its peak memory; MB over what stood before the first step."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    made = plain_step(neurons, frames) if kind == PLAIN else stage_step(kind, name, neurons, frames)
    module, forward = made
    module.train()
    before, times = _peak_mb(), []
    for _ in range(repeats + 1):
        module.zero_grad(set_to_none=True)
        began = time.perf_counter()
        forward().square().mean().backward()
        times.append(time.perf_counter() - began)
    kept = times[1:] or times
    recurrent = hasattr(module, "stages") and any(hasattr(s, "step") for s in module.stages("one"))  # pyright: ignore[reportCallIssue]
    return {
        "seconds": statistics.median(kept),
        "first_seconds": times[0],
        "peak_mb": _peak_mb(),
        "added_mb": _peak_mb() - before,
        "recurrent": recurrent,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts kilobytes


def jobs_of(designs: list[tuple[str, str]], sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """All measurements: every design at every size, recurrent or not also at 100 frames of the smallest size."""
    found: list[dict[str, Any]] = []
    for kind, name in [(PLAIN, PLAIN), *designs]:
        inside = kind in KINDS and getattr(KINDS[kind][name].factory, "on_features", False)
        for neurons in sizes[:1] if inside else sizes:
            if name not in QUADRATIC or neurons <= LARGEST_QUADRATIC:
                found.append({"kind": kind, "name": name, "neurons": neurons, "frames": FRAMES, "repeats": repeats})
        if kind != PLAIN:
            found.append({"kind": kind, "name": name, "neurons": sizes[0], "frames": SHORT, "repeats": repeats})
    return found


def exponent(points: list[dict[str, Any]], key: str) -> float | None:
    """Slope of the logarithm of a figure over that of the number of neurons, by least squares."""
    held = [(p["neurons"], p[key]) for p in points if p.get(key, 0) > 0 and p["neurons"] >= FITTED_FROM]
    if len(held) < 2:
        return None
    x, y = np.log(np.array(held, float).T)
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def summarized(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per design: exponents, ratio to the plain step and share of the whole at each size, cost per frame over T."""
    plain = {p["neurons"]: p["seconds"] for p in found if p["kind"] == PLAIN and "seconds" in p}
    summaries = []
    for kind, name in dict.fromkeys((p["kind"], p["name"]) for p in found):
        own = [p for p in found if (p["kind"], p["name"]) == (kind, name)]
        points = [p for p in own if p["frames"] == FRAMES and "seconds" in p]
        ratios = {p["neurons"]: p["seconds"] / plain[p["neurons"]] for p in points if p["neurons"] in plain}
        summaries.append(
            {
                "kind": kind,
                "name": name,
                "time_exponent": exponent(points, "seconds"),
                "memory_exponent": exponent(points, "added_mb"),
                "ratio_to_plain_step": {n: round(r, 3) for n, r in ratios.items()},
                "share_of_step": {n: round(r / (1 + r), 3) for n, r in ratios.items()},
                "peak_mb": {p["neurons"]: round(p["peak_mb"]) for p in points},
                "per_frame_300_over_100": _per_frame(own, points),
                "recurrent": any(p.get("recurrent") for p in own),
                "refused": {p["neurons"]: p["refused"] for p in own if "refused" in p},
            }
        )
    return summaries


def _per_frame(own: list[dict[str, Any]], points: list[dict[str, Any]]) -> float | None:
    """Seconds a frame in a clip of 300 frames over those in one of 100, at the smallest size."""
    short = next((p["seconds"] for p in own if p["frames"] == SHORT and "seconds" in p), None)
    if short is None or not points:
        return None
    smallest = min(points, key=lambda p: p["neurons"])
    return round(smallest["seconds"] / FRAMES / (short / SHORT), 3)


def registered() -> list[tuple[str, str]]:
    """Every interaction and normalization but the nulls."""
    return [(kind, name) for kind, held in KINDS.items() for name in held.names() if name != "none"]


def main() -> None:
    """Measure and print JSON."""
    parser = parser_of(__doc__, quick="small populations, once")
    parser.add_argument("--neurons", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--designs", nargs="+", help="names; default all that are registered")
    options = parser.parse_args()
    if answered(options, measure):
        return
    sizes, repeats = ([200, 400], 1) if options.quick else (options.neurons, options.repeats)
    designs = [d for d in registered() if options.designs is None or d[1] in options.designs]
    found = measured(Path(__file__), jobs_of(designs, sorted(sizes), repeats), options)
    written({"summary": summarized(found), "figures": found}, options.out)


if __name__ == "__main__":
    main()
