"""Divisive normalization of each neuron by its own past predictions."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.excitation import Excitation, Parent, inverse_softplus, log_division, log_strength
from neuroint.modules.leaky import ROOM, LeakyMemory, least_kept, log_leaky_average
from neuroint.modules.rectified import log_positive
from neuroint.registry import Fact, Positive, normalizations


class _Prepared(NamedTuple):
    """What is the same for all frames."""

    exponent: Float[Tensor, ""]
    saturation: Float[Tensor, " neurons"]
    kept: Float[Tensor, " kept"]
    log_beta: Float[Tensor, " neurons"]


@normalizations.register("own_history")
class OwnHistory(nn.Module):
    r"""Divide each neuron's rectified drive by a running average of its own past predicted rates.

    .. math::
        r_i(t) = r^0_i(t) \frac{\sigma_i^n + \beta_i \sigma_i^n}{\sigma_i^n + \beta_i H_i(t)}, \quad
        r^0_i = A_i E_i, \quad E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n, \\
        H_i(t) = \lambda H_i(t - 1) + (1 - \lambda)\, \hat r_i(t - 1)^n, \quad
        \lambda = e^{-\Delta/\tau} \ge \frac{n}{n + 1}

    with r-hat the model's final rate and Delta the bin. The gain is 1 for a neuron that has long been at its sigma,
    which is where a clip starts, and at beta = 0 (:meth:`off`), which leaves the parent r^0. The output is the drive
    whose softplus is r. Sigma, r and r-hat are in responses per bin, tau in seconds, n lies in (1, 4), beta is without
    unit. It reads the model's own predictions, never records, so it is in the information class of the stimulus.

    **Stability.** H is not negative, so r is at most (1 + beta) times its parent for every parameter and input. For a
    drive that stands still there is one fixed point, and there the slope of H over one bin is

    .. math:: \lambda - (1 - \lambda)\, n\, \epsilon\, g, \quad g = \beta H / (\sigma^n + \beta H) < 1

    with epsilon the elasticity of the rate to r: 1 behind ``softplus``, at most 1 for its beta below 1, at most 2 log 2
    behind ``elu1``. The bound on lambda keeps the slope in [0, 1) behind ``softplus``, where H overshoots at most once
    and then approaches its fixed point from one side, whatever the parameters; behind ``elu1`` it is above -.31. Not
    certified: behind ``exp``, ``identity`` and a ``softplus`` of beta above 1, and with an interaction after it. Nor is
    the response to *every* input simple: to strong pulses many bins apart the average decays between them, the slope
    from pulse to pulse nears -n g, and answers may alternate between strong and weak.

    It starts at n = 2, beta = ``initial_strength``, tau = ``tau_s``, sigma at the neuron's mean response, and A such
    that a neuron at its sigma keeps its drive. Cost is neurons x frames, one frame after the other.

    Its null for *dividing* is ``subtractive``, for *feedback* ``delayed``, for *time* ``static_saturation``, and the
    null of the stage is ``none``. A fit to data without history still returns positive strengths: compare them with
    fits to such data. Only changes of contrast tell it from a biphasic filter.

    Args:
        parent: r^0, what is left at strength 0: the ``power_law`` A E, or ``none``, softplus(d).
        tau_s: tau at the start.
        max_tau_s: the longest tau, and by it the frames that training discards: 3 tau, 36 of 33 ms for .4 s. Bins so
            coarse that lambda would have no room above n/(n + 1) are given lambda up to .9.
        per_neuron_tau: a tau for every neuron, or one for all.
        initial_strength: beta at the start.

    Raises:
        ValueError: ``tau_s`` is not below ``max_tau_s``.

    Source: Heeger (1992), Vis. Neurosci. 9, 181-197 (normalization by feedback); the bound is derived here.
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
        log_beta = log_strength(context.of_neurons(self.raw_beta), self.strength)
        return _Prepared(exponent, self.excitation.log_saturation(context), kept, log_beta)

    def initial_state(
        self, drive_0: Float[Tensor, "batch neurons"], context: Context
    ) -> Float[Tensor, "batch neurons"]:
        """Logarithm of H over sigma^n: 0, a neuron that has long been at its sigma."""
        return torch.zeros_like(drive_0 + prepared(self, context).saturation)

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: Float[Tensor, "batch neurons"],
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], Float[Tensor, "batch neurons"]]:
        """Take the last rate into the average, and divide by it."""
        held: _Prepared = prepared(self, context)
        relative = held.exponent * log_positive(last_rate) - held.saturation
        history = log_leaky_average(relative, state, held.kept)
        return self.excitation.scaled_drive(drive_t, log_division(held.log_beta, history), context), history
