"""The core of linear-nonlinear models: the stimulus itself, in lags."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.convolution import check_frames, input_planes
from neuroint.registry import Count, Fact, cores


@cores.register("linear")
class Linear(nn.Module):
    r"""Offer the stimulus of the last frames, lag by lag, so that the readout is a spatiotemporal linear filter.

    .. math:: x_{lc}(t) = s_c(t - l), \quad l = 0 \ldots lags - 1

    Channel ``c * lags + l`` is stimulus channel c, l frames back; behavior at the frame itself follows as constant
    planes. With readout ``linear`` the model is the full-rank linear-nonlinear model, with ``factorized`` of rank R the
    low-rank one: the floor that every other core must beat. It has no parameters. Its null is ``constant``.

    Args:
        lags: frames a filter spans; ``lags - 1`` frames are consumed.
        downsample: side in pixels of the squares that are averaged; pixels that fill no square are dropped.
        behavior: show behavior as planes that are constant in a frame, where it was recorded.

    Raises:
        ValueError: fewer pixels than one square, or clips shorter than the filter.

    Source: Chichilnisky (2001), Network 12, 199-213.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        lags: Count = 12,
        downsample: Count = 1,
        behavior: bool = True,
    ) -> None:
        super().__init__()
        channel, height, width = stimulus_shape
        if min(height, width) < downsample:
            raise ValueError(
                f"core 'linear': cannot average squares of {downsample} pixels in frames of {height} x {width}; "
                "choose a smaller downsample"
            )
        self.behavior = behavior and behavior_channels > 0
        self.downsample, self.lost_frames = downsample, lags - 1
        planes = channel * lags + behavior_channels * self.behavior
        self.feature_shape = (planes, height // downsample, width // downsample)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Stack the lags of every frame but the first ``lost_frames``."""
        check_frames("linear", inputs.n_frames, self.lost_frames)
        planes = input_planes(inputs, self.behavior)
        small = functional.avg_pool2d(planes.flatten(0, 1), self.downsample).unflatten(0, planes.shape[:2])
        channels = inputs.stimulus.shape[2] if inputs.stimulus is not None else 0
        lagged = small[:, :, :channels].unfold(1, self.lost_frames + 1, 1).flip(-1)
        stacked = lagged.permute(0, 1, 2, 5, 3, 4).flatten(2, 3)
        return torch.cat([stacked, small[:, self.lost_frames :, channels:]], dim=2)
