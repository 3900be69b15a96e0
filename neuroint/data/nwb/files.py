"""Open an NWB file with pynwb, and check the tables that the benchmark is made of.

Times are seconds from the beginning of the recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Float

from neuroint.data.base import DataError
from neuroint.registry import nearest

SPLITS = ("train", "val", "test", "none")
TRIAL_COLUMNS = ("start_time", "stop_time", "split")
UNIT_COLUMNS = ("spike_times", "obs_intervals", "heldout")


@dataclass(frozen=True)
class Unit:
    """One unit: when it spiked, and between which times it was watched."""

    number: int
    spikes_s: Float[np.ndarray, " spikes"]
    observed_s: Float[np.ndarray, "intervals 2"]
    held_out: bool


@dataclass(frozen=True)
class Recording:
    """The tables of one file.

    Attributes:
        name: the file's.
        trials: columns of one value per trial, by name.
        units: in the order of the table.
        end_s: end of the last observed interval, rounded to milliseconds.
    """

    name: str
    trials: Mapping[str, np.ndarray]
    units: tuple[Unit, ...]
    end_s: float

    def column(self, name: str) -> np.ndarray:
        """A column of the trials table.

        Raises:
            DataError: there is none of that name; the nearest one is told.
        """
        if name not in self.trials:
            raise DataError(
                f"'{self.name}': the trials table has no column '{name}'.{nearest(name, self.trials)} Columns: "
                f"{', '.join(self.trials)}"
            )
        return self.trials[name]

    def times(self, name: str) -> Float[np.ndarray, " trials"]:
        """A column of times, NaN where a trial lacks the event.

        Raises:
            DataError: there is no such column, or it holds no numbers.
        """
        found = self.column(name)
        if found.dtype.kind not in "fiu":
            raise DataError(f"'{self.name}': column '{name}' of the trials table is {found.dtype}, expected seconds")
        return found.astype(np.float64)

    def of_split(self, *splits: str) -> Bool[np.ndarray, " trials"]:
        """Mark the trials of these splits.

        Raises:
            DataError: there is none.
        """
        found = np.isin(self.trials["split"], splits)
        if not found.any():
            counts = {split: int((self.trials["split"] == split).sum()) for split in SPLITS}
            raise DataError(
                f"'{self.name}' has no trial of split {' or '.join(splits)}, but {counts}; give the file that has "
                "them, or choose another phase"
            )
        return found


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Hand out what pynwb reads of a file, and close it after use.

    Raises:
        DataError: pynwb is missing, there is no such file, or it is not NWB.
    """
    _check_format(path)
    try:
        pynwb: Any = import_module("pynwb")  # which takes a second, and is an extra
    except ImportError as error:
        raise DataError(f"reading '{path.name}' needs pynwb; run `pip install neuroint[nwb]`") from error
    with ExitStack() as stack:
        try:
            held = stack.enter_context(pynwb.NWBHDF5IO(str(path), "r")).read()
        except Exception as error:  # pynwb and hdmf raise whatever they stumbled over
            raise DataError(f"'{path}' cannot be read as NWB ({error}); copy or download the file again") from error
        yield held


def read_recording(path: Path) -> Recording:
    """Read trials and units of a file.

    Raises:
        DataError: as for :func:`opened`; a table or a column is missing; splits have other names; spike times are
            negative, out of order or no numbers; a unit has no observed interval.
    """
    with opened(path) as held:
        trials = _columns(path.name, "trials", held.trials, TRIAL_COLUMNS)
        _columns_there(path.name, "units", held.units, UNIT_COLUMNS)
        units = tuple(_unit(path.name, held.units, row) for row in range(len(held.units)))
    unknown = sorted({str(split) for split in trials["split"]} - set(SPLITS))
    if unknown:
        raise DataError(f"'{path.name}': splits are called {', '.join(unknown)}; expected {', '.join(SPLITS)}")
    if not units or not len(trials["split"]):
        raise DataError(f"'{path.name}' has {len(units)} units and {len(trials['split'])} trials; there is no data")
    end_s = round(max(float(unit.observed_s.max()) for unit in units), 3)
    return Recording(path.name, trials, units, end_s)


def _check_format(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"'{path}' does not exist; give an NWB file of the Neural Latents Benchmark")
    try:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("nwb_version")
    except OSError as error:
        raise DataError(f"'{path}' is no NWB file ({error}); copy or download it again") from error
    if version is None:
        raise DataError(f"'{path}' is no NWB file: HDF5 without 'nwb_version'; reader 'nlb' reads the benchmark's HDF5")


def _columns_there(name: str, what: str, table: Any, needed: tuple[str, ...]) -> None:
    if table is None:
        raise DataError(f"'{name}' has no {what} table; expected one with {', '.join(needed)}")
    if lacking := [column for column in needed if column not in table.colnames]:
        raise DataError(
            f"'{name}': the {what} table has no {' and no '.join(lacking)}; columns: {', '.join(table.colnames)}. "
            "Expected a file of the Neural Latents Benchmark"
        )


def _columns(name: str, what: str, table: Any, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns of one value per row; lists and arrays per row are not read."""
    _columns_there(name, what, table, needed)
    plain = {column.name: column for column in table.columns if column.name in table.colnames}
    ragged = {one for one in plain if table[one] is not plain[one]}
    found = {one: np.asarray(column.data[:]) for one, column in plain.items() if one not in ragged}
    return {one: _text(array) for one, array in found.items() if array.ndim == 1}


def _text(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "OS":
        return array
    return np.array([one.decode() if isinstance(one, bytes) else str(one) for one in array.tolist()], dtype=str)


def _unit(name: str, table: Any, row: int) -> Unit:
    where = f"'{name}': unit {int(table.id[row])}"
    spikes = np.asarray(table["spike_times"][row], np.float64)
    observed = np.asarray(table["obs_intervals"][row], np.float64).reshape(-1, 2)
    if not np.isfinite(spikes).all() or (spikes < 0).any():
        odd = spikes[~(spikes >= 0) | ~np.isfinite(spikes)][:3].tolist()
        raise DataError(f"{where} has spike times such as {odd}; expected seconds from the beginning of the recording")
    if (np.diff(spikes) < 0).any():
        raise DataError(f"{where}: spike times are not in order; sort them, and check that they are of one unit")
    if not len(observed) or not np.isfinite(observed).all() or (np.diff(observed) < 0).any():
        raise DataError(
            f"{where} has obs_intervals {observed[:3].tolist()}; expected at least one from and to in seconds, without "
            "which nobody knows where silence was recorded"
        )
    return Unit(int(table.id[row]), spikes, observed, bool(table["heldout"][row]))
