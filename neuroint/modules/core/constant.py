"""The core that sees nothing."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.registry import cores


@cores.register("constant")
class Constant(nn.Module):
    """Give every frame the feature 1, so that the readout predicts one constant rate per neuron.

    It is the null of every other core: a model that does not beat it has not used its inputs.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = (1, 1, 1)
        self.lost_frames = 0

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time 1 1 1"]:
        """Return ones for as many frames as the inputs have."""
        shape = (inputs.n_batch, inputs.n_frames, 1, 1, 1)
        given = (inputs.stimulus, inputs.behavior, inputs.pupil, inputs.observed)
        return next(x for x in given if x is not None).new_ones(shape)
