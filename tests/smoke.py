"""Run every search space at smoke size by the command in its second line; exits non-zero when one fails.

Spaces whose recordings are absent are skipped with a reason, except where CI=true.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command_of(file: Path) -> list[str]:
    """The second line: ``# neuroint run FILE --data PATH ...``."""
    return shlex.split(file.read_text().splitlines()[1].removeprefix("#"))


def main() -> int:
    """Run them all; returns the number of failures."""
    subprocess.run(["make", "--no-print-directory", "demo/data"], cwd=ROOT, check=True)
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
            print(f"{file.name}: exit {code}", flush=True)
            failed += [file.name] * (code != 0)
    print(f"smoke: {len(failed)} failed {failed or ''}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
