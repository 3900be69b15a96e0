"""Lay findings out as rows of text, once for the page, Markdown and the terminal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from neuroint.data.base import DEV_TEST
from neuroint.report.arms import model_metrics
from neuroint.report.contrasts import ACROSS
from neuroint.report.evidence import LOWER_IS_BETTER, TIER_WORDS
from neuroint.report.findings import AreaFindings, ArmFindings, Contrast, Findings, MetricScores, Score
from neuroint.report.wording import NONE, counted, duration, number, p_value, signed, statuses, words_of

FIFTHS = range(1, 6)


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]


def overview(findings: Findings, tier: str = DEV_TEST) -> Table:
    """One row per arm: trials, validation, test score, SNR fifths, difference, verdict."""
    metric, word = findings.metric, TIER_WORDS[tier]
    contrasts = {contrast.arm: contrast for contrast in findings.of_tier(tier)}
    header = ["arm", "trials", "validation", word, *(f"SNR q{q}" for q in FIFTHS), "difference", "verdict"]
    rows = [_overview_row(arm, arm.scores.get(tier, {}).get(metric), contrasts.get(arm.name)) for arm in findings.arms]
    return Table(f"Arms: {metric}, mean over neurons and seeds; SNR q1 is the noisiest fifth", header, rows)


def _overview_row(arm: ArmFindings, scores: MetricScores | None, contrast: Contrast | None) -> list[str]:
    fifths = scores.quintiles if scores and scores.quintiles else [None] * len(FIFTHS)
    last = ["", "reference"] if arm.reference else [NONE, "no data"]
    if contrast is not None:
        last = [signed(contrast.difference), _verdict(contrast)]
    return [
        arm.name,
        statuses(arm.trials, ("failed", "diverged", "running")),
        number(arm.mean_validation),  # the best of the search is no match for means over fresh seeds
        number(scores.all.mean if scores and scores.all else None),
        *(number(fifth.mean if fifth else None) for fifth in fifths),
        *last,
    ]


def _verdict(contrast: Contrast) -> str:
    return words_of(contrast).word + (" (information contrast)" if contrast.label == ACROSS else "")


def comparisons(findings: Findings, tier: str) -> Table:
    """One row per contrast with the numbers behind its verdict."""
    header = ["arm", "verdict", "difference", "interval", "p", "p equivalent", "improved", "seeds x units", "scope"]
    rows = [
        [
            c.arm,
            _verdict(c),
            signed(c.difference),
            NONE if c.obstacle else f"{signed(c.interval[0])} to {signed(c.interval[1])}",
            NONE if c.obstacle else p_value(c.p, named=False),
            NONE if c.obstacle else p_value(c.p_equivalent, named=False),
            f"{c.improved:.0%} of {counted(c.neurons, 'neuron')}" if c.neurons else NONE,
            _design(c),
            c.scope,
        ]
        for c in findings.of_tier(tier)
    ]
    about = f"Differences of {findings.metric} from {findings.reference}, {TIER_WORDS[tier]}"
    return Table(f"{about}; p values after Holm, intervals not adjusted", header, rows)


def _design(contrast: Contrast) -> str:
    """Write what the comparison is crossed over."""
    plural = {"stimulus": "stimuli"}.get(contrast.unit)
    return f"{len(contrast.seeds)} x {counted(len(contrast.units), contrast.unit, plural)}" if contrast.units else NONE


def metrics(findings: Findings, tier: str) -> Table:
    """Every score of every arm: mean over seeds, with the range over seeds and the neurons it is defined for."""
    scored = [arm for arm in findings.arms if tier in arm.scores]
    names = model_metrics(dict.fromkeys(name for arm in scored for name in arm.scores[tier]))
    rows = [[_named(name), *(_cell(arm.scores[tier].get(name)) for arm in scored)] for name in names]
    return Table(f"All scores, {TIER_WORDS[tier]}: mean [range over seeds]", ["score", *(a.name for a in scored)], rows)


def _named(metric: str) -> str:
    return f"{metric} (lower is better)" if metric in LOWER_IS_BETTER else metric


def _cell(scores: MetricScores | None) -> str:
    if scores is None or scores.all is None:
        return "not available" + (": no repeats" if scores and scores.unavailable else "")
    found = scores.all
    left_out = f", undefined for {counted(found.undefined, 'neuron')}" if found.undefined else ""
    return f"{number(found.mean)} [{number(found.low)} to {number(found.high)}]{left_out}"


def per_session(findings: Findings, tier: str) -> Table:
    """The selecting score of every arm in every session."""
    scored = [arm for arm in findings.arms if findings.metric in arm.scores.get(tier, {})]
    rows = [
        [
            name,
            findings.animals.get(name, "not recorded"),
            f"{neurons:,}",
            *(_in(arm, tier, findings, name) for arm in scored),
        ]
        for name, neurons in findings.neurons.items()
    ]
    header = ["session", "animal", "neurons", *(arm.name for arm in scored)]
    return Table(f"{findings.metric} per session, {TIER_WORDS[tier]}, mean over neurons and seeds", header, rows)


def _in(arm: ArmFindings, tier: str, findings: Findings, session: str) -> str:
    found: Score | None = arm.scores[tier][findings.metric].sessions.get(session)
    return number(found.mean if found else None)


def per_area(findings: Findings, tier: str) -> Table:
    """Every arm on the neurons of every area; empty where areas are not known."""
    cells = {(found.arm, found.area): found for found in findings.areas if found.tier == tier}
    areas = {area: found.neurons for (_, area), found in cells.items()}
    rows = [
        [arm, *(_on(cells[arm, area], findings) for area in areas)] for arm in dict.fromkeys(arm for arm, _ in cells)
    ]
    unit = next((found.unit for found in cells.values()), findings.metric)
    caption = (
        f"By area of the predicted neurons, {TIER_WORDS[tier]}: {_named(unit)}, mean over seeds; behind it the gain "
        f"over {findings.reference} on the same neurons (over stimuli by the jackknife), its {1 - findings.alpha:.0%} "
        f"interval, not adjusted, and * where p is below {findings.alpha:g} after Holm over all of them"
    )
    return Table(caption, ["arm", *(f"{area} ({counted(n, 'neuron')})" for area, n in areas.items())], rows)


def _on(found: AreaFindings, findings: Findings) -> str:
    mean = number(found.score.mean if found.score else None)
    if not found.tested:
        return mean
    star = "*" if found.p < findings.alpha else ""
    low, high = map(signed, found.interval)
    return f"{mean}; {signed(found.difference)} ({low} to {high}){star}"


def gains(findings: Findings, tier: str) -> Table:
    """Share of explainable variance gained per SNR fifth, with the range over seeds."""
    rows = [[c.arm, *(_gain(c, q) for q in range(len(FIFTHS)))] for c in findings.of_tier(tier) if c.snr.gain]
    header = ["arm", *(f"SNR q{q}" for q in FIFTHS)]
    return Table(f"Share of explainable variance gained over {findings.reference} [range over seeds]", header, rows)


def _gain(contrast: Contrast, fifth: int) -> str:
    seeds = [row[fifth] for row in contrast.snr.seeds]
    return f"{signed(contrast.snr.gain[fifth], 3)} [{signed(min(seeds), 3)} to {signed(max(seeds), 3)}]"


def configurations(findings: Findings) -> Table:
    """Settings of the chosen configurations that were searched or differ between arms."""
    chosen = [arm for arm in findings.arms if arm.chosen]
    keys = list(dict.fromkeys(key for arm in chosen for key in arm.chosen))
    rows = [[key, *(_setting(arm.chosen.get(key, NONE)) for arm in chosen)] for key in keys]
    return Table(
        "Chosen configurations, where they differ or were searched", ["setting", *(a.name for a in chosen)], rows
    )


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def compute(findings: Findings) -> Table:
    """What every arm read and cost."""
    header = ["arm", "reads", "causal", "leak certificate", "trained values"]
    header += ["trials", "confirm runs", "epochs", "time", "peak memory"]
    rows = [
        [
            arm.name,
            arm.information,
            arm.causal,
            arm.certificate,
            NONE if arm.parameters is None else f"{arm.parameters:,}",
            statuses(arm.trials),
            statuses(arm.confirm_runs),
            str(arm.compute.epochs),
            duration(arm.compute.seconds),
            f"{number(arm.compute.peak_memory_mb, 0)} MB",
        ]
        for arm in findings.arms
    ]
    return Table("What the arms read and cost; time is added over runs", header, rows)


def test_looks(findings: Findings) -> Table:
    """Every read of a test tier."""
    rows = [[look.time, look.tier, look.run, look.reason] for look in findings.test_looks]
    return Table("Every look at test data", ["time", "tier", "run", "reason"], rows)


def provenance(findings: Findings) -> Table:
    """Where the numbers come from."""
    return Table(
        "As recorded when the sweep started, and by its runs",
        ["what", "value"],
        [[key, value] for key, value in findings.provenance.items()],
    )


def table(findings: Findings, tier: str = DEV_TEST) -> RichTable:
    """Make the table that ends a sweep on a terminal, 80 columns wide at least; printed to a file it is plain text."""
    rows = overview(findings, tier)
    title = Text(f"{findings.metric}; q1: noisiest fifth")
    shown = RichTable(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    shown.title_justify = "left"
    last = len(rows.header) - 1
    for k, name in enumerate(rows.header):
        style = {0: _NAME, last: _VERDICT}.get(k, _NUMBER)
        shown.add_column(_SHORT.get(name, name.removeprefix("SNR ")), **style)
    for row in rows.rows:
        shown.add_row(*(Text(_tight(cell)) for cell in row))
    return shown


_NAME: dict[str, Any] = {"justify": "left", "overflow": "fold", "min_width": 6}
_NUMBER: dict[str, Any] = {"justify": "right", "no_wrap": True}
_VERDICT: dict[str, Any] = {"justify": "left", "overflow": "fold", "min_width": 13}
_SHORT = {"validation": "valid.", "dev-test": "dev", "final test": "final", "difference": "diff."}


def _tight(cell: str) -> str:
    """Drop the zero before a decimal point."""
    return re.sub(r"^([+\N{MINUS SIGN}-]?)0\.", r"\1.", cell)
