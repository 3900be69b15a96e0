"""A core of filters that are alike in every direction, and of gated units that remember, on a map."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.convolution import check_layers, input_planes, over_frames
from neuroint.modules.penalties import spatial_roughness, weighed_sum
from neuroint.modules.rotated_filters import RotatedConv
from neuroint.registry import Count, Fact, Index, NonNegative, cores

Map = Float[Tensor, "batch channel height width"]


class ConvGru(nn.Module):
    r"""Gate what is remembered at every place of a map by what is seen and remembered around it.

    .. math::
        u = \sigma(W_u * x + U_u * h), \quad r = \sigma(W_r * x + U_r * h), \quad
        h \leftarrow (1 - u) h + u \tanh(W_c * x + U_c * (r h))

    h starts at 0 and keeps within (-1, 1). With ``longest`` frames T, the biases of u are -log of uniform draws from 1
    to T - 1: before training, channels remember for 2 to T frames.

    Source: Ballas et al. (2016), ICLR; the biases after Tallec & Ollivier (2018), ICLR.
    """

    def __init__(self, inner: int, channels: int, input_px: int, memory_px: int, longest: float | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.seen = nn.Conv2d(inner, 3 * channels, input_px, padding=input_px // 2)
        self.gates = nn.Conv2d(channels, 2 * channels, memory_px, padding=memory_px // 2)
        self.candidate = nn.Conv2d(channels, channels, memory_px, padding=memory_px // 2)
        if longest is not None:
            self._remember(longest)

    @torch.no_grad()
    def _remember(self, longest: float) -> None:
        frames = torch.empty(self.channels).uniform_(1, longest - 1)
        for layer, bias in ((self.seen, -frames.log()), (self.gates, torch.zeros_like(frames))):
            layer.get_parameter("bias")[: self.channels] = bias

    def forward(
        self, x: Float[Tensor, "batch time inner height width"]
    ) -> Float[Tensor, "batch time channel height width"]:
        """Run over the frames; what does not depend on memory is done for all of them at once."""
        seen = over_frames(self.seen, x)
        memory, kept = torch.zeros_like(seen[:, 0, : self.channels]), []
        for frame in seen.unbind(1):
            memory = self._step(frame, memory)
            kept.append(memory)
        return torch.stack(kept, dim=1)

    def _step(self, seen: Float[Tensor, "batch three_channels height width"], memory: Map) -> Map:
        of_gates, of_candidate = seen.split([2 * self.channels, self.channels], dim=1)
        update, reset = torch.sigmoid(of_gates + self.gates(memory)).chunk(2, dim=1)
        candidate = torch.tanh(of_candidate + self.candidate(reset * memory))
        return torch.lerp(memory, candidate, update)


@cores.register("conv_gru")
class ConvGruCore(nn.Module):
    r"""Turn every frame into features that are alike in all directions, and remember them in gated units on the map.

    Layers of Hermite filters in ``directions`` directions (:class:`~neuroint.modules.rotated_filters.RotatedConv`),
    batch normalization that directions share and ELU (none behind the last layer), then a convolutional GRU:

    .. math:: h(t) = (1 - u) h(t - 1) + u \tanh(W_c * x(t) + U_c * (r h(t - 1)))

    The first layer is not padded, the others are. It is causal: features depend on all frames of the clip so far, which
    is why a clip is never cut (``whole_clips``). Its nulls are ``conv2d`` of equal filters (``memory: false`` here) and
    ``factorized_conv3d``. Cost is frames, one after the other, x pixels x channels squared x filter. At the published
    sizes the GRU has 1,991,040 parameters.

    Args:
        features: per layer; channels are features x directions.
        sides_px: of the filters, per layer.
        orders: highest order of Hermite functions, per layer.
        directions: how many.
        gru_channels: of the GRU.
        input_px: side of its filters on features, odd.
        memory_px: side of its filters on what it remembers, odd.
        memory: false leaves the GRU out.
        remembers_frames: before training, channels remember for 2 to as many frames; by default for about 2.
        momentum: weight of the *new* batch in the running statistics (torch's convention).
        behavior: show behavior as planes that are constant in a frame, where it was recorded.
        smoothness: weight of the roughness of the GRU's filters on features, beside a loss per response.

    Raises:
        ValueError: how long to remember without memory, lists of unequal lengths, even filters of the GRU or behind
            the first layer, or filters larger than the frames.

    Source: the GRU baseline of Turishcheva et al. (2024), NeurIPS 37; filters after Ecker et al. (2019), ICLR. Differs
    from it: its penalties on filters of the picture (gamma_input, gamma_hidden) are left out.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        features: tuple[Count, ...] = (8, 8, 8, 8),
        sides_px: tuple[Count, ...] = (9, 7, 7, 7),
        orders: tuple[Index, ...] = (5, 4, 4, 4),
        directions: Count = 8,
        gru_channels: Count = 64,
        input_px: Count = 9,
        memory_px: Count = 9,
        memory: bool = True,
        remembers_frames: Annotated[float, Field(gt=2)] | None = None,
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.9,
        behavior: bool = True,
        smoothness: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        if remembers_frames is not None and not memory:
            raise ValueError(
                f"core 'conv_gru': remembers_frames is {remembers_frames} and memory is false; leave one of them out"
            )
        check_layers("conv_gru", features, sides_px=sides_px, orders=orders)
        height, width = _map_size(stimulus_shape, sides_px, (input_px, memory_px))
        self.behavior = behavior and behavior_channels > 0
        self.directions, self.smoothness = directions, smoothness
        inner = (stimulus_shape[0] + behavior_channels * self.behavior, *features)
        self.layers = nn.ModuleList(
            RotatedConv(*sizes, directions, turned_input=i > 0, padding=sizes[2] // 2 * (i > 0))
            for i, sizes in enumerate(zip(inner, features, sides_px, orders, strict=False))
        )
        self.norms = nn.ModuleList(SynchronizedBatchNorm(count, momentum=momentum) for count in features)
        last = features[-1] * directions
        self.gru = ConvGru(last, gru_channels, input_px, memory_px, remembers_frames) if memory else None
        self.feature_shape = (gru_channels if memory else last, height, width)
        self.lost_frames = 0
        self.whole_clips = memory

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features."""
        found = over_frames(self._look, input_planes(inputs, self.behavior))
        return found if self.gru is None else self.gru(found)

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the roughness of the GRU's filters on features."""
        if self.gru is None:
            return torch.zeros(())
        return weighed_sum((self.smoothness, spatial_roughness, self.gru.seen.weight))

    def _look(self, x: Float[Tensor, "frames plane height width"]) -> Tensor:
        """Filter a picture, layer by layer."""
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = norm(layer(x).unflatten(1, (-1, self.directions)).flatten(2, 3)).unflatten(2, (self.directions, -1))
            x = x.flatten(1, 2)
            x = functional.elu(x) if index < len(self.layers) - 1 else x
        return x


def _map_size(
    stimulus_shape: tuple[int, int, int], sides_px: tuple[int, ...], gru_px: tuple[int, int]
) -> tuple[int, int]:
    """Size of the map that the first layer leaves; the others keep it."""
    even = [side for side in (*sides_px[1:], *gru_px) if side % 2 == 0]
    if even:
        raise ValueError(f"core 'conv_gru': padded filters of {even[0]} pixels cannot be centered; choose odd ones")
    height, width = (side - sides_px[0] + 1 for side in stimulus_shape[1:])
    if min(height, width) < 1:
        raise ValueError(
            f"core 'conv_gru': first filters of {sides_px[0]} pixels need frames as large, the stimulus has "
            f"{stimulus_shape[1]} x {stimulus_shape[2]}; choose smaller ones"
        )
    return height, width
