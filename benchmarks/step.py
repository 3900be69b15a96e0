"""Time the full training step, loading included, against the same steps on batches already in memory.

``python benchmarks/step.py --neurons 1000 8000``: the Sensorium 2023 baseline on batches of 4 x 80 frames, 2 threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from generated import write_session

from neuroint.config import parse_sweep
from neuroint.data.loader import ClipLoader
from neuroint.data.opening import open_sessions
from neuroint.data.plan import TrainingPlan
from neuroint.fit import Fit, prepare
from neuroint.runtime import LocalRuntime
from neuroint.train import training_step

SWEEP: dict[str, Any] = {"name": "step", "reference": "none", "arms": {"none": {}}, "search": {"trials": 1}}
RUNTIME = LocalRuntime(device=torch.device("cpu"))


def measure(neurons: int, steps: int) -> dict[str, Any]:
    """Alternate a step that loads with a step on the batches just loaded; medians, and the ratio of the pairs."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = open_sessions(write_session(Path(folder), neurons, clips=24).parent)
        config = parse_sweep(SWEEP).trial("none", {}, key="step", phase="tune", seed=0)
        fit = prepare(config, sessions, RUNTIME, torch.float32)
        plan = TrainingPlan(sessions, frames=80, batch_size=4, seed=0, steps_per_epoch=steps + 1)
        with ClipLoader(sessions) as loader:
            return {"neurons": neurons, **_alternate(fit, loader, plan, steps)}


def _alternate(fit: Fit, loader: ClipLoader, plan: TrainingPlan, steps: int) -> dict[str, Any]:
    fit.training_mode()
    batches = loader.training(plan, 0)
    training_step(fit, next(batches), RUNTIME, 0)
    loaded, in_memory = [], []
    for step in range(steps):
        began = time.perf_counter()
        batch = next(batches)
        training_step(fit, batch, RUNTIME, step)
        middle = time.perf_counter()
        training_step(fit, batch, RUNTIME, step)
        loaded.append(middle - began)
        in_memory.append(time.perf_counter() - middle)
    pairs = [a / b for a, b in zip(loaded, in_memory, strict=True)]
    return {
        "step_s": statistics.median(loaded),
        "in_memory_s": statistics.median(in_memory),
        "ratio": statistics.median(pairs),
        "ratio_range": [min(pairs), max(pairs)],
        "frames_per_s": 4 * 80 / statistics.median(loaded),
    }


def main() -> None:
    """Measure every size and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, nargs="+", default=[1000, 8000])
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    torch.set_num_threads(2)
    found = [measure(neurons, 3 if options.quick else 5) for neurons in options.neurons]
    text = json.dumps(found, indent=2)
    print(text)
    if options.out:
        Path(options.out).write_text(text)


if __name__ == "__main__":
    main()
