"""Write what happens in a sweep to disk, one JSON object a line, and read it back.

The journal is the record of a sweep; the tracking server only shows it. Workers never write here: the driver does.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroint.registry import nearest

log = logging.getLogger(__name__)
Event = dict[str, Any]

FIELDS: dict[str, tuple[str, ...]] = {
    "sweep_started": ("sweep", "tags", "params"),
    "run_started": ("run", "phase", "arm", "seed", "params", "tags"),
    "epoch": ("run", "epoch", "metrics"),
    "run_finished": ("run", "status", "metrics", "folder", "message"),
    "test_read": ("run", "tier", "reason"),
    "sweep_finished": ("status", "message"),
}
_DEFAULTS: dict[str, Any] = {"tags": {}, "params": {}, "metrics": {}, "folder": None, "message": None}
STATUSES: dict[str, tuple[str, ...]] = {
    "run_finished": ("finished", "stopped", "diverged", "failed"),
    "sweep_finished": ("finished", "interrupted", "failed"),
}


@dataclass(frozen=True)
class Journal:
    """Append events to a file; safe for several threads and processes, and picklable: it holds only its path."""

    path: Path

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event to the disk before returning; ``time`` (seconds since 1970) is now unless given.

        Raises:
            ValueError: unknown kind, field or status, a field that is missing, a metric that is no number.
            OSError: the disk is full or the folder is gone; nothing of the event is left in the file.
        """
        line = json.dumps(_event(kind, fields), allow_nan=False, default=_refuse) + "\n"
        try:
            _append_durably(self.path, line.encode())
        except OSError as error:
            raise OSError(
                error.errno,
                f"a {kind} event could not be written to the journal ({error.strerror}); expected a writable disk with "
                "free space; make room, then resume the sweep",
                str(self.path),
            ) from error

    def read(self) -> list[Event]:
        """Read all events; lines torn by a crash are left out and reported in the log."""
        events, unreadable = self.scan()
        if unreadable:
            log.warning("%s: left out unreadable lines %s (torn by a crash)", self.path, unreadable)
        return events

    def scan(self) -> tuple[list[Event], list[int]]:
        """Read all events, and the numbers (from 1) of the lines that hold none."""
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist; expected the journal of a sweep; give the sweep's folder")
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            parsed = [_parse(line) for line in file]
        return [event for event in parsed if event], [i for i, event in enumerate(parsed, 1) if event is None]

    def follow(self, offset: int) -> Iterator[tuple[int, Event | None]]:
        """Read complete lines behind a byte offset: the offset of each line's end, and its event if it holds one."""
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written at this moment, or torn: the next append will end it
                offset += len(line)
                yield offset, _parse(line)


def _event(kind: str, fields: Mapping[str, Any]) -> Event:
    if kind not in FIELDS:
        raise ValueError(f"unknown event {kind!r}; expected one of {', '.join(FIELDS)}.{nearest(kind, FIELDS)}")
    names = FIELDS[kind]
    unknown = [name for name in fields if name not in (*names, "time")]
    missing = [name for name in names if name not in fields and name not in _DEFAULTS]
    if unknown or missing:
        raise ValueError(
            f"{kind} event: unknown fields {unknown}, missing fields {missing}; expected {', '.join(names)}"
        )
    event = {"kind": kind, "time": fields.get("time", time.time())}
    event |= {name: fields.get(name, _DEFAULTS.get(name)) for name in names}
    if kind in STATUSES and event["status"] not in STATUSES[kind]:
        raise ValueError(f"{kind} event: status {event['status']!r}; expected one of {', '.join(STATUSES[kind])}")
    if "metrics" in event:
        event["metrics"] = {name: _number(name, value) for name, value in event["metrics"].items()}
    return _plain(event)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metric {name!r} is {value!r}; expected a number; leave out what was not measured") from error


def _plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; a float that is not finite becomes ``"NaN"`` or ``"Infinity"``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def _refuse(value: Any) -> Any:
    raise ValueError(
        f"the journal cannot hold {value!r} of type {type(value).__name__}; expected numbers, strings, "
        "booleans, lists; convert it first"
    )


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not line.endswith(b"\n") or not isinstance(event, dict) or event.get("kind") not in FIELDS:
        return None
    if "metrics" in event:
        event["metrics"] = {name: float(value) for name, value in event["metrics"].items()}
    return event


def _append_durably(path: Path, line: bytes) -> None:
    """Append a line under a lock and wait for the disk; a write that fails half-way is taken back."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = os.fstat(descriptor).st_size
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        try:
            _write_all(descriptor, b"\n" * torn + line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:  # a nearly full disk takes a part first and refuses the rest
        data = data[os.write(descriptor, data) :]


@dataclass
class RunRecord:
    """One run as the journal tells it; ``status`` is ``running`` until it ends, ``epochs`` holds metrics per epoch."""

    key: str
    phase: str
    arm: str
    seed: int | None
    params: dict[str, Any]
    tags: dict[str, Any]
    started_s: float
    status: str = "running"
    ended_s: float | None = None
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    folder: str | None = None
    message: str | None = None


@dataclass
class SweepRecord:
    """A sweep as its journal tells it: runs by key, in order of their start.

    A resumed worker repeats an epoch, so of several events for one epoch of one run the first counts. Starting a known
    run again keeps its epochs; finishing it again adds metrics and replaces the status.
    """

    name: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    message: str | None = None
    started_s: float | None = None
    runs: dict[str, RunRecord] = field(default_factory=dict)
    test_reads: list[Event] = field(default_factory=list)
    unreadable_lines: list[int] = field(default_factory=list)

    @classmethod
    def from_journal(cls, path: Path | str) -> SweepRecord:
        """Read a journal into a record.

        Raises:
            ValueError: there is no journal, or an event names a run that was never started.
        """
        events, unreadable = Journal(Path(path)).scan()
        record = cls(unreadable_lines=unreadable)
        for event in events:
            record.apply(event)
        return record

    def apply(self, event: Event) -> None:
        """Take in one event."""
        getattr(self, f"_{event['kind']}")(event)

    def run(self, key: str) -> RunRecord:
        """Look up a run."""
        if key not in self.runs:
            raise ValueError(
                f"the journal speaks of run {key!r} before its run_started event; expected one of {list(self.runs)}; "
                "was a line of the journal removed?"
            )
        return self.runs[key]

    def _sweep_started(self, event: Event) -> None:
        self.status = "running"  # the message stays until it ends again
        if self.name is None:
            self.name, self.started_s = event["sweep"], event["time"]
            self.tags, self.params = event["tags"], event["params"]

    def _run_started(self, event: Event) -> None:
        known = self.runs.get(event["run"])
        if known is not None:
            known.status = "running"  # its message stays until it ends again
            return
        fields = {name: event[name] for name in ("phase", "arm", "seed", "params", "tags")}
        self.runs[event["run"]] = RunRecord(key=event["run"], started_s=event["time"], **fields)

    def _epoch(self, event: Event) -> None:
        self.run(event["run"]).epochs.setdefault(event["epoch"], event["metrics"])

    def _run_finished(self, event: Event) -> None:
        run = self.run(event["run"])
        run.status, run.message, run.ended_s = event["status"], event["message"], event["time"]
        run.folder = event["folder"] or run.folder
        run.metrics |= event["metrics"]

    def _test_read(self, event: Event) -> None:
        self.test_reads.append(event)

    def _sweep_finished(self, event: Event) -> None:
        self.status, self.message = event["status"], event["message"]
