"""Run every search space at smoke size by the command in its second line; exits non-zero when one fails.

One fails, too, that writes no report or reads another test tier than dev-test.

Spaces whose recordings are absent are skipped with a reason, except where CI=true.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = {"nlb": "test", "ring": "test"}  # in demo/, beside demo/data: simulator and preset


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


def main() -> int:
    """Run them all; returns the number of failures."""
    subprocess.run(["make", "--no-print-directory", "demo/data"], cwd=ROOT, check=True)
    for world, preset in SIMULATED.items():
        if not (ROOT / "demo" / world).exists():
            program = [str(Path(sys.executable).with_name("neuroint")), "data", "simulate", world, f"demo/{world}"]
            subprocess.run([*program, "--preset", preset], cwd=ROOT, check=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="neuroint-smoke-") as results:
        for file in sorted((ROOT / "search_spaces").rglob("*.yaml")):
            command = command_of(file)
            data = Path(command[command.index("--data") + 1])
            if not (ROOT / data).exists() and os.environ.get("CI") != "true":
                print(f"{file.name}: skipped, {data} is not in this clone")
                continue
            extra = ["--smoke", "--results", results, "--name", file.stem, "--quiet"]
            environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
            program = [str(Path(sys.executable).with_name("neuroint")), *command[1:], *extra]
            code = subprocess.run(program, cwd=ROOT, env=environment, check=False).returncode
            fault = f"exit {code}" if code else fault_of(Path(results) / file.stem)
            print(f"{file.name}: {fault or 'ok'}", flush=True)
            failed += [file.name] * bool(fault)
    print(f"smoke: {len(failed)} failed {failed or ''}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
