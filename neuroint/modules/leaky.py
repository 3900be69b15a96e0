"""Exponential forgetting: how much of a stage's running average is left from one bin to the next."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context

FORGOTTEN = 0.05  # share of the initial state that may be left after the memory, at the slowest
ROOM = 0.9  # lambda_max of a memory that feeds back is at least this: n/(n + 1) is up to .8, and tau needs room


class LeakyMemory(nn.Module):
    r"""Learn the share of a running average that is kept per bin, between two bounds.

    .. math:: \lambda = \lambda_{min} + (\lambda_{max} - \lambda_{min})\,\mathrm{sigmoid}(\theta) = e^{-\Delta/\tau}

    with Delta the bin. The upper bound is the longest time constant: without it a fit could make the memory longer than
    any clip, and no burn-in would do. Where a design needs at least some memory, lambda_min says so, and bins too
    coarse for that are given a longer time constant than was asked for.

    Args:
        n_neurons: of the session.
        bin_s: Delta, in seconds.
        tau_s: tau at the start; where the bounds do not allow it, the nearest that they do.
        max_tau_s: the longest tau.
        per_neuron: a tau for every neuron, or one for all.
        least: lambda_min at the start.
        most: lambda_max is no less than this.

    Raises:
        ValueError: tau starts at its bound or beyond.
    """

    def __init__(
        self,
        n_neurons: int,
        bin_s: float,
        tau_s: float,
        max_tau_s: float,
        per_neuron: bool = False,
        least: float = 0.0,
        most: float = FORGOTTEN,
    ) -> None:
        super().__init__()
        if tau_s >= max_tau_s:
            raise ValueError(f"tau_s is {tau_s} and max_tau_s {max_tau_s}; start below the longest: raise max_tau_s")
        self.per_neuron = per_neuron
        self.most = max(math.exp(-bin_s / max_tau_s), most)
        share = (math.exp(-bin_s / tau_s) - least) / (self.most - least)
        share = min(max(share, 0.02), 0.98)  # where the sigmoid still has a slope
        self.raw_tau = nn.Parameter(torch.full((n_neurons if per_neuron else 1,), math.log(share / (1 - share))))

    @property
    def memory_bins(self) -> int:
        """Bins after which 5 % of the initial state are left, at the longest time constant."""
        return math.ceil(math.log(FORGOTTEN) / math.log(self.most))

    def kept(self, context: Context, least: Float[Tensor, ""] | float = 0.0) -> Float[Tensor, " kept"]:
        """Lambda of the neurons present, or one for all."""
        raw = context.of_neurons(self.raw_tau) if self.per_neuron else self.raw_tau
        return least + (self.most - least) * torch.sigmoid(raw)


def log_leaky_average(
    log_value: Float[Tensor, "batch neurons"], log_state: Float[Tensor, "batch neurons"], kept: Float[Tensor, " kept"]
) -> Float[Tensor, "batch neurons"]:
    r"""Advance a running average by one frame in logarithms, where powers of large rates would overflow.

    .. math:: X(t) = \lambda X(t - 1) + (1 - \lambda) x(t)
    """
    return torch.logaddexp(kept.log() + log_state, torch.log1p(-kept) + log_value)


def least_kept(exponent: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Least share that an average of r^n has to keep per bin, so that what it feeds back on does not overshoot."""
    return exponent / (exponent + 1)
