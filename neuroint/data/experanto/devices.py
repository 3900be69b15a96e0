"""What was recorded or shown at given times: sampled signals, spikes, and the screen; files stay on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Num

from neuroint.data.base import DataError
from neuroint.data.npy import Header, map_array
from neuroint.data.sensorium_source import to_float32

Interpolation = Literal["linear", "previous"]
Columns = Int[np.ndarray, " signals"] | slice
ALL = slice(None)
SAME_SAMPLE = 1e-6  # of a sampling interval: a time this close to a sample is the sample's, whatever was rounded
SAME_FRAME_S = 1e-4  # the format's own code lets a frame begin this much early
VIDEO, IMAGE, BLANK = "video", "image", "blank"
COLORS = 3


@dataclass(frozen=True)
class Sampling:
    """How a device is read: width of a bin in seconds, and what stands between two samples."""

    bin_s: float
    interpolation: Interpolation = "linear"


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of every signal."""

    mean: Float[np.ndarray, " signals"]
    sd: Float[np.ndarray, " signals"]


@dataclass(frozen=True)
class Signals:
    """Signals sampled at one rate: sample i of signal n was taken at ``start_s + i / rate_hz + shifts_s[n]``.

    Attributes:
        name: of the device.
        path: of the numbers, ``samples signals``.
        header: type, shape and place of the numbers in that file.
        rate_hz: samples per second.
        start_s: when sample 0 was taken, without shift.
        end_s: no sample counts after it.
        shifts_s: delay of each signal, None for none (cells of a two-photon scan are reached one after the other).
        statistics: as stored, None for none.
    """

    name: str
    path: Path
    header: Header
    rate_hz: float
    start_s: float
    end_s: float
    shifts_s: Float[np.ndarray, " signals"] | None = None
    statistics: Statistics | None = None

    @property
    def n_signals(self) -> int:
        """Number of signals."""
        return self.header.shape[1]

    def covered(self, sampling: Sampling) -> tuple[float, float]:
        """First and last time at which all signals are known, in seconds."""
        last_s = min(self.end_s, self.start_s + (self.header.shape[0] - 1) / self.rate_hz)
        shifts = np.zeros(1) if self.shifts_s is None else self.shifts_s
        return self.start_s + float(shifts.max()), last_s + float(shifts.min())

    def read(
        self, times_s: Float[np.ndarray, " time"], sampling: Sampling, columns: Columns = ALL
    ) -> Float[np.ndarray, "time signals"]:
        """Interpolate at covered times, between the two samples around each: ``x[i] + w (x[i + 1] - x[i])``.

        With ``previous`` it is ``x[i]``, the last sample at or before the time. NaN in a sample with weight 0 does no
        harm.
        """
        place = self._places(times_s, columns)
        below = np.floor(place + SAME_SAMPLE).astype(np.int64)
        first, last = int(below.min()), int(below.max()) + 1
        rows = to_float32(map_array(self.path, self.header)[first : last + 1, columns])
        rows = np.concatenate([rows, rows[-1:]])  # behind the last sample of all, which has weight 0, stands itself
        below -= first
        values = _taken(rows, below)
        if sampling.interpolation == "previous":
            return values
        place -= below + first
        return _between(values, _taken(rows, below + 1), place.astype(np.float32))

    def _places(self, times_s: Float[np.ndarray, " time"], columns: Columns) -> Float[np.ndarray, "time _"]:
        """Times in samples, per signal where signals are shifted."""
        shifts = 0.0 if self.shifts_s is None else self.shifts_s[columns]
        place = (times_s[:, None] - self.start_s) * self.rate_hz - shifts * self.rate_hz
        return np.clip(place, 0, self.header.shape[0] - 1, out=place)


@dataclass(frozen=True)
class Spikes:
    """Spike times of neurons, one neuron's after the other's and ascending; they are counted in bins.

    Attributes:
        name: of the device.
        path: of the times in seconds.
        header: type, length and place of the times in that file.
        bounds: neuron n has the times ``bounds[n]`` to ``bounds[n + 1] - 1``.
        start_s: when the recording began.
        end_s: when it ended.
        statistics: None; counts depend on the width of a bin.
    """

    name: str
    path: Path
    header: Header
    bounds: Int[np.ndarray, " bounds"]
    start_s: float
    end_s: float
    statistics: Statistics | None = None

    @property
    def n_signals(self) -> int:
        """Number of neurons."""
        return len(self.bounds) - 1

    def covered(self, sampling: Sampling) -> tuple[float, float]:
        """Beginning of the first and of the last bin that lie within the recording, in seconds."""
        return self.start_s, self.end_s - sampling.bin_s

    def read(
        self, times_s: Float[np.ndarray, " time"], sampling: Sampling, columns: Columns = ALL
    ) -> Float[np.ndarray, "time signals"]:
        """Count the spikes of each neuron in ``[t, t + bin_s)``."""
        spikes = map_array(self.path, self.header)
        neurons = np.arange(self.n_signals)[columns]
        edges = np.stack([times_s, times_s + sampling.bin_s])
        counts = np.empty((len(times_s), len(neurons)), np.float32)
        for place, neuron in enumerate(neurons):
            before = np.searchsorted(spikes[self.bounds[neuron] : self.bounds[neuron + 1]], edges)
            counts[:, place] = before[1] - before[0]
        return counts


Device = Signals | Spikes


@dataclass(frozen=True)
class Trial:
    """A part of what the screen showed.

    Attributes:
        key: what its files are called.
        kind: ``video``, ``image`` or ``blank``; anything else was no stimulus.
        tier: as stored.
        first: number of its first frame among all frames.
        frames: how many it has.
        path: of the pixels; None for a blank screen.
        header: type, shape and place of the pixels in that file.
        value: brightness of a blank screen.
    """

    key: str
    kind: str
    tier: str | None
    first: int
    frames: int
    path: Path | None = None
    header: Header | None = None
    value: float = np.nan

    def pixels(self) -> Num[np.ndarray, "frames channel height width"]:
        """Map all frames; a blank screen is one pixel."""
        if self.path is None or self.header is None:
            return np.full((1, 1, 1, 1), self.value, np.float32)
        return pixels(self.kind, map_array(self.path, self.header))


@dataclass(frozen=True)
class Screen:
    """Frames and when each was shown; a frame stays until the next one.

    Attributes:
        trials: in order of time; together they have all frames.
        timestamps_s: when each frame appeared.
        ends_s: when each trial ended; NaN where nothing tells.
        shape: channels, height and width of a frame.
        mean: as stored, one number, one per channel or one per pixel; None for none.
        sd: likewise.
    """

    trials: tuple[Trial, ...]
    timestamps_s: Float[np.ndarray, " frames"]
    ends_s: Float[np.ndarray, " trials"]
    shape: tuple[int, int, int]
    mean: Float[np.ndarray, "channel height width"] | None = None
    sd: Float[np.ndarray, "channel height width"] | None = None

    def frames_at(self, times_s: Float[np.ndarray, " time"]) -> Int[np.ndarray, " time"]:
        """Which frame was on the screen at each time."""
        return np.searchsorted(self.timestamps_s, times_s + SAME_FRAME_S, "right") - 1

    def read(self, frames: Int[np.ndarray, " time"]) -> Float[np.ndarray, "time channel height width"]:
        """Read raw frames by number, as float32; only those are read from disk."""
        owners = np.searchsorted(np.array([trial.first for trial in self.trials]), frames, "right") - 1
        out = np.empty((len(frames), *self.shape), np.float32)
        for owner in np.unique(owners):
            trial, here = self.trials[owner], owners == owner
            out[here] = self._frames(trial, frames[here] - trial.first)
        return out

    def _frames(self, trial: Trial, numbers: Int[np.ndarray, " time"]) -> Float[np.ndarray, "time _ _ _"]:
        found = to_float32(trial.pixels()[numbers])
        if not (np.isfinite(found.min()) and np.isfinite(found.max())):  # both are NaN when any value is
            raise DataError(
                f"screen trial {trial.key} ({trial.kind}) has NaN or infinite pixels; repair it, or give it the "
                "modality invalid (a blank needs a number as interleave_value)"
            )
        return found


def pixels(kind: str, array: Num[np.ndarray, "*axes"]) -> Num[np.ndarray, "frames channel height width"]:
    """View the array of a trial as frames: a video is ``frames height width``, an image ``height width``, colors last.

    Raises:
        DataError: the array has another number of axes.
    """
    lay_out = _LAYOUTS.get((kind, array.ndim))
    if lay_out is None or (array.ndim == 4 and array.shape[-1] != COLORS):
        raise DataError(
            f"a screen {kind} has shape {array.shape}, expected ({'frames, ' if kind == VIDEO else ''}height, width), "
            f"or {COLORS} colors as a last axis"
        )
    return lay_out(array)


def _image_of_three_axes(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 0)[None] if array.shape[-1] == COLORS else array[:, None]


_LAYOUTS: dict[tuple[str, int], Callable[[np.ndarray], np.ndarray]] = {
    (VIDEO, 3): lambda array: array[:, None],
    (VIDEO, 4): lambda array: np.moveaxis(array, -1, 1),
    (IMAGE, 2): lambda array: array[None, None],
    (IMAGE, 3): _image_of_three_axes,
    (IMAGE, 4): lambda array: np.moveaxis(array, -1, 1),
}


def _taken(
    rows: Float[np.ndarray, "rows signals"], index: Int[np.ndarray, "time _"]
) -> Float[np.ndarray, "time signals"]:
    """Rows by number, the same for all signals or each signal's own."""
    if index.shape[1] == 1:
        return rows[index[:, 0]]
    signals = rows.shape[1]
    return rows.ravel().take(index * signals + np.arange(signals))


def _between(
    below: Float[np.ndarray, "time signals"],
    above: Float[np.ndarray, "time signals"],
    weight: Float[np.ndarray, "time _"],
) -> Float[np.ndarray, "time signals"]:
    """``below + weight (above - below)``, written over ``above``; a weight of 0 does not look at it."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by the reader
        above -= below
        above *= weight
        above += below
    np.copyto(above, below, where=weight < SAME_SAMPLE)
    return above
