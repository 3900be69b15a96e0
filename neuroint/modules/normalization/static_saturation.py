"""A static nonlinearity per neuron: what divisive normalization is without other neurons or time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads
from neuroint.modules.excitation import Excitation, Parent, inverse_softplus, log_division, log_strength
from neuroint.registry import Fact, Positive, normalizations


@normalizations.register("static_saturation")
class StaticSaturation(nn.Module):
    r"""Raise each neuron's rectified drive to a power and let it saturate by itself.

    .. math:: r_i = r^0_i \frac{\sigma_i^n + q_i \sigma_i^n}{\sigma_i^n + q_i E_i}, \quad r^0_i = A_i E_i, \quad
        E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n

    It is the matched control of ``population_pool``, ``own_history`` and ``delayed``: the same exponent,
    semi-saturation and gain per neuron, but the denominator holds the neuron's own excitation at the same frame. A gain
    of a pool over ``none`` may be this nonlinearity alone; a gain over ``static_saturation`` is not. Its own null is
    ``none``. At q = 0 (:meth:`off`) it is its parent r^0, as a pool of strength 0 is. The output is the drive whose
    softplus is r. Sigma and r are in responses per bin, n lies in (1, 4), q is without unit. It reads the neuron's
    drive at the same frame; cost is neurons x frames.

    Args:
        parent: r^0, what is left at strength 0: the ``power_law`` A E, or ``none``, softplus(d).
        initial_strength: q at the start.

    Source: Naka & Rushton (1966), J. Physiol. 185, 536-555.
    """

    reads: ClassVar[Reads] = Reads()
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        mean_responses: Fact[Float[np.ndarray, " neurons"]],
        parent: Parent = "power_law",
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        self.excitation = Excitation(mean_responses, parent)
        self.register_buffer("strength", torch.ones(()))
        self.raw_saturation = nn.Parameter(torch.full((n_neurons,), inverse_softplus(initial_strength)))

    def off(self) -> None:
        """Set the saturation to 0, which leaves the parent."""
        self.strength.zero_()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Bend every neuron's drive by itself."""
        relative = self.excitation.log_excitation(drive) - self.excitation.log_saturation(context)
        strength = log_strength(context.of_neurons(self.raw_saturation), self.strength)
        return self.excitation.scaled_drive(drive, log_division(strength, relative), context)
