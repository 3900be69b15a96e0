"""What was shown when: digests of frames, and stretches of video that occur in two tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

from neuroint.data.array_source import in_chunks, usable
from neuroint.data.base import TIERS, TRAIN, DataError
from neuroint.data.blocks import Blocks

WINDOW_FRAMES = 60  # long enough that even a binary full-field flicker does not recur by chance (2**60 stretches)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, of a rolling hash modulo 2**64


def frame_digests(stimulus: Shaped[np.ndarray, "rows channel height width"], name: str) -> UInt64[np.ndarray, " rows"]:
    """Hash every frame or image by its stored bytes (blake2b, 64 bits); equal pictures get equal numbers.

    Raises:
        DataError: a pixel is NaN or infinite; names the first such frame.
    """
    digests = np.empty(len(stimulus), dtype=np.uint64)
    for rows, frames in in_chunks(stimulus, np.arange(len(stimulus)), axis=0):
        bad = ~usable(frames).reshape(len(rows), -1).all(axis=1)
        if bad.any():
            raise DataError(
                f"{name} has NaN, infinite or too large values, first in row {rows[bad][0]}; "
                "every frame that was shown must be known: cut the recording there or fill it in"
            )
        digests[rows] = [_digest(frame.tobytes()) for frame in frames]
    return digests


def clip_ids(digests: UInt64[np.ndarray, " rows"], blocks: Blocks, scored_from: int) -> Int[np.ndarray, " clips"]:
    """Number clips by what they show, leads left out: equal numbers are repeats."""
    shown = [
        digests[start + (tier != TRAIN) * scored_from : start + length].tobytes()
        for start, length, tier in zip(blocks.starts, blocks.lengths, blocks.tiers, strict=True)
    ]
    return first_seen(shown)


def first_seen(keys: Sequence[bytes]) -> Int[np.ndarray, " keys"]:
    """Replace each key by the index of the first one equal to it."""
    index: dict[bytes, int] = {}
    return np.array([index.setdefault(key, place) for place, key in enumerate(keys)], dtype=np.int64)


@dataclass(frozen=True)
class Shown:
    """What a recording showed: a digest for each of its rows (frames or images), and which rows make which clip."""

    digests: UInt64[np.ndarray, " rows"]
    blocks: Blocks
    scored_from: int

    @property
    def width(self) -> int:
        """Rows of the stretches that are compared: ``WINDOW_FRAMES``, or those of the shortest scored block."""
        return int(min(WINDOW_FRAMES, (self._ends() - self._firsts()).min()))

    def stretches(self, width: int) -> dict[str, tuple[Int[np.ndarray, " starts"], UInt64[np.ndarray, " starts"]]]:
        """First rows and hashes of all stretches that a tier trains on or scores; unchanging ones are left out."""
        hashes, changing = _rolling(self.digests, width)
        firsts, ends = self._firsts(), self._ends()
        windows = {tier: _windows_of(tier, self.blocks.tiers, firsts, ends, width) for tier in TIERS}
        windows = {tier: starts[changing[starts]] for tier, starts in windows.items()}
        return {tier: (starts, hashes[starts]) for tier, starts in windows.items()}

    def _firsts(self) -> Int[np.ndarray, " clips"]:
        return self.blocks.starts + np.where(np.asarray(self.blocks.tiers) == TRAIN, 0, self.scored_from)

    def _ends(self) -> Int[np.ndarray, " clips"]:
        return self.blocks.starts + self.blocks.lengths


def shared_stretches(shown: Shown) -> list[str]:
    """List pairs of tiers in which the same stretch of video is trained on or scored.

    Stretches start anywhere; unchanging ones, such as gray screens between stimuli, do not count.
    """
    width = shown.width
    found = shown.stretches(width)
    return [
        f"{len(again)} stretches of {width} frames of video are in {a} and in {b} (first at frame {again[0]})"
        for a, b in combinations(TIERS, 2)
        if len(again := _again(found[b], found[a]))
    ]


def shared_between(trained: Shown, scored: Shown) -> list[str]:
    """List scored tiers of a recording in which there is what another recording trains on."""
    width = min(trained.width, scored.width)
    known, found = trained.stretches(width)[TRAIN], scored.stretches(width)
    what = f"stretches of {width} frames of video" if width > 1 else "single images"
    return [
        f"{len(again)} {what} in {tier} (first at row {again[0]})"
        for tier in TIERS
        if tier != TRAIN and len(again := _again(found[tier], known))
    ]


def _again(
    stretches: tuple[np.ndarray, np.ndarray], known: tuple[np.ndarray, np.ndarray]
) -> Int[np.ndarray, " starts"]:
    starts, hashes = stretches
    return starts[np.isin(hashes, known[1])]


def _rolling(
    digests: UInt64[np.ndarray, " rows"], width: int
) -> tuple[UInt64[np.ndarray, " starts"], Bool[np.ndarray, " starts"]]:
    """Hash every stretch of ``width`` frames, and say whether anything changes in it (a single frame does)."""
    count = len(digests) - width + 1
    total = np.zeros(count, dtype=np.uint64)
    changing = np.full(count, width == 1)
    for step in range(width):
        frame = digests[step : step + count]
        total = total * MULTIPLIER + frame
        changing |= frame != digests[:count]
    return total, changing


def _windows_of(
    tier: str, tiers: Sequence[str], firsts: np.ndarray, ends: np.ndarray, width: int
) -> Int[np.ndarray, " starts"]:
    starts = [np.arange(a, b - width + 1) for a, b, t in zip(firsts, ends, tiers, strict=True) if t == tier]
    return np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)


def _digest(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
