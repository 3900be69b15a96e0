"""Which trials of a recording are cut out, and at which bins their windows begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from neuroint.data.base import DataError
from neuroint.data.nwb.bins import check_inside, first_bins
from neuroint.data.nwb.files import Recording, Unit
from neuroint.data.nwb.tasks import Task
from neuroint.seeding import generator

LONGEST_MS, MOST_JITTER_MS = 1500.0, 300.0  # of the interval, and of its shift


@dataclass(frozen=True)
class Grid:
    """Widths in milliseconds: of a bin, and of what follows the window."""

    bin_ms: int
    forward_ms: int

    def check(self, window_ms: tuple[int, int]) -> None:
        """Refuse windows that are no whole number of bins.

        Raises:
            DataError: says which width, and by what it must be divisible.
        """
        length = window_ms[1] - window_ms[0]
        if length <= 0 or length % self.bin_ms or self.forward_ms % self.bin_ms:
            raise DataError(
                f"window_ms is {list(window_ms)} ({length} ms) and forward_ms {self.forward_ms}; expected whole "
                f"numbers of bins of {self.bin_ms} ms, the earlier end first"
            )


@dataclass(frozen=True)
class Chosen:
    """Trials of a recording in the order of its table, the first bin of each window, and its shift in bins."""

    recording: Recording
    trials: Int[np.ndarray, " trials"]
    first: Int[np.ndarray, " trials"]
    jitter: Int[np.ndarray, " trials"]
    bins: int
    lacking: int

    def column(self, name: str) -> np.ndarray:
        """A column of the trials table, of these trials."""
        return self.recording.column(name)[self.trials]

    def outliers(self, task: Task) -> Bool[np.ndarray, " trials"]:
        """Mark the trials that the task leaves out of behavior and conditions."""
        if task.outlier is None:
            return np.zeros(len(self.trials), np.bool_)
        return np.asarray(self.column(task.outlier) != 0)

    def remarks(self, task: Task) -> list[str]:
        """Say how many trials were left out."""
        return [f"{self.lacking} trials without {task.align} are left out"] if self.lacking else []


def choose(recording: Recording, splits: tuple[str, ...], task: Task, grid: Grid, seed: int) -> Chosen:
    """Choose the trials of these splits that have the event of the task.

    A window begins with the first bin of the recording's grid at or after event + ``window_ms[0]``, and may overlap the
    next trial. Trials of task ``dmfc_rsg`` are shifted by

    .. math:: j = round(U \\lfloor clip(1500 - t_p, 0, 300) / w \\rfloor)

    bins of w ms, U uniform on [0, 1), unless they are of split ``test``.

    Raises:
        DataError: no such trial, none of them has the event, or a window leaves the recording.
    """
    grid.check(task.window_ms)
    wanted, times = recording.of_split(*splits), recording.times(task.align)
    trials = np.flatnonzero(wanted & np.isfinite(times))
    if not len(trials):
        raise DataError(
            f"'{recording.name}': none of the {int(wanted.sum())} trials of split {' or '.join(splits)} has a "
            f"{task.align}; set align to another column"
        )
    jitter = _jitter(recording, task, trials, splits, grid.bin_ms, seed)
    first = first_bins(times[trials], task.window_ms[0], grid.bin_ms) + jitter
    length = task.window_ms[1] - task.window_ms[0]
    check_inside(recording, trials, first * grid.bin_ms, length)
    return Chosen(recording, trials, first, jitter, length // grid.bin_ms, int(wanted.sum()) - len(trials))


def _jitter(
    recording: Recording, task: Task, trials: np.ndarray, splits: tuple[str, ...], bin_ms: int, seed: int
) -> Int[np.ndarray, " trials"]:
    if task.jitter is None or "test" in splits:
        return np.zeros(len(trials), np.int64)
    room_ms = np.clip(
        LONGEST_MS - np.nan_to_num(recording.times(task.jitter)[trials], nan=LONGEST_MS), 0, MOST_JITTER_MS
    )
    drawn = generator(seed, "nwb_jitter", *splits).random(len(trials))
    return np.rint(drawn * np.floor(room_ms / bin_ms)).astype(np.int64)


def known_bins(chosen: Chosen, task: Task, bin_ms: int) -> Bool[np.ndarray, "trials bins"]:
    """Mark the bins of windows that begin inside the interval in which the task scores."""
    places = chosen.first[:, None] + np.arange(chosen.bins)
    if task.known is None:
        return np.ones_like(places, np.bool_)
    start, end = (first_bins(chosen.recording.times(name)[chosen.trials], 0, bin_ms) for name in task.known)
    return (places >= start[:, None]) & (places < end[:, None])


def conditions_of(
    task: Task, *parts: Chosen
) -> tuple[list[tuple[object, ...]], list[list[Int[np.ndarray, " trials"]]]]:
    """Find the conditions of all parts, sorted, and per part which of its trials are of each.

    Trials of which a column is NaN, and outliers, are of none.
    """
    labels = [_labels(part, task) for part in parts]
    found = sorted({label for part in labels for label in part if label is not None})
    lists = [
        [np.array([k for k, one in enumerate(part) if one == label], np.int64) for label in found] for part in labels
    ]
    return found, lists


def _labels(part: Chosen, task: Task) -> list[tuple[object, ...] | None]:
    rows = zip(*(part.column(name).tolist() for name in task.conditions), strict=True)
    unlike = part.outliers(task)
    return [None if out or any(x != x for x in row) else row for row, out in zip(rows, unlike, strict=True)]


def sided(units: tuple[Unit, ...]) -> dict[str, list[Unit]]:
    """Units that are held in and those that are held out, each in the order of the table."""
    return {"heldin": [u for u in units if not u.held_out], "heldout": [u for u in units if u.held_out]}


def behavior_rows(chosen: Chosen, task: Task) -> Float[np.ndarray, "trials columns"]:
    """Columns of the trials table that are decoded, NaN for outliers."""
    rows = np.stack([chosen.column(name).astype(np.float64) for name in task.columns], axis=1)
    rows[chosen.outliers(task)] = np.nan
    return rows
