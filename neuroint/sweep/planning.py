"""Build every arm with the data's facts before anything is trained: what it reads, how large it is, what it costs."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from neuroint.config import SweepConfig, TrialConfig
from neuroint.data.base import VALIDATION, Session
from neuroint.data.loader import ClipLoader
from neuroint.data.plan import TrainingPlan
from neuroint.fit import prepare
from neuroint.model import PopulationModel, build_model, facts_of
from neuroint.runtime import LocalRuntime
from neuroint.sweep.samplers import ARMS, REFERENCE, budget, runs_planned
from neuroint.train import DTYPES, training_step

BACKWARD_FACTOR = 3  # a training step costs about three forward passes; validation one


class PlanError(ValueError):
    """An arm that cannot be built or stepped with this data."""


@dataclass(frozen=True)
class ArmSummary:
    """What an arm is, built with its first corner of the search space."""

    name: str
    information: str
    causal: bool
    parameters: int


@dataclass(frozen=True)
class ArmPlan:
    """What an arm will cost; seconds and hours are extrapolated from one step on this machine's CPU."""

    name: str
    information: str
    parameters: int
    flops_per_step: int
    trials: int
    corners: int
    seconds_per_step: float
    steps_per_epoch: int
    peak_memory_mb: float
    hours: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def summarize_arms(sweep: SweepConfig, sessions: list[Session]) -> list[ArmSummary]:
    """Build one configuration of every arm, so that what cannot be built is known before training.

    Raises:
        PlanError: lists every arm that cannot be built, with the reason.
    """
    found, faults = [], []
    for arm in sweep.arms:
        config = next(_corners(sweep, arm))
        try:
            _check_metrics(sweep, sessions)
            model = build_model(config.specs, facts_of(sessions))
            _check_frames(config, sessions, model)
        except ValueError as error:
            faults.append(f"arm '{arm}': {error}")
            continue
        parameters = sum(p.numel() for p in model.parameters())
        found.append(ArmSummary(arm, model.information, model.causal, parameters))
    if faults:
        raise PlanError("\n".join(dict.fromkeys(faults)))
    return found


def plan_arm(sweep: SweepConfig, arm: str, sessions: list[Session]) -> ArmPlan:
    """Build every corner of an arm's space, take one step of each on the CPU, and extrapolate.

    Raises:
        PlanError: a corner cannot be built or stepped; names the corner.
    """
    measured = []
    for config in _corners(sweep, arm):
        try:
            measured.append(_measure(config, sessions))
        except (ValueError, RuntimeError) as error:
            values = {path: config.flat().get(path) for path in sweep.arms[arm].distributions}
            raise PlanError(f"arm '{arm}' with {values}: {error}") from error
    worst = {key: max(m[key] for m in measured) for key in measured[0]}
    runs = runs_planned(sweep, arm)
    config = next(_corners(sweep, arm))
    seconds = worst["seconds"] * worst["steps"] * (1 + _validation_share(config, sessions)) * config.train.epochs
    return ArmPlan(
        name=arm,
        information=measured[0]["information"],
        parameters=worst["parameters"],
        flops_per_step=worst["flops"],
        trials=sum(budget(sweep, arm, stage) for stage in (REFERENCE, ARMS)),
        corners=len(measured),
        seconds_per_step=worst["seconds"],
        steps_per_epoch=worst["steps"],
        peak_memory_mb=worst["peak_memory_mb"],
        hours=runs * seconds / 3600,
    )


def _corners(sweep: SweepConfig, arm: str) -> Iterator[TrialConfig]:
    """Configurations that reach each end of each range, the others at their first value."""
    distributions = sweep.arms[arm].distributions
    first = {path: d.corners()[0] for path, d in distributions.items()}
    points = [first, *({**first, path: c} for path, d in distributions.items() for c in d.corners()[1:])]
    for index, point in enumerate(points):
        yield sweep.trial(arm, point, key=f"plan-{arm}-{index}", phase="plan", seed=sweep.seed)


def _measure(config: TrialConfig, sessions: list[Session]) -> dict[str, Any]:
    runtime, train = LocalRuntime(device=torch.device("cpu")), config.train
    fit = prepare(config, sessions, runtime, DTYPES[train.precision])
    plan = TrainingPlan(
        sessions,
        frames=train.frames,
        batch_size=train.batch_size,
        seed=config.seed,
        steps_per_epoch=train.steps_per_epoch,
    )
    with ClipLoader(sessions) as loader:
        batches = next(loader.training(plan, 0))
    fit.training_mode()
    with FlopCounterMode(display=False) as counter:
        training_step(fit, batches, runtime, 0)
    began = time.perf_counter()
    training_step(fit, batches, runtime, 1)
    return {
        "information": fit.model.information,
        "parameters": sum(p.numel() for p in fit.model.parameters()),
        "flops": counter.get_total_flops(),
        "seconds": time.perf_counter() - began,
        "steps": plan.steps_per_epoch,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _validation_share(config: TrialConfig, sessions: list[Session]) -> float:
    """Cost of a validation pass over that of an epoch's training."""
    train = config.train
    plan = TrainingPlan(
        sessions,
        frames=train.frames,
        batch_size=train.batch_size,
        seed=0,
        steps_per_epoch=train.steps_per_epoch,
    )
    trained = plan.steps_per_epoch * train.batch_size * train.frames * len(sessions)
    validated = sum(int(s.lengths[s.clips(VALIDATION)].sum()) for s in sessions)
    return validated / (BACKWARD_FACTOR * trained)


def _check_frames(config: TrialConfig, sessions: list[Session], model: PopulationModel) -> None:
    """Refuse models that consume or discard more frames than a crop has, or consume more than scores leave out."""
    lost = model.lost_frames
    for session in sessions:
        burn_in = model.burn_in(session.name)
        if config.train.frames <= lost + burn_in:
            raise ValueError(
                f"train.frames is {config.train.frames}, but the core consumes {lost} and recurrent stages discard "
                f"{burn_in} (their memory); set it to at least {lost + burn_in + 1}, or choose a shorter memory"
            )
        if session.scored_from < lost:
            raise ValueError(
                f"the core consumes {lost} frames, but session '{session.name}' is scored from frame "
                f"{session.scored_from} on; use shorter kernels, or let the data be scored later"
            )


def _check_metrics(sweep: SweepConfig, sessions: list[Session]) -> None:
    """Refuse to select by a score that needs repeats where validation has none."""
    from neuroint.metrics.scoring import needs_repeats

    for session in sessions:
        if not len(session.clips(VALIDATION)):
            raise ValueError(f"session '{session.name}' has no validation clips; tuning needs them")
        if needs_repeats(sweep.score.metric) and all(len(group) < 2 for group in session.repeats(VALIDATION)):
            raise ValueError(
                f"score.metric '{sweep.score.metric}' needs repeats, and no stimulus of the validation tier of "
                f"'{session.name}' was shown twice; use single_trial_correlation"
            )
