"""Make a results folder one sweep's own: its question, written once, and one driver at a time."""

from __future__ import annotations

import copy
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroint.config import SweepConfig, dump, load_sweep, parse_sweep
from neuroint.config.space import is_written

SWEEP_FILE, LOCK_FILE = "sweep.yaml", "driver.lock"


def rooted(sweep: SweepConfig) -> SweepConfig:
    """Make the paths in a sweep absolute: its workers run in other folders, and it may be resumed from another one.

    On several nodes, the recordings and ``init.source`` must be found under these paths on every node.
    """
    raw = copy.deepcopy(sweep.raw)
    places = [(raw.get("data"), "path"), (raw.get("init"), "source")]
    places += [((arm or {}).get("init"), "source") for arm in raw["arms"].values()]
    for section, key in places:
        if isinstance(section, dict) and section.get(key) is not None:
            section[key] = _absolute(section[key])
    return parse_sweep(raw, sweep.name, sweep.question)


def _absolute(value: Any) -> Any:
    if is_written(value):
        return {kind: [_absolute(one) for one in values] for kind, values in value.items()}
    return str(Path(value).absolute()) if isinstance(value, str) and "://" not in value else value


def check_claim(folder: Path, sweep: SweepConfig, resume: bool) -> None:
    """Refuse a folder that holds another sweep, or this one if it is not to be resumed.

    Raises:
        ValueError: says which.
    """
    file = folder / SWEEP_FILE
    if not file.exists():
        return
    if not resume:
        raise ValueError(f"{folder} holds a sweep already; add --resume to go on with it, or give another --name")
    if load_sweep(file).raw != sweep.raw:
        raise ValueError(
            f"{file} asks something else than what is given now; resume with the same file and options "
            f"(or simply with {file}), or give another --name"
        )


@contextmanager
def claimed(folder: Path, sweep: SweepConfig) -> Iterator[None]:
    """Write the question into the folder, and keep other drivers out while the body runs; a killed one is out.

    Raises:
        ValueError: the folder cannot be written, or another driver is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise ValueError(
            f"results folder {folder}: {error.strerror}; expected one that can be written; give another --results"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another driver runs this sweep now; wait until it ends, or stop it") from None
        file = folder / SWEEP_FILE
        if not file.exists():
            draft = file.with_suffix(".tmp")
            draft.write_text(dump(sweep))
            draft.replace(file)
        yield
