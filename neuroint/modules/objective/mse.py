"""The squared error."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.data.base import Batch
from neuroint.modules.alignment import PredictsRates, aligned, summed
from neuroint.registry import objectives


@objectives.register("mse")
class MeanSquaredError(nn.Module):
    r"""Score rates by their squared distance from the responses.

    .. math:: \sum (\hat r - y)^2

    over valid responses, in squared responses per bin. Its null is the variance of the responses.

    Raises:
        ValueError: no frame is left after the model's lost frames and burn-in.
    """

    needs_positive_rate: ClassVar[bool] = False

    def forward(
        self,
        model: PredictsRates,
        batch: Batch,
        generator: torch.Generator | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Sum the loss over valid responses, and count them; the generator is not drawn from."""
        return summed(lambda rate, y: (rate - y) ** 2, *aligned(model, batch, neurons))
