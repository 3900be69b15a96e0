"""The readout of cores whose features are the neurons themselves."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.base import Reads
from neuroint.registry import Fact, readouts


@readouts.register("observed_units")
class ObservedUnits(nn.Module):
    r"""Hand feature channel n on as the drive of neuron n, unchanged.

    .. math:: d_n(t) = F_n(t)

    For cores that have one unit per recorded neuron, such as ``input_separated_rnn``. It has no parameters, so the link
    must be one that the units' range suits: ``identity`` for rates. Its embedding tells neurons apart and nothing else
    (rows of the identity). Its null is ``linear`` behind the same core.

    Raises:
        ValueError: features are not one number per neuron.
    """

    reads: ClassVar[Reads] = Reads()
    hands_on: ClassVar[bool] = True

    def __init__(self, *, feature_shape: Fact[tuple[int, int, int]], n_neurons: Fact[int]) -> None:
        super().__init__()
        if tuple(feature_shape) != (n_neurons, 1, 1):
            raise ValueError(
                f"readout 'observed_units': features of shape {tuple(feature_shape)} for {n_neurons} neurons, expected "
                f"({n_neurons}, 1, 1); choose a core with one unit per neuron (and data.observed: past), or another "
                "readout"
            )
        self.embedding_channels = n_neurons
        self.register_buffer("identity", torch.eye(n_neurons), persistent=False)

    def forward(
        self,
        features: Float[Tensor, "batch time channel 1 1"],
        pupil: Float[Tensor, "batch pupil_time pupil"] | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "batch time chosen"]:
        """Hand all channels on, or those of the chosen neurons; the pupil is not looked at."""
        rates = features.flatten(2)
        return rates if neurons is None else rates[..., neurons]

    def embedding(self) -> Float[Tensor, "neurons embed"]:
        """Rows of the identity."""
        return self.get_buffer("identity")
