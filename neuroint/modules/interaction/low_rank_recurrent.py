"""Coupling through a few directions of the population's last activity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Fed, prepared
from neuroint.modules.embedding import ReadoutEmbedding
from neuroint.modules.last_activity import LastActivityCoupling
from neuroint.modules.selection import refuse_subset
from neuroint.modules.spectral import OpenFraction, capped, low_rank_norm
from neuroint.modules.tokens import EmbeddingFrom
from neuroint.registry import Count, Fact, interactions


class _Prepared(NamedTuple):
    """The two factors of the coupling; its norm is below the bound."""

    left: Float[Tensor, "neurons rank"]
    right: Float[Tensor, "neurons rank"]


class _EmbeddedFactors(nn.Module):
    """Linear maps of the readout's embedding."""

    def __init__(self, n_neurons: int, embedding_channels: int | None, rank: int) -> None:
        super().__init__()
        self.embedding = ReadoutEmbedding(n_neurons, embedding_channels, 0)
        self.left = nn.Parameter(torch.zeros(self.embedding.width, rank))
        self.right = nn.Parameter(torch.randn(self.embedding.width, rank) / self.embedding.width**0.5)

    def forward(self, context: Context) -> _Prepared:
        embedding = self.embedding(context)
        return _Prepared(embedding @ self.left, embedding @ self.right)


class _FreeFactors(nn.Module):
    """Parameters of their own."""

    def __init__(self, n_neurons: int, embedding_channels: int | None, rank: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.zeros(n_neurons, rank))
        self.right = nn.Parameter(torch.randn(n_neurons, rank))

    def forward(self, context: Context) -> _Prepared:
        return _Prepared(self.left, self.right)


FACTORS = {"readout": _EmbeddedFactors, "free": _FreeFactors}


@interactions.register("low_rank_recurrent")
class LowRankRecurrent(LastActivityCoupling):
    r"""Add to each neuron's drive a few weighed sums of the whole population's last activity.

    .. math:: z(t) = d(t) + C\, r(t - 1), \quad C = \frac{\rho}{\max(1, \|W\|_2)} W, \quad
        W = \tfrac{1}{N} U V^\top, \quad U = E A, \; V = E B

    with E the readout's weights per neuron (embeddings of root mean square 1), or with U and V parameters of their own.
    A neuron is part of its population: C has a diagonal, whose null is ``linear_autoregressive`` with one lag. r is in
    responses per bin, C in drive per response per bin. Fed with predictions it reads the model's own rate one frame
    before, so it is in the same information class as the stimulus; fed with records it reads the recorded past, another
    class, and nothing recurs.

    The spectral norm comes from rank x rank matrices and is never too small, so that the norm of C stays below rho < 1
    for every A and B, and with a link of slope at most 1 (``elu1``, ``softplus``, ``identity``) two runs under one
    drive approach each other by rho in every frame; behind ``exp`` that is not certified. It starts at A = 0 (U = 0),
    which is ``none``, its null, and so is strength 0 (:meth:`off`); a fit with permuted embeddings is the null of what
    E says.

    Cost is neurons x rank per frame, whatever the number of frames.

    Args:
        rank: R, columns of U and V; no more than there are neurons or embedding channels is of use.
        factors: ``readout`` (2 x embedding x rank parameters) or ``free`` (2 x neurons x rank).
        fed: ``predictions`` (the model's own) or ``recorded``.
        bound: rho, the cap of the spectral norm.

    Raises:
        MissingFactError: ``factors: readout`` without a readout.
        ValueError: a subset of neurons, or no embedding in the context.

    Source: Mastrogiuseppe & Ostojic (2018), Neuron 99, 609-623.
    """

    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        embedding_channels: Fact[int] | None = None,
        rank: Count = 8,
        factors: EmbeddingFrom = "readout",
        fed: Fed = "predictions",
        bound: OpenFraction = 0.9,
    ) -> None:
        super().__init__(fed, bound)
        self.n_neurons = n_neurons
        self.factors = FACTORS[factors](n_neurons, embedding_channels, rank)
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set the coupling to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute the factors, and hold the norm of their product below the bound."""
        refuse_subset("low_rank_recurrent", context)
        with torch.autocast(self.strength.device.type, enabled=False):
            left, right = self.factors(context)
            left, right = (factor / self.n_neurons**0.5 for factor in (left, right))
            return _Prepared(self.strength * capped(left, low_rank_norm(left, right), self.bound), right)

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return C for analysis: the influence of column j's last activity on row i's drive."""
        held = prepared(self, context)
        return held.left @ held.right.T

    def influence(
        self, activity: Float[Tensor, "batch neurons"], coupling: _Prepared
    ) -> Float[Tensor, "batch neurons"]:
        """Apply the two factors one after the other."""
        return (activity @ coupling.right) @ coupling.left.T
