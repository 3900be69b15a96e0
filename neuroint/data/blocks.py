"""Divide a recording that has no tiers of its own: a continuous one in blocks, images by what they show."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby, pairwise

import numpy as np
from jaxtyping import Int

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION, DataError
from neuroint.data.mapping import Split
from neuroint.data.splits import split_by_stimulus


@dataclass(frozen=True)
class Blocks:
    """Stretches of a continuous recording: first frame, frames and tier of each clip, in order of time."""

    starts: Int[np.ndarray, " clips"]
    lengths: Int[np.ndarray, " clips"]
    tiers: tuple[str, ...]


def split_frames(frames: int, split: Split) -> Blocks:
    """Cut a recording into clips so that no scored frame is read, directly or as context, by another tier.

    The recording is cut into equal cells of ``gap_frames`` followed by a block of at least ``block_frames``. Seeded
    cells become validation, dev-test and (when ``scattered``) final test; each of them is one clip, the gap included,
    and its gap is its *lead*: it is read, so that a model with memory has its past, and never scored
    (``Session.scored_from`` equals ``gap_frames``) nor trained on. Neighboring cells that are left over are joined to
    one long training clip, from which the loader draws crops; behind a scored cell it starts one gap late. With
    ``final_test_at: end`` the last ``round(final_test * frames)`` frames are cut off first, with one gap before them,
    and divided evenly into consecutive blocks without gaps; each block's lead is then the end of the block before it,
    which is of the same tier, so that every frame of the tier is scored exactly once.

    Raises:
        DataError: the recording is too short for these blocks; names what to make smaller.
    """
    ending = _ending(frames, split) if split.final_test_at == "end" and split.final_test > 0 else []
    end = ending[0][0] if ending else frames
    n_cells = end // (split.gap_frames + split.block_frames)
    tiers = _tiers_of_cells(n_cells, frames, split)
    edges = np.linspace(0, end, n_cells + 1).round().astype(int)
    clips = [*_cells(tiers, edges, split.gap_frames), *ending]
    starts, lengths, names = zip(*clips, strict=True)
    return Blocks(np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64), names)


def split_stimuli(stimulus_ids: Int[np.ndarray, " images"], split: Split) -> tuple[str, ...]:
    """Give every image a tier; equal ids (the same image again) always share one.

    With ``final_test_at: end`` the final test is what was shown last for the first time; everything else is seeded.

    Raises:
        DataError: too few stimuli, so that none would be left to train on.
    """
    shares = {FINAL_TEST: split.final_test, DEV_TEST: split.dev_test, VALIDATION: split.validation}
    if split.final_test_at == "scattered":
        return split_by_stimulus(stimulus_ids, shares, split.seed)
    distinct = list(dict.fromkeys(stimulus_ids.tolist()))
    n_other = len(distinct) - _count(split.final_test, len(distinct))
    is_last = np.isin(stimulus_ids, distinct[n_other:])
    others = {tier: shares[tier] * len(distinct) / max(1, n_other) for tier in (DEV_TEST, VALIDATION)}
    tiers = np.full(len(stimulus_ids), FINAL_TEST, dtype=object)
    tiers[~is_last] = split_by_stimulus(stimulus_ids[~is_last], others, split.seed)
    return tuple(tiers.tolist())


def _ending(frames: int, split: Split) -> list[tuple[int, int, str]]:
    scored = _count(split.final_test, frames)
    first = frames - scored
    edges = np.linspace(first, frames, max(1, scored // split.block_frames) + 1).round().astype(int)
    if first - split.gap_frames <= 0:
        raise _too_short(frames, split)
    lead = split.gap_frames
    return [(int(a) - lead, int(b - a) + lead, FINAL_TEST) for a, b in pairwise(edges)]


def _tiers_of_cells(n_cells: int, frames: int, split: Split) -> list[str]:
    """Seeded tiers; every share is one of all frames, rounded to whole blocks, and at least one block."""
    scattered = split.final_test if split.final_test_at == "scattered" else 0.0
    shares = {FINAL_TEST: scattered, DEV_TEST: split.dev_test, VALIDATION: split.validation}
    counts = {tier: _count(share, frames / split.block_frames) for tier, share in shares.items()}
    if sum(counts.values()) >= n_cells:
        raise _too_short(frames, split)
    order = sorted(range(n_cells), key=lambda cell: _draw(split.seed, cell))
    tiers = dict(zip(order, _dealt(counts, n_cells), strict=True))
    return [tiers[cell] for cell in range(n_cells)]


def _cells(tiers: list[str], edges: np.ndarray, gap: int) -> list[tuple[int, int, str]]:
    clips = []
    for is_training, run in groupby(range(len(tiers)), key=lambda cell: tiers[cell] == TRAIN):
        cells = list(run)
        if is_training:
            start, end = edges[cells[0]] + (gap if cells[0] else 0), edges[cells[-1] + 1]
            clips.append((int(start), int(end - start), TRAIN))
        else:
            clips.extend((int(edges[c]), int(edges[c + 1] - edges[c]), tiers[c]) for c in cells)
    return clips


def _count(share: float, total: float) -> int:
    return max(1, round(share * total)) if share > 0 else 0


def _dealt(counts: dict[str, int], total: int) -> list[str]:
    """Tiers in the order in which they are dealt out; what is left is for training."""
    dealt = [tier for tier, count in counts.items() for _ in range(count)]
    return dealt + [TRAIN] * (total - len(dealt))


def _draw(seed: int, cell: int) -> bytes:
    """A seeded place in line; a hash, because NumPy does not promise equal shuffles across versions."""
    return blake2b(f"{seed} {cell}".encode()).digest()


def _too_short(frames: int, split: Split) -> DataError:
    return DataError(
        f"a recording of {frames} frames is too short for blocks of {split.block_frames} with gaps of "
        f"{split.gap_frames} in the shares final_test {split.final_test:g}, dev_test {split.dev_test:g}, validation "
        f"{split.validation:g}; lower split.block_frames, split.gap_frames or the shares"
    )
