"""Hand an arm's search space to Optuna, and tell Optuna truthfully how trials ended."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from neuroint import registry
from neuroint.config import Distribution, SweepConfig
from neuroint.registry import Choice
from neuroint.seeding import derive
from neuroint.sweep.samplers import labels
from neuroint.sweep.selection import METRIC


@dataclass(frozen=True)
class ArmSpace:
    """Draw a configuration of one arm from an Optuna trial; only this arm's parameters exist in its study."""

    sweep: SweepConfig
    arm: str
    phase: str
    seed: int

    def __call__(self, trial: Any) -> dict[str, str]:
        """Suggest a value for every searched choice; return the resolved configuration as JSON."""
        values = {path: SUGGEST[d.kind](trial, path, d) for path, d in self.sweep.arms[self.arm].distributions.items()}
        key = f"{self.phase}-{trial.number:04d}"
        job = self.sweep.trial(self.arm, values, key=key, phase="tune", seed=self.seed)
        return {"job": json.dumps(job.to_dict())}

    def point(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Translate known values into what Optuna enqueues; values out of range are left to the sampler."""
        space = self.sweep.arms[self.arm].distributions
        kept = {path: value for path, value in values.items() if path in space and value in space[path]}
        return {path: json.dumps(v) if space[path].kind == "choice" else v for path, v in kept.items()}


def _choice(trial: Any, path: str, found: Distribution) -> Any:
    return json.loads(trial.suggest_categorical(path, labels(found)))


SUGGEST = {
    "choice": _choice,
    "uniform": lambda trial, path, d: trial.suggest_float(path, *d.values),
    "loguniform": lambda trial, path, d: trial.suggest_float(path, *d.values, log=True),
    "int": lambda trial, path, d: trial.suggest_int(path, *d.values),
}


class ArmSearch(OptunaSearch):
    """Ray's Optuna searcher, except that a stopped trial is told as pruned and a failed or diverged one as failed.

    Ray tells stopped trials as complete, and a NaN leaves a trial running for ever, which repels the sampler.
    """

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        study, trial = cast(optuna.Study, self._ot_study), self._ot_trials[trial_id]
        value = (result or {}).get(METRIC)
        if error or value is None or not math.isfinite(value):
            study.tell(trial, state=TrialState.FAIL)
        elif result and result.get("finished"):
            study.tell(trial, float(value))
        else:
            study.tell(trial, state=TrialState.PRUNED)


def make_search(sweep: SweepConfig, arm: str, folder: Path, points: list[dict[str, Any]]) -> ArmSearch:
    """Open an arm's study in a journal file of its own and enqueue the given points."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = ArmSpace(sweep, arm, folder.name, derive(sweep.seed, "tune"))
    distributions = sweep.arms[arm].distributions
    facts = {"seed": derive(sweep.seed, "sampler", folder.name) % 2**32, "space": distributions}
    digest = hashlib.sha256(repr(sorted(distributions.items())).encode()).hexdigest()[:12]
    return ArmSearch(
        space,
        metric=METRIC,
        mode="max",
        points_to_evaluate=[space.point(point) for point in points],
        sampler=registry.samplers[sweep.search.sampler].build({}, facts),
        study_name=f"{sweep.name}-{folder.name}-{arm}-{digest}",
        storage=JournalStorage(JournalFileBackend(str(folder.with_suffix(".optuna")))),
    )


def start_points(sweep: SweepConfig, arm: str, optimum: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List where an arm's search begins: the reference's optimum with the arm's own defaults, then the given points."""
    own = {}
    for path, distribution in sweep.arms[arm].distributions.items():
        default = _default(sweep, arm, path)
        if path not in optimum and default is not None and default.default in distribution:
            own[path] = default.default
    first = [{**own, **optimum}] if optimum else []
    return [point for point in [*first, *sweep.search.points] if point]


def _default(sweep: SweepConfig, arm: str, path: str) -> Choice | None:
    from neuroint.config.settings import SPECS, section

    key, _, option = path.partition(".")
    tree = sweep.arms[arm].tree
    component = SPECS[key][tree[key]["name"]] if key in SPECS else section(key)
    return component.choices.get(option)
