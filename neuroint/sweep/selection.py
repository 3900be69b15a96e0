"""Choose among the runs of a sweep by their validation score; reads the journal only, and needs no cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

from neuroint.tracking.journal import RunRecord, SweepRecord

METRIC = "best_validation_score"  # best so far, so that a trial is never judged by its last epoch
ENSEMBLE = "ensemble"  # phase of what was not trained: averages of trained runs


class ArmError(ValueError):
    """An arm that nothing can represent: what became of its runs."""


def best_runs(record: SweepRecord, arm: str, stage: str = "") -> list[RunRecord]:
    """Tuned runs of an arm by best validation score, complete ones before stopped ones.

    Args:
        record: what the journal tells.
        arm: whose runs.
        stage: of the search; by default all.

    Raises:
        ArmError: no run of the arm is usable; says what became of each.
    """
    start = f"{stage}-{arm}-" if stage else ""
    tuned = [r for r in record.runs.values() if r.arm == arm and r.phase == "tune" and r.key.startswith(start)]
    usable = [r for r in tuned if r.status in ("finished", "stopped") and _is_scored(r)]
    if not usable:
        why = "; ".join(f"{run.key} {run.status}: {_last_line(run)}" for run in tuned)
        raise ArmError(
            f"arm '{arm}' has no usable run among {len(tuned)} trials ({why or 'none was started'}); they are not "
            "tried again: remove the cause and start anew under another --name"
        )
    return sorted(usable, key=lambda run: (run.status == "finished", run.metrics[METRIC]), reverse=True)


def distinct(runs: Sequence[RunRecord], searched: Iterable[str]) -> list[RunRecord]:
    """Keep the first run of every configuration: the reference's optimum is tried again in the next stage.

    Args:
        runs: of one arm, the best first.
        searched: the parameters that differ between them.
    """
    paths, first = list(searched), {}
    for run in runs:
        first.setdefault(json.dumps([run.params[path] for path in paths]), run)
    return list(first.values())


def finished_runs(record: SweepRecord, arm: str, searched: Iterable[str]) -> list[RunRecord]:
    """Finished runs of an arm, of its search and of its confirmation, by best validation score.

    A run that repeats another, with its parameters and its seed, is left out: it would count twice in an average.

    Args:
        record: what the journal tells.
        arm: whose runs.
        searched: the parameters that differ between them.
    """
    ended = [run for run in record.runs.values() if run.arm == arm and run.status == "finished" and _is_scored(run)]
    ranked = [run for run in ended if run.phase in ("tune", "confirm")]
    paths, first = list(searched), {}
    for run in sorted(ranked, key=lambda run: run.metrics[METRIC], reverse=True):
        first.setdefault(json.dumps([run.seed, *(run.params[path] for path in paths)]), run)
    return list(first.values())


def _is_scored(run: RunRecord) -> bool:
    """Whether a validation score is known: an undefined one compares as neither better nor worse."""
    return bool(np.isfinite(run.metrics.get(METRIC, np.nan)))


def _state(run: RunRecord) -> str:
    undefined = run.status == "finished" and not _is_scored(run)
    return f"{run.key} {run.status}" + (", its score is undefined" if undefined else "")


def _last_line(run: RunRecord) -> str:
    lines = [line.strip() for line in (run.message or "").splitlines() if line.strip()]
    return lines[-1] if lines else "it left no message and no score"


def representatives(record: SweepRecord, arms: list[str]) -> dict[str, list[RunRecord]]:
    """Choose for each arm the confirmed configuration with the best mean validation score: its runs, one per seed.

    Raises:
        ArmError: an arm has no confirmed configuration that finished with every seed.
    """
    chosen = {}
    for arm in arms:
        groups: dict[str, list[RunRecord]] = {}
        for run in record.runs.values():
            if run.arm == arm and run.phase == "confirm":
                groups.setdefault(run.key.rsplit("-s", 1)[0], []).append(run)
        whole = [runs for runs in groups.values() if all(run.status == "finished" and _is_scored(run) for run in runs)]
        if not whole:
            states = "; ".join(_state(run) for runs in groups.values() for run in runs)
            raise ArmError(f"arm '{arm}' has no configuration confirmed with every seed ({states or 'none was run'})")
        chosen[arm] = max(whole, key=lambda runs: np.mean([run.metrics[METRIC] for run in runs]))
    return chosen
