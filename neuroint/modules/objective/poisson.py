"""The Poisson loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.data.base import Batch
from neuroint.modules.alignment import PredictsRates, aligned, summed
from neuroint.registry import Positive, objectives


@objectives.register("poisson")
class Poisson(nn.Module):
    r"""Score rates by the negative log-likelihood of Poisson counts, without the term of the responses alone.

    .. math:: \sum (\hat r - y \log(\hat r + \epsilon))

    over valid responses, in nats. It needs a link whose rates are positive. Its null is the loss of a constant rate.

    Args:
        eps: keeps the logarithm finite where the rate is 0, in responses per bin.

    Raises:
        ValueError: no frame is left after the model's lost frames and burn-in.

    Source: the loss of the Sensorium baselines, Willeke et al. (2022), arXiv:2206.08666.
    """

    needs_positive_rate: ClassVar[bool] = True

    def __init__(self, *, eps: Positive = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self,
        model: PredictsRates,
        batch: Batch,
        generator: torch.Generator | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Sum the loss over valid responses, and count them; the generator is not drawn from."""
        return summed(lambda rate, y: rate - y * torch.log(rate + self.eps), *aligned(model, batch, neurons))
