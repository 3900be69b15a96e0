"""The factorized 3-D convolutional core of the Sensorium 2023 baselines."""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.convolution import (
    FilterOverTime,
    check_frames,
    check_layers,
    filter_frames,
    over_time,
    shrunken,
    start_weights,
    stimulus_and_behavior,
)
from neuroint.modules.penalties import spatial_roughness, temporal_roughness, weighed_sum
from neuroint.registry import Count, Fact, NonNegative, cores


class _Layer(nn.Module):
    """Filter over pixels, then over time, normalize, rectify; there is no nonlinearity between the two filters."""

    def __init__(self, inner: int, outer: int, spatial: int, temporal: int, momentum: float) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(inner, outer, spatial)
        self.temporal = FilterOverTime(outer, outer, temporal)
        self.norm = SynchronizedBatchNorm(outer, momentum=momentum)

    def forward(
        self, x: Float[Tensor, "batch time channel height width"], behavior: Float[Tensor, "batch time b"] | None = None
    ) -> Float[Tensor, "batch new_time new_channel new_height new_width"]:
        return over_time(self._in_time, filter_frames(self.spatial, x, behavior))

    def _in_time(self, sheet: Float[Tensor, "batch channel time pixel"]) -> Tensor:
        return functional.elu(self.norm(self.temporal(sheet)), inplace=True)


@cores.register("factorized_conv3d")
class FactorizedConv3d(nn.Module):
    r"""Turn video into features by layers of 3-D filters that are products of a spatial and a temporal filter.

    .. math:: x_{l+1} = \mathrm{ELU}(\mathrm{BN}(w^t_l * (w^{xy}_l * x_l)))

    With its defaults it is the core of the Sensorium 2023 factorized baseline: 382,176 parameters for one gray channel
    and two behavior channels, 36 x 64 pixels to 18 x 46, 18 frames consumed. Nothing is padded, so the features of a
    frame depend on that frame and the ``lost_frames`` before it. Both filters are computed as channels-last 2-D
    convolutions (over pixels, then over time x pixels), which equals ``conv3d`` and is faster on CPU. Its null is
    ``linear``, and ``conv2d`` for what the temporal filters add.

    Args:
        channels: features per layer.
        spatial_kernels: pixels per side and layer.
        temporal_kernels: frames per layer.
        momentum: weight of the *new* batch in the running statistics (torch's convention, as in the baseline).
        behavior: show behavior as planes that are constant in a frame, where it was recorded.
        spatial_smoothness: weight of the roughness of the first spatial filters.
        temporal_smoothness: weight of the roughness of the first temporal filters.

    The baseline's weights of smoothness, 10 and .01, stand beside a loss summed over some 4 million responses and
    multiplied by about 10; beside a loss per response the same strength is 2.5e-7 and 2.5e-10, the defaults here.

    Raises:
        ValueError: kernels larger than the frames, clips shorter than the temporal filters (static images), or lists of
            layers of unequal lengths.

    Source: Turishcheva et al. (2023), arXiv:2305.19654; Hoefling et al. (2024), eLife 13:e86860.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        channels: tuple[Count, ...] = (32, 64, 128),
        spatial_kernels: tuple[Count, ...] = (11, 5, 5),
        temporal_kernels: tuple[Count, ...] = (11, 5, 5),
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.7,
        behavior: bool = True,
        spatial_smoothness: NonNegative = 2.5e-7,
        temporal_smoothness: NonNegative = 2.5e-10,
    ) -> None:
        super().__init__()
        check_layers("factorized_conv3d", channels, spatial_kernels=spatial_kernels, temporal_kernels=temporal_kernels)
        self.behavior = behavior and behavior_channels > 0
        inner = (stimulus_shape[0] + behavior_channels * self.behavior, *channels)
        self.layers = nn.Sequential(
            *(
                _Layer(*sizes, momentum)
                for sizes in zip(inner, channels, spatial_kernels, temporal_kernels, strict=False)
            )
        )
        self.feature_shape = (channels[-1], *shrunken("factorized_conv3d", *stimulus_shape[1:], spatial_kernels))
        self.lost_frames = sum(kernel - 1 for kernel in temporal_kernels)
        self.smoothness = (spatial_smoothness, temporal_smoothness)
        start_weights(self)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features of all but the first ``lost_frames`` frames."""
        check_frames("factorized_conv3d", inputs.n_frames, self.lost_frames)
        first, *others = self.layers
        x = first(*stimulus_and_behavior(inputs, self.behavior))
        for layer in others:
            x = layer(x)
        return x

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the roughness of the first layer's filters."""
        first = cast(_Layer, self.layers[0])
        spatial, temporal = self.smoothness
        return weighed_sum(
            (spatial, spatial_roughness, first.spatial.weight), (temporal, temporal_roughness, first.temporal.weight)
        )
