"""A deep core of inverted bottlenecks whose filters over pixels and over time see one channel each."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.convolution import (
    check_frames,
    check_layers,
    input_planes,
    over_frames,
    over_time,
    state_of,
    with_planes,
)
from neuroint.modules.transformer import sinusoids
from neuroint.modules.video_blocks import DropPath, remembering_less
from neuroint.registry import BelowOne, Count, Fact, cores

Features = Float[Tensor, "batch time channel height width"]


class _Norm(nn.Module):
    """Batch normalization of every frame's channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = SynchronizedBatchNorm(channels)

    def forward(self, x: Features) -> Features:
        return over_frames(self.norm, x)


class _Squeeze(nn.Module):
    """Scale channels by what they are in the mean: over pixels and, where the future may be read, over time."""

    def __init__(self, channels: int, reduction: int, *, over_clip: bool) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.axes = (1, 3, 4) if over_clip else (3, 4)
        self.gate = nn.Sequential(nn.Linear(channels, inner), nn.SiLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, x: Features) -> Features:
        return x * self.gate(x.mean(self.axes, keepdim=True).transpose(2, 4)).transpose(2, 4)


class _Block(nn.Module):
    """Places, expand, filter over pixels, filter over time, squeeze, project; beside a shortcut without weights."""

    def __init__(
        self,
        inner: int,
        outer: int,
        *,
        expansion: int,
        stride: int,
        pixels: int,
        taps: int,
        reduction: int,
        drop_path: float,
        causal: bool,
    ) -> None:
        super().__init__()
        wide = inner * expansion
        self.stride, self.outer, self.causal = stride, outer, causal
        self.lost = (taps - 1) * causal
        self.expand, self.expand_norm = nn.Conv2d(inner, wide, 1, bias=False), _Norm(wide)
        self.over_pixels = nn.Conv2d(wide, wide, pixels, stride, pixels // 2, groups=wide, bias=False)
        self.pixels_norm = _Norm(wide)
        padding = (0 if causal else taps // 2, 0)
        self.over_time = nn.Conv2d(wide, wide, (taps, 1), padding=padding, groups=wide, bias=False)
        self.time_norm = _Norm(wide)
        self.squeeze = _Squeeze(wide, reduction, over_clip=not causal)
        self.project, self.project_norm = nn.Conv2d(wide, outer, 1, bias=False), _Norm(outer)
        self.drop_path, self.shortcut_norm = DropPath(drop_path), _Norm(outer)

    def forward(self, x: Features) -> Tensor:
        """Run the block."""
        x = x + self._places(x)
        y = functional.silu(self.expand_norm(over_frames(self.expand, x)))
        y = functional.silu(self.pixels_norm(over_frames(self.over_pixels, y)))
        y = functional.silu(self.time_norm(over_time(self.over_time, y)))
        y = self.project_norm(over_frames(self.project, self.squeeze(y)))
        return self.drop_path(y) + self.shortcut_norm(self._shortcut(x, y.shape[-2:]))

    def _places(self, x: Features) -> Tensor:
        """A third of the channels tells the row, a third the column and a third, where it may, the frame."""
        frames, channels, rows, columns = x.shape[1:]
        sizes = [frames, rows, columns][self.causal :]
        shares = [len(part) for part in torch.arange(channels).tensor_split(len(sizes))]
        coded = [sinusoids(size, share).to(x) for size, share in zip(sizes, shares, strict=True)]
        *time, by_row, by_column = coded
        grids = [by_row.T[:, :, None].expand(-1, rows, columns), by_column.T[:, None].expand(-1, rows, columns)]
        still = torch.cat(grids)
        if not time:
            return still
        moving = time[0][..., None, None].expand(-1, -1, rows, columns)
        return torch.cat([moving, still.expand(frames, -1, -1, -1)], dim=1)

    def _shortcut(self, x: Features, size: torch.Size) -> Tensor:
        """Take the nearest pixels, and repeat channels until there are enough."""
        frames = x[:, self.lost :]
        small = over_frames(lambda pictures: functional.interpolate(pictures, size, mode="nearest"), frames)
        return small.repeat(1, 1, -(-self.outer // small.shape[2]), 1, 1)[:, :, : self.outer]


class _Cortex(nn.Module):
    """Mix the pooled features in groups, and shuffle the groups; beside a shortcut without weights."""

    def __init__(self, inner: int, outer: int, groups: int) -> None:
        super().__init__()
        self.groups, self.outer = groups, outer
        self.mix = nn.Conv1d(inner, outer, 1, groups=groups, bias=False)
        self.norm, self.shortcut_norm = SynchronizedBatchNorm(outer), SynchronizedBatchNorm(outer)

    def forward(self, x: Float[Tensor, "batch channel time"]) -> Float[Tensor, "batch outer time"]:
        """Run the layer."""
        y = functional.silu(self.norm(self.mix(x)))
        y = y.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        return y + self.shortcut_norm(x.repeat(1, -(-self.outer // x.shape[1]), 1)[:, : self.outer])


@cores.register("depthwise_conv3d")
class DepthwiseConv3d(nn.Module):
    r"""Turn video into features by blocks that widen, filter each channel alone over pixels and time, and narrow again.

    .. math::
        y = \mathrm{SiLU}(\mathrm{BN}(W_e (x + p))), \quad y \leftarrow \mathrm{SiLU}(\mathrm{BN}(k_{xy} * y)), \quad
        y \leftarrow \mathrm{SiLU}(\mathrm{BN}(k_t * y)), \quad
        x \leftarrow \mathrm{BN}(W_p (y\, \mathrm{SE}(y))) + \mathrm{BN}(\mathrm{tile}(x))

    with p sines of the place and SE a gate from each channel's mean. With ``cortex`` the features are averaged over
    pixels and mixed by grouped layers of these widths, shared by all animals; readout ``cortex`` stands behind it.

    As published it is not causal: filters over time are centered, the gate and the places see the whole clip, and a
    clip is never cut (``whole_clips``). ``causal`` filters the past only, without padding (``lost_frames``: 4 per
    block), and gives gate and places nothing but the frame. Its nulls are ``factorized_conv3d``, and the causal one
    for the other: what reading the future is worth. At the published widths the blocks have 3,673,404 parameters and
    the cortex 5,402,624.

    Args:
        widths: channels after each block; ``stem`` before the first.
        stem: channels that the planes are mapped to.
        strides: pixels that each block steps by.
        expansion: how many times as wide a block is inside.
        spatial_kernel: pixels per side, odd.
        temporal_kernel: frames, odd.
        reduction: how many times narrower the gate is inside.
        drop_path: share of clips for which a block is left out in training, growing evenly up to the last block.
        cortex: widths of the layers behind the blocks; none leaves the feature map.
        groups: of the cortex.
        causal: read the past only.
        behavior: show behavior and pupil as constant planes, where they were recorded.
        square: pad frames with zeros to squares, planes of behavior included, as published.
        recompute: run blocks again on the way back instead of keeping what is inside them: less memory, more time.

    Raises:
        ValueError: even kernels, lists of unequal lengths, clips too short, or cortex widths that groups do not divide.

    Source: the winner of Sensorium 2023 (DwiseNeuro), described in Turishcheva et al. (2024), NeurIPS 37.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        pupil_channels: Fact[int] = 0,
        stem: Count = 64,
        widths: tuple[Count, ...] = (64, 64, 64, 128, 128, 128, 256, 256, 256),
        strides: tuple[Count, ...] = (2, 1, 1, 1, 2, 1, 1, 2, 1),
        expansion: Count = 7,
        spatial_kernel: Count = 3,
        temporal_kernel: Count = 5,
        reduction: Count = 32,
        drop_path: BelowOne = 0.1,
        cortex: tuple[Count, ...] = (1024, 2048, 4096),
        groups: Count = 2,
        causal: bool = True,
        behavior: bool = True,
        square: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_layers("depthwise_conv3d", widths, strides=strides)
        _check_sizes(spatial_kernel, temporal_kernel, (widths[-1], *cortex), groups)
        self.reads = Reads(causal=causal)
        self.square, self.recompute = square, recompute
        self.state_channels = (behavior_channels + pupil_channels) * behavior
        self.stem = nn.Conv2d(stimulus_shape[0] + self.state_channels, stem, 1, bias=False)
        self.stem_norm = _Norm(stem)
        sizes = {"expansion": expansion, "pixels": spatial_kernel, "taps": temporal_kernel, "reduction": reduction}
        self.blocks = nn.ModuleList(
            _Block(inner, outer, stride=stride, drop_path=drop_path * (i + 1) / len(widths), causal=causal, **sizes)
            for i, (inner, outer, stride) in enumerate(zip((stem, *widths), widths, strides, strict=False))
        )
        self.cortex = nn.ModuleList(
            _Cortex(inner, outer, groups) for inner, outer in zip((widths[-1], *cortex), cortex, strict=False)
        )
        self.feature_shape = self._shape(stimulus_shape[1:], (widths[-1], *cortex)[-1], strides)
        self.lost_frames = (temporal_kernel - 1) * len(widths) * causal
        self.whole_clips = not causal

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch new_time new_channel new_height new_width"]:
        """Turn the inputs into features of all but the first ``lost_frames`` frames."""
        check_frames("depthwise_conv3d", inputs.n_frames, self.lost_frames)
        x = self.stem_norm(over_frames(self.stem, self._planes(inputs)))
        for block in self.blocks:
            x = remembering_less(block, self.recompute, x)
        if not len(self.cortex):
            return x
        pooled = x.mean((3, 4)).transpose(1, 2)
        for layer in self.cortex:
            pooled = layer(pooled)
        return pooled.transpose(1, 2)[..., None, None]

    def _planes(self, inputs: Inputs) -> Features:
        """Video, zero-padded where it is asked for, and what the animal did as constant planes."""
        video = input_planes(inputs, False)
        if self.square:
            rows, columns = (max(video.shape[-2:]) - side for side in video.shape[-2:])
            video = functional.pad(video, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return with_planes(video, state_of("depthwise_conv3d", inputs, self.state_channels, "behavior: false"))

    def _shape(self, size: tuple[int, ...], channels: int, strides: tuple[int, ...]) -> tuple[int, int, int]:
        if len(self.cortex):
            return channels, 1, 1
        height, width = (max(size), max(size)) if self.square else size
        for stride in strides:
            height, width = -(-height // stride), -(-width // stride)
        return channels, height, width


def _check_sizes(spatial_kernel: int, temporal_kernel: int, widths: tuple[int, ...], groups: int) -> None:
    if not (spatial_kernel % 2 and temporal_kernel % 2):
        raise ValueError(
            f"core 'depthwise_conv3d': kernels of {spatial_kernel} pixels and {temporal_kernel} frames cannot be "
            "centered; choose odd ones"
        )
    if len(widths) > 1 and any(width % groups for width in widths):
        raise ValueError(f"core 'depthwise_conv3d': {groups} groups do not divide the widths {widths}; change groups")
