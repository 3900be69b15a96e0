"""What the convolutional cores share: input planes, channels-last convolutions, and checks that kernels fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.data.base import Inputs

Layer = Callable[[Tensor], Tensor]


def input_planes(inputs: Inputs, behavior: bool) -> Float[Tensor, "batch time plane height width"]:
    """Stack stimulus and, if asked for, behavior as constant planes; channels lie last in memory.

    Raises:
        ValueError: the stimulus, or the behavior that the core was built for, is missing.
    """
    if inputs.stimulus is None:
        raise ValueError("the core reads a stimulus, and the inputs have none; use core 'constant' without a stimulus")
    video = inputs.stimulus.permute(0, 1, 3, 4, 2)
    if behavior:
        if inputs.behavior is None:
            raise ValueError("the core was built with behavior channels, and the inputs have none; set behavior: false")
        planes = inputs.behavior[:, :, None, None].expand(*video.shape[:4], -1)
        video = torch.cat([video, planes.to(video.dtype)], dim=-1)
    return video.permute(0, 1, 4, 2, 3)


def over_frames(
    layer: Layer, x: Float[Tensor, "batch time channel height width"]
) -> Float[Tensor, "batch time new_channel new_height new_width"]:
    """Apply a layer on images to every frame."""
    frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return layer(frames).unflatten(0, x.shape[:2])


def over_time(
    layer: Layer, x: Float[Tensor, "batch time channel height width"]
) -> Float[Tensor, "batch new_time new_channel height width"]:
    """Apply a layer on images whose rows are time and whose columns are pixels."""
    sheet = x.permute(0, 2, 1, 3, 4).flatten(3).contiguous(memory_format=torch.channels_last)
    return layer(sheet).unflatten(3, x.shape[3:]).permute(0, 2, 1, 3, 4)


def shrunken(core: str, height: int, width: int, kernels: Sequence[int]) -> tuple[int, int]:
    """Height and width that unpadded square kernels leave.

    Raises:
        ValueError: the kernels do not fit.
    """
    lost = sum(kernel - 1 for kernel in kernels)
    if min(height, width) <= lost:
        raise ValueError(
            f"core '{core}': spatial kernels {tuple(kernels)} need at least {lost + 1} x {lost + 1} pixels, "
            f"the stimulus has {height} x {width}; choose smaller kernels or fewer layers"
        )
    return height - lost, width - lost


def check_layers(core: str, channels: Sequence[int], **kernels: Sequence[int]) -> None:
    """Refuse lists of layers that are empty or of unequal lengths."""
    for name, sizes in kernels.items():
        if len(sizes) != len(channels) or not channels:
            raise ValueError(
                f"core '{core}': got {len(channels)} channels {tuple(channels)} and {len(sizes)} {name} "
                f"{tuple(sizes)}; give one of each per layer"
            )


def check_frames(core: str, frames: int, lost_frames: int) -> None:
    """Refuse clips that the kernels in time do not fit in."""
    if frames <= lost_frames:
        raise ValueError(
            f"core '{core}' consumes {lost_frames} frames and needs at least {lost_frames + 1}, got clips of {frames}; "
            "use longer clips or shorter temporal kernels, and core 'conv2d' for static images"
        )


def start_weights(core: nn.Module) -> None:
    """Draw the weights of all convolutions from Xavier's normal distribution, and set their biases to zero."""
    for module in core.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
