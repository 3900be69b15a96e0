"""Carry a sweep through its phases: search the reference, search every arm, confirm.

All phases are one Tune experiment, in which they and all arms share the processes: each costs seconds to start. Tune is
told nothing of earlier attempts: what is left to do follows from the sweep's journal and from the arms' studies, so an
interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from neuroint.config import Resources, SweepConfig, TrialConfig
from neuroint.seeding import derive
from neuroint.sweep.outcome import cause_of
from neuroint.sweep.proposals import Jobs, Phase, Proposals, Source, open_study
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

    def fit(self) -> None:
        """Run what is left of all phases; the experiment's folder is only of use while it runs.

        Raises:
            ArmError: no run of the reference arm is usable, so the others have nothing to start from.
            OSError: a disk is full or a folder is gone, in the driver or in a trial.
        """
        files = RunFiles(self.folder)
        files.ray.mkdir(exist_ok=True)
        proposals = Proposals(self.phases(), files.resume_from)
        if not proposals.go_on():
            return
        try:
            self._tuner(proposals, files.ray).fit()
        except Exception as error:
            raise cause_of(error, (ArmError, OSError)) or error from error
        for used in files.ray.glob("*.tune"):
            shutil.rmtree(used, ignore_errors=True)

    def phases(self) -> list[Phase]:
        """List what proposes the runs of each phase, to be called when all runs of the phase before have ended.

        The reference is searched first; then every arm gets the same further number of trials from its optimum; then
        the best configurations of every arm are retrained with fresh seeds, the same ones in all arms.
        """
        return [self._reference_phase, self._arms_phase, self._confirm_phase]

    def record(self) -> SweepRecord:
        """What the journal says by now."""
        return SweepRecord.from_journal(self.folder / "journal.jsonl")

    def _arms(self) -> list[str]:
        """The reference first."""
        return sorted(self.sweep.arms, key=lambda arm: arm != self.sweep.reference)

    def _values(self, run: RunRecord) -> dict[str, Any]:
        return {path: run.params[path] for path in self.sweep.arms[run.arm].distributions}

    def _reference_phase(self) -> list[Source]:
        reference = self.sweep.reference
        return self._studies(REFERENCE, [reference], {}) if budget(self.sweep, reference, REFERENCE) else []

    def _arms_phase(self) -> list[Source]:
        reference, optimum = self.sweep.reference, {}
        if budget(self.sweep, reference, REFERENCE):
            optimum = self._values(best_runs(self.record(), reference, REFERENCE)[0])
        return self._studies(ARMS, self._arms(), optimum)

    def _confirm_phase(self) -> list[Source]:
        """What failed is tried again, unless a test was read for its arm: then what represents the arm is settled."""
        record = self.record()
        settled = {record.runs[read["run"]].arm for read in record.test_reads}
        jobs = [job for arm in self._arms() if arm not in settled for job in self._confirm_jobs(record, arm)]
        return [Jobs(jobs)]

    def _studies(self, stage: str, arms: list[str], optimum: Mapping[str, Any]) -> list[Source]:
        record, folder = self.record(), RunFiles(self.folder).ray
        studies = [open_study(self.sweep, arm, stage, folder, optimum) for arm in arms]
        for study in studies:
            study.take_up(record)
        return list(studies)

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

    def _tuner(self, proposals: Proposals, storage: Path) -> tune.Tuner:
        record = self.record()
        return tune.Tuner(
            tune.with_resources(run_trial, self._per_trial()),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the proposals say when there are no more
                search_alg=proposals,
                scheduler=make_stopping(self.sweep, record),
                # A stopped trial of several workers must lose its process, or they train on and keep their places.
                reuse_actors=self.sweep.resources.workers == 1,
                max_concurrent_trials=self._at_once(),
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(
                name=f"{len(list(storage.glob('*.tune'))) + 1}.tune",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                callbacks=[Watch(self.folder, dict(self.tags), record)],
                verbose=0,
            ),
        )

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
