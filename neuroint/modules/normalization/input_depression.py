"""Synaptic depression of the core's channels: what was sent a moment ago is not there to be sent again."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Reads
from neuroint.modules.excitation import inverse_softplus, strength
from neuroint.modules.linear_scan import linear_scan
from neuroint.registry import Fact, Positive, normalizations

FORGOTTEN = 0.05  # share of the initial state's effect that may be left after the memory, in the worst case


@normalizations.register("input_depression")
class InputDepression(nn.Module):
    r"""Scale every channel of the core's features by a resource that its own past features have used up.

    .. math:: \dot x_c = \frac{1 - x_c}{\tau_c} - U_c\, x_c\, f_c^+, \qquad z_c(t) = x_c(t)\, f_c(t), \qquad
        f^+ = \max(f, 0), \quad U_c = \beta_c / \tau_c

    for each channel and pixel, with features ``batch time channel height width`` in and out. A frame is sent on with
    what is left after the frames before it; then the equation is solved exactly for a feature that is constant
    within the bin,

    .. math:: x \leftarrow \bar x + (x - \bar x)\, e^{-(1 + \beta f^+)\,\Delta / \tau}, \qquad
        \bar x = 1 / (1 + \beta f^+),

    so x is always a mean of itself and of a number in (0, 1]: it stays in (0, 1] for every parameter and input, without
    a bound to keep. (The explicit step leaves that range once U f Delta exceeds 1.) The recurrence is linear in x and
    runs over a stretch of frames at once. Below 0 a feature uses nothing up. tau is in seconds, beta in one over the
    unit of features; the steady gain is 1 / (1 + beta f). It reads the stimulus only, and its own past.

    A clip starts rested, x = 1. ``memory_bins`` is when 5 % of that is left at the longest tau, 36 bins of 1/30 s with
    the default ``longest_s``; features only make it shorter. Adaptation over dozens of seconds (Fritsche et al., 2022,
    PLoS Biol.) outlasts clips of 10 s and is out of its reach.

    Strength zero (:meth:`off`) is U = 0, the core as it is, which is ``none``, its null; that for *depression of
    inputs* is a divisive memory of outputs (``own_history``) and a core with a longer temporal filter. It starts at
    beta = .05 and tau at half of ``longest_s``. Cost is one pass over the features.

    Args:
        longest_s: the largest tau that can be learned, in seconds.
        initial_strength: beta at the start.

    Source: Tsodyks & Markram (1997), PNAS 94, 719-723; Li & Glickfeld (2023), J. Neurosci., on depression of the inputs
    to layer 2/3.
    """

    reads: ClassVar[Reads] = Reads()
    on_features: ClassVar[bool] = True
    strength: Tensor

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        bin_s: Fact[float],
        longest_s: Positive = 0.4,
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        channels = feature_shape[0]
        self.bin_s, self.longest_s = bin_s, longest_s
        self.memory_bins = max(1, math.ceil(-math.log(FORGOTTEN) * longest_s / bin_s))
        self.raw_beta = nn.Parameter(torch.full((channels,), inverse_softplus(initial_strength)))
        self.raw_tau = nn.Parameter(torch.zeros(channels))
        self.register_buffer("strength", torch.ones(()))

    @property
    def beta(self) -> Float[Tensor, " channel"]:
        """How strongly a channel depresses: 1 / (1 + beta f) is left of a constant feature f."""
        return strength(self.raw_beta, self.strength)

    @property
    def tau_s(self) -> Float[Tensor, " channel"]:
        """Time constants of recovery, in seconds."""
        return self.longest_s * torch.sigmoid(self.raw_tau)

    def off(self) -> None:
        """Let nothing be used up, which leaves the features as they are."""
        self.strength.zero_()

    def initial_state(
        self, features_0: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Start rested."""
        return torch.ones_like(features_0, dtype=torch.promote_types(features_0.dtype, torch.float32))

    def scan(
        self,
        features: Float[Tensor, "batch time channel height width"],
        resource: Float[Tensor, "batch channel height width"],
    ) -> tuple[Float[Tensor, "batch time channel height width"], Float[Tensor, "batch channel height width"]]:
        """Scale a stretch of frames, each by what the frames before it left."""
        load = 1 + self.beta[:, None, None] * functional.relu(features.to(resource.dtype))
        relaxed = -load * (self.bin_s / self.tau_s)[:, None, None]
        after = linear_scan(torch.exp(relaxed), -torch.expm1(relaxed) / load, resource)
        before = torch.cat([resource[:, None], after[:, :-1]], dim=1)
        return features * before, after[:, -1]
