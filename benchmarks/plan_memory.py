"""Hold the memory that ``neuroint plan`` predicts against the peak of a training process.

``python benchmarks/plan_memory.py``: recordings as large as those of Sensorium 2023 and made of noise, 36 x 64 pixels,
clips of 300 frames, one validation stimulus shown six times, a thread. A training process imports what a trial of Ray
Tune imports and goes through two epochs (one of large cases) of two steps, each with the whole validation tier and a
checkpoint; its peak is what a trial records as ``peak_memory_mb``. ``--ways plan train sweep`` also runs a sweep of Ray
Tune and takes what its first trial recorded. Plan's figure comes from another process, as on the command line.
``over_train`` is plan's figure over the training process's, less one; a spread is the largest over the smallest of the
repeats, less one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generated import write_session
from own_process import Job, answered, measured, parser_of, written

from neuroint.config import SweepConfig, parse_sweep
from neuroint.recordings import open_data
from neuroint.runtime import LocalRuntime

STEPS, CLIPS = 2, 6
AGAIN = {"dropout": 0.0, "recompute": True}  # torch's fused attention on a CPU knows no dropout
SMALL = {"channels": [8, 8], "spatial_kernels": [7, 3]}
SMALL_FACTORIZED = {"name": "factorized_conv3d", "temporal_kernels": [7, 5], **SMALL}
SMALL_V1T = {"name": "v1t", "width": 32, "blocks": 2, "heads": 2, "head_width": 16, "hidden": 64, "dropout": 0.0}
SMALL_VIVIT = {"name": "vivit", "width": 24, "spatial_blocks": 1, "temporal_blocks": 1, "hidden": 32, "registers": 4}
SMALL_DEPTHWISE = {"name": "depthwise_conv3d", "stem": 8, "widths": [8, 12], "strides": [1, 2], "expansion": 2}
SMALL_GRU = {"name": "conv_gru", "features": [3, 3], "sides_px": [9, 5], "orders": [4, 3], "gru_channels": 8}
TRANSFORMER = {"name": "stndt", "frames": 300, "layers": 2, "heads": 2, "hidden": 64}
MASKED, OTHERS = {"observed": "masked"}, {"observed": "others"}
LOW_RANK = {"readout": {"name": "factorized", "rank": 2}}


@dataclass(frozen=True)
class Case:
    """A core and how it is trained, on how many neurons; options without a name are the published ones."""

    core: str | Mapping[str, Any]
    neurons: int = 100
    frames: int = 80
    batch: int = 2
    parts: Mapping[str, Any] = field(default_factory=dict)  # readout, interaction, objective, data
    train: Mapping[str, Any] = field(default_factory=dict)
    sessions: int = 1
    epochs: int = 2


CASES = {
    "constant": Case("constant"),
    "linear": Case({"name": "linear", "lags": 5}, parts=LOW_RANK),
    "conv2d": Case({"name": "conv2d", **SMALL}),
    "conv3d": Case({"name": "conv3d", "temporal_kernels": [7, 5], **SMALL}),
    "gabor_energy": Case("gabor_energy"),
    "factorized_conv3d": Case(SMALL_FACTORIZED),
    "depthwise_conv3d": Case(SMALL_DEPTHWISE),
    "conv_gru": Case(SMALL_GRU),
    "v1t": Case(SMALL_V1T),
    "vivit": Case(SMALL_VIVIT),
    "ema, bfloat16": Case(SMALL_FACTORIZED, train={"ema": 0.99, "precision": "bfloat16"}),
    "two sessions": Case(SMALL_FACTORIZED, sessions=2),
    "windows": Case(SMALL_VIVIT, train={"evaluation_hop": 20}),
    "seq2seq": Case({"name": "seq2seq", "latents": 30}, 1000, parts={"readout": "linear", "data": OTHERS}),
    "stndt": Case(
        TRANSFORMER, 200, 300, 8, {"readout": "linear", "objective": "masked_poisson", "data": MASKED, "link": "exp"}
    ),
    "factorized, 1k": Case("factorized_conv3d", 1000, 80, 4, epochs=1),
    "factorized, 8k": Case("factorized_conv3d", 8000, 80, 4, epochs=1),
    "factorized, 8k, attention": Case(
        "factorized_conv3d", 8000, 80, 1, {"interaction": "inducing_attention"}, epochs=1
    ),
    "factorized, 4k, own past": Case("factorized_conv3d", 4000, 80, 1, {"interaction": "low_rank_recurrent"}, epochs=1),
    "conv3d, 1k": Case("conv3d", 1000, 80, 1, epochs=1),
    "depthwise, 1k": Case("depthwise_conv3d", 1000, 30, 1, {"readout": "cortex"}, epochs=1),
    "conv_gru, 1k": Case("conv_gru", 1000, 40, 1, epochs=1),
    "v1t, 1k": Case({"name": "v1t", **AGAIN}, 1000, 30, 1, epochs=1),
    "vivit, 1k": Case({"name": "vivit", **AGAIN}, 1000, 40, 1, epochs=1),
    "linear readout, 8k": Case(
        {"name": "linear", "lags": 5}, 8000, 80, 2, {"readout": {"name": "factorized", "rank": 2}}
    ),
}
WINDOW = {
    "factorized, 8k, 300 frames": Case("factorized_conv3d", 8000, 300, 1, epochs=1),
    "v1t, 8k, 300 frames": Case({"name": "v1t", **AGAIN}, 8000, 300, 1, epochs=1),
    "vivit, 8k, 300 frames": Case({"name": "vivit", **AGAIN}, 8000, 300, 1, epochs=1),
}
ALL = CASES | WINDOW


def sweep_of(case: Case, folder: str) -> SweepConfig:
    """Make the configuration of a case: one arm, nothing searched."""
    parts = {"data": {}, **case.parts}
    train = {"epochs": case.epochs, "steps_per_epoch": STEPS, "frames": case.frames}
    return parse_sweep(
        {
            "name": "memory",
            "core": case.core,
            "reference": "only",
            "arms": {"only": {}},
            "search": {"trials": 1},
            "confirm": {"seeds": 1},
            **parts,
            "data": {"path": folder, **parts["data"]},
            "train": {**train, "batch_size": case.batch, **case.train},
        }
    )


def measure(what: str, name: str, folder: str, **about: Any) -> dict[str, Any]:
    """Plan a case, or train it, in this process."""
    sweep = sweep_of(ALL[name], folder)
    began = time.perf_counter()
    found = WAYS[what](sweep)
    return {"peak_mb": round(found), "seconds": round(time.perf_counter() - began, 1)}


def planned(sweep: SweepConfig) -> float:
    """What plan says."""
    from neuroint.sweep.planning import plan_sweep

    (plan,) = plan_sweep(sweep, open_data(sweep.data))
    return plan.peak_memory_mb


def trained(sweep: SweepConfig) -> float:
    """What a training process records, in a thread of it as in a trial of Ray Tune."""
    import neuroint.sweep.trial  # noqa: F401 - what it imports is part of a trial's memory
    from neuroint.train import train_trial

    torch.set_num_threads(1)
    config, sessions = sweep.trial("only", {}, key="only", phase="tune", seed=0), open_data(sweep.data)
    peaks: list[float] = []
    runtime = LocalRuntime(lambda metrics, _: peaks.append(metrics["peak_memory_mb"]), device=torch.device("cpu"))
    with ThreadPoolExecutor(1) as apart:
        apart.submit(train_trial, config, sessions, runtime).result()
    return max(peaks)


def searched(sweep: SweepConfig) -> float:
    """What the first trial of a sweep of Ray Tune records, on a cluster of its own."""
    from neuroint.sweep.driver import run_sweep
    from neuroint.tracking.journal import SweepRecord

    with tempfile.TemporaryDirectory() as folder:
        run_sweep(sweep, Path(folder) / "memory", cpus=1, style="quiet")
        runs = SweepRecord.from_journal(Path(folder) / "memory" / "journal.jsonl").runs
    first = next(iter(runs.values()))
    return max(epoch["peak_memory_mb"] for epoch in first.epochs.values())


WAYS = {"plan": planned, "train": trained, "sweep": searched}


def compared(found: list[Job]) -> list[dict[str, Any]]:
    """A row per case: both peaks, the error of the prediction, and the spread of each over its repeats."""
    rows = []
    for name in dict.fromkeys(job["name"] for job in found):
        own = [job for job in found if job["name"] == name]
        peaks = {what: [job["peak_mb"] for job in own if job["what"] == what and "peak_mb" in job] for what in WAYS}
        row: dict[str, Any] = {"case": name, "refused": [job["refused"] for job in own if "refused" in job]}
        for what, mb in peaks.items():
            row |= {f"{what}_mb": round(float(np.median(mb))), f"{what}_spread": _over(max(mb), min(mb))} if mb else {}
        for what in ("train", "sweep"):
            if peaks["plan"] and peaks[what]:
                row[f"over_{what}"] = _over(float(np.median(peaks["plan"])), float(np.median(peaks[what])))
        rows.append(row)
    return rows


def without_folder(job: Job) -> Job:
    """Leave out where the recordings lay."""
    return {key: value for key, value in job.items() if key != "folder"}


def _over(mine: float, theirs: float) -> float:
    return round(mine / theirs - 1, 3)


def main() -> None:
    """Measure every case both ways, and print JSON."""
    parser = parser_of(__doc__, quick="two small cases, once")
    parser.set_defaults(repeats=2, memory_gib=12.0, patience_s=600.0)
    parser.add_argument("--cases", nargs="+", choices=ALL, default=list(CASES), metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plan", "train"])
    options = parser.parse_args()
    if answered(options, measure):
        return
    names, repeats = (["linear", "factorized_conv3d"], 1) if options.quick else (options.cases, options.repeats)
    with ExitStack() as stack:
        folders = {
            size: stack.enter_context(tempfile.TemporaryDirectory())
            for size in {(ALL[name].neurons, ALL[name].sessions) for name in names}
        }
        for (neurons, sessions), folder in folders.items():
            for seed in range(sessions):
                write_session(Path(folder), neurons, CLIPS, seed, repeated=True)
        jobs = [
            {"what": what, "name": name, "folder": folders[ALL[name].neurons, ALL[name].sessions], "repeat": repeat}
            for name in names
            for repeat in range(repeats)
            for what in options.ways
        ]
        found = [without_folder(job) for job in measured(Path(__file__), jobs, options)]
    written({"summary": compared(found), "figures": found}, options.out)


if __name__ == "__main__":
    main()
