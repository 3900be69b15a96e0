"""Say which code made a result: commit and package versions, nothing that names a machine or a person."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
UNKNOWN = "unknown"


def provenance() -> dict[str, str]:
    """Collect commit, uncommitted changes, Python and versions of the declared dependencies as flat strings, for tags.

    ``git_commit`` is that of this package's own checkout (``unknown`` when it is installed without one);
    ``NEUROINT_GIT_COMMIT`` takes its place where code travels without its history, as in a Ray job.
    """
    commit, dirty = _checkout(PACKAGE)
    return {
        "git_commit": os.environ.get("NEUROINT_GIT_COMMIT", commit),
        "git_dirty": dirty,
        "version.python": platform.python_version(),
        **{f"version.{name}": _version(name) for name in ("neuroint", *_dependencies())},
    }


def _checkout(folder: Path) -> tuple[str, str]:
    """Find the commit of the repository that tracks a folder's ``__init__.py``, and whether tracked files differ.

    A virtual environment may lie inside somebody else's repository, so the file must be tracked, not just lie there.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return UNKNOWN, UNKNOWN
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    return commit or UNKNOWN, UNKNOWN if changes is None else str(bool(changes)).lower()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _dependencies() -> list[str]:
    try:
        declared = requires("neuroint") or []
    except PackageNotFoundError:  # run from a folder that was never installed
        return []
    return sorted(re.split(r"[^\w.-]", line)[0].lower() for line in declared if "extra ==" not in line)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN
