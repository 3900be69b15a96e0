"""Put a core, readouts, stages and a link together: core -> readout -> normalization -> interaction -> link.

The core is shared by all sessions, and so is a normalization inside it; everything else is one per session, but for
what readouts of several sessions may hold in common (``share``).
Feed-forward and filtering stages see all frames at once. From the first recurrent stage on, one loop runs frame by
frame through all later stages and the link, because a recurrent stage reads the model's own last rate. Recorded
activity is lagged here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint import registry
from neuroint.data.base import Facts, Inputs, Recorded, Session
from neuroint.modules.base import INFORMATION_ORDER, RECORDED, Context, Information, Reads

Staged = tuple[nn.Module, Context]

STAGES = ("normalization", "interaction")
SHARED_FACTS = ("stimulus_shape", "behavior_channels", "pupil_channels", "bin_s")
FACTS_IF_SHARED = ("observed_channels", "n_neurons", "shortest_clip")  # of cores that read records, clip by clip
FEATURES = "features"  # the key of a normalization that stands inside the core, one for all sessions


@dataclass(frozen=True)
class ModelState:
    """What a clip's next chunk needs from the one before: the last rate, and the state of stages that remember."""

    last_rate: Float[Tensor, "batch neurons"] | None
    stages: tuple[Any, ...]
    features: Any = None


class PopulationModel(nn.Module):
    """Predict the rate of every neuron of a session from its inputs.

    Args:
        core: shared by all sessions.
        readouts: one per session.
        stages: per session, by slot (normalization, interaction).
        link: drive to rate.
        feature_stage: a normalization inside the core, shared by all sessions.
        recorded: the recorded activity that sessions offer, and the lag at which it is read; None where there is none.
    """

    def __init__(
        self,
        core: nn.Module,
        readouts: Mapping[str, nn.Module],
        stages: Mapping[str, Mapping[str, nn.Module]],
        link: nn.Module,
        feature_stage: nn.Module | None = None,
        recorded: Recorded | None = None,
    ) -> None:
        super().__init__()
        self.core = core
        self.readouts = nn.ModuleDict({_key(name): readout for name, readout in readouts.items()})
        for slot in STAGES:
            held = {_key(name): found[slot] for name, found in stages.items() if slot in found}
            setattr(self, slot, nn.ModuleDict(held))
        if feature_stage is not None:
            self.normalization = nn.ModuleDict({FEATURES: feature_stage})
        self.feature_stage_kept = feature_stage is not None
        self.link = link
        self.recorded = recorded

    @property
    def lost_frames(self) -> int:
        """Frames at the start of a clip that the core consumes and no rate is predicted for."""
        return int(self.core.lost_frames)  # pyright: ignore[reportArgumentType]

    @property
    def feature_stage(self) -> nn.Module | None:
        """The normalization inside the core, if there is one."""
        return self.normalization[FEATURES] if self.feature_stage_kept else None

    def stages(self, session: str) -> list[nn.Module]:
        """Normalization and interaction of a session, in order."""
        held = [getattr(self, slot) for slot in STAGES]
        return [stages[_key(session)] for stages in held if _key(session) in stages]

    def burn_in(self, session: str) -> int:
        """Frames that training discards: stages have not filled their memory, or nothing recorded is known yet."""
        stages = [*self.stages(session), *([self.feature_stage] if self.feature_stage else [])]
        lag = self.recorded.lag_bins if self.recorded and self.reads_recorded else 0
        return lag + sum(int(getattr(stage, "memory_bins", 0)) for stage in stages)

    @property
    def information(self) -> Information:
        """The largest information set among the parts; where records are read, what the data offers decides."""
        if self.reads_recorded and self.recorded:
            return self.recorded.information
        classes = {reads.information for reads in self._reads()}
        return next(found for found in reversed(INFORMATION_ORDER) if found in classes)

    @property
    def reads_recorded(self) -> bool:
        """Whether a part reads recorded activity."""
        return any(reads.information in RECORDED for reads in self._reads())

    @property
    def causal(self) -> bool:
        """Whether no part reads the future."""
        return all(reads.causal for reads in self._reads())

    @property
    def needs_population(self) -> bool:
        """Whether a part mixes neurons, so that a subset cannot be trained alone."""
        return any(reads.population for reads in self._reads())

    def penalty(self) -> Float[Tensor, ""]:
        """Sum of the parts' regularizers."""
        terms = [part.penalty() for part in self._parts() if hasattr(part, "penalty")]  # pyright: ignore[reportCallIssue]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def activity_penalty(self) -> Float[Tensor, ""]:
        """Sum of the parts' regularizers of activity, of their last pass in training."""
        terms = [part.activity_penalty() for part in self._parts() if hasattr(part, "activity_penalty")]  # pyright: ignore[reportCallIssue]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def forward(
        self, inputs: Inputs, session: str, neurons: Int[Tensor, " subset"] | None = None
    ) -> Float[Tensor, "batch frames neurons"]:
        """Predict rates; they are aligned to the last frames of the inputs, ``lost_frames`` fewer."""
        return self.advance(self.lagged(inputs), session, None, neurons)[0]

    def lagged(self, inputs: Inputs) -> Inputs:
        """Shift recorded activity so that bin t holds what was recorded at t - lag; the first bins become 0."""
        if inputs.observed is None or self.recorded is None:
            return replace(inputs, observed=None)
        lag, frames = self.recorded.lag_bins, inputs.n_frames
        return replace(inputs, observed=functional.pad(inputs.observed, (0, 0, lag, 0))[:, :frames])

    def drive(
        self, inputs: Inputs, session: str, neurons: Int[Tensor, " subset"] | None = None, state: Any = None
    ) -> tuple[Float[Tensor, "batch frames neurons"], Any]:
        """Compute each neuron's input before the stages on drives, and the state of core and of a stage inside it."""
        core, stage = (None, None) if state is None else state
        features, core = _features(self.core, inputs, core)
        features, stage = _normalized(self.feature_stage, features, stage)
        pupil = None if inputs.pupil is None else inputs.pupil[:, -features.shape[1] :]
        return self.readouts[_key(session)](features, pupil, neurons), (core, stage)

    def context(self, session: str, neurons: Int[Tensor, " subset"] | None, observed: Tensor | None) -> Context:
        """Collect what stages may look at besides the drive."""
        return Context(self.readouts[_key(session)].embedding(), neurons, observed)  # pyright: ignore[reportCallIssue]

    def advance(
        self,
        inputs: Inputs,
        session: str,
        state: ModelState | None,
        neurons: Int[Tensor, " subset"] | None = None,
        observed: Float[Tensor, "batch history observed"] | None = None,
    ) -> tuple[Float[Tensor, "batch frames neurons"], ModelState]:
        """Predict rates of the next frames of a clip, given the state that the frames before left behind.

        ``inputs`` are lagged already (:meth:`lagged`); ``observed`` is the recorded activity up to the last of their
        frames, from as early as it is known, in place of theirs.
        """
        context = self.context(session, neurons, inputs.observed if observed is None else observed)
        drive, features = self.drive(inputs, session, neurons, state and state.features)
        rates, found = self.respond(drive, session, context, state)
        return rates, replace(found, features=features)

    def respond(
        self, drive: Float[Tensor, "batch frames neurons"], session: str, context: Context, state: ModelState | None
    ) -> tuple[Float[Tensor, "batch frames neurons"], ModelState]:
        """Take a drive through the stages and the link."""
        stages = [(stage, _prepared(stage, context)) for stage in self.stages(session)]
        states = list(state.stages) if state else [_initial(*stage, drive[:, 0]) for stage in stages]
        first = next((i for i, (stage, _) in enumerate(stages) if hasattr(stage, "step")), len(stages))
        for i, stage in enumerate(stages[:first]):
            drive, states[i] = _over(*stage, drive, states[i])
        if first == len(stages):
            return self.link(drive), ModelState(None, tuple(states))
        last_rate = state.last_rate if state else None
        return self._loop(drive, stages, first, states, last_rate)

    def _loop(
        self, drive: Tensor, stages: list[Staged], first: int, states: list[Any], last_rate: Tensor | None
    ) -> tuple[Tensor, ModelState]:
        rate, rates = torch.zeros_like(drive[:, 0]) if last_rate is None else last_rate, []
        for t, drive_t in enumerate(drive.unbind(1)):  # the gradient of drive[:, t] would be as large as the drive
            for i, (stage, context) in enumerate(stages[first:], first):
                around = context.until(t, drive.shape[1], getattr(stage, "memory_bins", 0))
                drive_t, states[i] = _at(stage, around, drive_t, rate, states[i])
            rate = self.link(drive_t)
            rates.append(rate)
        return torch.stack(rates, dim=1), ModelState(rate, tuple(states))

    def _reads(self) -> list[Reads]:
        return [cast(Reads, part.reads) for part in self._parts()]

    def _parts(self) -> list[nn.Module]:
        groups = [self.readouts, *(getattr(self, slot) for slot in STAGES)]
        return [self.core, *(part for group in groups for part in group.values())]


def _prepared(stage: Any, context: Context) -> Context:
    return replace(context, prepared=stage.prepare(context)) if hasattr(stage, "prepare") else context


def _initial(stage: Any, context: Context, drive_0: Tensor) -> Any:
    return stage.initial_state(drive_0, context) if hasattr(stage, "initial_state") else None


def _over(stage: Any, context: Context, drive: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Run a stage that does not need the last rate over all frames."""
    return stage.scan(drive, state, context) if hasattr(stage, "scan") else (stage(drive, context), None)


def _at(stage: Any, context: Context, drive_t: Tensor, last_rate: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Run a stage of any kind at one frame."""
    if not hasattr(stage, "step"):
        drive, state = _over(stage, context, drive_t.unsqueeze(1), state)
        return drive.squeeze(1), state
    if getattr(stage, "fed", "predictions") == "recorded" and context.observed is not None:
        newest = context.observed[:, -1]
        last_rate = newest if context.neurons is None else newest[:, context.neurons]
    return stage.step(drive_t, last_rate, state, context)


def _features(core: Any, inputs: Inputs, state: Any) -> tuple[Tensor, Any]:
    """Run a core, from where it stopped when it remembers."""
    return core.scan(inputs, state) if hasattr(core, "scan") else (core(inputs), None)


def _normalized(stage: Any, features: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Run the normalization inside the core, where there is one."""
    if stage is None:
        return features, None
    if not hasattr(stage, "scan"):
        return stage(features), None
    return stage.scan(features, stage.initial_state(features[:, 0]) if state is None else state)


def predict_in_chunks(
    model: PopulationModel, inputs: Inputs, session: str, frames: int | None
) -> Float[Tensor, "batch frames neurons"]:
    """Predict a long clip in chunks of ``frames`` predicted frames; the same numbers as in one piece."""
    lost, total = model.lost_frames, inputs.n_frames
    if frames is None or total - lost <= frames:
        return model(inputs, session)
    inputs, rates, state = model.lagged(inputs), [], None
    for start in range(lost, total, frames):
        chunk = inputs.map(lambda x, start=start: x[:, start - lost : start + frames])
        known = None if inputs.observed is None else inputs.observed[:, : start + frames]
        rate, state = model.advance(chunk, session, state, observed=known)
        rates.append(rate)
    return torch.cat(rates, dim=1)


def build_model(
    specs: Mapping[str, Any], sessions: Mapping[str, Facts], lag_bins: int | None = None
) -> PopulationModel:
    """Build core, readouts, stages and link from specs and the facts of every session.

    Args:
        specs: a name and options for every slot.
        sessions: facts by session name.
        lag_bins: how far back recorded activity is read; None takes what the data advises.

    Raises:
        ValueError: sessions differ in what a shared core reads, an option is wrong, or the lag is too short.
        MissingFactError: a component needs something that a session does not have.
    """
    recorded = _recorded(sessions, lag_bins)
    shared = _shared_facts(sessions) | {"observed_lag_bins": recorded.lag_bins if recorded else None}
    core = registry.cores[specs["core"].name].build(specs["core"].options, shared)
    link = registry.links[specs["link"].name].build(specs["link"].options, {})
    inside = _feature_stage(specs["normalization"], core, shared)
    slots = {"normalization": registry.normalizations, "interaction": registry.interactions}
    if inside is not None:
        del slots["normalization"]
    readouts, stages = {}, {}
    for name, facts in sessions.items():
        given = facts.as_dict() | {"feature_shape": core.feature_shape, "mean_drive": _mean_drive(link, facts)}
        readout = registry.readouts[specs["readout"].name].build(specs["readout"].options, given)
        given["embedding_channels"] = readout.embedding_channels
        given["observed_lag_bins"] = shared["observed_lag_bins"]
        readouts[name] = readout
        stages[name] = {slot: kind[specs[slot].name].build(specs[slot].options, given) for slot, kind in slots.items()}
    _share_between(list(readouts.values()))
    model = PopulationModel(core, readouts, stages, link, inside, recorded)
    _check_recorded(model, sessions)
    return model


def _share_between(readouts: list[Any]) -> None:
    """Let readouts of several sessions hold in common what is the same for matched neurons."""
    if readouts and hasattr(readouts[0], "share"):
        readouts[0].share(readouts)


def _feature_stage(spec: Any, core: nn.Module, shared: Mapping[str, object]) -> nn.Module | None:
    """Build a normalization that stands inside the core."""
    component = registry.normalizations[spec.name]
    if not getattr(component.factory, "on_features", False):
        return None
    return component.build(spec.options, {**shared, "feature_shape": core.feature_shape})


def _recorded(sessions: Mapping[str, Facts], lag_bins: int | None) -> Recorded | None:
    """Agree on what recorded activity the sessions offer, and check the lag.

    Raises:
        ValueError: sessions offer different kinds, or the lag would let a neuron read its own present.
    """
    offers = {facts.recorded for facts in sessions.values()}
    if len(offers) > 1:
        raise ValueError(f"sessions offer different recorded activity: {offers}; set data.observed for all of them")
    (offer,) = offers
    if offer is None or lag_bins is None:
        return offer
    if lag_bins < offer.shortest_lag:
        raise ValueError(
            f"observed.lag_bins is {lag_bins}, but a model that reads {offer.information} may look back no less than "
            f"{offer.shortest_lag} bin(s): it would read what it predicts; raise the lag"
        )
    return replace(offer, lag_bins=lag_bins)


def _check_recorded(model: PopulationModel, sessions: Mapping[str, Facts]) -> None:
    """Refuse a model that reads records the data does not offer, or whose neurons are not those that were recorded."""
    if model.reads_recorded and model.recorded is None:
        raise registry.MissingFactError(
            "a part of this model reads recorded activity, which the data does not offer; set "
            "data.observed: {read: past} or {read: others}, or choose a design that reads its own predictions"
        )
    for name, facts in sessions.items():
        fed = any(getattr(stage, "fed", "predictions") == "recorded" for stage in model.stages(name))
        own = facts.observed_neurons
        if fed and (own is None or not np.array_equal(own, np.arange(facts.n_neurons))):
            raise ValueError(
                f"session '{name}': a stage fed with recorded activity needs that of the very neurons it predicts; set "
                "data.observed: {read: past}"
            )


def facts_of(sessions: list[Session], stride: int = 1) -> dict[str, Facts]:
    """Facts by session name, as they are for a model that reads every ``stride``-th frame."""
    return {session.name: session.facts.strided(stride) for session in sessions}


def _shared_facts(sessions: Mapping[str, Facts]) -> dict[str, object]:
    """Facts of the inputs that one core reads for all sessions; some are left out where sessions differ in them."""
    shared: dict[str, object] = {}
    for key in (*SHARED_FACTS, *FACTS_IF_SHARED):
        values = {name: getattr(facts, key) for name, facts in sessions.items()}
        if len(set(values.values())) == 1:
            shared[key] = next(iter(values.values()))
        elif key in SHARED_FACTS:
            raise ValueError(f"sessions share a core but differ in {key}: {values}; select sessions with data.sessions")
    return shared


def _mean_drive(link: nn.Module, facts: Facts) -> Float[np.ndarray, " neurons"]:
    mean = torch.as_tensor(facts.mean_responses, dtype=torch.float32)
    return link.inverse(mean).numpy()  # pyright: ignore[reportCallIssue]


def _key(session: str) -> str:
    """Module names may hold no dot and be no attribute of a module (a recording called ``train``); none are equal."""
    spelled = session.replace("%", "%25").replace(".", "%2E")
    return f"%{spelled}" if hasattr(nn.ModuleDict(), spelled) else spelled
