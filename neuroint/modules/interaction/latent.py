"""A few latent time courses from recorded neurons, added to every drive."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.causal_filters import RecordedSummary, records, require_channels
from neuroint.modules.embedding import ReadoutEmbedding
from neuroint.registry import Count, Fact, NonNegative, interactions

Loadings = Literal["free", "readout"]


class _FreeLoadings(nn.Module):
    """Loadings that are parameters of their own."""

    def __init__(self, n_neurons: int, embedding_channels: int | None, latents: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_neurons, latents))

    def forward(self, context: Context) -> Float[Tensor, "neurons latent"]:
        return context.of_neurons(self.weights)


class _EmbeddedLoadings(nn.Module):
    """Loadings that are a linear map of the readout's embedding."""

    def __init__(self, n_neurons: int, embedding_channels: int | None, latents: int) -> None:
        super().__init__()
        self.embedding = ReadoutEmbedding(n_neurons, embedding_channels, 0)
        self.weights = nn.Parameter(torch.zeros(self.embedding.width, latents))

    def forward(self, context: Context) -> Float[Tensor, "neurons latent"]:
        return self.embedding(context) @ self.weights


LOADINGS = {"free": _FreeLoadings, "readout": _EmbeddedLoadings}


@interactions.register("latent")
class Latent(nn.Module):
    r"""Add to each neuron's drive a few latent time courses that recorded neurons give away.

    .. math::
        d'_i(t) = d_i(t) + w_i \cdot g(t), \quad
        g_m(t) = \sum_b q_{mb} \sum_l \psi_b(l) \sum_c P_{cm}\, y_c(t - l)

    y is recorded activity as the model hands it on; psi are raised cosines over the last ``filter_bins`` bins, the
    newest included, and zeros stand before what is known. g has the units of y, w those of the drive per g.

    Meant for held-in neurons that are never predicted (``recorded_others``), read at the same bin: co-smoothing. Where
    the data offers the recorded past instead, it forecasts, and a neuron's own record is in g; the class of the model
    is what the data offers. A shared latent is no coupling: this is the rival that a claim of coupling from records has
    to beat. It never runs on its own predictions, so there is no question of stability. It starts at w = 0, which is
    ``none``, its null, and so is strength 0 (:meth:`off`). ``memory_bins`` is the length of the filters.

    Cost is (channels + neurons) x latents x frames.

    Args:
        latents: M, how many time courses.
        filter_bins: how far back they look, in bins.
        filter_bases: raised cosines that their filter is made of.
        loadings: w, ``free`` (parameters of their own) or ``readout`` (a linear map of the readout's weights).
        l2: strength of the penalty, the mean square of P plus that of w (or of the map).

    Raises:
        MissingFactError: no recorded channels, or ``loadings: readout`` without a readout.
        ValueError: more bases than bins, or no records in the context.

    Source: latents beside a stimulus-driven core as in Bashiri et al. (2021), NeurIPS 34, and Schmidt et al. (2025),
    arXiv 2410.16136; here they are a filter of the records and not inferred.
    """

    reads: ClassVar[Reads] = Reads(information="recorded_others")
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        observed_channels: Fact[int],
        embedding_channels: Fact[int] | None = None,
        latents: Count = 8,
        filter_bins: Count = 10,
        filter_bases: Count = 3,
        loadings: Loadings = "free",
        l2: NonNegative = 1e-4,
    ) -> None:
        super().__init__()
        require_channels("latent", observed_channels)
        self.memory_bins, self.l2 = filter_bins, l2
        self.summary = RecordedSummary(observed_channels, latents, filter_bins, filter_bases)
        self.loadings = LOADINGS[loadings](n_neurons, embedding_channels, latents)
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all loadings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def penalty(self) -> Float[Tensor, ""]:
        """Mean squares of projection and loadings, times their strength."""
        return self.l2 * (self.summary.projection.square().mean() + self.loadings.weights.square().mean())

    def prepare(self, context: Context) -> Float[Tensor, "neurons latent"]:
        """Compute the loadings of the neurons present."""
        return self.strength * self.loadings(context)

    def latents(
        self, observed: Float[Tensor, "batch history observed"], frames: int
    ) -> Float[Tensor, "batch frames latent"]:
        """Return g for analysis."""
        return self.summary(observed, frames)

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add the loaded latents of every frame."""
        latents = self.summary(records("latent", context), drive.shape[1])
        return drive + latents @ prepared(self, context).T
