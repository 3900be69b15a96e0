"""The static nonlinearity that divisive designs share, and what is left of each when its strength is zero."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.rectified import drive_of_log_rate, log_rectified, log_softplus

Parent = Literal["power_law", "none"]
SILENT = 0.05  # responses per bin: the least semi-saturation at the start


class Excitation(nn.Module):
    r"""Turn drives into excitation E, and log gains back into drives.

    .. math:: E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n, \quad r_i = r^0_i\, G_i

    with G the gain of a normalization, 1 at strength zero, and r^0 the parent that is then left: with ``power_law``
    r^0 = A_i E_i, whose gain A and exponent n are learned; with ``none`` r^0 = softplus(d_i), so that strength zero is
    the model without a stage and the exponent shapes the normalization only. n lies in (1, 4) and starts at 2; sigma,
    in responses per bin, starts at the neuron's mean response; A such that a neuron at its sigma keeps its drive.
    """

    def __init__(self, mean_responses: Float[np.ndarray, " neurons"], parent: Parent) -> None:
        super().__init__()
        self.raw_exponent = nn.Parameter(torch.tensor(math.log(0.5)))  # 1 + 3 sigmoid of it is 2
        sigma = torch.tensor(np.maximum(mean_responses, SILENT), dtype=torch.float32)
        self.log_sigma = nn.Parameter(sigma.log())
        self.log_gain = nn.Parameter(-sigma.log()) if parent == "power_law" else None  # sigma^(1 - n) at n = 2

    @property
    def exponent(self) -> Float[Tensor, ""]:
        """n, between 1 and 4."""
        return 1 + 3 * torch.sigmoid(self.raw_exponent)

    def log_excitation(self, drive: Float[Tensor, "*frames neurons"]) -> Float[Tensor, "*frames neurons"]:
        """log E, finite for every drive."""
        return self.exponent * log_rectified(drive)

    def log_saturation(self, context: Context) -> Float[Tensor, " neurons"]:
        """log sigma^n of the neurons present."""
        return self.exponent * context.of_neurons(self.log_sigma)

    def scaled_drive(
        self, drive: Float[Tensor, "*frames neurons"], log_gain: Float[Tensor, "*frames neurons"], context: Context
    ) -> Float[Tensor, "*frames neurons"]:
        """Find the drive whose softplus is the parent's rate times the gain."""
        return drive_of_log_rate(self._log_parent(drive, context) + log_gain)

    def log_source(
        self, log_rate: Float[Tensor, "*frames neurons"], context: Context
    ) -> Float[Tensor, "*frames neurons"]:
        """Logarithm of the rectified drive whose parent's rate this is."""
        if self.log_gain is None:
            return log_rate
        return (log_rate - context.of_neurons(self.log_gain)) / self.exponent

    def log_lag(self, log_ratio: Float[Tensor, "*frames neurons"]) -> Float[Tensor, "*frames neurons"]:
        """Logarithm of what a lag of the excitation does to the parent's rate, from that of lagged over present E."""
        return log_ratio / self.exponent if self.log_gain is None else log_ratio

    def _log_parent(self, drive: Tensor, context: Context) -> Tensor:
        if self.log_gain is None:
            return log_softplus(drive)
        return context.of_neurons(self.log_gain) + self.log_excitation(drive)


def inverse_softplus(value: float) -> float:
    """Find what softplus turns into a value: where a positive parameter starts."""
    return math.log(math.expm1(value))


def strength(raw: Float[Tensor, "*shape"], switch: Float[Tensor, ""]) -> Float[Tensor, "*shape"]:
    """Turn a free parameter into a strength that is positive, or 0 when the stage is switched off."""
    return switch * functional.softplus(raw)


def log_strength(raw: Float[Tensor, "*shape"], switch: Float[Tensor, ""]) -> Float[Tensor, "*shape"]:
    """Logarithm of :func:`strength`; minus infinity when the stage is switched off."""
    return log_softplus(raw) + switch.log()


def log_division(
    log_strength: Float[Tensor, " neurons"], log_relative: Float[Tensor, "*frames neurons"]
) -> Float[Tensor, "*frames neurons"]:
    r"""Logarithm of the gain (1 + b) / (1 + b h), which is 1 where h is 1, and exactly 1 at strength b = 0."""
    nothing = torch.zeros_like(log_relative)
    return torch.logaddexp(nothing, log_strength + nothing) - torch.logaddexp(nothing, log_strength + log_relative)
