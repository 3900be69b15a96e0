"""Write findings as Markdown, for papers, pull requests and terminals: text and tables, no figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from neuroint.data.base import DEV_TEST, FINAL_TEST
from neuroint.report import tables
from neuroint.report.findings import Findings
from neuroint.report.tables import Table
from neuroint.report.wording import answer, at_odds, by_jackknife, by_snr, could_hide, for_whom, sample, words_of


def markdown(findings: Findings) -> str:
    """Write the answer, the verdicts with their numbers, and every table."""
    final = [FINAL_TEST] if any(FINAL_TEST in arm.scores for arm in findings.arms) else []
    parts = [
        f"# {_plain(findings.question)}",
        _plain(f"Sweep {findings.name} ({findings.status}). {sample(findings)}; score: {findings.metric}."),
        f"**{_plain(answer(findings, DEV_TEST))}**",
        _bullets("Cautions of the data", findings.cautions),
        _bullets("What is missing", findings.missing),
        _bullets("Verdicts", _verdicts(findings)),
        *(
            _table(shown)
            for tier in final
            for shown in (view(findings, tier) for view in (tables.overview, tables.comparisons, tables.per_area))
        ),
        *(_table(shown) for shown in _tables(findings)),
        _bullets("Failures", [f"{f.run} {f.status}: {f.reason}" for f in findings.failures]),
        _bullets("What this does not answer", findings.limits),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tables(findings: Findings) -> list[Table]:
    return [
        tables.overview(findings),
        tables.comparisons(findings, DEV_TEST),
        tables.metrics(findings, DEV_TEST),
        tables.gains(findings, DEV_TEST),
        tables.per_area(findings, DEV_TEST),
        tables.per_session(findings, DEV_TEST),
        tables.configurations(findings),
        tables.compute(findings),
        tables.test_looks(findings),
        tables.provenance(findings),
    ]


def _verdicts(findings: Findings) -> list[str]:
    return [
        " ".join([f"{c.arm}: {words_of(c).word} ({c.label}).", c.sentence, *_whom(c)])
        for c in findings.of_tier(DEV_TEST)
    ]


def _whom(contrast) -> list[str]:
    return [
        f"{text}."
        for text in (
            could_hide(contrast),
            by_jackknife(contrast),
            for_whom(contrast),
            by_snr(contrast),
            at_odds(contrast),
        )
        if text
    ]


def _bullets(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {_plain(line)}" for line in lines)]) if lines else ""


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    return f"## {_plain(table.caption)}\n\n{rows_of(table)}"


def rows_of(table: Table) -> str:
    """Write the header and the rows of a table."""
    header, *rows = (_row(map(_cell, row)) for row in (table.header, *table.rows))
    return "\n".join([header, _row(["---"] * len(table.header)), *rows])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Keep words from files from becoming markup: one line, no tags, no links, no emphasis."""
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(text.split())).replace("---", "\\---")
