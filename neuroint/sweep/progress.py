"""Show a sweep's progress by following its journal: bars on a terminal, lines in a job's log, or JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neuroint.config import SweepConfig
from neuroint.sweep.samplers import grid_size
from neuroint.tracking.journal import Journal

Event = dict[str, Any]
POLL_S = 0.2


@contextmanager
def follow(journal: Path, style: str, sweep: SweepConfig) -> Iterator[None]:
    """Show events that are appended while the body runs."""
    show, close = STYLES[style](sweep)
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(Journal(journal), show, stop), daemon=True, name="neuroint-progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        close()


def _watch(journal: Journal, show: Callable[[Event], None], stop: threading.Event) -> None:
    offset, last = journal.path.stat().st_size, False
    while not last:
        last = stop.wait(POLL_S)
        for position, event in journal.follow(offset):
            offset = position
            if event is not None:
                show(event)


def _lines(sweep: SweepConfig) -> tuple[Callable[[Event], None], Callable[[], None]]:
    def show(event: Event) -> None:
        text = LINES.get(event["kind"])
        if text is not None:
            print(text(event), flush=True)

    return show, lambda: None


def _json(sweep: SweepConfig) -> tuple[Callable[[Event], None], Callable[[], None]]:
    return lambda event: print(json.dumps(event), flush=True), lambda: None


def _quiet(sweep: SweepConfig) -> tuple[Callable[[Event], None], Callable[[], None]]:
    return lambda event: None, lambda: None


def _bars(sweep: SweepConfig) -> tuple[Callable[[Event], None], Callable[[], None]]:
    """One bar per arm, counting runs; the text shows the best validation score so far."""
    columns = (TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, TextColumn("{task.fields[score]}"), console=Console(file=sys.stderr))
    tasks = {arm: bars.add_task(arm, total=_runs(sweep, arm), score="") for arm in sweep.arms}
    arm_of: dict[str, str] = {}
    best: dict[str, float] = {}

    def show(event: Event) -> None:
        if event["kind"] == "run_started":
            arm_of[event["run"]] = event["arm"]
        if event["kind"] == "epoch" and event["run"] in arm_of:
            arm = arm_of[event["run"]]
            best[arm] = max(best.get(arm, -1.0), event["metrics"].get("validation_score", -1.0))
            bars.update(tasks[arm], score=f"best validation {best[arm]:.3f}")
        if event["kind"] == "run_finished" and event["run"] in arm_of:
            bars.advance(tasks[arm_of.pop(event["run"])])

    bars.start()
    return show, bars.stop


def _runs(sweep: SweepConfig, arm: str) -> int:
    search = sweep.search
    trials = grid_size(sweep.arms[arm].distributions) if search.sampler == "grid" else search.trials
    first = search.reference_trials if arm == sweep.reference else 0
    return first + trials + sweep.confirm.top * sweep.confirm.seeds


def _epoch_line(event: Event) -> str:
    m = event["metrics"]
    scores = f"loss {m['train_loss']:.4f}  validation {m['validation_score']:.4f}"
    return f"{event['run']:<28} epoch {event['epoch']:>3}  {scores}"


def _end_line(event: Event) -> str:
    scored = event["metrics"].get("best_validation_score")
    last = (event["message"] or "").strip().splitlines()[-1:] if event["status"] != "finished" else []
    return (
        f"{event['run']:<28} {event['status']}"
        + (f"  best {scored:.4f}" if scored is not None else "")
        + "".join(f"  {line}" for line in last)
    )


LINES: dict[str, Callable[[Event], str]] = {
    "epoch": _epoch_line,
    "run_finished": _end_line,
    "test_read": lambda e: f"{e['run']:<28} read {e['tier']} ({e['reason']})",
    "sweep_finished": lambda e: f"sweep {e['status']} {e['message'] or ''}".strip(),
}
STYLES: dict[str, Callable[[SweepConfig], tuple[Callable[[Event], None], Callable[[], None]]]] = {
    "lines": _lines,
    "bars": _bars,
    "json": _json,
    "quiet": _quiet,
}
