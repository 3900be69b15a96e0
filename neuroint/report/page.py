"""Write findings as one HTML page that needs nothing from outside; all words from files are escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from neuroint.data.base import DEV_TEST, FINAL_TEST
from neuroint.report import tables
from neuroint.report.contrasts import ACROSS
from neuroint.report.evidence import TIER_WORDS, Evidence
from neuroint.report.figures import draw
from neuroint.report.findings import Contrast, Failure, Findings
from neuroint.report.neuron_figures import MOST_MAPS, draw_neurons
from neuroint.report.style import CSS
from neuroint.report.svg import Panel
from neuroint.report.tables import Table
from neuroint.report.wording import (
    answer,
    at_odds,
    by_jackknife,
    could_hide,
    counted,
    for_whom,
    interval,
    p_value,
    sample,
    signed,
    words_of,
)

_LONG_WORD = 30  # characters
# Nothing may be loaded or run, whatever a name or a traceback holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_page(evidence: Evidence, findings: Findings) -> str:
    """Write the page: answer and verdicts first, then what they rest on, then what they do not cover."""
    panels = draw(findings, DEV_TEST) | draw_neurons(evidence, findings, DEV_TEST)
    sections = [
        _head(findings),
        _verdicts(findings),
        _final_test(findings),
        _effects(findings, panels),
        _snr(findings, panels),
        _neurons(findings, panels),
        _training(findings, panels),
        _failures(findings.failures),
        _sources(findings),
        _limits(findings),
    ]
    body = "\n".join(part for part in sections if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(findings.question)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(findings: Findings) -> str:
    where = f"sweep {findings.name} · {findings.status}" + (
        f" · started {findings.started}" if findings.started else ""
    )
    notes = _note("Cautions of the data", findings.cautions) + _note("What is missing", findings.missing)
    rests = (
        f"{sample(findings)}; score: {findings.metric}, on {TIER_WORDS[DEV_TEST]} clips, which no choice was based on"
    )
    return (
        f'<header>\n<p class="soft wrap">{escape(where)}</p>\n<h1>{escape(findings.question)}</h1>\n'
        f'<p class="lead wrap">{escape(answer(findings, DEV_TEST))}</p>\n<p class="soft wrap">{escape(rests)}.</p>\n'
        f"</header>\n{notes}"
    )


def _note(title: str, lines: Sequence[str]) -> str:
    return f'<div class="note"><strong>{escape(title)}</strong>{_list(lines, "plain")}</div>\n' if lines else ""


def _list(lines: Sequence[str], name: str) -> str:
    return f'<ul class="{name}">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _verdicts(findings: Findings) -> str:
    cards = "\n".join(_card(contrast) for contrast in findings.of_tier(DEV_TEST))
    return f'<section class="cards" aria-label="Verdicts">\n{cards}\n</section>' if cards else ""


def _card(contrast: Contrast) -> str:
    words = words_of(contrast)
    label = '<span class="label">information contrast: not ranked</span>' if contrast.label == ACROSS else ""
    sentence = "" if contrast.obstacle else f'<p class="soft">{escape(contrast.sentence)}</p>\n'
    return (
        f'<article class="card {contrast.verdict}">\n'
        f'<p><span class="badge">{words.mark} {words.word}</span> {label}</p>\n'
        f"<h3>{escape(contrast.arm)} {words.says} {escape(contrast.reference)}</h3>\n{_size(contrast)}{_whom(contrast)}"
        f"{sentence}</article>"
    )


def _size(contrast: Contrast) -> str:
    """The difference with its interval, and how sure it is."""
    if contrast.obstacle:
        seen = f"<p>Seen, untested: {signed(contrast.difference)}.</p>" if contrast.differences else ""
        return f"<p>{escape(contrast.obstacle[:1].upper() + contrast.obstacle[1:])}.</p>\n{seen}"
    sure = f"{p_value(contrast.p)}; {interval(contrast)}"
    more = "".join(f'<p class="soft">{text}.</p>\n' for text in (could_hide(contrast), by_jackknife(contrast)) if text)
    size = f'<p class="big">{signed(contrast.difference)} <small>{escape(contrast.metric)}</small></p>\n'
    return f"{size}<p>{sure}</p>\n{more}"


def _whom(contrast: Contrast) -> str:
    """For which neurons: how many improve, and the gain per SNR fifth."""
    many = f"<p>{for_whom(contrast)}.</p>\n" if contrast.neurons else ""
    if contrast.snr.unavailable:
        return many if contrast.obstacle else many + f"<p>Not split by SNR: {escape(contrast.snr.unavailable)}.</p>\n"
    fifths = "".join(f"<span>{signed(gain, 3)}</span>" for gain in contrast.snr.gain)
    odds = f"<p>{escape(text)}.</p>\n" if (text := at_odds(contrast)) else ""
    return (
        f"{many}<p>Gain in explainable variance, noisiest to most reliable fifth of neurons:</p>\n"
        f'<div class="fifths">{fifths}</div>\n{odds}'
    )


def _final_test(findings: Findings) -> str:
    if not any(FINAL_TEST in arm.scores for arm in findings.arms):
        return ""
    shown = [view(findings, FINAL_TEST) for view in (tables.overview, tables.comparisons, tables.per_area)]
    text = f"<p>{escape(answer(findings, FINAL_TEST))} It was unlocked once, after every choice was made.</p>"
    return _section("Final test", text + "".join(map(_table, shown)))


def _effects(findings: Findings, panels: Mapping[str, list[Panel]]) -> str:
    shown = [tables.overview(findings), tables.comparisons(findings, DEV_TEST), tables.metrics(findings, DEV_TEST)]
    shown += [tables.per_area(findings, DEV_TEST), tables.per_session(findings, DEV_TEST)]
    return _section("Effect sizes", _figures(panels["effects"]) + "".join(map(_table, shown)))


def _snr(findings: Findings, panels: Mapping[str, list[Panel]]) -> str:
    if not panels["snr"]:
        return _section("By signal-to-noise ratio", "<p>No arm has scores that can be split by SNR.</p>")
    text = (
        "<p>Gains are compared as a share of explainable variance: SNR is taken from one half of the repeats and the "
        "gain from the other, then the halves are swapped. Differences of correlations would grow with SNR even if "
        "every neuron gained the same share, so the scores per fifth describe the arms and do not compare gains.</p>"
    )
    return _section(
        "By signal-to-noise ratio", text + _figures(panels["snr"]) + _table(tables.gains(findings, DEV_TEST))
    )


def _neurons(findings: Findings, panels: Mapping[str, list[Panel]]) -> str:
    if not panels["scatter"]:
        return ""
    maps = panels["maps"]
    cut = f" The first {MOST_MAPS} maps are shown." if len(maps) == MOST_MAPS else ""
    about = "Positions were not recorded, so there is no map." if not maps else f"Color: mean gain over seeds.{cut}"
    return _section("Neuron by neuron", _figures(panels["scatter"]) + f"<p>{about}</p>" + _figures(maps))


def _training(findings: Findings, panels: Mapping[str, list[Panel]]) -> str:
    learning = _section("Learning curves", _figures(panels["learning"])) if panels["learning"] else ""
    chosen = _table(tables.configurations(findings))
    search = _section("Search", _figures(panels["search"]) + chosen)
    return learning + search + _section("Compute", _table(tables.compute(findings)))


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return _section("Failures", "<p>No run failed or diverged.</p>")
    shown = "".join(
        f'<details><summary class="wrap">{escape(f.run)} {escape(f.status)}: {escape(f.reason)}</summary>'
        f"<pre>{escape(f.message or 'no message was left')}</pre></details>\n"
        for f in failures
    )
    return _section("Failures", f"<p>{counted(len(failures), 'run')} failed or diverged.</p>\n{shown}")


def _sources(findings: Findings) -> str:
    looks = tables.test_looks(findings)
    listed = _table(looks) if looks.rows else "<p>No test tier was read.</p>"
    return _section("Looks at test data", listed) + _section("Provenance", _table(tables.provenance(findings)))


def _limits(findings: Findings) -> str:
    return _section("What this does not answer", _list(findings.limits, "limits")) if findings.limits else ""


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n"


def _figures(panels: Sequence[Panel]) -> str:
    shown = "".join(f"<figure>{p.svg}<figcaption>{escape(p.alt)}</figcaption></figure>\n" for p in panels)
    return f'<div class="figures">\n{shown}</div>\n' if shown else ""


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    return (
        f'<div class="scroll"><table>\n<caption>{escape(table.caption)}</caption>\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
    )


def _cell(text: str) -> str:
    """Let words that would make the table wider than a phone break anywhere."""
    long = max(map(len, text.split()), default=0) > _LONG_WORD
    opening = '<td class="long">' if long else "<td>"
    return f"{opening}{escape(text)}</td>"
