"""A core of full 3-D convolutions."""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.convolution import check_frames, check_layers, input_planes, shrunken, start_weights
from neuroint.modules.penalties import spatial_roughness, weighed_sum
from neuroint.registry import Count, Fact, NonNegative, cores


@cores.register("conv3d")
class Conv3d(nn.Module):
    r"""Turn video into features by layers of filters over time and pixels that need not be products.

    .. math:: x_{l+1} = \mathrm{ELU}(\mathrm{BN}(w_l * x_l))

    Nothing is padded, so the features of a frame depend on that frame and the ``lost_frames`` before it. Its null is
    ``factorized_conv3d`` of equal kernels: what inseparable filters (direction selectivity in one layer) add.

    Args:
        channels: features per layer.
        spatial_kernels: pixels per side and layer.
        temporal_kernels: frames per layer.
        momentum: weight of the *new* batch in the running statistics (torch's convention).
        behavior: show behavior as planes that are constant in a frame, where it was recorded.
        spatial_smoothness: weight of the roughness of the first filters over pixels, beside a loss per response.

    Raises:
        ValueError: kernels larger than the frames, clips shorter than the temporal filters (static images), or lists of
            layers of unequal lengths.

    Source: Sinz et al. (2018), NeurIPS 31.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        channels: tuple[Count, ...] = (16, 32, 32),
        spatial_kernels: tuple[Count, ...] = (11, 5, 5),
        temporal_kernels: tuple[Count, ...] = (11, 5, 5),
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
        behavior: bool = True,
        spatial_smoothness: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        check_layers("conv3d", channels, spatial_kernels=spatial_kernels, temporal_kernels=temporal_kernels)
        self.behavior = behavior and behavior_channels > 0
        inner = (stimulus_shape[0] + behavior_channels * self.behavior, *channels)
        layers: list[nn.Module] = []
        for in_, out, space, time in zip(inner, channels, spatial_kernels, temporal_kernels, strict=False):
            layers += [
                nn.Conv3d(in_, out, (time, space, space)),
                SynchronizedBatchNorm(out, momentum=momentum),
                nn.ELU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.feature_shape = (channels[-1], *shrunken("conv3d", *stimulus_shape[1:], spatial_kernels))
        self.lost_frames = sum(kernel - 1 for kernel in temporal_kernels)
        self.spatial_smoothness = spatial_smoothness
        start_weights(self)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features of all but the first ``lost_frames`` frames."""
        check_frames("conv3d", inputs.n_frames, self.lost_frames)
        return self.layers(input_planes(inputs, self.behavior).transpose(1, 2)).transpose(1, 2)

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the roughness of the first layer's filters."""
        return weighed_sum((self.spatial_smoothness, spatial_roughness, cast(nn.Conv3d, self.layers[0]).weight))
