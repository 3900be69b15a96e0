"""The spatiotemporal transformer as it was published."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.spatiotemporal import Allowed, OverNeurons, SpatioTemporal, neurons_of
from neuroint.modules.transformer import MAPS, Attention, FeedForward, TemporalLayer, population_width
from neuroint.registry import BelowOne, Count, Fact, Index, cores

DEAD = ("space.value.weight", "space.value.bias", "space.out.weight", "space.out.bias")
DEAD += ("space.key.bias", "temporal.time.key.bias")  # a softmax does not see a bias of keys


class PublishedLayer(nn.Module):
    """Attention over bins, then mixing of neurons by attention maps alone, each with a feed-forward layer."""

    def __init__(self, width: int, frames: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.temporal = TemporalLayer(width, heads, hidden, dropout, MAPS)
        self.norm_space, self.space = nn.LayerNorm(frames), Attention(frames, heads, dropout, MAPS)
        self.norm_values = nn.LayerNorm(width)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width, hidden, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch time neurons"], over_neurons: OverNeurons, allowed: Allowed
    ) -> Float[Tensor, "batch time neurons"]:
        """Mix bins, then neurons."""
        x = self.temporal(x, allowed)
        mixed = self.norm_values(x) @ self._maps(x, over_neurons).transpose(1, 2)
        unused = (self.space.value, self.space.out)
        idle = sum(one.weight.sum() + one.bias.sum() for one in unused)  # gradients of 0, not none, for workers' sums
        x = x + self.drop(mixed + 0 * idle)
        return x + self.drop(self.feed(self.norm_feed(x)))

    def maps(
        self, x: Float[Tensor, "batch time neurons"], over_neurons: OverNeurons, allowed: Allowed
    ) -> Float[Tensor, "batch neurons neurons"]:
        """Who reads whom."""
        return self._maps(self.temporal(x, allowed), over_neurons)

    def _maps(self, x: Tensor, over_neurons: OverNeurons) -> Tensor:
        return self.space.maps(self.norm_space(neurons_of(x, over_neurons))).mean(1)


@cores.register("stndt")
class Stndt(SpatioTemporal):
    r"""Let bins of recorded counts read bins, and neurons read neurons by averaged attention maps, as published.

    .. math:: X \leftarrow X + A_t(\mathrm{LN} X), \; X \leftarrow X + F_1(\mathrm{LN} X), \;
        X \leftarrow X + (M_s \mathrm{LN}(X)^T)^T, \; X \leftarrow X + F_2(\mathrm{LN} X)

    for each layer, then a layer norm. M_s are attention maps over neurons, averaged over heads, of the layer-normed
    embedding :math:`\sqrt{T} W_s n + p_s` in the first layer and of the state X turned in later ones. n is ``batch time
    neurons`` in counts per bin, with zeros for held-out neurons and forward bins. Features are ``neurons`` channels:
    readout ``linear`` is the published decoder, with link ``exp``; it starts at each neuron's mean rate, not at 1. At
    the size of MC_Maze (180 bins, 182 neurons) core and readout have 1,536,212 parameters. 65,160 of each layer, values
    and output of the spatial attention, never reach the output; they are named in ``dead_parameters``, as are the
    biases of keys, and get gradients of zero. Which state the maps of later layers read is not said in the paper's
    equations; here it is that after F_1.

    It reads ``recorded_others``, and the future. Clips longer than ``frames`` are read in stretches, shorter ones are
    padded by zeros. Cost: layers x (time^2 x neurons + time x neurons^2). Train it with ``masked_poisson`` or
    ``contrastive``. Its nulls are ``ndt`` with linear embedding, and ``stndt_fixed`` with ``spatial: false``.

    Args:
        frames: bins of a stretch; the crop length it is trained on.
        layers: layers, of about 359,000 parameters at the size of MC_Maze.
        heads: must divide both the number of neurons and ``frames``.
        hidden: width inside F.
        context_back: bins before that a bin may read; None for all.
        context_forward: bins after; None for all.
        dropout: inside layers.
        dropout_rates: of the features.
        dropout_embedding: of the embedded counts.

    Raises:
        MissingFactError: no recorded activity is on offer, or sessions differ in their number of neurons.
        ValueError: heads do not divide neurons or frames, or more neurons are observed than predicted.

    Source: Le and Shlizerman (2022), STNDT: Modeling Neural Population Activity with Spatiotemporal Transformers,
    NeurIPS, arXiv:2206.04727.
    """

    def __init__(
        self,
        *,
        observed_channels: Fact[int],
        n_neurons: Fact[int],
        frames: Count = 100,
        layers: Count = 4,
        heads: Count = 2,
        hidden: Count = 128,
        context_back: Index | None = None,
        context_forward: Index | None = None,
        dropout: BelowOne = 0.2,
        dropout_rates: BelowOne = 0.2,
        dropout_embedding: BelowOne = 0.2,
    ) -> None:
        width = population_width("stndt", observed_channels, n_neurons)
        stack: list[nn.Module] = [PublishedLayer(width, frames, heads, hidden, dropout) for _ in range(layers)]
        super().__init__(stack, width, frames, (context_back, context_forward), (dropout_rates, dropout_embedding))
        self.dead_parameters = tuple(f"layers.{k}.{name}" for k in range(layers) for name in DEAD)
