"""Read clips from named arrays whose axes may be stored in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from neuroint.data.array_store import ArrayStore
from neuroint.data.base import Clip, DataError

# A row is a frame of a continuous recording or one image; a continuous recording has one repeat.
STIMULUS_AXES = ("row", "channel", "height", "width")
RESPONSE_AXES = ("repeat", "row", "neurons")
CHANNEL_AXES = ("repeat", "row", "channel")
CHUNK_VALUES = 4_000_000  # values held at once while a recording is scanned: 32 MB in float64


@dataclass(frozen=True)
class View:
    """An array with its axes put in order; those it lacks get length 1. A mapped array stays mapped."""

    role: str
    array: str
    stored: tuple[str, ...]
    wanted: tuple[str, ...]

    def __str__(self) -> str:
        """What it is, for messages."""
        return f"{self.role} '{self.array}'"

    def of(self, store: ArrayStore) -> np.ndarray:
        """The reordered array."""
        array = store.numbers(self.array)
        order = [self.stored.index(axis) for axis in self.wanted if axis in self.stored]
        missing = [place for place, axis in enumerate(self.wanted) if axis not in self.stored]
        return np.expand_dims(array.transpose(order), missing)


@dataclass(frozen=True)
class Scale:
    """What turns stored numbers into what models see: ``(value - mean) * factor`` per channel or neuron."""

    mean: Float[np.ndarray, " channels"]
    factor: Float[np.ndarray, " channels"]

    def apply(self, crop: np.ndarray, channel_axis: int) -> np.ndarray:
        """Normalize a float32 crop in place."""
        shape = [1] * crop.ndim
        shape[channel_axis] = -1
        crop -= self.mean.reshape(shape)
        crop *= self.factor.reshape(shape)
        return crop


@dataclass(frozen=True)
class ArraySource:
    """Cut clips out of the arrays: first the crop, then float32, then normalization; nothing is kept.

    Attributes:
        store: opens the arrays; what it opened is dropped when pickled.
        views: stimulus, responses, behavior and pupil, those that are there.
        scales: of those views that are normalized.
        rows: first row of each clip.
        repeats: repeat of each clip.
        lengths: rows of each clip.
    """

    store: ArrayStore
    views: dict[str, View]
    scales: dict[str, Scale]
    rows: Int[np.ndarray, " clips"]
    repeats: Int[np.ndarray, " clips"]
    lengths: Int[np.ndarray, " clips"]

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read ``frames`` frames of a clip from frame ``start``.

        Raises:
            ValueError: the crop does not lie inside the clip.
            DataError: the file has become unreadable since it was opened.
        """
        if not 0 <= clip < len(self.lengths) or not 0 <= start < start + frames <= self.lengths[clip]:
            raise ValueError(
                f"frames {start} to {start + frames} of clip {clip} do not exist; clips: {self._extent(clip)}"
            )
        row, repeat = int(self.rows[clip]) + start, int(self.repeats[clip])
        rows = slice(row, row + frames)
        return Clip(
            responses=self._crop("responses", (repeat, rows), -1),
            stimulus=self._crop("stimulus", (rows,), 1) if "stimulus" in self.views else None,
            behavior=self._crop("behavior", (repeat, rows), -1) if "behavior" in self.views else None,
            pupil=self._crop("pupil", (repeat, rows), -1) if "pupil" in self.views else None,
        )

    def _crop(self, role: str, where: tuple[int | slice, ...], channel_axis: int) -> np.ndarray:
        crop = self.views[role].of(self.store)[where].astype(np.float32, order="C")
        scale = self.scales.get(role)
        return crop if scale is None else scale.apply(np.asarray(crop), channel_axis)

    def _extent(self, clip: int) -> str:
        n_clips = len(self.lengths)
        return f"clip {clip} has {self.lengths[clip]} frames" if 0 <= clip < n_clips else f"0 to {n_clips - 1}"


def in_chunks(
    view: np.ndarray, rows: Int[np.ndarray, " rows"], axis: int
) -> Iterator[tuple[Int[np.ndarray, " chunk"], np.ndarray]]:
    """Hand out copies of some rows of a view, as many at a time as memory should hold."""
    per_row = max(1, view.size // max(1, view.shape[axis]))
    step = max(1, CHUNK_VALUES // per_row)
    for first in range(0, len(rows), step):
        chunk = rows[first : first + step]
        yield chunk, np.asarray(view[(slice(None),) * axis + (chunk,)])


def usable(values: Shaped[np.ndarray, "*axes"]) -> Bool[np.ndarray, "*axes"]:
    """Where values are finite in the float32 that models see."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, dtype=bool)
    return np.asarray(np.abs(values) <= np.finfo(np.float32).max)


def rows_of(clip_rows: Int[np.ndarray, " clips"], lengths: Int[np.ndarray, " clips"]) -> Int[np.ndarray, " rows"]:
    """All rows that a set of clips covers, once each, in order."""
    if not len(clip_rows):
        raise DataError("no clip is left to train on; lower the shares of the other tiers")
    return np.unique(np.concatenate([np.arange(r, r + n) for r, n in zip(clip_rows, lengths, strict=True)]))
