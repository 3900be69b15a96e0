"""No interaction."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads
from neuroint.registry import interactions


@interactions.register("none")
class NoInteraction(nn.Module):
    """Hand the drive on as it is: the null of every interaction."""

    couples_neurons: ClassVar[bool] = False
    reads: ClassVar[Reads] = Reads()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Return the drive."""
        return drive
