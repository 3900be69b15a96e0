"""Choose among the runs of a sweep by their validation score; reads the journal only, and needs no cluster."""

from __future__ import annotations

import numpy as np

from neuroint.data.base import FINAL_TEST
from neuroint.tracking.journal import RunRecord, SweepRecord

METRIC = "best_validation_score"  # best so far, so that a trial is never judged by its last epoch


def best_runs(record: SweepRecord, arm: str, phase: str = "tune") -> list[RunRecord]:
    """Runs of an arm by best validation score, complete ones before stopped ones.

    Raises:
        ValueError: every run of the arm failed or diverged.
    """
    ended = [run for run in record.runs.values() if run.arm == arm and run.phase == phase]
    usable = [run for run in ended if run.status in ("finished", "stopped") and METRIC in run.metrics]
    if not usable:
        why = "; ".join(f"{run.key}: {run.status} {(run.message or '').strip().splitlines()[-1:]}" for run in ended)
        raise ValueError(f"arm '{arm}' has no usable {phase} run of {len(ended)}: {why or 'none was started'}")
    return sorted(usable, key=lambda run: (run.status == "finished", run.metrics[METRIC]), reverse=True)


def representatives(record: SweepRecord, arms: list[str]) -> dict[str, list[RunRecord]]:
    """Choose for each arm the confirmed configuration with the best mean validation score: its runs, one per seed.

    Raises:
        ValueError: an arm has no confirmed configuration that finished with every seed.
    """
    chosen = {}
    for arm in arms:
        groups: dict[str, list[RunRecord]] = {}
        for run in record.runs.values():
            if run.arm == arm and run.phase == "confirm":
                groups.setdefault(run.key.rsplit("-s", 1)[0], []).append(run)
        whole = [runs for runs in groups.values() if all(run.status == "finished" for run in runs)]
        if not whole:
            states = {run.key: run.status for runs in groups.values() for run in runs}
            raise ValueError(f"arm '{arm}' has no configuration confirmed with every seed: {states or 'none was run'}")
        chosen[arm] = max(whole, key=lambda runs: np.mean([run.metrics[METRIC] for run in runs]))
    return chosen


def unlocked(record: SweepRecord) -> bool:
    """Whether the final test of a sweep was read already."""
    return any(read["tier"] == FINAL_TEST for read in record.test_reads)
