"""The mean of the population: what any attention between neurons must beat."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.chunks import over_frames
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.rectified import full
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import EmbeddingFrom, compressed
from neuroint.registry import Count, Fact, interactions


class _Prepared(NamedTuple):
    """What each neuron tells the means, how its network is biased, and the network."""

    source: Float[Tensor, "neurons means"]
    bias: Float[Tensor, "neurons hidden"]
    of_means: Float[Tensor, "means hidden"]
    of_drive: Float[Tensor, " hidden"]
    output: Float[Tensor, " hidden"]


@interactions.register("population_mean")
class PopulationMean(nn.Module):
    r"""Add to each neuron's drive a small network of its drive, its embedding and means over all other neurons.

    .. math::
        g_i(t) = \frac{1}{N - 1} \sum_{j \ne i} W e_j\, \mathrm{softplus}(d_j(t)), \quad
        d'_i = d_i + o \cdot \big(\phi(a\,x_i + G g_i + E e_i) - \phi(a\,x_i + E e_i)\big), \\
        x_i = \mathrm{asinh}(d_i), \quad \phi = \mathrm{softplus}

    The network's answer to a population that says nothing is taken from it, so that it can only mix neurons and is no
    static nonlinearity of the neuron's own drive; the neuron itself is not in its means. All neurons are heard alike,
    but for a fixed weight per mean: this is the least that any attention must beat, and its own null is ``none``, where
    it starts (o = 0) and which is its strength 0 (:meth:`off`). It reads drives of the same frame, no records.

    Cost is neurons x (means x hidden) x frames, linear in neurons; frames are worked through in chunks and computed
    again in the backward pass, in at least single precision because of the difference.

    Args:
        means: how many weighted means there are.
        hidden: units of the network.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.

    Raises:
        MissingFactError: ``embedding: readout`` without a readout.
        ValueError: a subset of neurons, or no embedding in the context.

    Source: Okun et al. (2015), Nature 521, 511-515 (coupling to the population); Zaheer et al. (2017), NeurIPS 30.
    """

    reads: ClassVar[Reads] = Reads(population=True)
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        embedding_channels: Fact[int] | None = None,
        means: Count = 4,
        hidden: Count = 16,
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 32,
    ) -> None:
        super().__init__()
        self.others = max(n_neurons - 1, 1)
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.source = nn.Linear(self.embedding.width, means)
        self.of_means = nn.Parameter(torch.randn(means, hidden) / means**0.5)
        self.of_drive = nn.Parameter(torch.randn(hidden))
        self.of_embedding = nn.Linear(self.embedding.width, hidden)
        self.output = nn.Parameter(torch.zeros(hidden))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set the output to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute what comes from embeddings alone."""
        refuse_subset("population_mean", context)
        embedding = self.embedding(context)
        source, bias = full(self.source(embedding)), full(self.of_embedding(embedding))
        return _Prepared(source, bias, self.of_means, self.of_drive, self.strength * self.output)

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add what the means of the others do to each neuron, each frame by itself."""
        held = prepared(self, context)
        per_frame = 4 * held.bias.numel() + 2 * held.source.numel()
        influence = over_frames(self._frames, per_frame, drive.flatten(0, 1), held)
        return drive + influence.unflatten(0, drive.shape[:2])

    def means(self, context: Context, drive: Float[Tensor, "frames neurons"]) -> Float[Tensor, "frames neurons means"]:
        """Return g for analysis: the means of the others as each neuron hears them."""
        return self._means(prepared(self, context), full(drive))

    def _means(self, held: _Prepared, drive: Tensor) -> Tensor:
        said = functional.softplus(drive)
        return ((said @ held.source)[:, None] - said[..., None] * held.source) / self.others

    def _frames(self, drive: Float[Tensor, "frames neurons"], *parts: Tensor) -> Float[Tensor, "frames neurons"]:
        with torch.autocast(drive.device.type, enabled=False):
            drive, held = full(drive), _Prepared(*parts)
            alone = compressed(drive)[..., None] * held.of_drive + held.bias
            together = alone + self._means(held, drive) @ held.of_means
            change = functional.softplus(together) - functional.softplus(alone)
            return change @ held.output
