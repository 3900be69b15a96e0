"""Flat HDF5 files of arrays, at the root or in one group per data set, as the benchmark's tool writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from neuroint.data.base import DataError
from neuroint.registry import nearest

Array = np.ndarray | Sequence[np.ndarray]  # lists of indices have unequal lengths
KINDS = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.bool_}


def read_arrays(path: Path, group: str | None = None) -> dict[str, Array]:
    """Read every data set at the root of a file, or in a group.

    Raises:
        DataError: the file is missing, is no HDF5 file or was cut short, or has no such group.
    """
    if not path.is_file():
        raise DataError(f"'{path}' does not exist; give a file in the layout of the Neural Latents Benchmark")
    try:
        with h5py.File(path, "r") as file:
            if group is not None and group not in file:
                hint = nearest(group, file.keys())
                raise DataError(f"'{path}' has no group '{group}'.{hint} Groups: {', '.join(file) or 'none'}")
            held = file if group is None else file[group]
            if not isinstance(held, h5py.Group):
                raise DataError(f"'{path}': '{group}' is a data set, not a group; give the target or submission file")
            return {name: _loaded(one) for name, one in held.items() if isinstance(one, h5py.Dataset)}
    except OSError as error:
        raise DataError(f"'{path}' cannot be read as HDF5 ({error}); copy or download the file again") from error


def write_arrays(path: Path, arrays: Mapping[str, Array], group: str | None = None) -> None:
    """Add arrays to a file: floats as float32, integers as int32, lists of indices as such, compressed by gzip.

    Raises:
        DataError: an array of that name is there already.
    """
    with h5py.File(path, "a") as file:
        held = file if group is None else file.require_group(group)
        for name, array in arrays.items():
            if name in held:
                raise DataError(f"'{path}' holds {held.name}/{name} already; write to a new file")
            _store(held, name, array)


def _loaded(dataset: h5py.Dataset) -> Array:
    found = dataset[()]
    return list(found) if dataset.dtype.hasobject else found


def _store(held: h5py.Group, name: str, array: Array) -> None:
    if isinstance(array, np.ndarray):
        held.create_dataset(name, data=array.astype(KINDS[array.dtype.kind]), compression="gzip")
        return
    lists = held.create_dataset(name, (len(array),), dtype=h5py.vlen_dtype(np.int32), compression="gzip")
    for place, indices in enumerate(array):  # one by one: lists of equal length would be taken for a table
        lists[place] = np.asarray(indices, np.int32)
