"""A core that sees one frame at a time."""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.convolution import check_layers, input_planes, over_frames, shrunken, start_weights
from neuroint.modules.penalties import spatial_roughness, weighed_sum
from neuroint.registry import Count, Fact, NonNegative, cores


@cores.register("conv2d")
class Conv2d(nn.Module):
    r"""Turn every frame into features by itself: the core for static images, and for video without memory.

    .. math:: x_{l+1} = \mathrm{ELU}(\mathrm{BN}(w_l * x_l))

    Nothing is padded and no frame is consumed. On video its features know nothing of the past, so it is the null for
    what temporal filters add; its own null is ``linear``.

    Args:
        channels: features per layer.
        spatial_kernels: pixels per side and layer.
        momentum: weight of the *new* batch in the running statistics (torch's convention).
        behavior: show behavior as planes that are constant in a frame, where it was recorded.
        spatial_smoothness: weight of the roughness of the first filters, beside a loss per response.

    Raises:
        ValueError: kernels larger than the frames, or lists of layers of unequal lengths.

    Source: Klindt et al. (2017), NeurIPS 30; Cadena et al. (2019), PLoS Comput. Biol. 15, e1006897.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        channels: tuple[Count, ...] = (32, 32, 32),
        spatial_kernels: tuple[Count, ...] = (9, 5, 5),
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
        behavior: bool = True,
        spatial_smoothness: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        check_layers("conv2d", channels, spatial_kernels=spatial_kernels)
        self.behavior = behavior and behavior_channels > 0
        inner = (stimulus_shape[0] + behavior_channels * self.behavior, *channels)
        layers: list[nn.Module] = []
        for in_, out, kernel in zip(inner, channels, spatial_kernels, strict=False):
            layers += [nn.Conv2d(in_, out, kernel), SynchronizedBatchNorm(out, momentum=momentum), nn.ELU()]
        self.layers = nn.Sequential(*layers)
        self.feature_shape = (channels[-1], *shrunken("conv2d", *stimulus_shape[1:], spatial_kernels))
        self.lost_frames = 0
        self.spatial_smoothness = spatial_smoothness
        start_weights(self)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features, frame by frame."""
        return over_frames(self.layers, input_planes(inputs, self.behavior))

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the roughness of the first layer's filters."""
        return weighed_sum((self.spatial_smoothness, spatial_roughness, cast(nn.Conv2d, self.layers[0]).weight))
