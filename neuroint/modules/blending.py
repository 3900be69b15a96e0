"""Blend drives with their normalized selves, from hardly to wholly."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context

START = 0.05  # share of the normalized drive at the start: near the drive, with a gradient
LEAST_SPREAD = 0.05  # of drives; below it a population says nothing of its scale


class Blend(nn.Module):
    r"""Go from the drive towards what a normalization makes of it.

    .. math:: d'_i = d_i + m\,(\gamma_i \hat d_i + b_i - d_i), \quad 0 < m < 1

    with d-hat normalized; m starts at .05, and strength zero is m = 0: the drive to the last bit.

    Args:
        scale: gamma at the start, for all neurons.
        offset: b at the start.
    """

    strength: Tensor

    def __init__(self, scale: float, offset: Float[np.ndarray, " neurons"]) -> None:
        super().__init__()
        self.raw_share = nn.Parameter(torch.tensor(math.log(START / (1 - START))))
        self.offset = nn.Parameter(torch.tensor(offset, dtype=torch.float32))
        self.scale = nn.Parameter(torch.full_like(self.offset, scale))
        self.register_buffer("strength", torch.ones(()))

    @property
    def share(self) -> Float[Tensor, ""]:
        """Share m of the normalized drive."""
        return self.strength * torch.sigmoid(self.raw_share)

    def off(self) -> None:
        """Leave the drive as it is."""
        self.strength.zero_()

    def forward(
        self,
        drive: Float[Tensor, "batch time neurons"],
        normalized: Float[Tensor, "batch time neurons"],
        context: Context,
    ) -> Float[Tensor, "batch time neurons"]:
        """Blend the two."""
        goal = context.of_neurons(self.scale) * normalized + context.of_neurons(self.offset)
        return drive + self.share * (goal - drive)


def spread(values: Float[np.ndarray, " neurons"]) -> float:
    """Root mean square of values over neurons, and no less than .05: where a semi-saturation starts."""
    return max(float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))), LEAST_SPREAD)


def divided_by_size(
    values: Float[Tensor, "batch time neurons"],
    mean_square: Float[Tensor, "batch time sizes"],
    log_sigma: Float[Tensor, ""],
) -> Float[Tensor, "batch time neurons"]:
    """Divide by the root of sigma^2 + mean square; sigma keeps slopes finite in a silent population."""
    return values * torch.rsqrt(torch.exp(2 * log_sigma) + mean_square)
