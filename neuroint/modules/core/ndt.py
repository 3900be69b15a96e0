"""The transformer over bins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.transformer import (
    TemporalLayer,
    context_window,
    counts_of,
    in_windows,
    population_width,
    scale_by_depth,
    sinusoids,
    windows_of,
)
from neuroint.registry import BelowOne, Count, Fact, Index, cores

EMBEDDINGS: Mapping[str, Callable[[int], nn.Module]] = {
    "identity": lambda width: nn.Identity(),
    "linear": lambda width: nn.Linear(width, width),
}


@cores.register("ndt")
class Ndt(nn.Module):
    r"""Let every bin of recorded counts read the other bins by attention, a channel per predicted neuron.

    .. math:: X = \sqrt{N} e(n) + p, \quad X \leftarrow X + A(\mathrm{LN} X), \quad X \leftarrow X + F(\mathrm{LN} X)

    for each layer, then a layer norm. n is ``batch time neurons`` in counts per bin, with zeros for held-out neurons; e
    the identity or a linear map, p learned or sinusoidal positions, A attention over bins within the context, F two
    linear layers. Features are ``neurons`` channels; readout ``linear`` with link ``exp`` makes log rates of them, and
    starts at each neuron's mean rate instead of at 1. It reads ``recorded_others``, and the future. Clips longer than
    ``frames`` are read in stretches of that many bins, shorter ones are padded by zeros. Cost: layers x (time^2 x
    neurons + time x neurons^2). Train it with ``masked_poisson``. Its null is ``smoothed``, which mixes bins by a fixed
    kernel.

    Args:
        frames: bins of a stretch; the crop length it is trained on.
        layers: temporal layers.
        heads: must divide the number of neurons.
        hidden: width inside F.
        embedding: ``identity`` or ``linear``.
        positions: ``learned`` or ``sinusoidal``.
        context_back: bins before that a bin may read; None for all.
        context_forward: bins after; None for all.
        dropout: inside layers, of attention weights too.
        dropout_rates: of the features.
        dropout_embedding: of the embedded counts.

    Raises:
        MissingFactError: no recorded activity is on offer, or sessions differ in their number of neurons.
        ValueError: heads do not divide the neurons, or more neurons are observed than predicted.

    Source: Ye and Pandarinath (2021), Neurons, Behavior, Data analysis, and Theory; arXiv:2108.01210.
    """

    reads: ClassVar[Reads] = Reads(information="recorded_others", causal=False, population=True)

    def __init__(
        self,
        *,
        observed_channels: Fact[int],
        n_neurons: Fact[int],
        frames: Count = 100,
        layers: Count = 4,
        heads: Count = 2,
        hidden: Count = 128,
        embedding: Literal["identity", "linear"] = "identity",
        positions: Literal["learned", "sinusoidal"] = "learned",
        context_back: Index | None = None,
        context_forward: Index | None = None,
        dropout: BelowOne = 0.2,
        dropout_rates: BelowOne = 0.2,
        dropout_embedding: BelowOne = 0.2,
    ) -> None:
        super().__init__()
        width = population_width("ndt", observed_channels, n_neurons)
        self.width, self.frames, self.lost_frames, self.feature_shape = width, frames, 0, (width, 1, 1)
        self.embed = EMBEDDINGS[embedding](width)
        if positions == "learned":
            self.places = nn.Parameter(sinusoids(frames, width))
        else:
            self.register_buffer("places", sinusoids(frames, width), persistent=False)
        self.layers = nn.ModuleList(TemporalLayer(width, heads, hidden, dropout) for _ in range(layers))
        scale_by_depth(self.layers, layers)
        self.norm = nn.LayerNorm(width)
        self.drop_embedding, self.drop_rates = nn.Dropout(dropout_embedding), nn.Dropout(dropout_rates)
        self.register_buffer("allowed", context_window(frames, context_back, context_forward), persistent=False)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel 1 1"]:
        """Mix bins of recorded counts."""
        return in_windows(self._encode, counts_of(inputs, self.width), self.frames)[..., None, None]

    def embeddings(self, inputs: Inputs) -> list[Float[Tensor, "samples time channel"]]:
        """Counts embedded, before positions: what a contrastive objective compares."""
        return [self._embedded(windows_of(counts_of(inputs, self.width), self.frames))]

    def _embedded(self, x: Tensor) -> Tensor:
        return self.embed(x) * self.width**0.5

    def _encode(self, x: Tensor) -> Tensor:
        x = self.drop_embedding(self._embedded(x) + self.places)
        for layer in self.layers:
            x = layer(x, self.allowed)
        return self.drop_rates(self.norm(x))
