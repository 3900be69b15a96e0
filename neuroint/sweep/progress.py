"""Show a sweep's progress by following its journal: bars on a terminal, lines in a job's log, or JSON."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neuroint.config import SweepConfig
from neuroint.data.base import DEV_TEST, FINAL_TEST
from neuroint.sweep.samplers import runs_planned
from neuroint.sweep.selection import METRIC
from neuroint.tracking.journal import Journal, SweepRecord

Event = dict[str, Any]
Display = tuple[Callable[[Event], None], Callable[[], None]]  # shows an event; closes
POLL_S = 0.2


@contextmanager
def follow(journal: Path, style: str, sweep: SweepConfig) -> Iterator[None]:
    """Show events that are appended while the body runs."""
    begun = journal.stat().st_size
    show, close = STYLES[style](sweep, SweepRecord.from_journal(journal))
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(Journal(journal), begun, show, stop), daemon=True, name="neuroint-progress"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        close()


def _watch(journal: Journal, offset: int, show: Callable[[Event], None], stop: threading.Event) -> None:
    last = False
    while not last:
        last = stop.wait(POLL_S)
        for position, event in journal.follow(offset):
            offset = position
            if event is not None:
                show(event)


def _lines(sweep: SweepConfig, record: SweepRecord) -> Display:
    def show(event: Event) -> None:
        text = LINES.get(event["kind"])
        if text is not None:
            print(text(event), flush=True)

    return show, lambda: None


def _json(sweep: SweepConfig, record: SweepRecord) -> Display:
    def show(event: Event) -> None:
        metrics = {name: value if math.isfinite(value) else None for name, value in event.get("metrics", {}).items()}
        print(json.dumps({**event, **({"metrics": metrics} if metrics else {})}), flush=True)

    return show, lambda: None


def _quiet(sweep: SweepConfig, record: SweepRecord) -> Display:
    return lambda event: None, lambda: None


def _bars(sweep: SweepConfig, record: SweepRecord) -> Display:
    """One bar per arm, counting runs that ended; the text shows the best validation score so far."""
    columns = (TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, TextColumn("{task.fields[score]}"), console=Console(file=sys.stderr))
    tasks = {arm: bars.add_task(arm, total=runs_planned(sweep, arm), score="") for arm in sweep.arms}

    def show(event: Event) -> None:
        if event["kind"] not in SHOWN_AS_BARS:
            return
        record.apply(event)
        arm = record.runs[event["run"]].arm
        runs = [run for run in record.runs.values() if run.arm == arm]
        best = max((metrics.get(METRIC, -1.0) for run in runs for metrics in run.epochs.values()), default=-1.0)
        ended = sum(run.status != "running" for run in runs)
        bars.update(tasks[arm], completed=ended, score=f"best validation {best:.3f}")

    bars.start()
    return show, bars.stop


def _epoch_line(event: Event) -> str:
    m = event["metrics"]
    scores = f"loss {m['train_loss']:.4f}  validation {m['validation_score']:.4f}"
    return f"{event['run']:<28} epoch {event['epoch']:>3}  {scores}"


def _end_line(event: Event) -> str:
    best, message = event["metrics"].get(METRIC), (event["message"] or "").strip().splitlines()
    scored = "" if best is None else f"  best {best:.4f}"
    tests = [f"  {name} {event['metrics'][name]:.4f}" for name in HEADLINES if name in event["metrics"]]
    why = f"  {message[-1]}" if message and event["status"] in ("failed", "diverged") else ""
    return f"{event['run']:<28} {'scored' if tests else event['status']}{scored}{''.join(tests)}{why}"


HEADLINES = [f"{tier}/single_trial_correlation" for tier in (DEV_TEST, FINAL_TEST)]
SHOWN_AS_BARS = ("run_started", "epoch", "run_finished")
LINES: dict[str, Callable[[Event], str]] = {
    "epoch": _epoch_line,
    "run_finished": _end_line,
    "test_read": lambda e: f"{e['run']:<28} read {e['tier']} ({e['reason']})",
}
STYLES: dict[str, Callable[[SweepConfig, SweepRecord], Display]] = {
    "lines": _lines,
    "bars": _bars,
    "json": _json,
    "quiet": _quiet,
}
