"""Divisive normalization of each neuron by a delayed copy of its own drive."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.excitation import Excitation, Parent, inverse_softplus, log_division, log_strength
from neuroint.modules.leaky import LeakyMemory
from neuroint.modules.linear_scan import linear_scan
from neuroint.modules.rectified import log_rectified
from neuroint.registry import Fact, Positive, normalizations


class _Prepared(NamedTuple):
    """What is the same for all frames."""

    exponent: Float[Tensor, ""]
    saturation: Float[Tensor, " neurons"]
    kept: Float[Tensor, " kept"]
    log_beta: Float[Tensor, " neurons"]


@normalizations.register("delayed")
class Delayed(nn.Module):
    r"""Divide each neuron's rectified drive by a running average of the same drive, which lags behind it.

    .. math::
        r_i(t) = r^0_i(t) \frac{\sigma_i^n + \beta_i \sigma_i^n}{\sigma_i^n + \beta_i X_i(t)^n}, \quad
        r^0_i = A_i L_i^n, \quad L_i = \mathrm{softplus}(d_i) + 10^{-6}, \\
        X_i(t) = \lambda X_i(t - 1) + (1 - \lambda) L_i(t), \quad \lambda = e^{-\Delta/\tau}

    so that a step of drive is answered by a transient and then a plateau. The average is of the drive, where
    ``own_history`` averages its answers: no feedback, so it is stable for every parameter and input, and the gain is at
    most 1 + beta. It reads drives up to the same frame, no records. The gain is 1 for a neuron whose L has long been
    sigma, and at beta = 0 (:meth:`off`), which leaves the parent r^0. The output is the drive whose softplus is r.
    Sigma and r are in responses per bin, tau in seconds, n lies in (1, 4), beta is without unit. A clip starts as if
    its first frame had been there forever.

    It starts at n = 2, beta = ``initial_strength``, tau = ``tau_s``, sigma at the neuron's mean response, and A such
    that a neuron at its sigma keeps its drive. Cost is neurons x frames.

    Its null for *delay* is ``static_saturation``, which it becomes as tau falls to 0; the null of the stage is
    ``none``. It has the parameters of ``own_history`` and is its rival.

    Args:
        parent: r^0, what is left at strength 0: the ``power_law`` A L^n, or ``none``, softplus(d).
        tau_s: tau at the start.
        max_tau_s: the longest tau, and by it the frames that training discards: 3 tau, 36 of 33 ms for .4 s.
        per_neuron_tau: a tau for every neuron, or one for all.
        initial_strength: beta at the start.

    Raises:
        ValueError: ``tau_s`` is not below ``max_tau_s``.

    Source: Zhou et al. (2019), PLoS Comput. Biol. 15, e1007484; its response to an impulse is the core's to learn.
    """

    reads: ClassVar[Reads] = Reads()
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        mean_responses: Fact[Float[np.ndarray, " neurons"]],
        bin_s: Fact[float],
        parent: Parent = "power_law",
        tau_s: Positive = 0.1,
        max_tau_s: Positive = 0.4,
        per_neuron_tau: bool = False,
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        self.excitation = Excitation(mean_responses, parent)
        self.memory = LeakyMemory(n_neurons, bin_s, tau_s, max_tau_s, per_neuron_tau)
        self.memory_bins = self.memory.memory_bins
        self.raw_beta = nn.Parameter(torch.full((n_neurons,), inverse_softplus(initial_strength)))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set the strength of the average to 0, which leaves the parent."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute what comes from parameters alone."""
        log_beta = log_strength(context.of_neurons(self.raw_beta), self.strength)
        saturation, kept = self.excitation.log_saturation(context), self.memory.kept(context)
        return _Prepared(self.excitation.exponent, saturation, kept, log_beta)

    def initial_state(
        self, drive_0: Float[Tensor, "batch neurons"], context: Context
    ) -> Float[Tensor, "batch neurons"]:
        """X before the first frame: the rectified drive of that frame."""
        return log_rectified(drive_0).exp()

    def scan(
        self,
        drive: Float[Tensor, "batch time neurons"],
        state: Float[Tensor, "batch neurons"],
        context: Context,
    ) -> tuple[Float[Tensor, "batch time neurons"], Float[Tensor, "batch neurons"]]:
        """Average over the past of every frame, and divide by it."""
        held: _Prepared = prepared(self, context)
        rectified = log_rectified(drive).exp()
        average = linear_scan(held.kept.expand_as(rectified), (1 - held.kept) * rectified, state)
        relative = held.exponent * average.log() - held.saturation
        return self.excitation.scaled_drive(drive, log_division(held.log_beta, relative), context), average[:, -1]
