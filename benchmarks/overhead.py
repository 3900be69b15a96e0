"""Measure the seconds that Ray, the journal and MLflow add per trial and per epoch, and their share of a trial.

``python benchmarks/overhead.py``: a sweep of small trials, one at a time, with the embedded MLflow; everything is read
off the sweep's own journal. An epoch's own seconds are those of its training and validation. The first trial, which
starts a process and imports torch, is told apart from the others, which reuse it. MLflow is fed by a thread of the
driver, beside trials; its own seconds are those of replaying the finished journal into a new database.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from generated import write_session

from neuroint.config import parse_sweep
from neuroint.sweep.driver import run_sweep
from neuroint.tracking import Journal, Uploader

SWEEP: dict[str, Any] = {
    "name": "overhead",
    "core": {"name": "factorized_conv3d", "channels": [8], "spatial_kernels": [7], "temporal_kernels": [7]},
    "optimizer": {"learning_rate": {"loguniform": [0.001, 0.01]}},
    "reference": "none",
    "arms": {"none": {}},
    "confirm": {"top": 1, "seeds": 1},
}


def measure(trials: int, epochs: int, steps: int) -> dict[str, Any]:
    """Run the sweep and take its journal apart."""
    raw = SWEEP | {
        "search": {"trials": trials, "concurrent": 1, "asha": False},
        "train": {"epochs": epochs, "steps_per_epoch": steps, "patience": epochs},
    }
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        data = write_session(Path(folder) / "data", 100, clips=12).parent
        began = time.time()
        sweep = parse_sweep(raw | {"data": {"path": str(data)}})
        run_sweep(sweep, Path(folder) / "results" / "overhead", cpus=1, style="quiet")
        ended, sweep_folder = time.time(), Path(folder) / "results" / "overhead"
        events = Journal(sweep_folder / "journal.jsonl").read()
        return _take_apart(events, began, ended) | _replayed(events, sweep_folder, Path(folder) / "again.db")


def _replayed(events: list[dict[str, Any]], sweep_folder: Path, database: Path) -> dict[str, float]:
    """Send a finished sweep to a new store; epochs apart from what a run costs besides, files included."""
    uploader, epochs_s = Uploader(sweep_folder, f"sqlite:///{database}", "overhead"), []
    began = time.perf_counter()
    uploader.prepare()
    prepared = time.perf_counter()
    replay = uploader._runs.replay

    def timed(event: dict[str, Any]) -> None:
        start = time.perf_counter()
        replay(event)
        epochs_s.extend([time.perf_counter() - start] * (event["kind"] == "epoch"))

    uploader._runs.replay = timed
    if left := uploader.flush():
        raise ValueError(f"MLflow did not take everything, which was expected: {left.message}")
    sent_s = time.perf_counter() - prepared
    runs = len({event["run"] for event in events if event["kind"] == "run_started"})
    return {
        "mlflow_database_s": prepared - began,
        "mlflow_per_trial_s": (sent_s - sum(epochs_s)) / runs,
        "mlflow_per_epoch_s": statistics.median(epochs_s),
    }


def _take_apart(events: list[dict[str, Any]], began: float, ended: float) -> dict[str, Any]:
    keys = [e["run"] for e in events if e["kind"] == "run_started" and e["phase"] == "tune"]
    spans = {key: [e for e in events if e.get("run") == key] for key in keys}
    own = {key: [e["metrics"]["seconds"] for e in found if e["kind"] == "epoch"] for key, found in spans.items()}
    times = {key: [e["time"] for e in found if e["kind"] == "epoch"] for key, found in spans.items()}
    gaps = [b - a - s for key in keys for (a, b), s in zip(pairwise(times[key]), own[key][1:], strict=True)]
    starts = [spans[key][0]["time"] for key in keys]
    lengths = [b - a for a, b in pairwise(starts)]
    trial = [length - sum(own[key]) for key, length in zip(keys, lengths, strict=False)]
    return {
        "before_the_first_trial_s": starts[0] - began,
        "first_trial_s": trial[0],
        "per_trial_s": statistics.median(trial[1:]),
        "per_epoch_s": statistics.median(gaps),
        "trial_s": statistics.median(lengths[1:]),
        "share_of_a_trial": statistics.median(t / s for t, s in zip(trial[1:], lengths[1:], strict=True)),
        "share_of_a_minute": statistics.median(trial[1:]) / 60,
        "whole_sweep_s": ended - began,
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    text = json.dumps(measure(4 if options.quick else 8, 4, 6), indent=2)
    print(text)
    if options.out:
        Path(options.out).write_text(text)


if __name__ == "__main__":
    main()
