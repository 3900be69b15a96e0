"""What cores, readouts and stages owe to each other; plain ``torch.nn.Module`` s that know no configuration.

A **core** turns ``Inputs`` into features ``batch time channel height width`` and has ``feature_shape`` (channel,
height, width) and ``lost_frames``: its convolutions are not padded in time, so the first ``lost_frames`` frames are
consumed. A core that remembers offers ``scan(inputs, state) -> features, state`` beside ``forward``, with None as the
state before a clip. One that looks back to the beginning of the clip, or ahead, and hands no state on says
``whole_clips = True``: it is never given a clip in chunks. If it looks around in what it is given rather than counting
from the clip's beginning (attention, centered filters), so that windows as long as its training crops may be averaged,
it adds ``takes_windows = True``.

A **readout** turns features into the drive ``batch time neurons``: ``forward(features, pupil, neurons)``, and offers
its per-neuron weights as ``embedding() -> neurons embed`` of width ``embedding_channels``. One without
parameters, for cores whose features are the neurons themselves, says ``hands_on = True``.

A **stage** (normalization or interaction) turns drive into drive, in one of three ways:

- *feed-forward*: ``forward(drive, context)`` over all frames at once.
- *filtering*, when it remembers past drives: ``initial_state(drive_0, context)`` and ``scan(drive, state, context) ->
  drive, state`` over a stretch of frames at once.
- *recurrent*, when it reads the model's own last prediction: ``initial_state(drive_0, context)`` and ``step(drive_t,
  last_rate, state, context) -> drive_t, state`` on single frames ``batch neurons``; ``last_rate`` is the model's final
  rate one frame before, after every later stage and the link, and zeros before the first frame. A stage whose ``fed``
  is ``recorded`` is given the lagged recorded activity of the same neurons in its place.

A stage that remembers, or that reads a stretch of recorded activity, says by ``memory_bins`` how many bins back it
looks or how long it takes to forget its initial state: training discards as many. State goes in and comes out, so that
a clip in chunks equals the clip in one.

A normalization that says ``on_features = True`` stands inside the core instead: it is built once for all sessions from
the core's ``feature_shape``, and turns features into features by ``forward(features)`` or, when it remembers, by
``initial_state(features_0)`` and ``scan(features, state)``.

What a stage computes from its parameters and the context alone, and what is the same for all frames (maps, kernels,
factors), it may offer as ``prepare(context) -> Any``; the model calls it once per call and hands the result on as
``context.prepared``. A stage reads it by ``prepared(self, context)``, which also works without a model.

An interaction that relates no neuron to another says ``couples_neurons = False``: cautions against conclusions on
coupling do not concern it.

A core that holds parameters its output does not depend on (as published, or biases that cancel) names them in
``dead_parameters``; their gradients are zero, not absent.

Any of them may have ``penalty() -> scalar``, which training adds to the loss, ``activity_penalty() -> scalar`` of its
last pass in training, which is added before the backward pass of each session, and ``off()``, which sets the strength
of what it adds (pool, coupling, history) to zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Information = Literal["stimulus", "own_predictions", "recorded_past", "recorded_others"]
INFORMATION_ORDER: tuple[Information, ...] = ("stimulus", "own_predictions", "recorded_past", "recorded_others")
RECORDED: tuple[Information, ...] = ("recorded_past", "recorded_others")
Fed = Literal["predictions", "recorded"]


@dataclass(frozen=True)
class Reads:
    """What a component reads when it predicts neuron i at time t, and what it needs around it.

    Attributes:
        information: the information set of the design.
        causal: reads nothing after t.
        population: mixes neurons, so that a subset of them cannot be trained alone.
    """

    information: Information = "stimulus"
    causal: bool = True
    population: bool = False


def coupled_reads(fed: Fed) -> Reads:
    """What a stage reads that couples every neuron to the last activity, predicted or recorded, of the others."""
    return Reads(information="recorded_past" if fed == "recorded" else "own_predictions", population=True)


@dataclass(frozen=True)
class Context:
    """What stages may look at besides the drive.

    Attributes:
        embedding: the readout's weights of all neurons.
        neurons: indices of the neurons present, when training on a subset; None means all.
        observed: recorded activity, lagged by the model: at bin t stands what was recorded at t - lag. It ends where
            the drive ends and may begin before it; before its first bin nothing is known, and it counts as 0.
        prepared: what the stage's own ``prepare`` returned.
    """

    embedding: Float[Tensor, "neurons embed"] | None = None
    neurons: Int[Tensor, " chosen"] | None = None
    observed: Float[Tensor, "batch history observed"] | None = None
    prepared: Any = None

    def of_neurons(self, parameter: Float[Tensor, " all_neurons *rest"]) -> Float[Tensor, " neurons *rest"]:
        """Pick the rows of a per-neuron parameter that belong to the neurons present."""
        return parameter if self.neurons is None else parameter[self.neurons]

    def until(self, frame: int, frames: int, memory: int) -> Context:
        """Cut recorded activity to what a stage needs at one of ``frames`` frames: it and ``memory`` bins before."""
        if self.observed is None:
            return self
        end = self.observed.shape[1] - frames + frame + 1
        return replace(self, observed=self.observed[:, max(0, end - memory - 1) : end])


def prepared(stage: Any, context: Context) -> Any:
    """Hand on what the model prepared for a stage, or prepare it now."""
    return stage.prepare(context) if context.prepared is None else context.prepared


@runtime_checkable
class FilteringStage(Protocol):
    """A stage that remembers past drives."""

    memory_bins: int

    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> Any:
        """State before the first frame."""
        ...

    def scan(
        self, drive: Float[Tensor, "batch time neurons"], state: Any, context: Context
    ) -> tuple[Float[Tensor, "batch time neurons"], Any]:
        """Advance over a stretch of frames."""
        ...


@runtime_checkable
class RecurrentStage(Protocol):
    """A stage that reads the model's own last prediction."""

    memory_bins: int

    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> Any:
        """State before the first frame."""
        ...

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: Any,
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], Any]:
        """Advance one frame."""
        ...
