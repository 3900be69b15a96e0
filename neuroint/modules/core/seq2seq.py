"""The recurrent way from one population to another, through a few latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.causal_filters import require_channels
from neuroint.modules.observed import observed_of
from neuroint.registry import Count, Fact, cores

CELLS: Mapping[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}
Cell = Literal["lstm", "gru", "tanh"]
Directions = Literal[1, 2]


@cores.register("seq2seq")
class Seq2Seq(nn.Module):
    r"""Turn recorded activity into the states of a small recurrent network, run over the clip once or both ways.

    .. math::
        h^{\rightarrow}_t = \mathrm{cell}(y_t, h^{\rightarrow}_{t-1}), \quad
        h^{\leftarrow}_t = \mathrm{cell}'(y_t, h^{\leftarrow}_{t+1}), \quad
        z_t = h^{\rightarrow}_t \;\text{ or }\; (h^{\rightarrow}_t + h^{\leftarrow}_t) / 2

    y is recorded activity as the model hands it on, in responses per bin; every clip begins, and for the way back ends,
    at h = 0. Features are ``batch time latents 1 1``, without unit, within -1 and 1. Readout ``linear`` starts at the
    inverse link of the predicted neurons' own mean, so the model starts at their constant rate.

    It reads what the data offers: ``recorded_others`` (from one population to another), or with one direction
    ``recorded_past`` (forecasting; the way back would read what is predicted, and the leak certificate refuses it).
    Causal with one direction only. With 453 channels, 15 latents and 69 predicted neurons an LSTM and its readout have
    29,304 parameters, 57,504 in both directions. Nulls: ``constant``, ``time_course``, ``reduced_rank``, and the core
    itself with ``observed.shuffled``. Clips are not cut for evaluation. Cost is (channels + latents) x latents x gates
    per frame and direction, one frame after the other.

    Args:
        latents: units of the recurrent network, per direction.
        cell: ``lstm`` (four gates), ``gru`` (three) or ``tanh`` (none).
        directions: 1, forward in time, or 2, both ways, averaged.

    Raises:
        MissingFactError: the data offers no recorded activity.
        ValueError: the inputs hold none.

    Source: Hochreiter & Schmidhuber (1997), Neural Comput. 9, 1735-1780; Schuster & Paliwal (1997), IEEE Trans. Signal
    Process. 45, 2673-2681 (both directions); the Neuromatch Academy's projects on Steinmetz et al. (2019), Nature 576,
    266-273, for the task.
    """

    whole_clips: ClassVar[bool] = True

    def __init__(
        self, *, observed_channels: Fact[int] = 0, latents: Count = 15, cell: Cell = "lstm", directions: Directions = 1
    ) -> None:
        super().__init__()
        require_channels("seq2seq", observed_channels)
        self.reads = Reads(information="recorded_others", causal=directions == 1)
        self.recurrent = CELLS[cell](observed_channels, latents, batch_first=True, bidirectional=directions == 2)
        self.directions = directions
        self.feature_shape = (latents, 1, 1)
        self.lost_frames = 0

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time latents 1 1"]:
        """Run over the clip and average the directions."""
        self.recurrent.train()  # cuDNN goes back through it in this mode only; without dropout it is the other one, too
        states, _ = self.recurrent(observed_of("seq2seq", inputs))
        return states.unflatten(-1, (self.directions, -1)).mean(-2)[..., None, None]
