"""Hold the couplings that confirmed runs found on real recordings against wiring, signal propagation, distance, tuning.

``python benchmarks/structure.py RESULTS --write-docs`` reads the finished sweeps ``RESULTS/worm``, ``zebrafish`` and
``head_direction`` (the commands stand in ``docs/couplings.md``). An arm's influence matrix is the mean over its seeds;
its reliability is the mean rank correlation between two seeds. ``lagged correlation`` needs no model: the correlation
of each neuron's training responses with every other's one lag earlier.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pages
import torch
import yaml
from jaxtyping import Float
from scipy.stats import rankdata

from neuroint.analysis.influence import recorded_influence
from neuroint.analysis.structure import Null, agreement, relabeled, rewired_edges
from neuroint.config import TrialConfig
from neuroint.data.base import TRAIN, VALIDATION, Inputs, Session
from neuroint.fit import WEIGHTS_FILE, load_finished
from neuroint.model import PopulationModel, build_model, facts_of
from neuroint.recordings import open_data
from neuroint.sweep.selection import representatives
from neuroint.tracking.journal import SweepRecord

RECORDINGS = Path(__file__).parents[2] / "shared" / "data"
CROPS = 4  # of the validation tier, over which influence is averaged
Matrix = Float[np.ndarray, "neurons neurons"]


class Known(NamedTuple):
    """A matrix [target, source] that couplings are held against, and the null that goes with it."""

    name: str
    matrix: Matrix
    null: Null
    signed: bool = False


def of_worm(session: Session) -> Iterator[Known]:
    """Chemical synapses plus gap junctions (White 1986, Witvliet 2020), and responses to stimulation (Randi 2023)."""
    with np.load(RECORDINGS / "worm_dag2023" / f"{session.name}.npz", allow_pickle=False) as held:
        labels = [str(label) for label in held["neuron_label"]]
    for source in ("white_1986_whole", "witvliet_2020_8"):
        with np.load(RECORDINGS / "worm_dag2023" / f"connectome_{source}.npz", allow_pickle=False) as held:
            counts = held["chemical_pre_post"].T + held["electrical"]
            yield Known(f"synapses, {source}", _for(labels, held["names"], counts), rewired_edges)
    with np.load(RECORDINGS / "worm_atlas_randi2023" / "worm_atlas.npz", allow_pickle=False) as held:
        names, response, q = held["neuron_ids"], held["wt_dFF"], held["wt_q"]
        answered = np.where(np.isfinite(q), (q < 0.05).astype(float), np.nan)
        yield Known("answers to stimulation, q < .05", _for(labels, names, answered), rewired_edges)
        yield Known("size of the answer, signed", _for(labels, names, response), relabeled, signed=True)


def _for(labels: list[str], names: np.ndarray, matrix: np.ndarray) -> Matrix:
    """The matrix over recorded neurons; NaN where a neuron has no sure name, or is not in the diagram."""
    place = {str(name): index for index, name in enumerate(names)}
    rows = np.array([place.get(label, -1) for label in labels])
    found = matrix[np.ix_(rows, rows)].astype(float)
    found[rows < 0], found[:, rows < 0] = np.nan, np.nan
    return found


def of_zebrafish(session: Session) -> Iterator[Known]:
    """Distance between cells."""
    positions = np.asarray(session.facts.positions_um, float)
    yield Known("nearness", -np.linalg.norm(positions[:, None] - positions, axis=-1), relabeled)


def of_head_direction(session: Session) -> Iterator[Known]:
    """Likeness of preferred directions: the ring."""
    with np.load(RECORDINGS / "head_direction_peyrache2015/head_direction.npz", allow_pickle=False) as held:
        angle = held["preferred_angle_rad"]
    yield Known(
        "cosine of the difference in preferred direction", np.cos(angle[:, None] - angle), relabeled, signed=True
    )


SWEEPS = {"worm": of_worm, "zebrafish": of_zebrafish, "head_direction": of_head_direction}


def model_of(folder: Path) -> tuple[PopulationModel, list[Session]]:
    """Rebuild the model of a finished run, and open the sessions that it was fitted to."""
    config = TrialConfig.from_dict(yaml.safe_load((folder / "config.yaml").read_text()))
    sessions = open_data(config.data)
    model = build_model(config.specs, facts_of(sessions), config.observed.lag_bins)
    load_finished(model, folder / WEIGHTS_FILE)
    return model, sessions


def records(session: Session, tier: str, most: int) -> Float[torch.Tensor, "clips time observed"]:
    """What was recorded in the first clips of a tier, as long as the shortest of them."""
    clips = session.clips(tier)[:most]
    frames = int(session.lengths[clips].min())
    return torch.stack([torch.as_tensor(session.source.read(int(c), 0, frames).observed) for c in clips])


def found_by(folders: list[Path]) -> dict[str, tuple[Session, Matrix, float]]:
    """Influence of recorded neurons on each other by session: its mean over seeds, and how well two seeds agree."""
    by_session: dict[str, list[np.ndarray]] = {}
    opened: dict[str, Session] = {}
    for folder in folders:
        model, sessions = model_of(folder)
        for session in sessions:
            inputs = Inputs(observed=records(session, VALIDATION, CROPS))
            by_session.setdefault(session.name, []).append(recorded_influence(model, session.name, inputs).numpy())
            opened[session.name] = session
    return {name: (opened[name], np.mean(found, axis=0), _reliability(found)) for name, found in by_session.items()}


def _reliability(found: list[np.ndarray]) -> float:
    """Mean rank correlation between the couplings of two seeds, pairs of different neurons only."""
    off = ~np.eye(len(found[0]), dtype=bool)
    ranks = [rankdata(matrix[off]) for matrix in found]
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(ranks, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")


def lagged_correlation(session: Session) -> Matrix:
    """Correlate every neuron with every other's past, over the training tier."""
    lag = session.facts.recorded.lag_bins  # pyright: ignore[reportOptionalMemberAccess]
    now, before = [], []
    for clip in session.clips(TRAIN):
        held = session.source.read(int(clip), 0, int(session.lengths[clip])).observed
        assert held is not None
        now.append(held[lag:])
        before.append(held[:-lag])
    x, y = (np.concatenate(part).astype(float) for part in (now, before))
    x, y = ((part - part.mean(0)) / part.std(0).clip(1e-9) for part in (x, y))
    return x.T @ y / len(x)


def compare(sweep: Path, draws: int) -> Iterator[dict[str, Any]]:
    """Hold every coupling arm of a sweep, and the lagged correlation, against what is known."""
    record = SweepRecord.from_journal(sweep / "journal.jsonl")
    arms = list(dict.fromkeys(run.arm for run in record.runs.values() if run.phase == "confirm"))
    plain: dict[str, Session] = {}
    for arm, runs in representatives(record, arms).items():
        folders = [sweep / str(run.folder) for run in runs]
        if not model_of(folders[0])[0].reads_recorded:
            continue
        for name, (session, matrix, reliability) in found_by(folders).items():
            plain[name] = session
            yield from _rows(sweep.name, arm, session, matrix, reliability, draws)
    for session in plain.values():
        yield from _rows(sweep.name, "lagged correlation", session, lagged_correlation(session), None, draws)


def _rows(
    sweep: str, arm: str, session: Session, matrix: Matrix, reliability: float | None, draws: int
) -> Iterator[dict[str, Any]]:
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    for known in SWEEPS[sweep](session):
        row = {"sweep": sweep, "arm": arm, "session": session.name, "against": known.name, "reliability": reliability}
        if np.ptp(off) == 0:
            yield row | {"refused": "no coupling"}
            continue
        found = agreement(matrix if known.signed else np.abs(matrix), known.matrix, known.null, draws=draws)
        yield row | {
            "correlation": found.correlation,
            "pairs": found.pairs,
            "null_mean": float(found.null.mean()),
            "null_sd": float(found.null.std()),
            "p": found.p,
        }


def markdown(rows: list[dict[str, Any]]) -> str:
    """One table per sweep."""
    parts = []
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        lines = [
            "| arm | recording | against | correlation | null (mean ± sd) | p | seeds agree |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in (r for r in rows if r["sweep"] == sweep and "refused" not in r):
            agree = "" if row["reliability"] is None else f"{row['reliability']:.2f}"
            lines.append(
                f"| `{row['arm']}` | {row['session']} | {row['against']} | {row['correlation']:+.3f} | "
                f"{row['null_mean']:+.3f} ± {row['null_sd']:.3f} | {row['p']:.3f} | {agree} |"
            )
        parts.append(f"### `{sweep}`\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder that holds the finished sweeps")
    parser.add_argument("--draws", type=int, default=1000, help="of every null")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/couplings.md")
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    finished = [options.results / name for name in SWEEPS if (options.results / name / "journal.jsonl").is_file()]
    if not finished:
        parser.error(f"{options.results} holds none of the sweeps {', '.join(SWEEPS)}; run them first")
    rows = [row for sweep in finished for row in compare(sweep, options.draws)]
    print(markdown(rows))
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1))
    if options.write_docs:
        command, about = "python benchmarks/structure.py results --write-docs", f"{options.draws} draws of every null"
        pages.put(pages.DOCS / "couplings.md", "tables", command, markdown(rows), about=about)


if __name__ == "__main__":
    main()
