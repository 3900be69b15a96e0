"""Replay a sweep's journal into MLflow, in the background, until everything has arrived.

Training never waits for it. A server that is slow, full or dead delays what is shown; the journal has it all, and
``neuroint upload`` sends the rest later.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neuroint.tracking.journal import Event, Journal
from neuroint.tracking.runs import Refused, SweepRuns, files_of
from neuroint.tracking.server import alone, without_password

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a journal has been replayed into one store; losing it costs time, never a duplicate."""

    tracking_uri: str
    experiment: str
    parent: str
    offset: int = 0
    waiting: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pending:
    """What has not arrived in MLflow: events, runs whose files wait, and sentences about what it refused for good."""

    events: int
    uploads: int
    refused: tuple[str, ...]
    message: str

    def __bool__(self) -> bool:
        """Tell whether something is still to be sent; what was refused is not."""
        return bool(self.events or self.uploads)


class Uploader:
    """Keep MLflow up to date with the journal of one sweep; lives in the driver, the only process that talks to MLflow.

    Attributes:
        parent: the MLflow identifier of the sweep's run, after ``prepare``.
        last_error: why the last attempt failed; None when it went through.
    """

    def __init__(
        self,
        sweep_folder: Path | str,
        tracking_uri: str,
        experiment: str,
        poll_s: float = 0.5,
        longest_wait_s: float = 30.0,
    ) -> None:
        self.folder, self.tracking_uri, self.experiment = Path(sweep_folder), tracking_uri, experiment
        self.poll_s, self.longest_wait_s = poll_s, longest_wait_s
        self.journal = Journal(self.folder / "journal.jsonl")
        self.last_error: str | None = None
        self._progress: Progress | None = None
        self._runs: SweepRuns
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping, self._pausing, self._deadline = threading.Event(), threading.Event(), float("inf")

    @property
    def parent(self) -> str:
        """The MLflow identifier of the sweep's run."""
        return self._prepared().parent

    @property
    def pending(self) -> Pending:
        """Count what has not arrived yet."""
        progress = self._prepared()
        events = sum(1 for _ in self.journal.follow(progress.offset))
        return Pending(events, len(progress.waiting), tuple(progress.refused), self._tell(events, progress))

    def prepare(self) -> str:
        """Create database, experiment and parent run, or find them again; call it before any worker starts.

        Returns the parent run's identifier. The journal must already hold ``sweep_started``. Waits for another sender
        of this sweep, such as one that was given up and still has an answer to come.

        Raises:
            TrackingError: the store does not answer or refuses.
            ValueError: there is no journal, or it begins with something else.
        """
        events = self.journal.read()
        if not events:
            raise ValueError(f"{self.journal.path} is empty; expected a sweep_started event; append it first")
        with alone(self.folder / "upload.lock"):  # another sender may be about to write what it has sent
            known = self._load()
            self._runs = SweepRuns.open(self.tracking_uri, self.experiment, events[0], known.parent if known else None)
            fresh = Progress(without_password(self.tracking_uri), self.experiment, self._runs.parent)
            same = known is not None and _store_of(known) == _store_of(fresh)
            self._progress = known if known and same and known.offset <= self.journal.path.stat().st_size else fresh
            self._remember()
            self._save()
        return self._runs.parent

    def start(self) -> None:
        """Replay in a background thread from now on."""
        self._prepared()
        if self._thread is not None:
            raise ValueError("the uploader was already started; expected one start; make a new Uploader instead")
        self._thread = threading.Thread(target=self._work, name="neuroint-uploader", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> Pending:
        """Give the thread this long to send the rest, then end it; returns what is left."""
        self._deadline = time.monotonic() + timeout_s
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s + self.poll_s)
        return self.pending

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing while the body runs, so that an event is not sent before the files that belong to it exist."""
        self._pausing.set()  # however much is still to be sent
        try:
            with self._lock:
                yield
        finally:
            self._pausing.clear()

    def flush(self) -> Pending:
        """Send everything now, once, in this thread; returns what is left."""
        self._advance()
        return self.pending

    def _work(self) -> None:
        wait = self.poll_s
        while not self._expired():
            stopping = self._stopping.is_set()
            arrived = self._advance()
            if stopping and arrived:
                return
            wait = self.poll_s if arrived or stopping else min(2 * wait, self.longest_wait_s)
            (time.sleep if stopping else self._stopping.wait)(wait)

    def _advance(self) -> bool:
        """Send what is new, then the files that wait; False when something is left."""
        with self._lock:
            try:
                with alone(self.folder / "upload.lock"):  # one sender at a time, or a run is created twice
                    self._replay_events()
                    error = self._upload_files()
            except (
                Exception
            ) as caught:  # the network, a disk, a bug: none may reach training; it is told and tried again
                error = caught
        told = None if error is None else f"{type(error).__name__}: {_brief(error)}"
        if told and told != self.last_error:
            log.warning("MLflow does not take it yet, training goes on: %s", told)
        self.last_error = told
        return told is None

    def _replay_events(self) -> None:
        progress = self._prepared()
        for end, event in self.journal.follow(progress.offset):
            if self._expired():
                raise TimeoutError("there was no time left to send the rest")
            if self._pausing.is_set():
                return
            if event is not None:
                self._replay(event, progress)
            progress.offset = end
            self._save()

    def _replay(self, event: Event, progress: Progress) -> None:
        try:
            self._runs.replay(event)
        except Refused as error:
            self._refuse(str(error), progress)
        files = files_of(event)
        if files is not None:
            progress.waiting = [other for other in progress.waiting if other["run"] != files["run"]] + [files]

    def _upload_files(self) -> Exception | None:
        """Try every upload that waits; those that fail wait on, and the last error is returned."""
        progress, last = self._prepared(), None
        for files in list(progress.waiting):
            if self._expired():
                return TimeoutError("there was no time left to send the files")
            if self._pausing.is_set():
                return last
            try:
                self._runs.upload(files["run"], [self.folder / path for path in files["paths"]], files["message"])
            except Refused as error:
                self._refuse(str(error), progress)
            except Exception as error:  # a full disk or bucket: the files stay where they are and are tried again
                files["error"], last = _brief(error), error
                continue
            progress.waiting.remove(files)
            self._save()
        if last is not None:
            self._save()
        return last

    def _refuse(self, reason: str, progress: Progress) -> None:
        if reason not in progress.refused:
            log.warning("MLflow refused for good: %s", reason)
            progress.refused.append(reason)

    def _expired(self) -> bool:
        return time.monotonic() > self._deadline

    def _prepared(self) -> Progress:
        if self._progress is None:
            raise ValueError("the uploader has no parent run yet; expected prepare() first; call it in the driver")
        return self._progress

    def _remember(self) -> None:
        """Rebuild what the replayed part of the journal said."""
        for end, event in self.journal.follow(0):
            if end > self._prepared().offset:
                return
            if event is not None:
                self._runs.remember(event)

    @property
    def _state(self) -> Path:
        return self.folder / "upload_state.json"

    def _load(self) -> Progress | None:
        if not self._state.exists():
            return None
        try:
            return Progress(**json.loads(self._state.read_text()))
        except (ValueError, TypeError) as error:
            log.warning("%s is unreadable (%s); the journal is replayed from its beginning", self._state, error)
            return None

    def _save(self) -> None:
        draft = self._state.with_suffix(".tmp")
        with draft.open("w") as file:
            json.dump(asdict(self._prepared()), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._state)

    def _tell(self, events: int, progress: Progress) -> str:
        refused = (
            f"; {len(progress.refused)} refused for good, first: {progress.refused[0]}" if progress.refused else ""
        )
        if not (events or progress.waiting):
            return f"everything is in {progress.tracking_uri}{refused}"
        left = f"{events} events and {len(progress.waiting)} uploads are not in {progress.tracking_uri} yet"
        why = f" ({self.last_error})" if self.last_error else ""
        return f"{left}{why}{refused}; nothing is lost: neuroint upload {self.folder} sends them"


def _brief(error: Exception) -> str:
    """What an error says, without the statement and the values that SQLAlchemy adds."""
    return without_password(str(error).partition("\n[SQL")[0].strip().rpartition("\n")[2][:500])


def _store_of(progress: Progress) -> tuple[str, str, str]:
    return progress.tracking_uri, progress.experiment, progress.parent
