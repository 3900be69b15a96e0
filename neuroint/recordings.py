"""Open the recordings that a configuration names, once per process."""

from __future__ import annotations

import functools
import json

from neuroint.config import DataConfig
from neuroint.data.base import Session
from neuroint.data.opening import open_sessions


def open_data(data: DataConfig) -> list[Session]:
    """Open the sessions of a configuration; a reused process opens the same data once."""
    return list(_opened(json.dumps({"path": data.path, "reader": data.reader, "options": data.options}), _chosen(data)))


def _chosen(data: DataConfig) -> tuple[str, ...] | None:
    return None if data.sessions is None else tuple(data.sessions)


@functools.lru_cache(maxsize=2)
def _opened(key: str, chosen: tuple[str, ...] | None) -> tuple[Session, ...]:
    given = json.loads(key)
    if given["path"] is None:
        raise ValueError("data.path is not set; give it in the YAML or with --data PATH")
    sessions = open_sessions(given["path"], given["reader"], given["options"])
    known = {session.name: session for session in sessions}
    if unknown := [name for name in chosen or () if name not in known]:
        raise ValueError(f"data.sessions: {unknown} are not in {given['path']}; sessions there: {', '.join(known)}")
    return tuple(known[name] for name in chosen) if chosen else tuple(sessions)
