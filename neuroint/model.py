"""Put a core, readouts, stages and a link together: core -> readout -> normalization -> interaction -> link.

The core is shared by all sessions; everything else is one per session. Feed-forward stages see all frames at once. From
the first recurrent stage on, one loop runs frame by frame through all later stages and the link, because a recurrent
stage reads the model's own last rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint import registry
from neuroint.data.base import Facts, Inputs, Session
from neuroint.modules.base import INFORMATION_ORDER, Context, Information, Reads

STAGES = ("normalization", "interaction")


@dataclass(frozen=True)
class ModelState:
    """What a clip's next chunk needs from the one before: the last rate, and the state of every recurrent stage."""

    last_rate: Float[Tensor, "batch neurons"]
    stages: tuple[Any, ...]


class PopulationModel(nn.Module):
    """Predict the rate of every neuron of a session from its inputs.

    Args:
        core: shared by all sessions.
        readouts: one per session.
        stages: per session, by slot (normalization, interaction).
        link: drive to rate.
    """

    def __init__(
        self,
        core: nn.Module,
        readouts: Mapping[str, nn.Module],
        stages: Mapping[str, Mapping[str, nn.Module]],
        link: nn.Module,
    ) -> None:
        super().__init__()
        self.core = core
        self.readouts = nn.ModuleDict({_key(name): readout for name, readout in readouts.items()})
        for slot in STAGES:
            setattr(self, slot, nn.ModuleDict({_key(name): stages[name][slot] for name in stages}))
        self.link = link

    @property
    def lost_frames(self) -> int:
        """Frames at the start of a clip that the core consumes and no rate is predicted for."""
        return int(self.core.lost_frames)  # pyright: ignore[reportArgumentType]

    def stages(self, session: str) -> list[nn.Module]:
        """Normalization and interaction of a session, in order."""
        return [getattr(self, slot)[_key(session)] for slot in STAGES]

    def burn_in(self, session: str) -> int:
        """Frames that training discards because the recurrent stages have not filled their memory."""
        return sum(int(s.memory_bins) for s in self.stages(session) if _is_recurrent(s))  # pyright: ignore[reportArgumentType]

    @property
    def information(self) -> Information:
        """The largest information set among the parts."""
        classes = {reads.information for reads in self._reads()}
        return next(found for found in reversed(INFORMATION_ORDER) if found in classes)

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

    def forward(
        self, inputs: Inputs, session: str, neurons: Int[Tensor, " subset"] | None = None
    ) -> Float[Tensor, "batch frames neurons"]:
        """Predict rates; they are aligned to the last frames of the inputs, ``lost_frames`` fewer."""
        return self.advance(inputs, session, None, neurons)[0]

    def drive(
        self, inputs: Inputs, session: str, neurons: Int[Tensor, " subset"] | None = None
    ) -> Float[Tensor, "batch frames neurons"]:
        """Compute each neuron's input before normalization and interaction."""
        features = self.core(inputs)
        pupil = None if inputs.pupil is None else inputs.pupil[:, -features.shape[1] :]
        return self.readouts[_key(session)](features, pupil, neurons)

    def advance(
        self, inputs: Inputs, session: str, state: ModelState | None, neurons: Int[Tensor, " subset"] | None = None
    ) -> tuple[Float[Tensor, "batch frames neurons"], ModelState | None]:
        """Predict rates of the next frames of a clip, given the state that the frames before left behind."""
        context = Context(embedding=self.readouts[_key(session)].embedding(), neurons=neurons)  # pyright: ignore[reportCallIssue]
        return self.respond(self.drive(inputs, session, neurons), session, context, state)

    def respond(
        self, drive: Float[Tensor, "batch frames neurons"], session: str, context: Context, state: ModelState | None
    ) -> tuple[Float[Tensor, "batch frames neurons"], ModelState | None]:
        """Take a drive through the stages and the link."""
        stages = self.stages(session)
        first = next((i for i, stage in enumerate(stages) if _is_recurrent(stage)), len(stages))
        for stage in stages[:first]:
            drive = stage(drive, context)
        if first == len(stages):
            return self.link(drive), None
        return self._loop(drive, stages[first:], context, state)

    def _loop(
        self, drive: Tensor, stages: list[nn.Module], context: Context, state: ModelState | None
    ) -> tuple[Tensor, ModelState]:
        state = state or _first_state(drive, stages, context)
        last_rate, states, rates = state.last_rate, list(state.stages), []
        for t in range(drive.shape[1]):
            drive_t = drive[:, t]
            for i, stage in enumerate(stages):
                if _is_recurrent(stage):
                    drive_t, states[i] = stage.step(drive_t, last_rate, states[i], context)  # pyright: ignore[reportCallIssue]
                else:
                    drive_t = stage(drive_t.unsqueeze(1), context).squeeze(1)
            last_rate = self.link(drive_t)
            rates.append(last_rate)
        return torch.stack(rates, dim=1), ModelState(last_rate, tuple(states))

    def _reads(self) -> list[Reads]:
        return [cast(Reads, part.reads) for part in self._parts()]

    def _parts(self) -> list[nn.Module]:
        groups = [self.readouts, *(getattr(self, slot) for slot in STAGES)]
        return [self.core, *(part for group in groups for part in group.values())]


def predict_in_chunks(
    model: PopulationModel, inputs: Inputs, session: str, frames: int | None
) -> Float[Tensor, "batch frames neurons"]:
    """Predict a long clip in chunks of ``frames`` predicted frames; the same numbers as in one piece."""
    lost, total = model.lost_frames, inputs.n_frames
    if frames is None or total - lost <= frames:
        return model(inputs, session)
    rates, state = [], None
    for start in range(lost, total, frames):
        chunk = inputs.map(lambda x, start=start: x[:, start - lost : start + frames])
        rate, state = model.advance(chunk, session, state)
        rates.append(rate)
    return torch.cat(rates, dim=1)


def build_model(specs: Mapping[str, Any], sessions: Mapping[str, Facts]) -> PopulationModel:
    """Build core, readouts, stages and link from specs and the facts of every session.

    Raises:
        ValueError: sessions differ in what a shared core reads, or an option is wrong.
        MissingFactError: a component needs something that a session does not have.
    """
    shared = _shared_facts(sessions)
    core = registry.cores[specs["core"].name].build(specs["core"].options, shared)
    link = registry.links[specs["link"].name].build(specs["link"].options, {})
    readouts, stages = {}, {}
    for name, facts in sessions.items():
        given = facts.as_dict() | {"feature_shape": core.feature_shape, "mean_drive": _mean_drive(link, facts)}
        readout = registry.readouts[specs["readout"].name].build(specs["readout"].options, given)
        given["embedding_channels"] = readout.embedding_channels
        readouts[name] = readout
        stages[name] = {
            slot: registries[specs[slot].name].build(specs[slot].options, given)
            for slot, registries in (("normalization", registry.normalizations), ("interaction", registry.interactions))
        }
    return PopulationModel(core, readouts, stages, link)


def facts_of(sessions: list[Session]) -> dict[str, Facts]:
    """Facts by session name."""
    return {session.name: session.facts for session in sessions}


def _shared_facts(sessions: Mapping[str, Facts]) -> dict[str, object]:
    """Facts of the inputs that one core reads for all sessions."""
    shared: dict[str, object] = {}
    for key in ("stimulus_shape", "behavior_channels", "pupil_channels", "observed_channels", "bin_s"):
        values = {name: getattr(facts, key) for name, facts in sessions.items()}
        if len(set(values.values())) > 1:
            raise ValueError(f"sessions share a core but differ in {key}: {values}; select sessions with data.sessions")
        shared[key] = next(iter(values.values()))
    return shared


def _mean_drive(link: nn.Module, facts: Facts) -> Float[np.ndarray, " neurons"]:
    mean = torch.as_tensor(facts.mean_responses, dtype=torch.float32)
    return link.inverse(mean).numpy()  # pyright: ignore[reportCallIssue]


def _first_state(drive: Tensor, stages: list[nn.Module], context: Context) -> ModelState:
    silence = torch.zeros_like(drive[:, 0])
    states = tuple(
        s.initial_state(drive[:, 0], context) if _is_recurrent(s) else None  # pyright: ignore[reportCallIssue]
        for s in stages
    )
    return ModelState(silence, states)


def _is_recurrent(stage: nn.Module) -> bool:
    return hasattr(stage, "step")


def _key(session: str) -> str:
    """Module names may hold no dot and be no attribute of a module (a recording called ``train``); none are equal."""
    spelled = session.replace("%", "%25").replace(".", "%2E")
    return f"%{spelled}" if hasattr(nn.ModuleDict(), spelled) else spelled
