"""How a run ended, as its last report or its traceback tells it."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from typing import Any

_NETWORK = (ConnectionError, TimeoutError)  # says nothing about files, and may not happen again
_SYSTEM = "|".join(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, OSError) and not issubclass(kind, _NETWORK)
)
_REFUSAL = re.compile(rf"^(?:{_SYSTEM}): .*$")
_ENDED_BY = re.compile(r"^[\w.]+(?:\(\w+\))?: .*$", re.MULTILINE)  # lines of a traceback that are not indented


def status_of(result: Mapping[str, Any]) -> str:
    """Name the status of a run that ended without an error: the scheduler stops what has not said it is finished."""
    return "diverged" if result.get("diverged") else "finished" if result.get("finished") else "stopped"


def refusal_in(traceback: str) -> str | None:
    """Find in a traceback what the operating system refused (a full disk, a lost folder), if that is what ended it."""
    found = _ENDED_BY.findall(traceback)
    return found[-1] if found and _REFUSAL.match(found[-1]) else None


def cause_of(error: BaseException | None, kinds: tuple[type[Exception], ...]) -> Exception | None:
    """Find the first error of some kinds among an error and its causes."""
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__ or error.__context__
    return error
