"""What the convolutional cores share: input planes, channels-last convolutions, and checks that kernels fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

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


def state_of(core: str, inputs: Inputs, channels: int, choice: str) -> Float[Tensor, "batch time channel"] | None:
    """Put behavior and pupil of every frame in a row; None for a core that was built for no channels of them.

    Raises:
        ValueError: the inputs have another number of channels; ``choice`` says how to do without them.
    """
    if not channels:
        return None
    given = [x for x in (inputs.behavior, inputs.pupil) if x is not None]
    held = sum(x.shape[2] for x in given)
    if held != channels:
        raise ValueError(
            f"core '{core}' was built for {channels} channels of behavior and pupil, and the inputs have {held}; give "
            f"the inputs it was built for, or set {choice}"
        )
    return torch.cat(given, dim=2)


def with_planes(
    video: Float[Tensor, "batch time channel height width"], state: Float[Tensor, "batch time state"] | None
) -> Float[Tensor, "batch time plane height width"]:
    """Append numbers of each frame to it as constant planes."""
    if state is None:
        return video
    planes = state[..., None, None].expand(*state.shape, *video.shape[-2:])
    return torch.cat([video, planes.to(video.dtype)], dim=2)


def stimulus_and_behavior(
    inputs: Inputs, behavior: bool
) -> tuple[Float[Tensor, "batch time plane height width"], Float[Tensor, "batch time behavior"] | None]:
    """Give the stimulus, and behavior if asked for; the same errors as ``input_planes``, whose planes are not made."""
    if behavior and inputs.behavior is not None:
        return input_planes(inputs, False), inputs.behavior
    return input_planes(inputs, behavior), None


def filter_frames(
    layer: nn.Conv2d,
    x: Float[Tensor, "batch time channel height width"],
    constant: Float[Tensor, "batch time plane"] | None = None,
) -> Float[Tensor, "batch time new_channel new_height new_width"]:
    r"""Filter every frame and, as the layer's last inputs, planes that are constant in a frame.

    A plane of value :math:`b` adds :math:`b \sum w` to every pixel, because nothing is padded.
    """
    if constant is None:
        return over_frames(layer, x)
    pictures, planes = layer.weight.split([x.shape[2], constant.shape[2]], dim=1)
    added = constant.to(planes.dtype) @ planes.sum((2, 3)).T
    out = over_frames(lambda frames: functional.conv2d(frames, pictures, layer.bias), x)
    return out + added[..., None, None]


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


class FilterOverTime(nn.Conv2d):
    """Filter sheets ``batch channel time pixel`` over time, as ``Conv2d`` with a kernel of one pixel does.

    On a CPU the gradient of the weights is a matrix product per tap, because oneDNN's is slow (see
    ``benchmarks/README.md``).
    """

    def __init__(self, inner: int, outer: int, taps: int) -> None:
        super().__init__(inner, outer, (taps, 1))

    def forward(self, input: Float[Tensor, "batch channel time pixel"]) -> Tensor:
        """Apply the filters to all times at which they fit."""
        if input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        return _OverTime.apply(input, self.weight, self.bias)


class _OverTime(torch.autograd.Function):
    @staticmethod
    def forward(sheet: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv2d(sheet, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        sheet, weight, _ = inputs
        ctx.save_for_backward(sheet, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        sheet, weight = ctx.saved_tensors
        wants_sheet, wants_weight, wants_bias = ctx.needs_input_grad
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        how = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0]}
        # oneDNN cannot do the bias without the weights, so it is asked for neither.
        to_sheet, _, _ = torch.ops.aten.convolution_backward(
            gradient, sheet, weight, [len(weight)], **how, groups=1, output_mask=[wants_sheet, False, False]
        )
        to_weight = _per_tap(sheet, gradient, weight.shape[2]) if wants_weight else None
        return to_sheet, to_weight, gradient.sum((0, 2, 3)) if wants_bias else None


def _per_tap(
    sheet: Float[Tensor, "batch channel time pixel"],
    gradient: Float[Tensor, "batch new_channel new_time pixel"],
    taps: int,
) -> Float[Tensor, "new_channel channel taps 1"]:
    """Sum over batch, time and pixels of the gradient times what each tap saw."""
    seen, gradient = sheet.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    new_time = gradient.shape[1]
    columns = [clip.flatten(0, 1).T for clip in gradient]
    products = [
        torch.stack(
            [column @ clip[tap : tap + new_time].flatten(0, 1) for column, clip in zip(columns, seen, strict=True)]
        ).sum(0)
        for tap in range(taps)
    ]
    return torch.stack(products, -1)[..., None]


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
