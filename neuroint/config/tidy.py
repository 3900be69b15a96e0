"""Copy what a YAML file holds, refusing what no setting can be: dates, keys that are not words, circles, NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 2**63 - 1  # what whole numbers may be in JSON readers and in Optuna's storage
DEEPEST = 32  # levels of nesting


def tidy(raw: Mapping[Any, Any], faults: list[str]) -> dict[str, Any]:
    """Copy a mapping deeply; what cannot be a setting is left out and listed in ``faults``."""
    return _mapping(raw, "", 0, faults)


def _mapping(raw: Mapping[Any, Any], where: str, depth: int, faults: list[str]) -> dict[str, Any]:
    copied = {}
    for key, value in raw.items():
        if isinstance(key, str):
            copied[key] = _copied(value, f"{where}{key}", depth + 1, faults)
            continue
        hint = "; YAML reads on/off/yes/no as true/false" if isinstance(key, bool) else ""
        faults.append(f"{where}{key}: the key {key!r} is not a word{hint}; quote it")
    return copied


def _copied(value: Any, where: str, depth: int, faults: list[str]) -> Any:
    if depth > DEEPEST:
        faults.append(f"{where[:60]}..: is nested deeper than {DEEPEST} levels; an anchor may hold itself")
        return None
    if isinstance(value, Mapping):
        return _mapping(value, f"{where}.", depth, faults)
    if isinstance(value, list | tuple):
        return [_copied(one, f"{where}.{index}", depth + 1, faults) for index, one in enumerate(value)]
    if problem := _problem(value):
        faults.append(f"{where}: got {value!r}, {problem}")
        return None
    return value


def _problem(value: Any) -> str:
    if value is not None and not isinstance(value, bool | int | float | str):
        return f"which YAML reads as a {type(value).__name__}; quote it if it is a word"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"expected a whole number of at most {LARGEST}"
    return ""
