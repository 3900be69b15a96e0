"""Put what a benchmark found into a page of the documents."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from neuroint.tracking.environment import provenance

DOCS = Path(__file__).parent.parent / "docs"


@cache  # or else the first page that is written would make the second one dirty
def commit() -> str:
    """Name the commit that is checked out, with ``-dirty`` behind it where tracked files were changed since."""
    made = provenance()
    return made["git_commit"][:7] + ("-dirty" if made["git_dirty"] == "true" else "")


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
