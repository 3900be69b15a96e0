"""Carry a sweep through its phases: search the reference, search every arm, confirm.

Each phase is one Tune experiment, in which all arms share the processes. Tune is told nothing of earlier attempts: what
is left to do follows from the sweep's journal and from the arms' studies, so an interrupted sweep goes on where it
stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler

from neuroint.config import Resources, SweepConfig, TrialConfig
from neuroint.seeding import derive
from neuroint.sweep.outcome import refusal_behind
from neuroint.sweep.proposals import Jobs, Proposals, open_study
from neuroint.sweep.samplers import ARMS, REFERENCE, budget
from neuroint.sweep.selection import ArmError, best_runs, distinct
from neuroint.sweep.stopping import make_stopping
from neuroint.sweep.trial import job_of, run_trial
from neuroint.sweep.watch import RunFiles, Watch
from neuroint.tracking.journal import RunRecord, SweepRecord

TRIAL_FAILURES = 1  # a killed process is tried again from its checkpoint; a fault of the configuration fails twice
CONFIRM = "confirm"


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
        """Search the reference arm, then give every arm the same further number of trials from its optimum.

        Raises:
            ArmError: no run of the reference arm is usable, so the others have nothing to start from.
        """
        reference, optimum = self.sweep.reference, {}
        if budget(self.sweep, reference, REFERENCE):
            self._search_stage(REFERENCE, [reference], optimum)
            optimum = self._values(best_runs(self.record(), reference, REFERENCE)[0])
        self._search_stage(ARMS, self._arms(), optimum)

    def confirm(self) -> None:
        """Retrain the best configurations of every arm with fresh seeds, the same ones in all arms.

        What failed is tried again, unless a test was read for its arm: then what represents the arm is settled.
        """
        record = self.record()
        settled = {record.runs[read["run"]].arm for read in record.test_reads}
        jobs = [job for arm in self._arms() if arm not in settled for job in self._confirm_jobs(record, arm)]
        self._experiment(CONFIRM, Proposals([Jobs(jobs)], self._files().resume_from), FIFOScheduler(), record)

    def record(self) -> SweepRecord:
        """What the journal says by now."""
        return SweepRecord.from_journal(self.folder / "journal.jsonl")

    def _arms(self) -> list[str]:
        """The reference first."""
        return sorted(self.sweep.arms, key=lambda arm: arm != self.sweep.reference)

    def _values(self, run: RunRecord) -> dict[str, Any]:
        return {path: run.params[path] for path in self.sweep.arms[run.arm].distributions}

    def _search_stage(self, stage: str, arms: list[str], optimum: Mapping[str, Any]) -> None:
        record, files = self.record(), self._files()
        studies = [open_study(self.sweep, arm, stage, files.ray, optimum) for arm in arms]
        for study in studies:
            study.take_up(record)
        stopping = make_stopping(self.sweep, stage, record)
        self._experiment(stage, Proposals(studies, files.resume_from), stopping, record)

    def _confirm_jobs(self, record: SweepRecord, arm: str) -> list[TrialConfig]:
        """The runs that are to confirm an arm and did not end yet; none of an arm without a usable trial."""
        try:
            best = best_runs(record, arm)
        except ArmError:
            return []  # its reason is told when the arms are scored
        chosen = distinct(best, self.sweep.arms[arm].distributions)[: self.sweep.confirm.top]
        found = [self._confirm_job(arm, i, run, k) for i, run in enumerate(chosen) for k in range(self._seeds())]
        ended = {run.key for run in record.runs.values() if run.status in ("finished", "diverged")}
        return [job for job in found if job.key not in ended]

    def _seeds(self) -> int:
        return self.sweep.confirm.seeds

    def _confirm_job(self, arm: str, index: int, run: RunRecord, k: int) -> TrialConfig:
        seed = derive(self.sweep.seed, CONFIRM, k)
        key = f"{CONFIRM}-{arm}-c{index}-s{k}"
        return self.sweep.trial(arm, self._values(run), key=key, phase=CONFIRM, seed=seed)

    def _files(self) -> RunFiles:
        files = RunFiles(self.folder)
        files.ray.mkdir(exist_ok=True)
        return files

    def _experiment(self, phase: str, proposals: Proposals, stopping: FIFOScheduler, record: SweepRecord) -> None:
        """Run what is left of a phase in a Tune experiment; its folder is only of use while it runs.

        Raises:
            OSError: a disk is full or a folder is gone, in the driver or in a trial.
        """
        if not proposals.left():
            return
        storage = self._files().ray
        name = f"{phase}-{len(list(storage.glob(f'{phase}-*.tune'))) + 1}.tune"
        tuner = tune.Tuner(
            tune.with_resources(run_trial, self._per_trial()),
            tune_config=tune.TuneConfig(
                num_samples=proposals.left(),
                search_alg=proposals,
                scheduler=stopping,
                # A stopped trial of several workers must lose its process, or they train on and keep their places.
                reuse_actors=self.sweep.resources.workers == 1,
                max_concurrent_trials=self._at_once(),
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                callbacks=[Watch(self.folder, dict(self.tags), record)],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            raise refusal_behind(error) or error from error
        for used in storage.glob(f"{phase}-*.tune"):
            shutil.rmtree(used, ignore_errors=True)

    def _at_once(self) -> int:
        fit = trials_at_once(self.sweep.resources, self.capacity)
        return min(self.sweep.search.concurrent or fit, fit)

    def _per_trial(self) -> dict[str, float]:
        """One worker is the trial itself; a trial of several holds no CPU, or its workers could not be placed."""
        resources = self.sweep.resources
        if resources.workers > 1:
            return {"CPU": 0, "memory": 1}
        return {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}


def _folder_name(trial: Any) -> str:
    return job_of(trial.config)["key"]


def trials_at_once(resources: Resources, capacity: Mapping[str, float]) -> int:
    """Number of trials that the cluster holds at a time.

    Raises:
        ValueError: not even one fits.
    """
    each = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    asked = {kind: resources.workers * amount for kind, amount in each.items() if amount}
    for kind, amount in asked.items():
        if amount > capacity.get(kind, 0):
            raise ValueError(
                f"a trial asks for {amount:g} {kind} ({resources}), but the cluster has {capacity.get(kind, 0):g}; "
                "lower resources.workers or what each worker asks for, or add nodes"
            )
    return int(min(capacity[kind] / amount for kind, amount in asked.items()))
