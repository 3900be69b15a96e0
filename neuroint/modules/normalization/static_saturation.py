"""A static nonlinearity per neuron: what divisive normalization is without other neurons or time."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads
from neuroint.modules.rectified import drive_of_log_rate, log_rectified
from neuroint.registry import Fact, normalizations

SILENT = 0.05  # responses per bin: the least semi-saturation at the start
START = math.log(math.expm1(0.05))  # softplus of it is .05: saturation starts weak, like the pools it controls for


@normalizations.register("static_saturation")
class StaticSaturation(nn.Module):
    r"""Raise each neuron's rectified drive to a power and let it saturate by itself.

    .. math:: r_i = A_i \frac{E_i\,(\sigma_i^n + q_i \sigma_i^n)}{\sigma_i^n + q_i E_i}, \quad
        E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n

    It is the matched control of ``population_pool``: the same exponent, semi-saturation and gain per neuron, but the
    denominator holds the neuron's own excitation. A gain of a pool over ``none`` may be this nonlinearity alone; a gain
    over ``static_saturation`` is not. At q = 0 (:meth:`off`) it is A E, as a pool of strength 0 is. The output is the
    drive whose softplus is r. Sigma and r are in responses per bin, n lies in (1, 4), q is without unit.

    Source: Naka & Rushton (1966), J. Physiol. 185, 536-555.
    """

    reads: ClassVar[Reads] = Reads()
    strength: Tensor

    def __init__(self, *, n_neurons: Fact[int], mean_responses: Fact[Float[np.ndarray, " neurons"]]) -> None:
        super().__init__()
        self.register_buffer("strength", torch.ones(()))
        self.raw_exponent = nn.Parameter(torch.tensor(math.log(0.5)))  # 1 + 3 sigmoid of it is 2
        sigma = torch.tensor(np.maximum(mean_responses, SILENT), dtype=torch.float32)
        self.log_sigma = nn.Parameter(sigma.log())
        self.log_gain = nn.Parameter(-sigma.log())  # sigma^(1 - n) at n = 2
        self.raw_saturation = nn.Parameter(torch.full((n_neurons,), START))

    @property
    def exponent(self) -> Float[Tensor, ""]:
        """n, between 1 and 4."""
        return 1 + 3 * torch.sigmoid(self.raw_exponent)

    def off(self) -> None:
        """Set the saturation to 0, which leaves a power law."""
        self.strength.zero_()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Bend every neuron's drive by itself."""
        log_excitation = self.exponent * log_rectified(drive)
        relative = log_excitation - self.exponent * context.of_neurons(self.log_sigma)
        q = self.strength * functional.softplus(context.of_neurons(self.raw_saturation))
        saturated = torch.log1p(q) - torch.log1p(q * torch.exp(relative.clamp(max=60.0)))
        return drive_of_log_rate(context.of_neurons(self.log_gain) + log_excitation + saturated)
