"""Open recordings by path: find out which reader they are for, and hand out sessions with unique names."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from neuroint.data.base import UNUSED, DataError, Session
from neuroint.registry import Component, readers

AUTO = "auto"
SHOWN = 5  # faults of clips in a message
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def open_sessions(path: str | Path, reader: str = AUTO, options: Mapping[str, Any] = NO_OPTIONS) -> list[Session]:
    """Read the sessions under a path.

    Args:
        path: a file or folder on this machine.
        reader: a registered name, or ``auto`` to ask every reader whether the path looks like its format.
        options: choices of that reader.

    Raises:
        DataError: the path is missing, unreadable or remote; no reader or several recognize it; options do not fit the
            reader (every fault at once); two sessions have the same name; or what the reader finds wrong.
        UnknownNameError: there is no such reader.
    """
    where = _local(path)
    component = _reader(where, reader)
    checked = _checked(component, options)
    try:
        sessions = component.factory(where, **checked)
    except DataError as error:
        raise DataError(f"{error}{_other_format(where, component)}") from error
    if not sessions:
        raise DataError(
            f"'{where}' holds no session that reader '{component.name}' can read; check the path"
            f"{_other_format(where, component)}"
        )
    _refuse_equal_names(where, sessions)
    _refuse_copies(where, sessions)
    return sessions


def read_through(sessions: Sequence[Session]) -> None:
    """Read every clip in use once, so that what no model can be given is found before one is trained.

    Opening a folder looks at headers and first rows only; this reads it all: milliseconds a clip.

    Raises:
        DataError: clips that cannot be read, or hold NaN or infinite values where they are valid; the first of them.
    """
    faults = []
    for session in sessions:
        for clip in np.flatnonzero(np.asarray(session.tiers) != UNUSED):
            try:
                session.source.read(int(clip), 0, int(session.lengths[clip]))
            except DataError as error:
                faults.append(f"clip {clip}, of the tier {session.tiers[clip]}: {error}")
    if faults:
        more = f"; and {len(faults) - SHOWN} more clips" if len(faults) > SHOWN else ""
        raise DataError("; ".join(faults[:SHOWN]) + more)


def find_faults(path: str | Path, reader: str = AUTO, options: Mapping[str, Any] = NO_OPTIONS) -> list[str]:
    """List everything that is wrong with the recordings under a path, instead of stopping at the first fault.

    A reader whose module has ``faults(path, ...)`` looks for all of them; any other is simply tried.

    Raises:
        DataError: nothing can be looked at: the path, the reader or its options are wrong.
    """
    where = _local(path)
    component = _reader(where, reader)
    checked = _checked(component, options)
    look = getattr(_module(component), "faults", None)
    if look is None:
        return _tried(component, where, checked)
    wanted = inspect.signature(look).parameters
    return list(look(where, **{key: value for key, value in checked.items() if key in wanted}))


def _tried(component: Component[Any], where: Path, options: dict[str, Any]) -> list[str]:
    try:
        component.factory(where, **options)
    except DataError as error:
        return [str(error)]
    return []


def _local(path: str | Path) -> Path:
    """Check that something is there and may be read; trying is the only test that permissions cannot fool."""
    if "://" in str(path):
        raise DataError(
            f"'{path}' is not on this machine; recordings are memory-mapped and only local paths are read yet: copy "
            "them to a local disk first, for example with `aws s3 sync`"
        )
    where = Path(path).expanduser()
    try:
        if where.is_dir():
            os.scandir(where).close()
        else:
            where.open("rb").close()
    except FileNotFoundError:
        raise DataError(f"'{where}' does not exist; give the file or folder that holds the recording") from None
    except OSError as error:
        raise DataError(f"'{where}' cannot be read ({error.strerror}); check its permissions") from None
    return where


def _reader(where: Path, reader: str) -> Component[Any]:
    if reader != AUTO:
        return readers[reader]
    names = readers.names()
    fitting = [name for name in names if _recognizes(readers[name], where)]
    if len(fitting) != 1:
        found = f"readers {', '.join(fitting)} all recognize" if fitting else "no reader recognizes"
        raise DataError(f"{found} '{where}'; name the one that is meant with 'reader': {', '.join(fitting or names)}")
    return readers[fitting[0]]


def _other_format(where: Path, meant: Component[Any]) -> str:
    """What to say when a path looks like another reader's format, and not like that of the one that was named."""
    others = [name for name in readers.names() if name != meant.name and _recognizes(readers[name], where)]
    if not others or _recognizes(meant, where):
        return ""
    return (
        f" ('{where}' looks like reader {' or '.join(others)}, and was read as '{meant.name}': set data.reader, which "
        "a configuration may have fixed)"
    )


def _recognizes(component: Component[Any], where: Path) -> bool:
    looks_like = getattr(_module(component), "looks_like", None)
    return looks_like is not None and bool(looks_like(where))


def _module(component: Component[Any]) -> ModuleType:
    return sys.modules[component.factory.__module__]


def _checked(component: Component[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    checked, faults = component.validate(options)
    if faults:
        raise DataError(f"options of reader '{component.name}': " + "; ".join(faults))
    return checked


def _refuse_equal_names(where: Path, sessions: list[Session]) -> None:
    equal = [name for name, count in Counter(session.name for session in sessions).items() if count > 1]
    if equal:
        raise DataError(
            f"'{where}' holds several sessions called {', '.join(equal)}; a name must be unique: rename the files, or "
            "set 'session' in the mapping"
        )


def _refuse_copies(where: Path, sessions: list[Session]) -> None:
    """Refuse one recording under two names: as two animals it would count twice in every verdict."""
    seen: dict[str, Session] = {}
    for session in sessions:
        first = seen.setdefault(session.fingerprint or session.name, session)
        if first is not session and _same_first_clip(first, session):
            raise DataError(
                f"'{where}': sessions {first.name} and {session.name} hold the same recording, which would count as "
                "two; expected a recording under one name: remove one of them"
            )


def _same_first_clip(one: Session, other: Session) -> bool:
    """Whether the first clips in use are alike: a fingerprint is made of sizes and statistics, where there are any."""
    used = int(np.flatnonzero(np.asarray(one.tiers) != UNUSED)[0])
    if one.tiers != other.tiers or one.lengths[used] != other.lengths[used]:
        return False
    read = [session.source.read(used, 0, int(one.lengths[used])).responses for session in (one, other)]
    return np.array_equal(*read, equal_nan=True)
