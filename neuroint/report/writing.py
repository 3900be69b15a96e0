"""Write a report into a sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from neuroint.report.analysis import conclude
from neuroint.report.evidence import Evidence, gather
from neuroint.report.findings import Findings
from neuroint.report.markdown import markdown
from neuroint.report.page import html_page


def write_report(folder: Path, format: str = "html") -> Path:
    """Write ``report.html``, ``report.md`` or ``report.json`` into a sweep's folder, and return its path.

    Raises:
        ValueError: the folder is not that of a sweep, or the format is unknown.
    """
    if format not in _WRITERS:
        raise ValueError(f"got format {format!r}; expected one of {', '.join(_WRITERS)}")
    evidence = gather(Path(folder))
    text = _WRITERS[format](evidence, conclude(evidence))
    file = Path(folder) / f"report.{format}"
    draft = file.with_suffix(f".{format}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)  # a reader never sees half a page
    return file


def _json(evidence: Evidence, findings: Findings) -> str:
    return json.dumps(findings.as_dict(), indent=1, allow_nan=False) + "\n"


_WRITERS: dict[str, Callable[[Evidence, Findings], str]] = {
    "html": html_page,
    "md": lambda evidence, findings: markdown(findings),
    "json": _json,
}
