"""Count spikes in bins of a grid that begins with the recording, and cut windows out of it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from neuroint.data.base import DataError
from neuroint.data.nwb.files import Recording, Unit

DIGITS = 6  # of a millisecond: seconds in float64 are not quite what was meant


def milliseconds(seconds: np.ndarray | float) -> np.ndarray:
    """Seconds in milliseconds, without the dust of floating point."""
    return np.asarray(np.round(np.asarray(seconds, np.float64) * 1000, DIGITS))


def first_bins(times_s: Float[np.ndarray, " trials"], offset_ms: float, bin_ms: int) -> Int[np.ndarray, " trials"]:
    """The first bin of the grid that begins at a time or after it."""
    return np.ceil(np.round((milliseconds(times_s) + offset_ms) / bin_ms, DIGITS)).astype(np.int64)


def watched(unit: Unit, length_ms: int) -> Bool[np.ndarray, " milliseconds"]:
    """Mark the milliseconds that lie wholly inside the observed intervals of a unit."""
    return _inside(unit.observed_s.astype(np.float64).tobytes(), length_ms)


@lru_cache(maxsize=2)  # units of one array share their intervals, of which a long recording has thousands
def _inside(intervals: bytes, length_ms: int) -> Bool[np.ndarray, " milliseconds"]:
    edges = milliseconds(np.frombuffer(intervals).reshape(-1, 2))
    first, last = np.ceil(edges[:, 0]).astype(np.int64), np.floor(edges[:, 1]).astype(np.int64)
    found = np.zeros(length_ms, np.bool_)
    for start, end in zip(first.clip(0), last.clip(0), strict=True):
        found[start:end] = True
    found.flags.writeable = False
    return found


def counts_of(unit: Unit, bins: int, bin_ms: int) -> Float[np.ndarray, " bins"]:
    r"""Count the spikes of a unit in all bins of a recording.

    .. math:: n_b = \#\{t : \lfloor 1000 t \rfloor = m, \lfloor m / w \rfloor = b\}

    with t in s and w in ms. A millisecond that is not observed has no spikes; a bin whose first millisecond is not
    observed is NaN, as the benchmark's tool has it.
    """
    known = watched(unit, bins * bin_ms)
    when = np.floor(milliseconds(unit.spikes_s)).astype(np.int64)
    when = when[when < len(known)]
    counts = np.bincount(when[known[when]] // bin_ms, minlength=bins).astype(np.float32)
    counts[~known[::bin_ms]] = np.nan
    return counts


def windows_of(
    recording: Recording, units: list[Unit], first: Int[np.ndarray, " trials"], bins: int, bin_ms: int
) -> Float[np.ndarray, "trials bins units"]:
    """Counts of units in windows that begin at given bins; NaN outside the recording."""
    total = -(-int(milliseconds(recording.end_s)) // bin_ms)
    places = first[:, None] + np.arange(bins)
    inside = (places >= 0) & (places < total)
    found = np.full((*places.shape, len(units)), np.nan, np.float32)
    for column, unit in enumerate(units):
        found[inside, column] = counts_of(unit, total, bin_ms)[places[inside]]
    return found


def check_inside(
    recording: Recording, trials: Int[np.ndarray, " trials"], first_ms: np.ndarray, length_ms: int
) -> None:
    """Refuse windows that leave the recording.

    Raises:
        DataError: names the first such trial.
    """
    end_ms = float(milliseconds(recording.end_s))
    outside = np.flatnonzero((first_ms < 0) | (first_ms + length_ms > end_ms))
    if len(outside):
        one = outside[0]
        raise DataError(
            f"'{recording.name}': the window of trial {trials[one]} spans {first_ms[one] / 1000:g} to "
            f"{(first_ms[one] + length_ms) / 1000:g} s, the recording 0 to {end_ms / 1000:g} s "
            f"({len(outside)} such trials); choose another window_ms or align"
        )
