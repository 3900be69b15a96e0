"""Open ``.npy`` files as plain numbers: headers are checked first, nothing is ever unpickled, nothing is written.

A session has thousands of files with the same header, so headers are read apart from the numbers and parsed once. A map
is opened for the moment of reading and dropped with the array, so the number of open maps is bounded by the arrays that
are alive.
"""

from __future__ import annotations

import io
import math
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from neuroint.data.base import DataError

NUMBERS, TEXT = "fiu", "U"
BLOCK_BYTES = 262_144  # a fraction of the cache that each processor has to itself
SHORT_ROW_BYTES = 16_384  # four pages of memory: a crop of shorter rows touches at least every fourth page
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LENGTH_BYTES = {1: 2, 2: 4}  # the header's length takes 2 bytes in version 1.0 and 4 in 2.0
_MALFORMED = (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, OverflowError)


@dataclass(frozen=True)
class Header:
    """Type, shape and place of the numbers in a ``.npy`` file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def end(self) -> int:
        """Size in bytes of a complete file."""
        return self.offset + self.dtype.itemsize * math.prod(self.shape)


def read_header(path: Path, kinds: str = NUMBERS) -> tuple[Header, int]:
    """Read what a ``.npy`` file says about itself, and the size of the file in bytes.

    Args:
        path: the file.
        kinds: letters of numpy's dtype kinds that are accepted.

    Raises:
        DataError: the file is missing, unreadable, truncated, no ``.npy``, or holds objects or another kind of values.
    """
    try:
        with path.open("rb") as file:
            header = _parse(_header_bytes(file))
            size = file.seek(0, io.SEEK_END)
    except OSError as error:
        raise DataError(_unreadable(path, error)) from error
    except (*_MALFORMED, tokenize.TokenError) as error:
        raise DataError(f"{path} is not a .npy file of numbers ({error}); write it again with numpy.save") from error
    _check(path, header, size, kinds)
    return header, size


def map_array(path: Path, header: Header) -> np.ndarray:
    """Map the numbers of a file whose header is known; read-only.

    Raises:
        DataError: the file is gone, unreadable, or shorter than its header says.
    """
    order = "F" if header.fortran else "C"
    try:
        return np.asarray(np.memmap(path, header.dtype, "r", header.offset, header.shape, order))
    except OSError as error:
        raise DataError(_unreadable(path, error)) from error
    except ValueError as error:
        raise DataError(_changed(path, error)) from error


def blocks_to_crop(path: Path, header: Header) -> Iterator[np.ndarray]:
    """Go through a file whose header is known in blocks of its first axis, to cut crops out of the last axis.

    A crop of short rows is spread over the whole file. Reading it block by block, into one piece of memory that stays
    in the processor's cache, takes less time than having its pages mapped or than reading it at once. A block holds
    until the next is asked for. Files of long rows are mapped, so that only what is cut out is read.

    Raises:
        DataError: the file is gone, unreadable, or shorter than its header says.
    """
    row_bytes = header.dtype.itemsize * math.prod(header.shape[-1:])
    if header.fortran or not header.shape or row_bytes > SHORT_ROW_BYTES:
        yield map_array(path, header)
        return
    step = header.dtype.itemsize * math.prod(header.shape[1:])
    at_once = max(1, BLOCK_BYTES // step)
    memory = np.empty(at_once * step, np.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(header.offset)
            for first in range(0, header.shape[0], at_once):
                count = min(at_once, header.shape[0] - first)
                _fill(memory.data[: count * step], file)
                yield memory[: count * step].view(header.dtype).reshape(count, *header.shape[1:])
    except OSError as error:
        raise DataError(_unreadable(path, error)) from error
    except EOFError as error:
        raise DataError(_changed(path, error)) from error


def load_array(path: Path) -> np.ndarray:
    """Load a whole small file of numbers; same errors as ``read_header``."""
    header, _ = read_header(path)
    return np.array(map_array(path, header))


def load_text(path: Path) -> list[str]:
    """Load a list of words; same errors as ``read_header``, and ``DataError`` for damaged letters."""
    header, _ = read_header(path, TEXT)
    words = np.array(map_array(path, header)).ravel()
    letters = words.view(np.dtype(np.uint32).newbyteorder(header.dtype.byteorder))
    if letters.max() > sys.maxunicode:  # numpy would hand such words to Python unchecked
        raise DataError(f"{path} holds letters that do not exist; copy or download it again")
    return words.tolist()


def _header_bytes(file: io.BufferedReader) -> bytes:
    start = file.read(10)
    if start[:6] != b"\x93NUMPY" or len(start) < 10:
        raise ValueError("it does not begin with the .npy signature")
    width = _LENGTH_BYTES.get(start[6], 0)
    start += file.read(width - 2) if width > 2 else b""
    return start + file.read(int.from_bytes(start[8 : 8 + width], "little"))


@lru_cache(maxsize=1024)
def _parse(start: bytes) -> Header:
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"format version {version} is for structured names only")
    shape, fortran, dtype = _READERS[version](stream)
    if any(not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"shape {shape} holds nothing")
    return Header(dtype, tuple(shape), bool(fortran), stream.tell())


def _check(path: Path, header: Header, size: int, kinds: str) -> None:
    if header.dtype.hasobject:
        raise DataError(f"{path} holds Python objects, which are never unpickled; save it as a plain array of numbers")
    if header.dtype.kind not in kinds:
        wanted = "text" if kinds == TEXT else "real numbers"
        raise DataError(f"{path} holds values of type {header.dtype}, expected {wanted}; save it again as such")
    if size < header.end:
        raise DataError(f"{path} is truncated: {size} bytes of {header.end}; copy or download it again")


def _fill(memory: memoryview, file: io.FileIO) -> None:
    """Read until the memory is full; the system may hand out less at a time."""
    while len(memory):
        read = file.readinto(memory)
        if not read:
            raise EOFError(f"{len(memory)} bytes are missing")
        memory = memory[read:]


def _changed(path: Path, error: Exception) -> str:
    return f"{path} changed after it was opened ({error}); do not write into data that is in use"


def _unreadable(path: Path, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{path} cannot be read ({reason}); check that it exists and that you may read it"
