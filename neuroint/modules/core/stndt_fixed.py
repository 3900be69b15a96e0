"""The spatiotemporal transformer whose values over neurons are used."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.spatiotemporal import Allowed, OverNeurons, SpatioTemporal, neurons_of
from neuroint.modules.transformer import MAPS, Attention, FeedForward, TemporalLayer, population_width
from neuroint.registry import BelowOne, Count, Fact, Index, cores

BIASED = ("query",)  # what values or output add to a bin is the same for all neurons: the next layer norm removes it


class OwnTime(nn.Module):
    """The four maps of attention over neurons without their mixing: each neuron's bins read by itself alone.

    .. math:: W_o (W_v s + \\mathrm{relu}(W_q s) \\odot W_k s)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, name in BIASED) for name in MAPS)

    def forward(self, x: Float[Tensor, "batch neurons time"]) -> Float[Tensor, "batch neurons time"]:
        """Transform every neuron's bins."""
        return self.out(self.value(x) + torch.relu(self.query(x)) * self.key(x))


class FixedLayer(nn.Module):
    """Attention over bins, then over neurons (or none of it, at the same number of parameters)."""

    def __init__(self, width: int, frames: int, heads: int, hidden: int, dropout: float, spatial: bool) -> None:
        super().__init__()
        self.temporal = TemporalLayer(width, heads, hidden, dropout)
        self.norm_space = nn.LayerNorm(frames)
        self.space = Attention(frames, heads, dropout, BIASED) if spatial else OwnTime(frames)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width, hidden, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch time neurons"], over_neurons: OverNeurons, allowed: Allowed
    ) -> Float[Tensor, "batch time neurons"]:
        """Mix bins, then neurons."""
        x = self.temporal(x, allowed)
        x = x + self.drop(self.space(self.norm_space(neurons_of(x, over_neurons)))).transpose(1, 2)
        return x + self.drop(self.feed(self.norm_feed(x)))

    def maps(
        self, x: Float[Tensor, "batch time neurons"], over_neurons: OverNeurons, allowed: Allowed
    ) -> Float[Tensor, "batch neurons neurons"]:
        """Who reads whom, averaged over heads; without attention everyone reads itself."""
        if not isinstance(self.space, Attention):
            return torch.eye(x.shape[2]).to(x).expand(len(x), -1, -1)
        return self.space.maps(self.norm_space(neurons_of(self.temporal(x, allowed), over_neurons))).mean(1)


@cores.register("stndt_fixed")
class StndtFixed(SpatioTemporal):
    r"""Let bins of recorded counts read bins, and neurons read other neurons' values, by attention.

    .. math:: X \leftarrow X + A_t(\mathrm{LN} X), \; X \leftarrow X + F_1(\mathrm{LN} X), \;
        X \leftarrow X + A_s(\mathrm{LN} S)^T, \; X \leftarrow X + F_2(\mathrm{LN} X)

    for each layer, then a layer norm; S is the embedding :math:`\sqrt{T} W_s n + p_s` over neurons in the first layer
    and the state X turned in later ones. Unlike ``stndt``, which mixes neurons by averaged maps and never uses its
    values, A_s is a whole multi-head attention: every parameter is used, and maps are computed only on request
    (:meth:`spatial_maps`). With ``spatial: false`` each neuron's bins pass through maps of the same number of
    parameters, without reading another neuron there: the null of the spatial attention. (Neurons still meet in the
    other layers.) Shapes, units, readout, link, objectives, cost and information are those of ``stndt``, which is its
    other null.

    Args:
        frames: bins of a stretch; the crop length it is trained on.
        layers: layers.
        heads: must divide both the number of neurons and ``frames``.
        hidden: width inside F.
        spatial: neurons read neurons by attention.
        context_back: bins before that a bin may read; None for all.
        context_forward: bins after; None for all.
        dropout: inside layers.
        dropout_rates: of the features.
        dropout_embedding: of the embedded counts.

    Raises:
        MissingFactError: no recorded activity is on offer, or sessions differ in their number of neurons.
        ValueError: heads do not divide neurons or frames, or more neurons are observed than predicted.

    Source: after Le and Shlizerman (2022), NeurIPS, arXiv:2206.04727, with the values used.
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
        spatial: bool = True,
        context_back: Index | None = None,
        context_forward: Index | None = None,
        dropout: BelowOne = 0.2,
        dropout_rates: BelowOne = 0.2,
        dropout_embedding: BelowOne = 0.2,
    ) -> None:
        width = population_width("stndt_fixed", observed_channels, n_neurons)
        stack: list[nn.Module] = [FixedLayer(width, frames, heads, hidden, dropout, spatial) for _ in range(layers)]
        super().__init__(stack, width, frames, (context_back, context_forward), (dropout_rates, dropout_embedding))
