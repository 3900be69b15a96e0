"""A transformer over the places of each frame, then one over the frames of each place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.convolution import check_frames, input_planes, state_of, with_planes
from neuroint.modules.places import PlaceGrid
from neuroint.modules.tubelets import TubeletEmbedding
from neuroint.modules.video_blocks import (
    Angles,
    DropPath,
    SelfAttention,
    Sequence,
    drawn_tokens,
    group_by_group,
    on_some_tokens,
    rotary_angles,
)
from neuroint.registry import BelowOne, Count, Fact, Index, OpenShare, cores

States = Literal["channels", "tokens", "cross_attention", "none"]
Watch = Callable[[str, Any, Sequence, Angles], None]


class _Block(nn.Module):
    """Attend and transform side by side, behind one norm and beside one shortcut."""

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        hidden: int,
        dropout: float,
        hidden_dropout: float,
        drop_path: float,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, head_width, dropout, causal=causal, bias=False)
        self.transform = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(hidden_dropout), nn.Linear(hidden, width)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Sequence, angles: Angles | None) -> Sequence:
        """Run the block."""
        y = self.norm(x)
        return x + self.drop_path(self.attention(y, angles)) + self.drop_path(self.transform(y))


class _Crossing(nn.Module):
    """Let tokens of a frame look at what the animal did, a token per channel."""

    def __init__(self, channels: int, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.weight, self.place = (nn.Parameter(torch.randn(channels, width) / width**0.5) for _ in range(2))
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Sequence, state: Float[Tensor, "sequences channel"]) -> Sequence:
        """Add what was looked up."""
        told = state[..., None] * self.weight + self.place
        query = self.query(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(told).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


@cores.register("vivit")
class ViViT(nn.Module):
    r"""Turn video into features by attention among the places of each frame, then back in time at each place.

    .. math::
        x = \mathrm{tubelets}(s), \quad x \leftarrow x + \mathrm{MHA}(\mathrm{LN}(x)) + \mathrm{FF}(\mathrm{LN}(x))

    in every block, over the places of a frame in the spatial ones and over the frames up to t of a place in the
    temporal ones.

    Queries and keys are turned by their place on the grid and by their frame (rotary positions), so nothing is learned
    per place. ``registers`` are tokens of no place that the spatial blocks may write to and that are left out of the
    features. What the animal did comes in as constant planes (``channels``), as a token per frame (``tokens``), by
    attention to a token per channel before every spatial block (``cross_attention``), or not at all (``none``).

    It is causal: the features of a frame depend on it, the ``lost_frames`` of its tubelet, and all frames before that,
    which is why a clip is evaluated whole (``whole_clips``). Its nulls are ``factorized_conv3d``, itself with ``state:
    none``, and itself without temporal blocks. Cost is frames x places squared + places x frames squared, without ever
    holding a map. At the published sizes (36 x 64 pixels, two channels each of behavior and pupil) it has 3,793,762
    parameters.

    Args:
        tubelet_frames: frames of a tubelet, all but one of which are consumed.
        tubelet_px: its side.
        stride_px: pixels from one tubelet to the next.
        normalize_tubelets: to mean 0 and variance 1, as published; it takes the contrast away, which neurons answer to.
        width: of a token.
        spatial_blocks: blocks among places.
        temporal_blocks: blocks among frames.
        heads: per block.
        head_width: of queries, keys and values.
        hidden: width of the feed-forward part.
        registers: tokens of no place.
        state: how behavior and pupil come in.
        dropout: of maps.
        hidden_dropout: inside the feed-forward part.
        patch_dropout: share of tubelets that are set to 0 in training.
        token_share: share of the places that a spatial block sees in training, drawn for every block; the others pass
            it by. Attention costs its square.
        drop_path: share of sequences for which a branch is left out in training, alike in all blocks.
        recompute: run blocks on few sequences at a time, and again on the way back instead of keeping what is inside
            them: less memory, more time.

    Raises:
        ValueError: clips shorter than a tubelet, an odd head width, or inputs without what the core was built for.

    Source: Arnab et al. (2021), ICCV; for mouse V1 Li et al., ViV1T, NeurIPS 2023 Sensorium and its 2025 successor.
    Differs from it: frames are not padded in time, dropped tubelets are zeros, rotations do not fade with distance
    (xPos), places are turned by row and column, and temporal blocks have no registers.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        pupil_channels: Fact[int] = 0,
        tubelet_frames: Count = 13,
        tubelet_px: Count = 7,
        stride_px: Count = 2,
        normalize_tubelets: bool = True,
        width: Count = 112,
        spatial_blocks: Index = 14,
        temporal_blocks: Index = 14,
        heads: Count = 2,
        head_width: Count = 80,
        hidden: Count = 224,
        registers: Index = 24,
        state: States = "channels",
        dropout: BelowOne = 0.04,
        hidden_dropout: BelowOne = 0.21,
        patch_dropout: BelowOne = 0.17,
        token_share: OpenShare = 1.0,
        drop_path: BelowOne = 0.43,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if head_width % 2:
            raise ValueError(f"core 'vivit' turns pairs of features, got head_width {head_width}; choose an even one")
        self.reads = Reads()
        self.recompute = recompute
        self.state_channels = (behavior_channels + pupil_channels) * (state != "none")
        self.state = state if self.state_channels else "none"
        planes = stimulus_shape[0] + self.state_channels * (self.state == "channels")
        self.tubelets = TubeletEmbedding(
            planes, width, tubelet_frames, tubelet_px, stride_px, normalize=normalize_tubelets
        )
        self.grid = self.tubelets.grid(*stimulus_shape[1:])
        self.place_grid = PlaceGrid(0, *self.grid, tubelet_px, stride_px, self.tubelets.padding)
        self.patch_dropout, self.token_share = nn.Dropout1d(patch_dropout), token_share
        self.registers = nn.Parameter(0.02 * torch.randn(registers, width)) if registers else None
        self.told = nn.Linear(self.state_channels, width) if self.state == "tokens" else None
        sizes = (width, heads, head_width)
        self.crossings = nn.ModuleList(
            _Crossing(self.state_channels, *sizes) for _ in range(spatial_blocks * (self.state == "cross_attention"))
        )
        self.spatial, self.temporal = (
            nn.ModuleList(
                _Block(*sizes, hidden, dropout, hidden_dropout, drop_path, causal=causal) for _ in range(count)
            )
            for causal, count in ((False, spatial_blocks), (True, temporal_blocks))
        )
        self.head_width = head_width
        self.feature_shape = (width, *self.grid)
        self.lost_frames = tubelet_frames - 1
        self.whole_clips = temporal_blocks > 0

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features of all but the first ``lost_frames`` frames."""
        x = self._run(inputs, _watch_nothing)
        return x.unflatten(0, (inputs.n_batch, *self.grid)).permute(0, 3, 4, 1, 2)

    @torch.no_grad()
    def maps(
        self, inputs: Inputs, kinds: Iterable[str] = ("spatial", "temporal")
    ) -> dict[str, Float[Tensor, "blocks sequences heads tokens tokens"]]:
        """Return who looks at whom, for analysis, by kind of block; rows sum to 1.

        ``spatial``: a sequence per frame, its tokens the places row by row and then the extra ones. ``temporal``: a
        sequence per place of each clip, its tokens the frames. Holds all of the kinds asked for: give it a sample.
        """
        found: dict[str, list[Tensor]] = {kind: [] for kind in kinds}

        def watch(kind: str, block: _Block, x: Sequence, angles: Angles) -> None:
            if kind in found:
                found[kind].append(block.attention.maps(block.norm(x), angles))

        self._run(inputs, watch)
        return {kind: torch.stack(maps) for kind, maps in found.items() if maps}

    def _run(self, inputs: Inputs, watch: Watch) -> Float[Tensor, "batch_places time width"]:
        x, state = self._tokens(inputs)
        angles, places = self._places(x), range(self.grid[0] * self.grid[1])
        for index, block in enumerate(self.spatial):
            x = self.crossings[index](x, state) if len(self.crossings) else x
            watch("spatial", block, x, angles)
            seen = drawn_tokens(x, places, self.token_share, self.training)
            turned = angles if seen is None else angles[seen]
            x = on_some_tokens(partial(group_by_group, block=block, again=self.recompute, angles=turned), x, seen)
        x = self._by_place(x, inputs.n_batch)
        angles = rotary_angles(torch.arange(x.shape[1], dtype=torch.float64, device=x.device)[:, None], self.head_width)
        for block in self.temporal:
            watch("temporal", block, x, angles)
            x = group_by_group(x, block, self.recompute, angles=angles)
        return x

    def _tokens(self, inputs: Inputs) -> tuple[Sequence, Float[Tensor, "sequences channel"] | None]:
        """Tokens of every frame, extra ones last, and what the animal did in it."""
        check_frames("vivit", inputs.n_frames, self.lost_frames)
        state = state_of("vivit", inputs, self.state_channels, "state: none")
        video = with_planes(input_planes(inputs, False), state if self.state == "channels" else None)
        x = self.patch_dropout(self.tubelets(video).flatten(0, 1).flatten(1, 2))
        told = None if state is None else state[:, self.lost_frames :].flatten(0, 1)
        extra = [] if self.registers is None else [self.registers.expand(len(x), -1, -1)]
        if self.told is not None and told is not None:
            extra.append(self.told(told)[:, None])
        return torch.cat([x, *extra], dim=1), told

    def _places(self, x: Sequence) -> Angles:
        """Angles of the places on the grid; extra tokens are not turned."""
        rows, columns = self.grid
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(x.device, torch.float64)
        return functional.pad(rotary_angles(places, self.head_width), (0, 0, 0, x.shape[1] - rows * columns))

    def _by_place(self, x: Sequence, batch: int) -> Float[Tensor, "batch_places time width"]:
        """Leave out extra tokens, and let every place be a sequence over time."""
        rows, columns = self.grid
        return x[:, : rows * columns].unflatten(0, (batch, -1)).transpose(1, 2).flatten(0, 1)


def _watch_nothing(kind: str, block: Any, x: Sequence, angles: Angles) -> None:
    """What training does with maps."""
