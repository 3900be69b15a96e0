"""Put what a benchmark found into a page of the documents."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def commit() -> str:
    """Name the commit that is checked out, with ``-dirty`` behind it where files beside the documents were changed."""
    changed = _git("diff", "--name-only", "HEAD", "--", ".", ":!docs")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True, cwd=DOCS.parent).stdout.strip()


def put(page: Path, section: str, command: str, text: str, *, about: str = "") -> None:
    """Replace what stands between the marks ``<!-- section begin -->`` and ``<!-- section end -->`` of a page.

    The first line says by which command, at which commit (or that files were changed since) and when it was written,
    and whatever ``about`` adds.

    Raises:
        ValueError: the page does not have each mark once.
    """
    begin, end = f"<!-- {section} begin -->", f"<!-- {section} end -->"
    found = page.read_text()
    if found.count(begin) != 1 or found.count(end) != 1:
        raise ValueError(f"{page.name} needs the marks {begin} and {end} once each; write them where the text belongs")
    first = f"`{command}`, commit {commit()}, {time.strftime('%Y-%m-%d')}{about and ', ' + about}."
    before, rest = found.split(begin)
    page.write_text(f"{before}{begin}\n{first}\n\n{text}\n{end}{rest.split(end)[1]}")
