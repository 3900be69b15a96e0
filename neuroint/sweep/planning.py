"""Build every arm with the data's facts before anything is trained: what it reads, how large it is, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from neuroint.config import SweepConfig, TrialConfig
from neuroint.data.base import DEV_TEST, VALIDATION, DataError, Session
from neuroint.data.plan import evaluation_plan
from neuroint.fit import model_for, start
from neuroint.model import PopulationModel
from neuroint.recordings import arm_view
from neuroint.sweep.matching import fair_control, has_controls
from neuroint.sweep.rehearsal import RehearsalError, Rehearsed, first_step, rehearse_apart, training_plan
from neuroint.sweep.samplers import ARMS, REFERENCE, budget, runs_planned

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
    """What an arm will cost; seconds and hours are extrapolated from one step on this machine's CPU.

    ``peak_memory_mb`` is what a trial will record under this name if it runs on a CPU, in MiB: the most that the
    process of one worker holds, libraries included, loader processes not (``neuroint.sweep.rehearsal``).

    Where an arm has another size than the reference, ``unmatched`` says so, and which control would have its size.
    """

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
    unmatched: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def summarize_arms(sweep: SweepConfig, sessions: list[Session]) -> list[ArmSummary]:
    """Build every corner of every arm's space, so that what cannot be trained or scored is known before training.

    Raises:
        PlanError: lists every arm that cannot be built, with the reason.
    """
    found, faults = [], {fault: ["score.metric"] for fault in _metric_faults(sweep, sessions)}
    for arm in sweep.arms:
        summaries, failed = [], {}
        for config in _corners(sweep, arm):
            try:
                summaries.append(_checked(config, sessions))
            except ValueError as error:
                failed.setdefault(str(error), _where(sweep, config) if summaries else "")
        found += summaries[:1]
        for error, where in failed.items():
            faults.setdefault(error, []).append(f"arm '{arm}'{where}")
    if faults:
        raise PlanError("\n".join(f"{', '.join(names)}: {error}" for error, names in faults.items()))
    return found


def _checked(config: TrialConfig, sessions: list[Session]) -> ArmSummary:
    """Build a configuration's model and plans, and compare them with what the sessions hold."""
    sessions = arm_view(sessions, config)
    model = model_for(config, sessions)
    start(model, config)
    training_plan(config, sessions)
    _check_frames(config, sessions, model)
    parameters = sum(p.numel() for p in model.parameters())
    return ArmSummary(config.arm, model.information, model.causal, parameters)


def _where(sweep: SweepConfig, config: TrialConfig) -> str:
    flat = config.flat()
    values = {path: flat.get(path) for path in sweep.arms[config.arm].distributions}
    return f" with {values}" if values else ""


def plan_sweep(
    sweep: SweepConfig, sessions: list[Session], tell: Callable[[str], None] = lambda arm: None
) -> list[ArmPlan]:
    """Build every corner of every arm's space, rehearse each on the CPU, extrapolate, and compare sizes.

    Each is rehearsed in a process of its own, so that a script that calls this needs the guard
    ``if __name__ == "__main__":``.

    ``tell`` is called with the name of each arm before its turn.

    Raises:
        PlanError: a corner cannot be built or stepped; names the corner.
    """
    measured = {arm: _measure_arm(sweep, arm, sessions, tell) for arm in sweep.arms}
    largest = {
        arm: max(found, key=lambda one: (one.size.parameters, one.size.flops)) for arm, found in measured.items()
    }
    return [
        replace(_plan(sweep, arm, sessions, found), unmatched=_unmatched(sweep.reference, arm, largest, sessions))
        for arm, found in measured.items()
    ]


def _measure_arm(sweep: SweepConfig, arm: str, sessions: list[Session], tell: Callable[[str], None]) -> list[Rehearsed]:
    tell(arm)
    measured = []
    for config in _corners(sweep, arm):
        try:
            measured.append(rehearse_apart(config, arm_view(sessions, config)))
        except (RehearsalError, DataError) as error:
            raise PlanError(f"arm '{arm}'{_where(sweep, config)}: {error}") from error
    return measured


def _plan(sweep: SweepConfig, arm: str, sessions: list[Session], measured: list[Rehearsed]) -> ArmPlan:
    """Extrapolate from the dearest corner of an arm."""
    first = measured[0]
    seconds, steps = max(one.seconds for one in measured), max(one.steps for one in measured)
    dearest = max(
        one.seconds * one.steps * (1 + _validation_share(one.config, sessions)) * one.config.train.epochs
        for one in measured
    )
    return ArmPlan(
        name=arm,
        information=first.information,
        parameters=max(one.size.parameters for one in measured),
        flops_per_step=max(one.size.flops for one in measured),
        trials=sum(budget(sweep, arm, stage) for stage in (REFERENCE, ARMS)),
        corners=len(measured),
        seconds_per_step=seconds,
        steps_per_epoch=steps,
        peak_memory_mb=max(one.peak_memory_mb for one in measured),
        hours=runs_planned(sweep, arm) * dearest / 3600,
    )


def _unmatched(reference: str, arm: str, largest: dict[str, Rehearsed], sessions: list[Session]) -> str:
    """Say how far an arm's size is from the reference's, what control would have it, and which arms do."""
    mine, theirs = largest[arm], largest[reference]
    if mine.size.matches(theirs.size):
        return ""
    neurons = sum(session.facts.n_neurons for session in sessions)
    extra = (mine.size.parameters - theirs.size.parameters) / neurons
    control = fair_control(
        mine.config, mine.size, theirs.config, extra, lambda one: first_step(one, arm_view(sessions, one))[-1]
    )
    alike = [name for name, one in largest.items() if name != arm and one.size.matches(mine.size)]
    said = [mine.size.against(theirs.size)]
    if has_controls(mine.config, theirs.config, extra):
        said.append(f"a matched control is {control}" if control else "no registered control is matched")
    return "; ".join([*said, *([f"of this size here: {', '.join(alike)}"] if alike else [])])


def _corners(sweep: SweepConfig, arm: str) -> Iterator[TrialConfig]:
    """Configurations that reach each end of each range, the others at their first value."""
    distributions = sweep.arms[arm].distributions
    first = {path: d.corners()[0] for path, d in distributions.items()}
    points = [first, *({**first, path: c} for path, d in distributions.items() for c in d.corners()[1:])]
    for index, point in enumerate(points):
        yield sweep.trial(arm, point, key=f"plan-{arm}-{index}", phase="plan", seed=sweep.seed)


def _validation_share(config: TrialConfig, sessions: list[Session]) -> float:
    """Cost of a validation pass over that of an epoch's training."""
    train = config.train
    plan = training_plan(config, sessions)
    trained = plan.steps_per_epoch * train.batch_size * train.frames * len(sessions)
    validated = sum(int(s.lengths[s.clips(VALIDATION)].sum()) for s in sessions)
    if train.evaluation_hop is not None:
        validated *= train.frames / train.evaluation_hop  # windows in which a frame is predicted
    return validated / (BACKWARD_FACTOR * trained)


def _check_frames(config: TrialConfig, sessions: list[Session], model: PopulationModel) -> None:
    """Refuse models that leave nothing of a crop to train on, or that cannot predict what is scored later."""
    lost = model.lost_frames
    for session in sessions:
        burn_in = model.burn_in(session.name)
        if config.train.frames <= lost + burn_in:
            raise ValueError(
                f"train.frames is {config.train.frames}, but the core consumes {lost} and stages discard "
                f"{burn_in} (their memory); set it to at least {lost + burn_in + 1}, or choose a shorter memory"
            )
        for tier in (VALIDATION, DEV_TEST):
            evaluation_plan([session], tier, batch_size=1, lead=lost * config.train.frame_stride)


def untestable(sessions: list[Session]) -> str:
    """Say that dev-test has one stimulus, over which no contrast can be tested; empty where it has more.

    Verdicts cross seeds with animals, and with the held-out stimuli or blocks where all sessions are of one animal.
    """
    counts = [len(session.repeats(DEV_TEST)) for session in sessions]
    units = counts[0] if len(set(counts)) == 1 else sum(counts)
    if len({session.animal for session in sessions}) > 1 or units > 1:
        return ""
    return (
        f"no verdict can be tested: dev-test of '{sessions[0].name}' has {units} stimulus or block and at least 2 are "
        "needed, better 5 or more; lower split.block_frames of a continuous recording, or raise split.dev_test"
    )


def _metric_faults(sweep: SweepConfig, sessions: list[Session]) -> list[str]:
    """List sessions whose validation tier has no repeats, if the score that selects needs them."""
    from neuroint.metrics.scoring import needs_repeats

    metric = sweep.score.metric
    return [
        f"'{metric}' needs repeats, and no stimulus of the validation tier of '{session.name}' was shown "
        "twice; use single_trial_correlation"
        for session in sessions
        if needs_repeats(metric) and all(len(group) < 2 for group in session.repeats(VALIDATION))
    ]
