"""Arrays by name, from an ``.npz`` file or a folder of ``.npy`` files; mapped into memory wherever that is possible."""

from __future__ import annotations

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from neuroint.data.base import DataError
from neuroint.registry import nearest

# What NumPy and zipfile raise on files that are not what their name says.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    SyntaxError,
    tokenize.TokenError,
)
ZIP_HEADER_BYTES = 30  # of a local file header, before file name and extra field (APPNOTE.TXT 4.3.7)
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
NUMBERS = "biuf"  # NumPy dtype kinds: boolean, signed, unsigned, floating


class ArrayStore:
    """Open the arrays of one recording lazily and read-only.

    ``.npy`` files and uncompressed members of an ``.npz`` are memory-mapped. A compressed member cannot be: it is
    decompressed once per process when first asked for, and kept in its stored dtype. Nothing loaded is pickled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_open": {}}

    def names(self) -> list[str]:
        """Names of the arrays, sorted.

        Raises:
            DataError: the path is not an ``.npz`` or a folder, is truncated, or may not be read.
        """
        try:
            if self.path.is_dir():
                return sorted(file.stem for file in self.path.iterdir() if file.suffix == ".npy")
            with zipfile.ZipFile(self.path) as archive:
                return sorted(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
        except UNREADABLE as error:
            raise DataError(
                f"'{self.path.name}' cannot be read ({_said(error)}); expected a whole .npz file or a folder of .npy"
            ) from None

    def __getitem__(self, name: str) -> np.ndarray:
        """The array, mapped or loaded.

        Raises:
            DataError: no such array (with the nearest name), a truncated one, or one that only unpickling could read.
        """
        if name not in self._open:
            known = self.names()
            if name not in known:
                raise DataError(
                    f"'{self.path.name}' has no array '{name}'.{nearest(name, known)} It has: {', '.join(known)}"
                )
            self._open[name] = self._load(name)
        return self._open[name]

    def numbers(self, name: str) -> np.ndarray:
        """The array, refused when it does not hold real numbers."""
        array = self[name]
        if array.dtype.kind not in NUMBERS:
            raise DataError(
                f"array '{name}' in '{self.path.name}' has dtype {array.dtype}; expected real numbers: convert it"
            )
        return array

    def _load(self, name: str) -> np.ndarray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # NumPy's, on headers that Python 2 wrote
                if self.path.is_dir():
                    return np.lib.format.open_memmap(self.path / f"{name}.npy", mode="r")
                return _open_member(self.path, f"{name}.npy")
        except UNREADABLE as error:
            raise DataError(
                f"array '{name}' in '{self.path.name}' cannot be read ({_said(error)}); truncated, or holds Python "
                "objects, which are never unpickled: save it again as a plain numeric array"
            ) from None


def _open_member(path: Path, member: str) -> np.ndarray:
    """Map a member that is stored as it is; read one that is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if info.compress_type == zipfile.ZIP_STORED and version in HEADER_READERS:
                shape, fortran_order, dtype = HEADER_READERS[version](file)
                if not dtype.hasobject:
                    order = "F" if fortran_order else "C"
                    return np.memmap(path, dtype, "r", _data_offset(path, info) + file.tell(), shape, order)
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """First byte of a member's content: behind its local header, whose extra field may differ from the directory's."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(ZIP_HEADER_BYTES)
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + ZIP_HEADER_BYTES + name + extra


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
