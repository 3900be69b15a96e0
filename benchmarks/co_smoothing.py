"""Train arms of a search space with equal seeds, one after the other, and compare how they predict held-out neurons.

Every searched choice is set at the value given by ``--set path=value``, or else at the middle of its range. The weights
of the epoch with the best validation score are read once on dev-test. On files of the Neural Latents Benchmark all of
its scores are printed and, where ``truth.h5`` is there, R2 to the true rates of held-out neurons (mean over neurons,
inside the window). A line of JSON per run, then a table: mean and range over seeds, and the paired gain over the first
arm with its interval. ``--rows FILES`` makes the table of lines that were printed before, and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.stats import t

from neuroint.config import TrialConfig, load_sweep
from neuroint.data.base import Session
from neuroint.fit import WEIGHTS_FILE
from neuroint.metrics.bits_per_spike import bits_per_spike
from neuroint.metrics.nlb_evaluation import evaluate_nlb
from neuroint.recordings import open_data
from neuroint.runtime import LocalRuntime
from neuroint.train import finished_predictor, score_weights, train_trial

SCORES = ("co_bps", "neuron_bps", "rate_r2", "vel R2", "psth R2", "fp-bps")


def main() -> None:
    """Train, score, print."""
    given = _arguments()
    if given.rows:
        lines = [line for file in given.rows for line in file.read_text().splitlines() if line.startswith("{")]
        print(table([json.loads(line) for line in lines]))
        return
    torch.set_num_threads(given.threads)
    sweep = load_sweep(given.file)
    sweep = replace(sweep, data=replace(sweep.data, path=str(given.data)))
    fixed = {path: yaml.safe_load(value) for path, _, value in (text.partition("=") for text in given.sets)}
    rows: list[dict[str, Any]] = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for arm in given.arms or sweep.arms:
            values = {path: fixed.get(path, _middle(one)) for path, one in sweep.arms[arm].distributions.items()}
            config = sweep.trial(arm, values, key=f"{arm}-{seed}", phase="confirm", seed=seed)
            if given.epochs:
                config = replace(config, train=replace(config.train, epochs=given.epochs))
            rows.append({"arm": arm, "seed": seed, **run(config, given.data)})
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=Path, nargs="+", metavar="FILE", help="lines that were printed before")
    parser.add_argument("--arms", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", dest="sets", nargs="*", default=[], help="PATH=VALUE of a searched choice")
    return parser.parse_args()


def _middle(distribution: Any) -> Any:
    """The middle corner of a range: geometric where it is logarithmic."""
    low, high = distribution.corners()[0], distribution.corners()[-1]
    if isinstance(low, str | bool) or not isinstance(low, int | float):
        return low
    middle = (low * high) ** 0.5 if "log" in distribution.kind else (low + high) / 2
    return round(middle) if isinstance(low, int) else middle


def run(config: TrialConfig, path: Path) -> dict[str, Any]:
    """Train one configuration and score its best epoch."""
    sessions, began = open_data(config.data), time.perf_counter()
    with tempfile.TemporaryDirectory() as kept:
        weights = Path(kept) / WEIGHTS_FILE

        def keep(metrics: dict[str, Any], folder: Path | None) -> None:
            shutil.copy(folder / WEIGHTS_FILE, weights) if folder else None

        last = train_trial(config, sessions, LocalRuntime(keep))
        seconds = time.perf_counter() - began
        found = _benchmark(config, sessions[0], weights, path) if config.data.reader == "nlb" else {}
        moments = score_weights(config, sessions, weights, LocalRuntime())[sessions[0].name].sum()
    each, spikes = bits_per_spike(moments), moments["sum_y"]
    known = np.isfinite(each)
    pooled = {"co_bps": float(np.average(each[known], weights=spikes[known])), "neuron_bps": float(each[known].mean())}
    told = {"validation": last["best_validation_score"], "epochs": last["epoch"], "seconds": round(seconds, 1)}
    return pooled | found | told


@torch.no_grad()
def _benchmark(config: TrialConfig, session: Session, weights: Path, path: Path) -> dict[str, float]:
    """Scores of the Neural Latents Benchmark, and R2 to the truth."""
    from neuroint.data.nlb.hdf5 import read_arrays
    from neuroint.data.nlb.names import group_name
    from neuroint.data.nlb.submission import split_rates
    from neuroint.data.readers.nlb import choice_of, read_folder
    from neuroint.sweep.submission import predicted_splits

    options = config.data.options
    group = group_name(choice_of(options, "dataset"), choice_of(options, "bin_ms"))
    data = read_folder(path, options)
    predictor = finished_predictor(config, [session], weights, LocalRuntime(device=torch.device("cpu")))
    rates = predicted_splits(predictor, data, session.name)
    predicted = split_rates(data, rates)
    found = {name: score.value for name, score in evaluate_nlb(data.target, predicted).items()}
    if (path / "truth.h5").is_file():
        true = np.asarray(read_arrays(path / "truth.h5", group)["eval_rates_heldout"], np.float64)
        error = ((predicted["eval_rates_heldout"] - true) ** 2).sum((0, 1))
        found["rate_r2"] = float((1 - error / ((true - true.mean((0, 1))) ** 2).sum((0, 1))).mean())
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and range over seeds; then the gain in co-bps over the first arm, paired by seed, with its interval."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    names = [name for name in SCORES if any(name in row for row in rows)]
    lines = [f"| arm | {' | '.join(names)} | gain in co_bps (95 %) | seconds |", "|" + "---|" * (len(names) + 3)]
    first = {row["seed"]: row["co_bps"] for row in rows if row["arm"] == arms[0]}
    for arm in arms:
        held = [row for row in rows if row["arm"] == arm]
        cells = [_cell([row[name] for row in held if name in row]) for name in names]
        gains = [row["co_bps"] - first[row["seed"]] for row in held if row["seed"] in first]
        seconds = np.mean([row["seconds"] for row in held])
        lines.append(f"| {arm} | {' | '.join(cells)} | {interval(gains)} | {seconds:.0f} |")
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Mean and 95 % interval of Student's t over seeds: what the seed alone does, not the choice of neurons."""
    if len(values) < 2:
        return _cell(values)
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):+.3f} ({np.mean(values) - half:+.3f} to {np.mean(values) + half:+.3f})"


def _cell(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""


if __name__ == "__main__":
    main()
