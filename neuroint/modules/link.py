"""Links turn drive into rate, and back: the inverse starts every bias at its neuron's mean response."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.registry import Positive, links

MIN_RATE = 1e-4  # responses per bin: below it a neuron counts as silent, and its inverse stays finite
MAX_EXPONENT = 12.0  # e^12 is far above any recorded response per bin; a larger drive would overflow in float32


@links.register("elu1")
class Elu1(nn.Module):
    r"""Turn drive into rate by ELU + 1: linear above 0, exponential below.

    .. math:: r = d + 1 \;(d > 0), \quad r = e^d \;(d \le 0)

    The rate is positive and in the units of the responses; the slope is at most 1. Null: ``identity``.

    Source: Clevert et al. (2016), ICLR; the link of the Sensorium 2023 baselines.
    """

    positive: ClassVar[bool] = True

    def forward(self, drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn drive into rate."""
        return functional.elu(drive) + 1

    def inverse(self, rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn rate into drive; rates below 1e-4 count as 1e-4."""
        rate = rate.clamp(min=MIN_RATE)
        return torch.where(rate > 1, rate - 1, rate.log())


@links.register("softplus")
class Softplus(nn.Module):
    r"""Turn drive into rate by a softplus of adjustable sharpness.

    .. math:: r = \log(1 + e^{\beta d}) / \beta

    The rate is positive and in the units of the responses; the slope is at most 1. A small beta bends over a wide
    range of drives. Null: ``identity``, which large beta approaches for positive drives.

    Args:
        beta: sharpness, one over the units of drive.

    Source: Dugas et al. (2001), NeurIPS 13; DwiseNeuro won Sensorium 2023 with beta .07.
    """

    positive: ClassVar[bool] = True

    def __init__(self, *, beta: Positive = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn drive into rate."""
        return functional.softplus(drive, beta=self.beta)

    def inverse(self, rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn rate into drive; rates below 1e-4 count as 1e-4."""
        rate = rate.clamp(min=MIN_RATE)
        return rate + torch.log(-torch.expm1(-self.beta * rate)) / self.beta


@links.register("exp")
class Exp(nn.Module):
    r"""Turn drive into rate by the exponential, cut at a drive of 12.

    .. math:: r = e^{\min(d, 12)}

    The rate is positive and in the units of the responses. The slope is unbounded, so recurrent stages that are stable
    for links of slope 1 are not certified behind this one. Null: ``identity``.

    Source: the canonical link of Poisson regression, McCullagh & Nelder (1989).
    """

    positive: ClassVar[bool] = True

    def forward(self, drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn drive into rate."""
        return drive.clamp(max=MAX_EXPONENT).exp()

    def inverse(self, rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn rate into drive; rates below 1e-4 count as 1e-4."""
        return rate.clamp(min=MIN_RATE).log().clamp(max=MAX_EXPONENT)


@links.register("identity")
class Identity(nn.Module):
    """Hand the drive on as the rate, which may then be negative: for squared error, not for a Poisson loss."""

    positive: ClassVar[bool] = False

    def forward(self, drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn drive into rate."""
        return drive

    def inverse(self, rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn rate into drive."""
        return rate
