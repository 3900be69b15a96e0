"""A transformer over the patches of each frame, with behavior added before every block."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.convolution import input_planes, state_of
from neuroint.modules.places import PlaceGrid
from neuroint.modules.video_blocks import SelfAttention, Sequence, drawn_tokens, group_by_group, on_some_tokens
from neuroint.registry import BelowOne, Count, Fact, OpenShare, cores


class _Block(nn.Module):
    """Add what was done, then attend and transform, each behind a norm and beside a shortcut."""

    def __init__(
        self, width: int, heads: int, head_width: int, hidden: int, dropout: float, state_channels: int
    ) -> None:
        super().__init__()
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, head_width, dropout)
        self.dropout = nn.Dropout(dropout)
        self.transform = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        half = width // 2
        self.state = (
            nn.Sequential(nn.Linear(state_channels, half), nn.Tanh(), nn.Linear(half, width), nn.Tanh())
            if state_channels
            else None
        )

    def with_state(self, x: Sequence, state: Float[Tensor, "sequences channel"] | None) -> Sequence:
        """Add behavior and pupil, alike to all tokens of a frame."""
        return x if self.state is None or state is None else x + self.state(state)[:, None]

    def forward(self, x: Sequence, state: Float[Tensor, "sequences channel"] | None = None) -> Sequence:
        """Run the block."""
        x = self.with_state(x, state)
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.transform(self.norm(x))


@cores.register("v1t")
class V1T(nn.Module):
    r"""Turn every frame into features by a transformer over its overlapping patches.

    .. math::
        x_0 = [c;\, W\, \mathrm{patch}_p] + e_p, \quad
        x \leftarrow x + \tanh(B_2 \tanh(B_1 s)), \quad
        x \leftarrow x + \mathrm{MHA}(\mathrm{LN}(x)), \quad
        x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))

    with s the behavior and pupil of the frame, c a token that belongs to no patch and is left out of the features, and
    e learned places. Features lie on the grid of patches, so that a Gaussian readout finds a neuron's place on it. It
    reads the frame itself, for videos and for static images. Its nulls are ``conv2d`` (convolutions in place of
    attention) and itself with ``behavior: false``. Cost is frames x patches squared x heads x head width; maps are
    never held. At the published sizes (36 x 64 pixels, three channels of behavior and two of the pupil) it has
    2,465,200 parameters.

    Args:
        patch_px: side of a patch.
        stride_px: pixels from one patch to the next.
        width: of a token.
        blocks: how many.
        heads: per block.
        head_width: of queries, keys and values.
        hidden: width of the MLP.
        dropout: of maps, branches and the MLP.
        token_dropout: of the embedded patches.
        token_share: share of the patches that a block sees in training, drawn for every block; the others pass it by.
            Attention costs its square.
        behavior: add behavior and pupil, where they were recorded.
        recompute: run blocks on few frames at a time, and again on the way back instead of keeping what is inside them:
            less memory, more time.

    Raises:
        ValueError: patches larger than the frames, or inputs without what the core was built for.

    Source: Li et al. (2023), V1T, TMLR, arXiv:2302.03023.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        pupil_channels: Fact[int] = 0,
        patch_px: Count = 8,
        stride_px: Count = 1,
        width: Count = 155,
        blocks: Count = 4,
        heads: Count = 4,
        head_width: Count = 155,
        hidden: Count = 488,
        dropout: BelowOne = 0.2544,
        token_dropout: BelowOne = 0.0229,
        token_share: OpenShare = 1.0,
        behavior: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        channels, *size = stimulus_shape
        if min(size) < patch_px:
            raise ValueError(
                f"core 'v1t' cuts patches of {patch_px} pixels, the stimulus has {size[0]} x {size[1]}; lower patch_px"
            )
        grid = [(side - patch_px) // stride_px + 1 for side in size]
        self.patch_px, self.stride_px, self.recompute = patch_px, stride_px, recompute
        self.state_channels = (behavior_channels + pupil_channels) * behavior
        self.patches = nn.Linear(channels * patch_px**2, width)
        self.extra = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1] + 1, width))
        self.token_dropout, self.token_share = nn.Dropout(token_dropout), token_share
        self.blocks = nn.ModuleList(
            _Block(width, heads, head_width, hidden, dropout, self.state_channels) for _ in range(blocks)
        )
        self.place_grid = PlaceGrid(1, grid[0], grid[1], patch_px, stride_px)
        self.feature_shape = (width, grid[0], grid[1])
        self.lost_frames = 0

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features, frame by frame."""
        x, state = self._tokens(inputs), self._state(inputs)
        rows = () if state is None else (state,)
        for block in self.blocks:
            seen = drawn_tokens(x, range(1, x.shape[1]), self.token_share, self.training)
            x = on_some_tokens(partial(group_by_group, block=block, again=self.recompute, rows=rows), x, seen)
        features = x[:, 1:].transpose(1, 2).unflatten(2, self.feature_shape[1:])
        return features.unflatten(0, (inputs.n_batch, inputs.n_frames))

    @torch.no_grad()
    def maps(
        self, inputs: Inputs, kinds: Iterable[str] = ("spatial",)
    ) -> dict[str, Float[Tensor, "blocks frames heads tokens tokens"]]:
        """Return who looks at whom in every block, for analysis, under ``spatial``, the only kind there is.

        Frames of all clips in a row, the extra token first. Holds frames x blocks x heads x tokens squared numbers:
        give it a sample of frames.
        """
        if "spatial" not in kinds:
            return {}
        x, state = self._tokens(inputs), self._state(inputs)
        found = []
        for block in self.blocks:
            shown = block.with_state(x, state)  # pyright: ignore[reportCallIssue]
            found.append(block.attention.maps(block.attention_norm(shown)))  # pyright: ignore[reportCallIssue,reportAttributeAccessIssue]
            x = block(x, state)
        return {"spatial": torch.stack(found)}

    def _tokens(self, inputs: Inputs) -> Sequence:
        frames = input_planes(inputs, False).flatten(0, 1)
        patches = functional.unfold(frames, self.patch_px, stride=self.stride_px).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(len(frames), -1, -1), self.patches(patches)], dim=1)
        return self.token_dropout(tokens + self.places)

    def _state(self, inputs: Inputs) -> Float[Tensor, "frames channel"] | None:
        """Behavior and pupil of every frame."""
        state = state_of("v1t", inputs, self.state_channels, "behavior: false")
        return None if state is None else state.flatten(0, 1)
