"""Continuous signals of an NWB file on the grid of 1 ms, and the same decimated to wider bins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.signal import decimate

from neuroint.data.base import DataError
from neuroint.data.nwb.bins import milliseconds
from neuroint.data.nwb.files import opened
from neuroint.registry import nearest

TAPS = 500  # of the anti-alias filter, as in the benchmark's tool
ON_GRID_MS = 5e-4


@dataclass(frozen=True)
class Series:
    """A signal at every millisecond of the recording, NaN where there is no sample."""

    columns: tuple[str, ...]
    values: Float[np.ndarray, "milliseconds columns"]


def read_series(path: Path, name: str, end_s: float) -> Series | None:
    """Read one signal; None if a sample of it does not fall on the grid of 1 ms inside the recording.

    Columns are named by ``columns=[x,y]`` in its comments, or else numbered. Values are as stored: ``conversion``
    is not applied.

    Raises:
        DataError: there is no such signal, or its comments name another number of columns.
    """
    with opened(path) as held:
        there = dict(_named(held))
        if name not in there:
            raise DataError(
                f"'{path.name}' has no series '{name}'.{nearest(name, there)} Series: {', '.join(there) or 'none'}"
            )
        values = np.asarray(there[name].data[:], np.float64)
        when = _times_ms(there[name], len(values))
        columns = _column_names(path.name, there[name], values.reshape(len(values), -1).shape[1])
    places = np.rint(when).astype(np.int64)
    length = int(np.rint(milliseconds(end_s)))
    if (np.abs(when - places) >= ON_GRID_MS).any() or (places < 0).any() or (places >= length).any():
        return None
    grid = np.full((length, len(columns)), np.nan)
    grid[places] = values.reshape(len(values), -1)
    return Series(columns, grid)


def _named(held: Any) -> Iterator[tuple[str, Any]]:
    """All series of a file; one inside a container is called container_series."""
    pynwb: Any = import_module("pynwb")
    for found in held.objects.values():
        if isinstance(found, pynwb.TimeSeries):
            outside = isinstance(found.parent, pynwb.ProcessingModule | pynwb.NWBFile)
            yield (found.name if outside else f"{found.parent.name}_{found.name}"), found


def _times_ms(series: Any, samples: int) -> Float[np.ndarray, " samples"]:
    if series.timestamps is not None:
        return milliseconds(np.asarray(series.timestamps[:], np.float64))
    return milliseconds(np.arange(samples) / series.rate + series.starting_time)


def _column_names(file: str, series: Any, width: int) -> tuple[str, ...]:
    found = re.search(r"columns=\[([^\]]*)\]", series.comments)
    if found is None:
        return tuple(str(column) for column in range(width))
    names = tuple(name.strip() for name in found[1].split(","))
    if len(names) != width:
        raise DataError(
            f"'{file}': comments of series '{series.name}' name {len(names)} columns ({', '.join(names)}), its data "
            f"have {width}; mend the comments"
        )
    return names


def decimated(values: Float[np.ndarray, "milliseconds columns"], factor: int) -> Float[np.ndarray, "bins columns"]:
    """Low-pass a signal (a symmetric FIR of 500 taps) and keep every ``factor``-th sample.

    Gaps are bridged by straight lines for the filter, and are gaps again in what is returned.
    """
    if factor == 1 or not len(values):
        return values
    gaps = np.isnan(values)
    if gaps.all(axis=0).any():
        raise DataError("a series has no sample in the recording; check its timestamps")
    bridged = np.stack([_bridged(*column) for column in zip(values.T, gaps.T, strict=True)], axis=1)
    found = np.asarray(decimate(bridged, factor, n=TAPS, ftype="fir", axis=0))
    found[gaps[::factor]] = np.nan
    return found


def _bridged(column: Float[np.ndarray, " milliseconds"], gap: Bool[np.ndarray, " milliseconds"]) -> np.ndarray:
    places = np.arange(len(column))
    return np.interp(places, places[~gap], column[~gap])


def windows_of_series(
    values: Float[np.ndarray, "grid columns"], first: Int[np.ndarray, " trials"], bins: int
) -> Float[np.ndarray, "trials bins columns"]:
    """Cut windows that begin at given samples; NaN outside the recording."""
    places = first[:, None] + np.arange(bins)
    inside = (places >= 0) & (places < len(values))
    found = np.full((*places.shape, values.shape[1]), np.nan)
    found[inside] = values[places[inside]]
    return found
