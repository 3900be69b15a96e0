"""Run every search space at smoke size by the command in its second line; exits non-zero when one fails.

One fails, too, that writes no report or reads another test tier than dev-test.

Spaces whose recordings are absent are skipped with a reason, except where CI=true.
"""

import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a token would be written into the home folder

from neuroint.cli import app
from neuroint.config import Resources
from neuroint.sweep.cluster import cluster

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = {  # what is simulated instead of the folders of demo/ that commands name: smoke trains and scores little
    "demo/data": "v1 --seed 1 --set pool=8 --set sessions=2 --set train_clips=8 --set stimuli=1 --set repeats=2",
    "demo/nlb": "nlb --preset test",
    "demo/ring": "ring --preset test",
}


def command_of(file: Path) -> list[str]:
    """The second line: ``# neuroint run FILE --data PATH ...``."""
    return shlex.split(file.read_text().splitlines()[1].removeprefix("#"))


def fault_of(sweep: Path) -> str | None:
    """What a sweep that ended well must not lack or have done: it writes a report, and reads no final test."""
    if not (sweep / "report.html").is_file():
        return "wrote no report"
    journal = [json.loads(line) for line in (sweep / "journal.jsonl").read_text().splitlines()]
    read = {entry["tier"] for entry in journal if entry["kind"] == "test_read"}
    return None if read == {"dev_test"} else f"read {sorted(read)}, expected dev_test alone"


def tried(file: Path, data: Path, results: Path) -> str | None:
    """Run one on recordings, and say what was wrong."""
    small = ["--smoke", "--set", "train.batch_size=2", "--quiet"]
    where = ["--data", str(data), "--results", str(results), "--name", file.stem]
    code = app([*command_of(file)[1:], *where, *small], standalone_mode=False)  # the last --data is what counts
    return f"exit {code}" if code else fault_of(results / file.stem)


def simulated(folder: Path) -> dict[str, Path]:
    """Simulate small worlds; returns where each is, by the folder that commands name."""
    worlds = {}
    for named, words in SIMULATED.items():
        world, *options = words.split()
        worlds[named] = folder / world
        app(["data", "simulate", world, str(worlds[named]), *options], standalone_mode=False)
    return worlds


def main() -> int:
    """Run them all, in one process and on one Ray, as each costs seconds to start; returns the number of failures."""
    os.chdir(ROOT)
    failed = []
    with tempfile.TemporaryDirectory(prefix="neuroint-smoke-") as folder, cluster(Resources(workers=2)):
        worlds = simulated(Path(folder))
        for file in sorted(Path("search_spaces").rglob("*.yaml")):
            command = command_of(file)
            named = command[command.index("--data") + 1]
            data = worlds.get(named, Path(named))
            if not data.exists() and os.environ.get("CI") != "true":
                print(f"{file.name}: skipped, {data} is not in this clone")
                continue
            begun, fault = time.monotonic(), tried(file, data, Path(folder))
            print(f"{file.name}: {fault or 'ok'} after {time.monotonic() - begun:.0f} s", flush=True)
            failed += [file.name] * bool(fault)
    print(f"smoke: {len(failed)} failed {failed or ''}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
