"""A gate between each neuron's last activity and what drives it now."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Fed, Reads, prepared
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.rectified import drive_of_log_rate, log_softplus
from neuroint.modules.spectral import OpenFraction, bins_to_forget
from neuroint.modules.tokens import EmbeddingFrom, compressed
from neuroint.registry import Count, Fact, interactions

OPEN = 3.0  # logit of the gate at the start: 95 % of the way to the drive
NOTHING = 1e-30  # responses per bin: what a rate of 0 counts as, so that its logarithm is finite in every precision


@interactions.register("gated_recurrent")
class GatedRecurrent(nn.Module):
    r"""Let each neuron's rate move from its last one towards its driven one, by a gate that all neurons share.

    .. math::
        s_i(t) = (1 - u_i)\, s_i(t - 1) + u_i\, \mathrm{softplus}(d_i(t)), \quad
        z_i(t) = \mathrm{softplus}^{-1}(s_i(t)), \\
        u_i = u_0 + (1 - u_0)\, \sigma\big(a\,\mathrm{asinh}(d_i) + c\,\mathrm{asinh}(r_i(t - 1)) + w \cdot e_i + b\big)

    The rates s are mixed, in responses per bin, and z is the drive whose softplus is s: behind link ``softplus`` the
    rate is s, and s(t - 1) is the model's own last rate r(t - 1). Behind every other link s stays the stage's own, so
    that it is a mean of rectified drives, and z lies between the least and the greatest drive so far, for every
    parameter, input and link (s starts at 0). Drives and rates enter the gate compressed. What s was at the start is
    worth at most (1 - u_0)^t after t frames, and ``memory_bins`` is when that is 5 %; through the gate the last rate
    may act for longer, but never beyond those bounds.

    Fed with predictions it reads the model's own rate one frame before, so it is in the same information class as the
    stimulus. Fed with records, s(t - 1) and r(t - 1) are both the neuron's own recorded activity (below 0 counts as 0),
    which is another class, and nothing recurs. Neurons do not mix.

    It starts with gates 96 % open, near ``none``; strength 0 (:meth:`off`) is u = 1, which is ``none``. Its nulls are
    ``none`` and a core with a longer temporal filter: a gate that is constant is an exponential filter.

    Args:
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        least_update: u_0, how far a gate opens at least.
        fed: ``predictions`` (the model's own) or ``recorded``.

    Raises:
        MissingFactError: ``embedding: readout`` without a readout.
        ValueError: no embedding in the context.

    Source: after the update gate of Cho et al. (2014), EMNLP, 1724-1734.
    """

    couples_neurons: ClassVar[bool] = False
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        embedding_channels: Fact[int] | None = None,
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 8,
        least_update: OpenFraction = 0.1,
        fed: Fed = "predictions",
    ) -> None:
        super().__init__()
        self.fed, self.least_update = fed, least_update
        self.reads = Reads(information="recorded_past" if fed == "recorded" else "own_predictions")
        self.memory_bins = bins_to_forget(1 - least_update) if fed == "predictions" else 1
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.of_drive = nn.Parameter(torch.zeros(()))
        self.of_rate = nn.Parameter(torch.zeros(()))
        self.of_embedding = nn.Linear(self.embedding.width, 1)
        nn.init.zeros_(self.of_embedding.weight)
        nn.init.constant_(self.of_embedding.bias, OPEN)
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Open all gates, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> Float[Tensor, " neurons"]:
        """Compute what embeddings contribute to the gates."""
        return self.of_embedding(self.embedding(context)).squeeze(-1)

    def initial_state(
        self, drive_0: Float[Tensor, "batch neurons"], context: Context
    ) -> Float[Tensor, "batch neurons"]:
        """log s before the first frame, where s counts as 0."""
        return torch.full_like(drive_0, NOTHING).log()

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: Float[Tensor, "batch neurons"],
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], Float[Tensor, "batch neurons"]]:
        """Mix the last rate and the driven one; the difference to the drive is exactly 0 with open gates."""
        last = last_rate.clamp(min=NOTHING).log() if self.fed == "recorded" else state
        log_kept, log_update = self._gates(drive_t, last_rate, context)
        driven = log_softplus(drive_t)
        mixed = torch.logaddexp(log_kept + last, log_update + driven)
        return drive_t + (drive_of_log_rate(mixed) - drive_of_log_rate(driven)), mixed

    def update(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        context: Context,
    ) -> Float[Tensor, "batch neurons"]:
        """Return u for analysis: how far each neuron moves towards its drive."""
        return self._gates(drive_t, last_rate, context)[1].exp()

    def _gates(self, drive_t: Tensor, last_rate: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Compute log(1 - u) and log u."""
        logit = self.of_drive * compressed(drive_t) + self.of_rate * compressed(last_rate)
        logit = logit + prepared(self, context)
        free = self.strength * (1 - self.least_update)
        log_kept = free.log() + functional.logsigmoid(-logit)
        return log_kept, torch.logaddexp(free.log() + functional.logsigmoid(logit), (1 - free).log())
