"""Stop a sweep from outside, by Ctrl-C or SIGTERM, at a point where nothing is half done.

An exception raised wherever a signal happens to arrive may be lost (in a destructor or a callback of a library), so a
signal is noted and raised where the driver looks for it. A second one is raised at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is how a job is stopped
_asked = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Note signals while the body runs; threads other than the main one cannot, and leave them as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked() -> None:
    """Raise what a signal asked for.

    Raises:
        KeyboardInterrupt: a signal has arrived.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def _note(number: int, frame: Any) -> None:
    if _asked.is_set():
        raise KeyboardInterrupt
    _asked.set()
