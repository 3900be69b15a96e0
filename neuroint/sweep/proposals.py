"""Propose runs to Ray Tune: an arm's search space through Optuna, or a list of configurations to confirm.

A study's journal file and the sweep's journal are all that is remembered of a search, so a sweep whose driver was
killed goes on from them: runs that had begun are proposed again under their names, and nothing is proposed twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search import Searcher

from neuroint import registry
from neuroint.config import Distribution, SweepConfig, TrialConfig
from neuroint.registry import Choice
from neuroint.seeding import derive
from neuroint.sweep.outcome import status_of
from neuroint.sweep.samplers import budget, combinations, is_grid, labels
from neuroint.sweep.selection import METRIC
from neuroint.tracking.journal import SweepRecord

TOLD = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # anything else has failed


@runtime_checkable
class Source(Protocol):
    """Where configurations come from."""

    def left(self) -> int:
        """How many are still to be proposed."""
        ...

    def ask(self) -> TrialConfig:
        """Propose the next one."""
        ...

    def report(self, key: str, epoch: int, score: float) -> None:
        """Learn a validation score of a run on its way."""
        ...

    def tell(self, key: str, status: str, score: float) -> None:
        """Learn how a run ended."""
        ...


@dataclass
class Jobs:
    """Proposes given configurations, in order, and learns nothing."""

    waiting: list[TrialConfig]

    def left(self) -> int:
        """How many are still to be proposed."""
        return len(self.waiting)

    def ask(self) -> TrialConfig:
        """Propose the next one."""
        return self.waiting.pop(0)

    def report(self, key: str, epoch: int, score: float) -> None:
        """Learn nothing."""

    def tell(self, key: str, status: str, score: float) -> None:
        """Learn nothing."""


@dataclass
class ArmStudy:
    """Proposes an arm's configurations from an Optuna study of its own, in which only this arm's parameters exist.

    A stopped run is told as pruned, a failed or diverged one as failed. Every proposal has a sampler seeded by its
    number, so that what is proposed does not depend on interruptions.
    """

    sweep: SweepConfig
    arm: str
    stage: str
    study: optuna.Study
    again: list[int] = field(default_factory=list)  # numbers of Optuna trials whose runs had begun and never ended

    def left(self) -> int:
        """How many are still to be proposed."""
        return len(self.again) + max(0, budget(self.sweep, self.arm, self.stage) - len(self._begun()))

    def ask(self) -> TrialConfig:
        """Suggest a value for every searched choice, and resolve them into a configuration."""
        again = self.again.pop(0) if self.again else None
        number = len(self._begun()) if again is None else again
        seed = derive(self.sweep.seed, "sampler", self.stage, self.arm, number) % 2**32
        self.study.sampler = registry.samplers[self.sweep.search.sampler].build({}, {"seed": seed})
        trial = self.study.ask() if again is None else Trial(self.study, self.study.trials[again]._trial_id)
        space = self.sweep.arms[self.arm].distributions
        values = {path: SUGGEST[d.kind](trial, path, d) for path, d in space.items()}
        seed = derive(self.sweep.seed, "tune")
        return self.sweep.trial(self.arm, values, key=self._key(trial.number), phase="tune", seed=seed)

    def report(self, key: str, epoch: int, score: float) -> None:
        """Keep a score in the study: the sampler learns from runs that were stopped, too."""
        trial = self.study.trials[self._number(key)]
        if math.isfinite(score) and epoch not in trial.intermediate_values and not trial.state.is_finished():
            Trial(self.study, trial._trial_id).report(score, epoch)

    def tell(self, key: str, status: str, score: float) -> None:
        """Tell the study how a run ended; one without a score has failed, whatever else it did."""
        state = TOLD.get(status, TrialState.FAIL) if math.isfinite(score) else TrialState.FAIL
        value = score if state == TrialState.COMPLETE else None
        self.study.tell(self._number(key), value, state=state, skip_if_finished=True)

    def take_up(self, record: SweepRecord) -> None:
        """Compare the study with what the journal says of its runs, after an interruption."""
        for trial in self._begun():
            run = record.runs.get(self._key(trial.number))
            if run is None or run.status == "running":
                self.again.append(trial.number)
            else:
                self.tell(run.key, run.status, run.metrics.get(METRIC, math.nan))

    def _begun(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.trials if trial.state != TrialState.WAITING]

    def _key(self, number: int) -> str:
        return f"{self.stage}-{self.arm}-{number:04d}"

    def _number(self, key: str) -> int:
        return int(key.rsplit("-", 1)[1])


def _choice(trial: Any, path: str, found: Distribution) -> Any:
    return json.loads(trial.suggest_categorical(path, labels(found)))


SUGGEST: dict[str, Callable[[Any, str, Distribution], Any]] = {
    "choice": _choice,
    "uniform": lambda trial, path, d: trial.suggest_float(path, *d.values),
    "loguniform": lambda trial, path, d: trial.suggest_float(path, *d.values, log=True),
    "int": lambda trial, path, d: trial.suggest_int(path, *d.values),
}


def open_study(sweep: SweepConfig, arm: str, stage: str, folder: Path, optimum: Mapping[str, Any]) -> ArmStudy:
    """Open an arm's study of one stage in a file of its own, and enqueue where the search begins."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = sweep.arms[arm].distributions
    digest = hashlib.sha256(repr(sorted(space.items())).encode()).hexdigest()[:12]
    file = folder / f"{stage}-{arm}.optuna"
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)  # left by a killed driver; there is one driver
    drop_torn_line(file)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))),
        study_name=f"{sweep.name}-{stage}-{arm}-{digest}",
        direction="maximize",
        load_if_exists=True,
    )
    for point in start_points(sweep, arm, optimum):
        study.enqueue_trial(point, skip_if_exists=True)
    return ArmStudy(sweep, arm, stage, study)


def drop_torn_line(file: Path) -> None:
    """Cut off a last line that a killed driver or a full disk left unfinished: Optuna would append to it."""
    if file.exists() and (lines := file.read_bytes()) and not lines.endswith(b"\n"):
        os.truncate(file, lines.rfind(b"\n") + 1)


def start_points(sweep: SweepConfig, arm: str, optimum: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List where an arm's search begins, as Optuna enqueues it.

    First the reference's optimum with the arm's own defaults, then the given points, then every combination if all are
    tried. Values out of range are left to the sampler.
    """
    space = sweep.arms[arm].distributions
    own = {path: _default(sweep, arm, path) for path in space if optimum and path not in optimum}
    points = [_spelled(space, point) for point in [{**own, **optimum}, *sweep.search.points]]
    if is_grid(sweep):
        whole = [point for point in points if len(point) == len(space)]
        points = whole + [_spelled(space, point) for point in combinations(space, sweep.seed)]
    return [point for point in points if point]


def _spelled(space: Mapping[str, Distribution], point: Mapping[str, Any]) -> dict[str, Any]:
    known = {path: space[path].spelled(value) for path, value in point.items() if path in space}
    return {
        path: json.dumps(found[0]) if space[path].kind == "choice" else found[0]
        for path, found in known.items()
        if found
    }


def _default(sweep: SweepConfig, arm: str, path: str) -> Any:
    from neuroint.config.settings import SPECS, section

    key, _, option = path.partition(".")
    tree = sweep.arms[arm].tree
    component = SPECS[key][tree[key]["name"]] if key in SPECS else section(key)
    choice: Choice | None = component.choices.get(option)
    return choice.default if choice else None


Phase = Callable[[], Sequence[Source]]


class Proposals(Searcher):
    """Hands Ray Tune what the sources of each phase propose, one after the other, and passes on what became of it.

    Args:
        phases: give the sources of a phase when all runs of the one before have ended, whose record they read. Tune
            copies this object, which it could not if they were drawn from a generator.
        resume_from: folder of the last checkpoint of a run that had begun, by key.
    """

    def __init__(self, phases: Sequence[Phase], resume_from: Callable[[str], str | None]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.phases, self.resume_from = list(phases), resume_from
        self.sources: Sequence[Source] = ()
        self.running: dict[str, tuple[Source, str]] = {}

    def left(self) -> int:
        """How many runs of this phase are still to be proposed."""
        return sum(source.left() for source in self.sources)

    def go_on(self) -> bool:
        """Pass to the first phase of which something is left, unless it is this one; tells whether there is one."""
        while not self.left():
            if not self.phases:
                return False
            self.sources = self.phases.pop(0)()
        return True

    def suggest(self, trial_id: str) -> Any:
        """Propose the next run: nothing while a phase waits for its last ones, and the end after the last phase."""
        if not self.left() and self.running:
            return None
        if not self.go_on():
            return Searcher.FINISHED
        source = next(source for source in self.sources if source.left())
        job = source.ask()
        self.running[trial_id] = source, job.key
        return {"job": json.dumps(job.to_dict()), "resume_from": self.resume_from(job.key)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on an epoch's score."""
        source, key = self.running[trial_id]
        source.report(key, int(result["epoch"]), float(result[METRIC]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on how a run ended."""
        source, key = self.running.pop(trial_id)
        if result and METRIC in result:
            source.report(key, int(result["epoch"]), float(result[METRIC]))
        source.tell(key, "failed" if error else status_of(result or {}), float((result or {}).get(METRIC, math.nan)))

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: studies and journal hold all there is to know."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""
