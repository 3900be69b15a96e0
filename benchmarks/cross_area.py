"""Which area predicts which in the Steinmetz recordings: tables, matrices, and a picture of latents.

``areas SWEEP`` prints the finished sweep ``cross_area`` as a matrix, as its report does. ``table SWEEP`` prints the
pooled bits per spike of every arm of a finished sweep beside its loss and that of its null. ``matrix PATH`` fits every
area of every session from the same number of neurons of every other one (an area on both sides is dealt in halves) over
seeds, beside fits with shuffled trials and the time course; it goes on where it stopped. ``latents SWEEP`` draws the
latents of the arm ``seq2seq`` by condition. ``--write-docs`` puts what is printed between the marks of
``docs/cross_area.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pages
import torch
import yaml
from jaxtyping import Float

from neuroint.analysis.latents import condition_means, fewest_draws, latents_of, separation
from neuroint.config import TrialConfig, parse_sweep
from neuroint.data.array_store import ArrayStore
from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION, Session
from neuroint.data.observed import ObservedSource, observe_others, shuffle_observed
from neuroint.data.opening import open_sessions
from neuroint.fit import WEIGHTS_FILE, load_finished
from neuroint.metrics.moments import Moments
from neuroint.model import build_model, facts_of
from neuroint.recordings import open_for
from neuroint.report import analyse, tables
from neuroint.report.latents import draw_latents
from neuroint.report.markdown import rows_of
from neuroint.results import read_moments
from neuroint.runtime import LocalRuntime
from neuroint.seeding import generator
from neuroint.sweep.selection import representatives
from neuroint.tracking.journal import SweepRecord
from neuroint.train import score_weights, train_trial

ROOT = Path(__file__).parent.parent
AREAS = {  # areas and groups of each session with twice as many neurons as are read
    "session01": ["MOs", "ACA", "visual", "hippocampus"],
    "session03": ["visual", "hippocampus", "thalamus"],
    "session08": ["MOs", "PL", "visual", "hippocampus", "thalamus"],
    "session12": ["visual", "hippocampus", "thalamus"],
}
LATENTS = 10
CORES = {
    "time_course": {"name": "time_course", "hold": 4},
    "reduced_rank": {"name": "reduced_rank", "latents": LATENTS, "before": 5, "after": 5},
    "seq2seq": {"name": "seq2seq", "latents": LATENTS, "directions": 2},
}
TRAINING = {"epochs": 20, "frames": 40, "batch_size": 25, "patience": 5}
SHUFFLED = 2  # fits with shuffled trials for every target
FEWEST_TRIALS = 4  # of a condition that is drawn


def pooled_bits(moments: Moments) -> tuple[float, float, float]:
    """Loss and null loss per bin, means over neurons in nats, and bits per spike of all neurons together."""
    bins = moments["n_frames"].sum()
    loss = moments["sum_poisson"].sum() / bins
    rate = moments["sum_y"] / moments["n_frames"]
    null = float((rate - rate * np.log(np.maximum(rate, 1e-12))).mean())
    return float(loss), null, float((null - loss) * bins / (moments["sum_y"].sum() * np.log(2)))


def table(sweep: Path) -> str:
    """Every arm's representative on validation, dev-test and, once it was unlocked, final test."""
    record = SweepRecord.from_journal(sweep / "journal.jsonl")
    arms = list(dict.fromkeys(run.arm for run in record.runs.values() if run.phase == "confirm"))
    lines = [
        "| arm | parameters chosen | tier | loss | null loss | bits per spike (each seed) |",
        "|---|---|---|---|---|---|",
    ]
    for arm, runs in representatives(record, arms).items():
        chosen = {path.split(".", 1)[1]: value for path, value in runs[0].params.items() if path.startswith("core.")}
        about = ", ".join(f"{name} {value}" for name, value in chosen.items() if name != "name")
        for tier in (VALIDATION, DEV_TEST, FINAL_TEST):
            found = [pooled_bits(m) for run in runs for m in read_moments(sweep / str(run.folder), tier).values()]
            if found:
                loss, null, bits = np.mean(found, axis=0)
                each = ", ".join(f"{one[2]:+.3f}" for one in found)
                lines.append(f"| `{arm}` | {about} | {tier} | {loss:.4f} | {null:.4f} | **{bits:+.3f}** ({each}) |")
    return "\n".join(lines)


def areas_by_areas(sweep: Path) -> str:
    """The matrix of the sweep's report, on dev-test and on the final test once it was unlocked."""
    findings = analyse(sweep)
    made = [tables.per_area(findings, tier) for tier in (FINAL_TEST, DEV_TEST)]
    return "\n\n".join(f"{one.caption}.\n\n{rows_of(one)}" for one in made if one.rows)


def configuration(core: str, seed: int) -> TrialConfig:
    """A fixed configuration: nothing is chosen for a pair of areas but when to stop, on validation."""
    sweep = parse_sweep(
        {
            "name": "matrix",
            "core": CORES[core],
            "readout": "linear",
            "link": "softplus",
            "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
            "schedule": {"name": "cosine", "warmup_epochs": 1},
            "train": TRAINING,
            "score": {"metric": "bits_per_bin"},
            "search": {"trials": 1},
            "reference": "one",
            "arms": {"one": {}},
        }
    )
    return sweep.trial("one", {}, key="pair", phase="confirm", seed=seed)


def fitted_bits(core: str, session: Session, seed: int) -> float:
    """Fit, keep the best epoch on validation, and score dev-test."""
    config, device = configuration(core, seed), torch.device("cpu")
    with tempfile.TemporaryDirectory(prefix="neuroint-") as folder:
        kept = Path(folder) / WEIGHTS_FILE

        def keep(_: dict[str, Any], found: Path | None) -> None:
            shutil.copyfile(Path(str(found)) / WEIGHTS_FILE, kept)

        train_trial(config, [session], LocalRuntime(on_report=keep, device=device))
        moments = score_weights(config, [session], kept, LocalRuntime(device=device), DEV_TEST)
    return pooled_bits(moments[session.name])[2]


def thinned(session: Session, neurons: int, seed: int) -> Session:
    """Read a random few of the neurons that are read, so that areas are compared at one size."""
    source = session.source
    if not isinstance(source, ObservedSource):
        raise TypeError(f"expected a session that offers recorded activity, got a source of type {type(source)}")
    chosen = np.sort(generator(seed, "thinned", session.name).choice(len(source.channels), neurons, replace=False))
    facts = replace(session.facts, observed_channels=neurons, observed_neurons=np.full(neurons, -1))
    return replace(session, facts=facts, source=replace(source, channels=source.channels[chosen]))


class Cells:
    """Fits that were scored, kept in a file, so that a matrix goes on where it stopped."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.held: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def score(self, core: str, session: Session, seed: int, *words: str) -> float:
        """Bits per spike of a fit, from the file if it is known."""
        sizes = f"{session.facts.observed_channels} to {session.facts.n_neurons}"
        key = " ".join((core, json.dumps(CORES[core]), json.dumps(TRAINING), session.name, str(seed), sizes, *words))
        if key not in self.held:
            self.held[key] = fitted_bits(core, session, seed)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(self.held, indent=1))
            print(f"{core} {' '.join(words)}: {self.held[key]:+.3f}", flush=True)
        return self.held[key]


class Pairs(NamedTuple):
    """Bits per spike, seeds first: from every area to every one, and the best null of the same predicted neurons."""

    found: Float[np.ndarray, "seeds sources targets"]
    shuffled: Float[np.ndarray, "seeds kinds targets"]
    course: Float[np.ndarray, "seeds kinds targets"]


def matrix(session: Session, core: str, areas: list[str], neurons: int, seeds: int, cells: Cells) -> str:
    """Bits per spike of every area or group from every one; rows are read, columns predicted.

    Nulls are those of the neurons that are predicted: all of an area (kind 0), or on the diagonal its half (kind 1).
    """
    everywhere = range(len(areas))
    pairs = Pairs(*(np.zeros((seeds, rows, len(areas))) for rows in (len(areas), 2, 2)))
    for seed, column in np.ndindex(seeds, len(areas)):
        target = areas[column]

        def pair(row: int, seed: int = seed, target: str = target) -> Session:
            return thinned(observe_others(session, 0.5, seed, [areas[row]], [target]), neurons, seed)

        for row in everywhere:
            pairs.found[seed, row, column] = cells.score(core, pair(row), seed, areas[row], target)
        others = [(column + 1 + draw) % len(areas) for draw in range(SHUFFLED)]
        for kind, rows in enumerate((others, [column] * SHUFFLED)):
            pairs.shuffled[seed, kind, column] = max(
                cells.score(
                    core,
                    shuffle_observed(pair(row), draw + SHUFFLED * seed),
                    seed,
                    *(areas[row], target, f"shuffled {draw}"),
                )
                for draw, row in enumerate(rows)
            )
            pairs.course[seed, kind, column] = cells.score("time_course", pair(rows[0]), seed, target)
    counts = [observe_others(session, 0.5, 0, [areas[i - 1]], [areas[i]]).facts.n_neurons for i in everywhere]
    return _matrix_table(areas, counts, pairs)


def _matrix_table(areas: list[str], counts: list[int], pairs: Pairs) -> str:
    """A cell is bold where every seed is above the time course and the shuffled fits of the same neurons."""
    chance = np.maximum(pairs.shuffled, pairs.course)
    heads = [f"{area} ({count})" for area, count in zip(areas, counts, strict=True)]
    lines = ["| from \\ to | " + " | ".join(heads) + " |", "|---" * (len(areas) + 1) + "|"]
    for row, area in enumerate(areas):
        null = np.stack([chance[:, int(row == column), column] for column in range(len(areas))], axis=-1)
        marks = ["**" if beats.all() else "" for beats in (pairs.found[:, row] > null).T]
        lines.append(f"| {area} | " + " | ".join(map(_over_seeds, pairs.found[:, row].T, marks)) + " |")
    labels = ("", ", half of the area")
    for name, values in (("shuffled trials, larger of 2", pairs.shuffled), ("time course", pairs.course)):
        for kind, label in enumerate(labels):
            lines.append(f"| *{name}{label}* | " + " | ".join(map(_over_seeds, values[:, kind].T)) + " |")
    return "\n".join(lines)


def _over_seeds(values: np.ndarray, mark: str = "") -> str:
    return f"{mark}{values.mean():+.3f}{mark} ({values.min():+.3f} to {values.max():+.3f})"


def latents(sweep: Path, data: str | None, file: Path) -> str:
    """Draw the latents of the first seed of arm ``seq2seq`` on training and validation trials, by contrast."""
    record = SweepRecord.from_journal(sweep / "journal.jsonl")
    folder = sweep / str(representatives(record, ["seq2seq"])["seq2seq"][0].folder)
    config = TrialConfig.from_dict(yaml.safe_load((folder / "config.yaml").read_text()))
    config = replace(config, data=replace(config.data, path=data or config.data.path))
    (session,) = open_for(config)
    model = build_model(config.specs, facts_of([session]), config.observed.lag_bins)
    load_finished(model, folder / WEIGHTS_FILE)
    model.eval()
    found, clips = latents_of(lambda inputs: model.core(model.lagged(inputs)), session, [TRAIN, VALIDATION])
    store = ArrayStore(Path(str(config.data.path)) / f"{session.name}.npz")
    contrast = (store.numbers("contrast_right") - store.numbers("contrast_left"))[clips]
    values, conditions = np.unique(contrast, return_inverse=True)
    apart = separation(found, conditions.astype(np.int64), draws=fewest_draws(found.shape[2]))
    means = {float(values[k]): m for k, m in condition_means(found, conditions.astype(np.int64), FEWEST_TRIALS).items()}
    bin_s = session.facts.bin_s or 1.0
    time_s = (np.arange(found.shape[1]) + 0.5) * bin_s
    draw_latents(means, time_s, apart, file, key="contrast right - left (right is contralateral)")
    told = ", ".join(f"{share:.2f}" for share in np.sort(apart.share)[::-1])
    beyond = int((apart.p < 0.05 / len(apart.p)).sum())
    return (
        f"{len(clips)} training and validation trials; share of variance between contrast differences: {told}. Chance "
        f"(mean over latents and draws): {apart.null.mean():.2f}. {beyond} of {len(apart.p)} latents beyond chance "
        "(p < .05, Bonferroni)."
    )


def main() -> None:
    """Do one of them, print it, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["areas", "table", "matrix", "latents"])
    parser.add_argument("path", help="a finished sweep; for matrix, the folder of recordings")
    parser.add_argument("--sessions", nargs="+", default=list(AREAS), choices=AREAS, help="of the matrix")
    parser.add_argument("--seeds", type=int, default=3, help="of the matrix: draws of neurons, and of weights")
    parser.add_argument("--core", default="reduced_rank", choices=list(CORES), help="of the matrix")
    parser.add_argument("--neurons", type=int, default=50, help="that are read of every area of the matrix")
    parser.add_argument("--keep", type=Path, default=ROOT / "results" / "cross_area_cells.json", help="of the matrix")
    parser.add_argument("--data", help="recordings, where they are not where the sweep found them")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "cross_area_latents.png")
    parser.add_argument("--write-docs", help="name of the mark in docs/cross_area.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    command = f"python benchmarks/cross_area.py {options.what} {options.path}"
    if options.what == "matrix":
        command += f" --core {options.core} --neurons {options.neurons} --seeds {options.seeds}"
        opened = {one.name: one for one in open_sessions(options.path, "steinmetz") if one.name in options.sessions}
        sizes, cells = (options.neurons, options.seeds), Cells(options.keep)
        parts = {name: matrix(one, options.core, AREAS[name], *sizes, cells) for name, one in opened.items()}
        text = "\n\n".join(f"### {name}\n\n{part}" for name, part in parts.items())
    else:
        sweep = Path(options.path)
        made = {
            "areas": lambda: areas_by_areas(sweep),
            "table": lambda: table(sweep),
            "latents": lambda: latents(sweep, options.data, options.figure),
        }
        text = made[options.what]()
    print(text)
    if options.write_docs:
        pages.put(pages.DOCS / "cross_area.md", options.write_docs, command, text)


if __name__ == "__main__":
    main()
