"""Neuropixels recordings of a decision task (Steinmetz et al. 2019): spikes of many areas in trials of one length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float, Num
from pydantic import Field

from neuroint.data.array_store import ArrayStore
from neuroint.data.base import DEV_TEST, FINAL_TEST, VALIDATION, DataError, Session
from neuroint.data.splits import split_by_stimulus
from neuroint.data.trials import trial_session
from neuroint.registry import Count, Index, readers

Share = Annotated[float, Field(ge=0, lt=1)]
Window = tuple[float, float]
LAYOUTS = {  # by the array that only this layout has: names of what is read
    "bin_start_s": ("spikes", "brain_area", "contrast_left", "contrast_right", "bin_start_s", "mouse"),
    "spks": ("spks", "brain_area", "contrast_left", "contrast_right", "bin_size", "stim_onset", "mouse_name"),
}
REMARK = "conditions recur in all tiers on purpose: what is held out are whole trials, and models see no condition"


@dataclass(frozen=True)
class TrialSplit:
    """Shares of the trials that are held out, and the seed of the draw; the rest is trained on."""

    validation: Share = 0.1
    dev_test: Share = 0.1
    final_test: Share = 0.2
    seed: Index = 1


@dataclass(frozen=True)
class _Table:
    """What either layout holds, under one set of names; ``first_s`` is where bins begin, after stimulus onset."""

    spikes: Num[np.ndarray, "trials neurons bins"]
    areas: tuple[str, ...]
    contrasts: Float[np.ndarray, "trials 2"]
    bin_s: float
    first_s: float
    mouse: str


def looks_like(path: Path) -> bool:
    """Say whether a path is a session, or a folder of sessions."""
    return any(_layout(found) for found in _recordings(path))


@readers.register("steinmetz")
def read_steinmetz(
    path: Path, *, split: TrialSplit = TrialSplit(), rebin: Count = 1, window_s: Window | None = None
) -> list[Session]:
    """Read sessions of the steering-wheel task: counts per neuron and bin in trials, with the area of every neuron.

    Two layouts: an ``.npz`` with ``spikes`` (trials, neurons, bins of 10 ms from stimulus onset), ``bin_start_s``,
    ``contrast_left``, ``contrast_right``, ``brain_area`` and ``mouse``; and the folder of plain arrays that ``neuroint
    data convert steinmetz`` makes of a Neuromatch file, with ``spks`` (neurons, trials, bins of ``bin_size`` s, the
    stimulus ``stim_onset`` s after the first). A folder holds a session each. The active trials are read; the other
    arrays are left where they are.

    A trial is a clip, a pair of contrasts a condition (``stimulus_ids``). Tiers are drawn over trials, not over
    conditions: see :func:`neuroint.data.trials.trial_session` for why that is no leak. Responses are counts per bin,
    and ``bin_s`` is the width of a bin after ``rebin``.

    Args:
        path: an ``.npz``, a folder of them, a converted session, or a folder of those.
        split: shares of validation, dev-test and final test, and the seed that draws them.
        rebin: bins that are added up to one; it must divide their number.
        window_s: seconds after stimulus onset that are kept, from and to; None keeps all.

    Raises:
        DataError: no such layout, arrays that do not fit together, counts that are negative or not whole, bins of
            unequal width, or a window or ``rebin`` that does not fit the bins.

    Source: Steinmetz et al. (2019), Nature 576, 266-273.
    """
    return [_session(found, split, rebin, window_s) for found in _recordings(path) if _layout(found)]


def _recordings(path: Path) -> list[Path]:
    """The path itself, if it is a recording, or those directly inside it."""
    if not path.is_dir() or (path / "spks.npy").is_file():
        return [path]
    return sorted(inner for inner in path.iterdir() if inner.suffix == ".npz" or (inner / "spks.npy").is_file())


def _layout(path: Path) -> str | None:
    if not path.is_dir() and path.suffix != ".npz":
        return None
    names = set(ArrayStore(path).names())
    return next((mark for mark, needed in LAYOUTS.items() if mark in names and needed[0] in names), None)


def _session(path: Path, split: TrialSplit, rebin: int, window_s: Window | None) -> Session:
    store = ArrayStore(path)
    layout = _layout(path)
    table = _TABLES[layout or ""](store)
    _check(path.name, table)
    counts = _rebinned(path.name, _windowed(path.name, table, window_s), rebin)
    _, conditions = np.unique(table.contrasts, axis=0, return_inverse=True)
    shares = {VALIDATION: split.validation, DEV_TEST: split.dev_test, FINAL_TEST: split.final_test}
    return trial_session(
        path.stem if path.suffix == ".npz" else path.name,
        table.mouse,
        counts,
        split_by_stimulus(np.arange(len(counts)), shares, split.seed, "trials"),
        conditions.ravel().astype(np.int64),
        bin_s=round(table.bin_s * rebin, 9),
        cautions=(REMARK,),
        areas=table.areas,
    )


def _read_trials_first(store: ArrayStore) -> _Table:
    starts = store.numbers("bin_start_s")
    steps = np.diff(starts, axis=-1)
    if starts.ndim != 2 or not steps.size or not np.allclose(steps, steps.flat[0], rtol=0, atol=1e-6):
        raise DataError(
            f"'{store.path.name}': bin_start_s of shape {starts.shape} is not a row of equal steps for every trial; "
            "give the start of each bin in seconds"
        )
    bin_s = round(float(steps.flat[0]), 6)
    return _Table(_spikes(store, "spikes"), _areas(store), _contrasts(store), bin_s, 0.0, _word(store, "mouse"))


def _read_neuromatch(store: ArrayStore) -> _Table:
    trials_first = np.swapaxes(_spikes(store, "spks"), 0, 1)
    bin_s, onset = (float(store.numbers(name).ravel()[0]) for name in ("bin_size", "stim_onset"))
    return _Table(trials_first, _areas(store), _contrasts(store), bin_s, -onset, _word(store, "mouse_name"))


_TABLES: Mapping[str, Callable[[ArrayStore], _Table]] = {"bin_start_s": _read_trials_first, "spks": _read_neuromatch}


def _spikes(store: ArrayStore, name: str) -> np.ndarray:
    spikes = store.numbers(name)
    if spikes.ndim != 3:
        raise DataError(
            f"'{store.path.name}': {name} has shape {spikes.shape}; expected three axes: trials, neurons and bins"
        )
    return spikes


def _areas(store: ArrayStore) -> tuple[str, ...]:
    return tuple(str(area) for area in store["brain_area"].ravel())


def _contrasts(store: ArrayStore) -> np.ndarray:
    left, right = (store.numbers(name).ravel().astype(np.float64) for name in ("contrast_left", "contrast_right"))
    if len(left) != len(right):
        raise DataError(f"'{store.path.name}': {len(left)} contrasts on the left and {len(right)} on the right")
    return np.stack([left, right], axis=1)


def _word(store: ArrayStore, name: str) -> str:
    return str(store[name].ravel()[0])


def _check(name: str, table: _Table) -> None:
    spikes = table.spikes
    trials, neurons, _ = spikes.shape
    if (trials, neurons) != (len(table.contrasts), len(table.areas)):
        raise DataError(
            f"'{name}': spikes of {trials} trials and {neurons} neurons, but {len(table.contrasts)} contrasts and "
            f"{len(table.areas)} areas; give one per trial and one per neuron"
        )
    if not neurons or not table.bin_s > 0:
        raise DataError(
            f"'{name}': {neurons} neurons in bins of {table.bin_s} s, expected at least one neuron and bins "
            "longer than 0 s; convert the file again"
        )
    if not np.isfinite(table.contrasts).all():
        raise DataError(f"'{name}': contrasts hold NaN or infinite values; every active trial has a condition")
    if spikes.size and (spikes.min() < 0 or (spikes.dtype.kind == "f" and not np.array_equal(spikes, np.rint(spikes)))):
        raise DataError(f"'{name}': spikes are negative or not whole, expected counts per bin; do not normalize them")


def _windowed(name: str, table: _Table, window_s: Window | None) -> np.ndarray:
    """Keep the bins inside the window; trials, time, neurons."""
    spikes = np.swapaxes(table.spikes, 1, 2)
    if window_s is None:
        return np.ascontiguousarray(spikes)  # or else every crop would gather its numbers one by one
    bounds = [(edge - table.first_s) / table.bin_s for edge in window_s]
    first, last = (round(bound) for bound in bounds)
    if not 0 <= first < last <= spikes.shape[1]:
        end = table.first_s + spikes.shape[1] * table.bin_s
        raise DataError(
            f"'{name}': window_s is {list(window_s)}, but bins span {table.first_s:g} to {end:g} s after stimulus onset"
            "; give a window inside, its earlier end first"
        )
    return np.ascontiguousarray(spikes[:, first:last])


def _rebinned(name: str, spikes: np.ndarray, rebin: int) -> np.ndarray:
    bins = spikes.shape[1]
    if rebin == 1:
        return spikes
    if bins % rebin:
        raise DataError(f"'{name}': {bins} bins cannot be added up by {rebin}; choose a divisor, or another window_s")
    return spikes.reshape(len(spikes), bins // rebin, rebin, -1).sum(axis=2, dtype=np.int32)
