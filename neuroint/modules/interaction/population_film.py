"""Gain and offset of every drive from a summary of the recorded population."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.causal_filters import RecordedSummary, records, require_channels
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.tokens import EmbeddingFrom
from neuroint.registry import Count, Fact, interactions


class _Prepared(NamedTuple):
    """How each neuron's gain and offset follow the summary."""

    gain: Float[Tensor, "neurons summary"]
    offset: Float[Tensor, "neurons summary"]


@interactions.register("population_film")
class PopulationFilm(nn.Module):
    r"""Scale and shift each neuron's drive by what was recorded in the population.

    .. math::
        d'_i(t) = d_i(t)\,(1 + \alpha_i(t)) + \beta_i(t), \quad
        \alpha_i = (A e_i) \cdot g(t), \quad \beta_i = (B e_i) \cdot g(t), \\
        g_m(t) = \tanh\Big(\sum_b q_{mb} \sum_l \psi_b(l) \sum_c P_{cm}\, y_c(t - l)\Big)

    y is recorded activity as the model hands it on, already lagged; psi are raised cosines over the last
    ``filter_bins`` bins, zeros stand before what is known, and a population in which nothing was recorded leaves the
    drive as it is. The summary is bounded, so the gain lies within 1 +- sum |A e_i|. alpha has no unit, beta has that
    of the drive. A neuron's own record is in the summary where it is among the channels.

    It reads the recorded past, or the held-in others where the data offers those; another class than the stimulus, of
    which a gain means forecasting or co-smoothing and not coupling. It never runs on its own predictions, so there is
    no question of stability. It starts at A = B = 0, which is ``none``, its null, and so is strength 0 (:meth:`off`);
    the null of the multiplication is ``latent``, which only adds. ``memory_bins`` is the length of the filters.

    Cost is (channels + neurons) x summaries x frames.

    Args:
        summaries: M, numbers that sum up the population in each frame.
        filter_bins: how far back a summary looks, in bins.
        filter_bases: raised cosines that its filter is made of.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.

    Raises:
        MissingFactError: no recorded channels, or ``embedding: readout`` without a readout.
        ValueError: more bases than bins, or neither embedding nor records in the context.

    Source: Perez et al. (2018), AAAI 32; conditioned on a population as in POCO, Duan et al. (2025), arXiv
    2506.14957, with a linear filter in the place of its Perceiver.
    """

    reads: ClassVar[Reads] = Reads(information="recorded_past")
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        observed_channels: Fact[int],
        embedding_channels: Fact[int] | None = None,
        summaries: Count = 8,
        filter_bins: Count = 15,
        filter_bases: Count = 4,
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 16,
    ) -> None:
        super().__init__()
        require_channels("population_film", observed_channels)
        self.memory_bins = filter_bins
        self.summary = RecordedSummary(observed_channels, summaries, filter_bins, filter_bases)
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.gain = nn.Parameter(torch.zeros(self.embedding.width, summaries))
        self.offset = nn.Parameter(torch.zeros(self.embedding.width, summaries))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set gains and offsets to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute how the neurons present follow the summary."""
        embedding = self.strength * self.embedding(context)
        return _Prepared(embedding @ self.gain, embedding @ self.offset)

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Scale and shift every frame by the summary of what had been recorded by then."""
        held = prepared(self, context)
        summary = torch.tanh(self.summary(records("population_film", context), drive.shape[1]))
        return drive * (1 + summary @ held.gain.T) + summary @ held.offset.T
