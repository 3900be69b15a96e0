"""Run every benchmark and write its figures, with commit and date, to ``benchmarks/results/`` (``make bench``)."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("loader", "formulation", "step", "overhead", "scaling", "recovery")


def main() -> int:
    """Run them one after the other, so that they do not disturb each other; returns the number that failed."""
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    failed = 0
    for name in BENCHMARKS:
        out = results / f"{name}.json"
        began = time.time()
        command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *sys.argv[1:]]
        if subprocess.run(command, check=False).returncode:
            failed += 1
            continue
        about = {
            "command": f"python benchmarks/{name}.py {' '.join(sys.argv[1:])}".strip(),
            "commit": commit.stdout.strip(),
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(time.time() - began),
            "python": platform.python_version(),
        }
        out.write_text(json.dumps({"about": about, "figures": json.loads(out.read_text())}, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
