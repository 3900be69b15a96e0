"""Run every benchmark and write its figures, with commit and date, to ``benchmarks/results/`` (``make bench``).

    python benchmarks/run.py [--quick] [loader formulation ...]

Without names, all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import pages

HERE = Path(__file__).parent
BENCHMARKS = {
    "loader": ["loader.py"],
    "loader64": ["loader.py", "--dtype", "float64"],
    "formulation": ["formulation.py"],
    "step": ["step.py"],
    "overhead": ["overhead.py"],
    "scaling": ["scaling.py"],
    "cores": ["cores.py"],
    "recovery": ["recovery.py"],
    "ring": ["ring.py"],
}


def main() -> int:
    """Run them one after the other, so that they do not disturb each other; returns the number that failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; by default all")
    options.add_argument("--quick", action="store_true", help="fewer repeats")
    asked = options.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        options.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    commit = pages.commit()  # before results make the tree dirty
    failed = 0
    for name in asked.names or BENCHMARKS:
        out = results / f"{name}.json"
        began = time.time()
        script, *given = [*BENCHMARKS[name], *["--quick"] * asked.quick]
        command = [sys.executable, str(HERE / script), "--out", str(out), *given]
        if subprocess.run(command, check=False).returncode:
            failed += 1
            continue
        about = {
            "command": " ".join(["python", f"benchmarks/{script}", *given]),
            "commit": commit,
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(time.time() - began),
            "python": platform.python_version(),
        }
        out.write_text(json.dumps({"about": about, "figures": json.loads(out.read_text())}, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
