"""Carry a sweep through its phases: search the reference, search every arm, confirm, score.

Each phase is one Tune experiment under ``<sweep>/ray``; a file ``<phase>.done`` marks it finished, so that an
interrupted sweep goes on where it stopped. What is known about runs is read back from the journal alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from neuroint.config import Distribution, SweepConfig, TrainConfig
from neuroint.seeding import derive
from neuroint.sweep.proposals import make_search, start_points
from neuroint.sweep.samplers import grid_size
from neuroint.sweep.selection import METRIC, best_runs
from neuroint.sweep.trial import run_trial
from neuroint.sweep.watch import Watch, fail_run, finish_run, run_key
from neuroint.tracking.journal import RunRecord, SweepRecord

TRIAL_FAILURES = 1  # a killed process is tried again from its checkpoint; a fault of the configuration fails twice


class InterruptedSweepError(RuntimeError):
    """Stopped from outside before all trials ended; the sweep can be resumed."""


@dataclass(frozen=True)
class Sweeper:
    """Runs the phases of one sweep in one folder.

    Args:
        sweep: what is asked.
        folder: of this sweep's results.
        tags: put on every run, by arm.
        capacity: CPUs and GPUs of the cluster.
    """

    sweep: SweepConfig
    folder: Path
    tags: Mapping[str, dict[str, str]]
    capacity: Mapping[str, float]

    def search(self) -> None:
        """Search the reference arm, then give every arm the same further number of trials from its optimum."""
        budget, reference = self.sweep.search, self.sweep.reference
        if budget.reference_trials:
            self._search_arm(f"reference-{reference}", reference, budget.reference_trials, {})
        optimum = self._values(best_runs(self.record(), reference)[0]) if budget.reference_trials else {}
        for arm in self._arms():
            self._search_arm(f"arm-{arm}", arm, budget.trials, optimum)

    def confirm(self) -> None:
        """Retrain the best configurations of every arm with fresh seeds, the same ones in all arms."""
        jobs = []
        for arm in self._arms():
            for index, run in enumerate(best_runs(self.record(), arm)[: self.sweep.confirm.top]):
                jobs += [self._confirm_job(arm, index, run, k) for k in range(self.sweep.confirm.seeds)]
        self._experiment(
            "confirm", {"job": tune.grid_search(jobs)}, tune.TuneConfig(max_concurrent_trials=self._at_once())
        )

    def record(self) -> SweepRecord:
        """What the journal says by now."""
        return SweepRecord.from_journal(self.folder / "journal.jsonl")

    def _arms(self) -> list[str]:
        """The reference first."""
        return sorted(self.sweep.arms, key=lambda arm: arm != self.sweep.reference)

    def _values(self, run: RunRecord) -> dict[str, Any]:
        return {path: run.params[path] for path in self.sweep.arms[run.arm].distributions}

    def _confirm_job(self, arm: str, index: int, run: RunRecord, k: int) -> str:
        seed = derive(self.sweep.seed, "confirm", k)
        key = f"confirm-{arm}-c{index}-s{k}"
        return json.dumps(self.sweep.trial(arm, self._values(run), key=key, phase="confirm", seed=seed).to_dict())

    def _search_arm(self, phase: str, arm: str, trials: int, optimum: Mapping[str, Any]) -> None:
        distributions = self.sweep.arms[arm].distributions
        trials = grid_size(distributions) if self.sweep.search.sampler == "grid" else trials
        search = make_search(self.sweep, arm, self._ray_folder() / phase, start_points(self.sweep, arm, optimum))
        config = tune.TuneConfig(
            num_samples=trials,
            search_alg=search,
            scheduler=self._scheduler(),
            reuse_actors=True,
            max_concurrent_trials=self._at_once(),
        )
        self._experiment(phase, {}, config)

    def _scheduler(self) -> ASHAScheduler | None:
        """Stop what is worse than others of its arm at the same epoch; never what has run its full length."""
        search, epochs = self.sweep.search, self._longest()
        if not search.asha or search.grace_epochs >= epochs:
            return None
        return ASHAScheduler(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            max_t=epochs + 1,
            grace_period=search.grace_epochs,
            reduction_factor=search.reduction_factor,
            stop_last_trials=False,
        )

    def _longest(self) -> int:
        asked = [arm.tree["train"].get("epochs", TrainConfig.epochs) for arm in self.sweep.arms.values()]
        return max(max(e.values) if isinstance(e, Distribution) else int(e) for e in asked)

    def _at_once(self) -> int:
        fit = trials_at_once(self.sweep, self.capacity)
        return min(self.sweep.search.concurrent or fit, fit)

    def _ray_folder(self) -> Path:
        folder = self.folder / "ray"
        folder.mkdir(exist_ok=True)
        return folder

    def _experiment(self, phase: str, space: dict[str, Any], config: tune.TuneConfig) -> None:
        """Run one Tune experiment to its end, or the rest of it; afterwards every trial is in the journal."""
        done = self._ray_folder() / f"{phase}.done"
        if done.exists():
            return
        trainable = tune.with_resources(run_trial, self._per_trial())
        path = str(self._ray_folder() / phase)
        if tune.Tuner.can_restore(path):
            tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, restart_errored=True)
        else:
            run_config = tune.RunConfig(
                name=phase,
                storage_path=str(self._ray_folder()),
                failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                callbacks=[Watch(self.folder, dict(self.tags))],
                verbose=0,
            )
            tuner = tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run_config)
        self._reconcile(tuner.fit())
        done.write_text("")

    def _reconcile(self, results: tune.ResultGrid) -> None:
        """Enter trials whose end the journal does not know yet, and notice a sweep stopped from outside."""
        record, unfinished = self.record(), 0
        for result in results:
            key = run_key(result.config or {})
            known = record.runs.get(key)
            if known is not None and known.status != "running":
                continue
            if result.error is not None:
                fail_run(self.folder, key, str(Path(result.path) / "error.txt"))
            elif (result.metrics or {}).get("done"):
                finish_run(self.folder, key, result.metrics or {}, result.checkpoint)
            else:
                unfinished += 1
        if unfinished or results.num_terminated + results.num_errors < len(results):
            raise InterruptedSweepError(f"{unfinished} trials were stopped before their end")

    def _per_trial(self) -> dict[str, float]:
        """One worker is the trial itself; a trial of several holds no CPU, or its workers could not be placed."""
        resources = self.sweep.resources
        if resources.workers > 1:
            return {"CPU": 0, "memory": 1}
        return {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}


def trials_at_once(sweep: SweepConfig, capacity: Mapping[str, float]) -> int:
    """Number of trials that the cluster holds at a time.

    Raises:
        ValueError: not even one fits.
    """
    asked = {
        "CPU": sweep.resources.workers * sweep.resources.cpus_per_worker,
        "GPU": sweep.resources.workers * sweep.resources.gpus_per_worker,
    }
    for kind, amount in asked.items():
        if amount > capacity.get(kind, 0):
            raise ValueError(
                f"a trial asks for {amount:g} {kind} ({sweep.resources}), but the cluster has "
                f"{capacity.get(kind, 0):g}; lower resources.workers or what each worker asks for, or add nodes"
            )
    return int(min(capacity.get(kind, 0) / amount for kind, amount in asked.items() if amount))
