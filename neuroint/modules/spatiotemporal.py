"""What the two spatiotemporal transformers share: embeddings over bins and over neurons, stack, maps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.transformer import (
    context_window,
    counts_of,
    in_windows,
    scale_by_depth,
    sinusoids,
    windows_of,
)

Allowed = Bool[Tensor, "frames frames"] | None
OverNeurons = Float[Tensor, "batch neurons time"] | None


class SpatioTemporal(nn.Module):
    """A stack of layers on ``batch time neurons``, the first of which reads an embedding of neurons over bins.

    Args:
        layers: modules with ``forward(x, over_neurons, allowed)`` and ``maps(x, over_neurons, allowed)``, where
            ``over_neurons`` is ``batch neurons time``.
        width: number of neurons.
        frames: number of bins of a stretch.
        context: bins back and forward that a bin may read; None for all.
        dropouts: of the features, and of the embeddings.
    """

    places_time: Tensor
    places_space: Tensor

    reads: ClassVar[Reads] = Reads(information="recorded_others", causal=False, population=True)

    def __init__(
        self,
        layers: list[nn.Module],
        width: int,
        frames: int,
        context: tuple[int | None, int | None],
        dropouts: tuple[float, float],
    ) -> None:
        super().__init__()
        self.width, self.frames, self.lost_frames, self.feature_shape = width, frames, 0, (width, 1, 1)
        self.embed_time, self.embed_space = nn.Linear(width, width), nn.Linear(frames, frames)
        self.layers = nn.ModuleList(layers)
        scale_by_depth(self.layers, len(layers))
        self.norm = nn.LayerNorm(width)
        self.drop_rates, self.drop_embedding = (nn.Dropout(share) for share in dropouts)
        self.register_buffer("places_time", sinusoids(frames, width), persistent=False)
        self.register_buffer("places_space", sinusoids(width, frames), persistent=False)
        self.register_buffer("allowed", context_window(frames, *context), persistent=False)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel 1 1"]:
        """Mix bins and neurons of recorded counts."""
        return in_windows(self._encode, counts_of(inputs, self.width), self.frames)[..., None, None]

    def embeddings(self, inputs: Inputs) -> list[Float[Tensor, "samples first second"]]:
        """Embeddings over bins and over neurons, before positions: what a contrastive objective compares."""
        return list(self._embedded(windows_of(counts_of(inputs, self.width), self.frames)))

    @torch.no_grad()
    def spatial_maps(self, inputs: Inputs) -> Float[Tensor, "layers samples neurons neurons"]:
        """Who reads whom in every layer, averaged over heads; stretches of a clip are samples. Rows sum to 1."""
        x, over_neurons = self._placed(windows_of(counts_of(inputs, self.width), self.frames))
        maps = []
        for layer in self.layers:
            after: Any = layer
            maps.append(after.maps(x, over_neurons, self.allowed))
            x = after(x, over_neurons, self.allowed)
            over_neurons = None
        return torch.stack(maps)

    def _embedded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.embed_time(x) * self.width**0.5, self.embed_space(x.transpose(1, 2)) * self.frames**0.5

    def _placed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        over_time, over_neurons = self._embedded(x)
        return self.drop_embedding(over_time + self.places_time), self.drop_embedding(over_neurons + self.places_space)

    def _encode(self, x: Tensor) -> Tensor:
        x, over_neurons = self._placed(x)
        for layer in self.layers:
            x = layer(x, over_neurons, self.allowed)
            over_neurons = None  # later layers read neurons off the state itself
        return self.drop_rates(self.norm(x))


def neurons_of(
    x: Float[Tensor, "batch time neurons"], over_neurons: OverNeurons
) -> Float[Tensor, "batch neurons time"]:
    """The embedding over neurons where there is one, else the state turned."""
    return x.transpose(1, 2) if over_neurons is None else over_neurons
