"""Read the small files that describe a device: every field is checked, and a fault names file, field and value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from neuroint.data.base import DataError
from neuroint.data.experanto.devices import Statistics
from neuroint.data.npy import load_array
from neuroint.data.sensorium import is_there
from neuroint.data.sensorium_source import to_float32
from neuroint.registry import nearest

FILE = "meta.yml"
MEANS, SDS = "meta/means.npy", "meta/stds.npy"
_MALFORMED = (yaml.YAMLError, ValueError, RecursionError)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a session has thousands of files; one is in C


@dataclass(frozen=True)
class Meta:
    """Fields of a device or of a screen trial, and where they were read."""

    where: str
    fields: Mapping[str, Any]

    def number(self, key: str) -> float:
        """A finite number."""
        given = self._given(key)
        try:
            value = math.nan if isinstance(given, bool) else float(given)  # PyYAML reads 1e-3 as a word
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{self.where}: {key} is {given!r}, expected a number")
        return value

    def whole(self, key: str, least: int = 0) -> int:
        """A whole number that is not below ``least``."""
        value = self.number(key)
        if value != math.floor(value) or value < least:
            raise DataError(f"{self.where}: {key} is {value:g}, expected a whole number of at least {least}")
        return int(value)

    def word(self, key: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
        """One of the known words, in small letters."""
        given = str(self._given(key)).lower()
        if given not in known:
            raise DataError(
                f"{self.where}: {key} is {given!r}, expected one of {', '.join(known)}.{nearest(given, known)}"
            )
        return given

    def _given(self, key: str) -> Any:
        if key not in self.fields:
            raise DataError(f"{self.where} has no {key}.{nearest(key, self.fields)} It has: {self._known()}")
        return self.fields[key]

    def _known(self) -> str:
        return ", ".join(map(str, self.fields)) or "nothing"


def read_device_meta(folder: Path) -> Meta:
    """Read ``meta.yml`` of a device.

    Raises:
        DataError: it is missing, unreadable or no mapping.
    """
    where = f"{folder.name}/{FILE}"
    if not is_there(folder / FILE):
        raise DataError(f"{where} is missing; every device of an experanto session has one that says its modality")
    return Meta(where, read_mapping(folder / FILE, where))


def read_mapping(path: Path, where: str) -> Mapping[str, Any]:
    """Read a YAML or JSON file that holds fields; nothing but plain data is ever made of it.

    Raises:
        DataError: it cannot be read, is malformed, or holds something else.
    """
    parse: Callable[[bytes], Any] = json.loads if path.suffix == ".json" else _load_yaml
    try:
        found = parse(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where} cannot be read ({(error.strerror or str(error)).lower()})") from error
    except _MALFORMED as error:
        told = " ".join(str(error).split())
        raise DataError(f"{where} is malformed ({told}); write it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{where} holds {type(found).__name__}, expected fields with names")
    return {str(key): value for key, value in found.items()}


def read_statistics(folder: Path, n_signals: int) -> Statistics | None:
    """Read stored mean and standard deviation per signal, if both are there.

    Raises:
        DataError: there are not as many as signals (or one for all), or one is NaN or infinite.
    """
    if not (is_there(folder / MEANS) and is_there(folder / SDS)):
        return None
    return Statistics(*(_per_signal(folder, file, n_signals) for file in (MEANS, SDS)))


def _per_signal(folder: Path, file: str, n_signals: int) -> Float[np.ndarray, " signals"]:
    values = load_array(folder / file).astype(np.float64)
    if values.size not in (1, n_signals):
        raise DataError(
            f"{folder.name}/{file} has shape {values.shape}, expected a number for each of {n_signals} signals, or one"
        )
    if not np.isfinite(to_float32(values)).all():
        raise DataError(f"{folder.name}/{file} has NaN or infinite values; compute it without them, or delete the file")
    return np.broadcast_to(values.ravel(), n_signals).copy()


def _load_yaml(content: bytes) -> Any:
    return yaml.load(content, Loader=_LOADER)  # noqa: S506 (the safe one)
