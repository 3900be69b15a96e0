"""The control of divisive normalization over time: the same past, subtracted."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.excitation import Excitation, Parent, inverse_softplus, strength
from neuroint.modules.leaky import ROOM, LeakyMemory, least_kept, log_leaky_average
from neuroint.modules.rectified import log_positive
from neuroint.registry import Fact, Positive, normalizations


class _Prepared(NamedTuple):
    """What is the same for all frames."""

    exponent: Float[Tensor, ""]
    log_sigma: Float[Tensor, " neurons"]
    kept: Float[Tensor, " kept"]
    beta: Float[Tensor, " neurons"]


@normalizations.register("subtractive")
class Subtractive(nn.Module):
    r"""Subtract from each neuron's drive a running average of its own past predicted rates.

    .. math::
        d'_i(t) = d_i(t) - \beta_i \big(H_i(t)^{1/n} - \sigma_i\big), \quad r_i = r^0_i(d'_i), \quad
        r^0_i = A_i (\mathrm{softplus}(d_i) + 10^{-6})^n, \\
        H_i(t) = \lambda H_i(t - 1) + (1 - \lambda)\, u_i(t - 1)^n, \quad \lambda = e^{-\Delta/\tau} \ge \frac{n}{n + 1}

    with u the rectified drive at which the parent r^0 gives the model's final rate: the rate in the units of drives, (r
    / A)^(1/n), or the rate itself with ``parent: none``. It is the matched control of ``own_history``: the same memory
    over the same information, the same parameters in the same number, but the past shifts the drive and does not scale
    it. Unless ``own_history`` beats it, nothing is known about dividing; its own null is ``none``. The past of a neuron
    that has long been at u = sigma changes nothing; that is where a clip starts. At beta = 0 (:meth:`off`) the parent
    is left. The output is the drive whose softplus is r. It reads the model's own predictions, never records.

    **Stability.** The strength is capped, beta = c b / (c + b) with b free and c = lambda / (1 - lambda), at least n.
    The shift is at most beta sigma upwards, so rates are bounded for every parameter and input. For a drive that stands
    still there is one fixed point, and there the slope of H^(1/n) over one bin is lambda - (1 - lambda) beta du/dd', in
    [0, 1) where du/dd' is at most 1: behind ``softplus``, and with ``parent: none`` behind every link of slope at most
    1. It then approaches the fixed point from one side, whatever the parameters. With the power law behind ``elu1``
    du/dd' is at most 2 and the slope above -lambda. Not certified: behind ``exp``, with the power law behind
    ``identity`` and a ``softplus`` of another beta, and with an interaction after it.

    It starts as ``own_history`` does. Cost is neurons x frames, one frame after the other.

    Args:
        parent: r^0, what is left at strength 0: the ``power_law``, or ``none``, softplus(d).
        tau_s: tau at the start.
        max_tau_s: the longest tau, and by it the frames that training discards: 3 tau, 36 of 33 ms for .4 s. Bins so
            coarse that lambda would have no room above n/(n + 1) are given lambda up to .9.
        per_neuron_tau: a tau for every neuron, or one for all.
        initial_strength: b at the start.

    Raises:
        ValueError: ``tau_s`` is not below ``max_tau_s``.

    Source: spike-frequency adaptation as a current, Benda & Herz (2003), Neural Comput. 15, 2523-2564.
    """

    reads: ClassVar[Reads] = Reads(information="own_predictions")
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        mean_responses: Fact[Float[np.ndarray, " neurons"]],
        bin_s: Fact[float],
        parent: Parent = "power_law",
        tau_s: Positive = 0.2,
        max_tau_s: Positive = 0.4,
        per_neuron_tau: bool = False,
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        self.excitation = Excitation(mean_responses, parent)
        least = least_kept(self.excitation.exponent).item()
        self.memory = LeakyMemory(n_neurons, bin_s, tau_s, max_tau_s, per_neuron_tau, least, ROOM)
        self.memory_bins = self.memory.memory_bins
        self.raw_beta = nn.Parameter(torch.full((n_neurons,), inverse_softplus(initial_strength)))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set the strength of the past to 0, which leaves the parent."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute what comes from parameters alone."""
        exponent = self.excitation.exponent
        kept = self.memory.kept(context, least_kept(exponent))
        free, cap = strength(context.of_neurons(self.raw_beta), self.strength), kept / (1 - kept)
        return _Prepared(exponent, context.of_neurons(self.excitation.log_sigma), kept, cap * free / (cap + free))

    def initial_state(
        self, drive_0: Float[Tensor, "batch neurons"], context: Context
    ) -> Float[Tensor, "batch neurons"]:
        """Logarithm of H over sigma^n: 0, a neuron that has long been at its sigma."""
        return torch.zeros_like(drive_0 + prepared(self, context).log_sigma)

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: Float[Tensor, "batch neurons"],
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], Float[Tensor, "batch neurons"]]:
        """Take the last rate into the average, and subtract it."""
        held: _Prepared = prepared(self, context)
        source = self.excitation.log_source(log_positive(last_rate), context)
        history = log_leaky_average(held.exponent * (source - held.log_sigma), state, held.kept)
        shift = held.beta * held.log_sigma.exp() * torch.expm1(history / held.exponent)
        shifted = drive_t - shift
        return self.excitation.scaled_drive(shifted, torch.zeros_like(shifted), context), history
