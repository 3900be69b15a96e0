"""What cores, readouts and stages owe to each other; plain ``torch.nn.Module`` s that know no configuration.

A **core** turns ``Inputs`` into features ``batch time channel height width`` and has ``feature_shape`` (channel,
height, width) and ``lost_frames``: its convolutions are not padded in time, so the first ``lost_frames`` frames are
consumed.

A **readout** turns features into the drive ``batch time neurons``: ``forward(features, pupil, neurons)``, and offers
its per-neuron weights as ``embedding() -> neurons embed`` of width ``embedding_channels``.

A **stage** (normalization or interaction) turns drive into drive. A feed-forward stage has ``forward(drive, context)``
over all frames at once. A recurrent stage has ``memory_bins`` (what training discards), ``initial_state(drive_0,
context)`` and ``step(drive_t, last_rate, state, context) -> drive_t, state`` on single frames ``batch neurons``;
``last_rate`` is the model's final rate one frame before, after every later stage and the link.

Any of them may have ``penalty() -> scalar``, which training adds to the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Information = Literal["stimulus", "own_predictions", "recorded_past", "recorded_others"]
INFORMATION_ORDER: tuple[Information, ...] = ("stimulus", "own_predictions", "recorded_past", "recorded_others")


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


@dataclass(frozen=True)
class Context:
    """What stages may look at besides the drive.

    Attributes:
        embedding: the readout's weights of all neurons.
        neurons: indices of the neurons present, when training on a subset; None means all.
        observed: recorded activity, already lagged or masked by the model.
    """

    embedding: Float[Tensor, "neurons embed"] | None = None
    neurons: Int[Tensor, " chosen"] | None = None
    observed: Float[Tensor, "batch time observed"] | None = None

    def of_neurons(self, parameter: Float[Tensor, " all_neurons *rest"]) -> Float[Tensor, " neurons *rest"]:
        """Pick the rows of a per-neuron parameter that belong to the neurons present."""
        return parameter if self.neurons is None else parameter[self.neurons]


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
