"""Give up trials that fall behind: asynchronous successive halving (Li et al. 2020), within each arm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from neuroint.config import Distribution, SweepConfig, TrainConfig
from neuroint.sweep.outcome import status_of
from neuroint.sweep.selection import METRIC
from neuroint.sweep.trial import job_of
from neuroint.tracking.journal import SweepRecord


@dataclass(frozen=True)
class Known:
    """A run as the halving of its arm knows it, by the key that it keeps when it is taken up again."""

    trial_id: str


class WithinArms(FIFOScheduler):
    """Compares a run with those of its arm and stage only, at the same epoch; never stops what runs its full length.

    Confirmed runs are not judged at all: what is compared later are whole runs.

    Args:
        sweep: sets when a run is first judged, and how many are kept.
        record: scores of runs that ended before an interruption count as if it had not been.
    """

    def __init__(self, sweep: SweepConfig, record: SweepRecord) -> None:
        super().__init__()
        self.halvings: dict[str, ASHAScheduler] = defaultdict(lambda: _halving(sweep))
        self.overdue: set[str] = set()  # runs that were to be stopped when the driver was
        for run in record.runs.values():
            if run.phase == "tune":
                self._enter(run.key)
                decision = TrialScheduler.CONTINUE
                for epoch, metrics in sorted(run.epochs.items()):
                    decision = self._judge(run.key, {"epoch": epoch, **metrics})
                if run.status == "running" and decision == TrialScheduler.STOP:  # at its last epoch: it did not go on
                    self.overdue.add(run.key)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Enter a run."""
        self._enter(job_of(trial.config)["key"])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a run that is worse than the best share of its rivals at this epoch."""
        job = job_of(trial.config)
        judged = job["phase"] == "tune" and status_of(result) == "stopped"
        decision = TrialScheduler.STOP if job["key"] in self.overdue else self._judge(job["key"], result)
        return decision if judged else TrialScheduler.CONTINUE

    def _enter(self, key: str) -> None:
        self._rivals(key).on_trial_add(None, Known(key))  # pyright: ignore[reportArgumentType]

    def _judge(self, key: str, result: Mapping[str, Any]) -> str:
        if not math.isfinite(result.get(METRIC, math.nan)):
            return TrialScheduler.CONTINUE
        return self._rivals(key).on_trial_result(None, Known(key), dict(result))  # pyright: ignore[reportArgumentType]

    def _rivals(self, key: str) -> ASHAScheduler:
        """Runs whose keys differ in the last number only."""
        return self.halvings[key.rsplit("-", 1)[0]]


def make_stopping(sweep: SweepConfig, record: SweepRecord) -> FIFOScheduler:
    """Make the scheduler of a sweep; it stops nothing where halving is off or no run is longer than its grace."""
    search = sweep.search
    return WithinArms(sweep, record) if search.asha and search.grace_epochs < _longest(sweep) else FIFOScheduler()


def _halving(sweep: SweepConfig) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="epoch",
        metric=METRIC,
        mode="max",
        max_t=_longest(sweep),
        grace_period=sweep.search.grace_epochs,
        reduction_factor=sweep.search.reduction_factor,
        stop_last_trials=False,
    )


def _longest(sweep: SweepConfig) -> int:
    asked = [arm.tree["train"].get("epochs", TrainConfig.epochs) for arm in sweep.arms.values()]
    return max(max(e.values) if isinstance(e, Distribution) else int(e) for e in asked)
