"""What benchmarks share that measure every case in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def parser_of(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Begin a command line; a program adds what it is asked for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-gib", type=float, default=24.0, help="most memory a process may take")
    parser.add_argument("--patience-s", type=float, default=300.0, help="most seconds a process may take")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="file to write the results to, JSON")
    return parser


def answered(options: argparse.Namespace, measure: Callable[..., Job]) -> bool:
    """In the process of one case: measure it and print what was found."""
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
    return bool(options.one)


def measured(program: Path, jobs: Iterable[Job], options: argparse.Namespace) -> list[Job]:
    """Measure cases one after the other, and tell each on the error stream."""
    found = []
    for job in jobs:
        found.append(_in_own_process(program, job, options.memory_gib, options.patience_s))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def timed(run: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def written(figures: Any, out: str | None) -> None:
    """Print figures as JSON, and write them to a file where one is named."""
    text = json.dumps(figures, indent=1)
    print(text)
    if out:
        Path(out).write_text(text)


def _in_own_process(program: Path, job: Job, memory_gib: float, patience_s: float) -> Job:
    """Measure by a program's ``--one``; what it could not do becomes ``refused``."""

    def limit() -> None:
        size = int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    command = [sys.executable, str(program), "--one", json.dumps(job)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=patience_s, preexec_fn=limit
        )
    except subprocess.TimeoutExpired:
        return job | {"refused": f"took longer than {patience_s:.0f} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return job | {"refused": said[0][:300]}
    return job | json.loads(done.stdout.splitlines()[-1])
