"""Where a fitted transformer on video looks: among the places of each frame, and among the frames of each clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.analysis.influence import evaluated
from neuroint.data.base import Inputs, Session, collate
from neuroint.modules.places import PlaceGrid

Maps = Float[Tensor, "blocks sequences heads tokens tokens"]
Square = Float[Tensor, "sequences tokens tokens"]
Heads = Literal["mean", "max"]
OVER_HEADS: Mapping[str, Callable[[Tensor], Tensor]] = {"mean": lambda x: x.mean(1), "max": lambda x: x.amax(1)}


@runtime_checkable  # or else beartype cannot check it in tests
class Attending(Protocol):
    """What is asked of a core (``v1t`` and ``vivit`` offer it)."""

    place_grid: PlaceGrid
    lost_frames: int

    def maps(self, inputs: Inputs, kinds: Iterable[str]) -> dict[str, Maps]:
        """Who looks at whom, ``spatial`` (a sequence per frame) and ``temporal`` (a sequence per place)."""
        ...


@dataclass(frozen=True)
class Attention:
    """Where a core looked in clips of a session, frame by frame, and what the animal really did.

    Frames are those that the core has features for: the first is frame ``lost_frames`` of the clip. What was recorded
    is in the units in which models read it (of the Sensorium readers: standard deviations).

    Attributes:
        clips: which ones.
        spatial: rollout over the grid of places, sums to 1 in every frame.
        extra: share of the rollout that lay on extra tokens and is left out of ``spatial``.
        center_px: x and y of the middle of mass of ``spatial``, in pixels from the middle of the top left pixel.
        temporal: how much a frame is looked at by later ones, 1 for as much as if all frames were looked at alike; NaN
            where too few frames follow. None for a core without attention over time.
        pupil: recorded position.
        behavior: recorded behavior.
    """

    clips: Int[np.ndarray, " clips"]
    spatial: Float[np.ndarray, "clips time rows columns"]
    extra: Float[np.ndarray, "clips time"]
    center_px: Float[np.ndarray, "clips time 2"]
    temporal: Float[np.ndarray, "clips time"] | None
    pupil: Float[np.ndarray, "clips time pupil"] | None
    behavior: Float[np.ndarray, "clips time behavior"] | None


def rollout(maps: Maps, heads: Heads = "mean") -> Square:
    r"""Follow attention through all blocks: how much each last token (row) is made of each first one (column).

    .. math:: R = \hat A_L \cdots \hat A_1, \quad
        \hat A_l = \mathrm{rownorm}\Big(\frac{1}{H} \sum_h A_{lh} + I\Big)

    The identity stands for the shortcut beside attention. Rows sum to 1. All tokens take part, extra ones as well,
    because what they were told by one block is read in the next. It knows no values and no signs: it says where a
    token may draw from, not by how much its features change, for which the derivative is the measure.

    Args:
        maps: rows sum to 1.
        heads: how the heads of a block become one map: their mean, or the largest of them (as V1T does).

    Source: Abnar & Zuidema (2020), ACL, 4190-4197.
    """
    rolled = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device).expand(maps.shape[1], -1, -1)
    for block in maps:
        mixed = OVER_HEADS[heads](block) + torch.eye(block.shape[-1], dtype=block.dtype, device=block.device)
        rolled = (mixed / mixed.sum(-1, keepdim=True)) @ rolled
    return rolled


def looked_at(
    rolled: Square, grid: PlaceGrid
) -> tuple[Float[Tensor, "sequences rows columns"], Float[Tensor, " sequences"]]:
    """Average a rollout over the places that look, and keep the places that are looked at; also, what lay elsewhere.

    Only places look: readouts see no extra token (that of no patch, registers, the one that tells behavior). What the
    places draw from extra tokens is of no place; it is left out, the rest is divided by its sum, and the share left out
    is the second result.
    """
    rows = rolled[:, grid.tokens].mean(1)
    places = rows[:, grid.tokens]
    kept = places.sum(-1)
    return (places / kept[:, None]).unflatten(-1, (grid.rows, grid.columns)), (rows.sum(-1) - kept).clamp(min=0)


def center_of_mass(spatial: Float[np.ndarray, "*any rows columns"], grid: PlaceGrid) -> Float[np.ndarray, "*any 2"]:
    """Average the positions of places by what lies on them: x and y in pixels from the middle of the top left pixel."""
    x = spatial.sum(-2) @ grid.columns_px()
    y = spatial.sum(-1) @ grid.rows_px()
    return np.stack([x, y], axis=-1)


def looked_back_at(maps: Maps, later_frames: int | None = None) -> Float[Tensor, " tokens"]:
    r"""Average how much each frame of a clip is looked at by later ones, relative to looking at all frames alike.

    .. math:: a(s) = \frac{1}{|T_s|} \sum_{t \in T_s} (t + 1)\, \bar A_{ts}, \quad
        T_s = \{t: s < t \le s + K\}

    with the mean of the maps over places, heads and blocks, and frames counted from 0. Plain column sums favor early
    frames twice, because more frames come after them and because a frame with few before it spreads its attention over
    few. So the sum is divided by how many frames can look at s, and each term is compared with 1 / (t + 1), what
    uniform attention of frame t would give: a is 1 everywhere when attention is uniform. What a frame gives itself is
    left out, so a below 1 means that frames look at themselves. Attention that fades with the lag still makes a rise
    along the clip; that course is common to all clips, and :func:`neuroint.analysis.following.follows` removes it.

    Args:
        maps: causal ones of one clip, a sequence per place.
        later_frames: K, how far later frames may be; None takes all. Frames with fewer than K (or, without K, with no)
            later frames are NaN, so that every value is a mean over equally many.

    Raises:
        ValueError: no frame has enough later ones.
    """
    mean = maps.mean((0, 1, 2))
    frames = len(mean)
    needed = 1 if later_frames is None else later_frames
    if needed < 1 or frames <= needed:
        raise ValueError(
            f"later_frames {later_frames} in clips with {frames} frames of features: no frame has {needed} later ones; "
            f"choose from 1 to {frames - 1}, or longer clips"
        )
    time = torch.arange(frames, device=mean.device)
    lag = time[:, None] - time
    counted = (lag > 0) & (lag <= (later_frames or frames))
    relative = (mean * (time + 1)[:, None]).where(counted, 0).sum(0) / counted.sum(0).clamp(min=1)
    return relative.where(time < frames - needed, torch.nan)


def attention_of(
    core: nn.Module,
    session: Session,
    tier: str,
    *,
    given: Int[np.ndarray, " clips"] | None = None,
    later_frames: int | None = None,
    heads: Heads = "mean",
    frames_at_once: int = 16,
    stride: int = 1,
) -> Attention:
    """Run a fitted core over the clips of a tier, cut to the shortest, and see where it looks.

    Clips are taken one by one and their frames in stretches, so that spatial maps of ``frames_at_once`` frames, and
    temporal ones of a clip, are held. Attention to behavior (``vivit`` with ``cross_attention``) is not among places
    and does not count.

    Args:
        core: of a fitted model; it is evaluated as in validation and left as it was.
        session: whose clips.
        tier: a test tier is read like any other, so do not choose by what is seen there.
        given: for every clip of the tier the clip, counted within the tier, whose behavior and pupil the core is given
            in place of its own. What is recorded stays with its clip.
        later_frames: see :func:`looked_back_at`.
        heads: see :func:`rollout`.
        frames_at_once: whose spatial maps are held.
        stride: ``train.frame_stride`` of the run that fitted it: every so many frames of a clip are read, and frames
            are counted among these.

    Raises:
        ValueError: the core has no maps of attention among places, the tier has no clip, or ``given`` does not name a
            clip for every clip.
    """
    watched = _attending(core)
    clips, recorded = _recorded(session, tier, stride)
    told = recorded if given is None else [_with_behavior_of(recorded, *pair) for pair in _pairs(given, len(clips))]
    with evaluated(core), torch.no_grad():
        spatial, extra = zip(*(_spatial(watched, inputs, heads, frames_at_once) for inputs in told), strict=True)
        temporal = [_temporal(watched, inputs, later_frames) for inputs in told]
    maps = np.stack([one.cpu().numpy() for one in spatial])
    looked = [one.cpu().numpy() for one in temporal if one is not None]
    did = {name: [getattr(one, name) for one in recorded] for name in ("pupil", "behavior")}
    kept = {
        name: None if x[0] is None else torch.cat(x)[:, watched.lost_frames :].cpu().numpy() for name, x in did.items()
    }
    return Attention(
        clips=clips,
        spatial=maps,
        extra=np.stack([one.cpu().numpy() for one in extra]),
        center_px=center_of_mass(maps, watched.place_grid),
        temporal=np.stack(looked) if looked else None,
        pupil=kept["pupil"],
        behavior=kept["behavior"],
    )


def _attending(core: nn.Module) -> Attending:
    if isinstance(core, Attending):
        return core
    raise ValueError(
        f"core {type(core).__name__} has no maps of attention among places of a frame; fit a model with core 'v1t' or "
        "'vivit', and give its core"
    )


def _recorded(session: Session, tier: str, stride: int) -> tuple[Int[np.ndarray, " clips"], list[Inputs]]:
    """Every ``stride``-th frame of every clip of a tier, as batches of one."""
    clips = session.clips(tier)
    if not len(clips):
        raise ValueError(f"tier '{tier}' of session '{session.name}' holds no clip; name a tier that does")
    frames = int(session.lengths[clips].min())
    read = [collate(session.name, [int(clip)], [session.source.read(int(clip), 0, frames)]).inputs for clip in clips]
    return clips, [inputs.map(lambda x: x[:, ::stride]) for inputs in read]


def _pairs(given: Int[np.ndarray, " clips"], clips: int) -> list[tuple[int, int]]:
    if given.shape != (clips,) or given.min() < 0 or given.max() >= clips:
        raise ValueError(
            f"given names behavior of clips {given.tolist()} for {clips} clips; expected one number from 0 to "
            f"{clips - 1} for each"
        )
    return list(enumerate(given.tolist()))


def _with_behavior_of(recorded: list[Inputs], clip: int, other: int) -> Inputs:
    return replace(recorded[clip], behavior=recorded[other].behavior, pupil=recorded[other].pupil)


def _spatial(core: Attending, inputs: Inputs, heads: Heads, at_once: int) -> tuple[Tensor, Tensor]:
    """Maps and extra shares of all frames; exact in stretches: spatial blocks see a frame's own tubelets only."""
    found = []
    for start in range(0, inputs.n_frames - core.lost_frames, at_once):
        stretch = inputs.map(lambda x, start=start: x[:, start : start + at_once + core.lost_frames])
        maps = core.maps(stretch, ("spatial",))
        if not maps:
            raise ValueError(
                f"core {type(core).__name__} was built without blocks among places, so there is no rollout to draw; "
                "set spatial_blocks to 1 or more"
            )
        found.append(looked_at(rollout(maps["spatial"], heads), core.place_grid))
    return torch.cat([spatial for spatial, _ in found]), torch.cat([extra for _, extra in found])


def _temporal(core: Attending, inputs: Inputs, later_frames: int | None) -> Tensor | None:
    maps = core.maps(inputs, ("temporal",))
    return looked_back_at(maps["temporal"], later_frames) if maps else None
