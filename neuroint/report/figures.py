"""Draw findings: differences, scores, SNR, learning curves and search, one color and marker per arm throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroint.report.evidence import TIER_WORDS
from neuroint.report.findings import ArmFindings, Contrast, Findings
from neuroint.report.svg import INK, Panel, panel, styled
from neuroint.report.wording import counted, signed, words_of

# Okabe and Ito's colors that can be told apart with any color vision and on light and dark ground.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_REFERENCE_COLOR = "#808080"
_MARKERS = "osD^vP*X"
_WIDTH, _HEIGHT = 3.6, 2.7  # inches: wide enough for a phone, and three fit beside one another on a desk
_ROW = 0.42  # inches per arm where arms are rows
FIFTHS = np.arange(1, 6)


def colors(findings: Findings) -> dict[str, str]:
    """Give every arm its color; the reference is gray."""
    others = [arm.name for arm in findings.arms if not arm.reference]
    found = {name: _COLORS[k % len(_COLORS)] for k, name in enumerate(others)}
    return found | {findings.reference: _REFERENCE_COLOR}


def markers(findings: Findings) -> dict[str, str]:
    """Give every arm its marker, so that color is not the only cue."""
    return {arm.name: _MARKERS[k % len(_MARKERS)] for k, arm in enumerate(findings.arms)}


def short(name: str, limit: int = 26) -> str:
    """Cut a long name."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def draw(findings: Findings, tier: str) -> dict[str, list[Panel]]:
    """Draw every figure that there are numbers for, by section of the page."""
    with styled():
        sections: dict[str, list[Panel | None]] = {
            "effects": [differences(findings, tier), scores(findings, tier)],
            "snr": [gain_by_snr(findings, tier), score_by_snr(findings, tier)],
            "learning": [learning(findings, arm, k) for k, arm in enumerate(findings.arms)],
            "search": [search(findings)],
        }
    return {name: [found for found in panels if found] for name, panels in sections.items()}


def axes(width: float = _WIDTH, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    """Open a figure with one pair of axes that leaves room for its labels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def differences(findings: Findings, tier: str) -> Panel | None:
    """Draw each contrast's difference with its interval, every unit, and the band that does not matter."""
    found = [c for c in findings.of_tier(tier) if np.isfinite(c.difference)]
    if not found:
        return None
    figure, ax = axes(height=1.3 + _ROW * len(found))
    band = findings.smallest_effect
    ax.axvspan(-band, band, color=_REFERENCE_COLOR, alpha=0.22, lw=0)
    ax.axvline(0, color=INK, lw=0.8)
    for row, contrast in enumerate(found):
        _difference_row(ax, contrast, row, colors(findings)[contrast.arm], markers(findings)[contrast.arm])
    _rows(ax, [c.arm for c in found])
    label = f"difference in {findings.metric}\nfrom {short(findings.reference)} (band: too small to matter)"
    figure.supxlabel(label, fontsize=9)
    said = "; ".join(f"{c.arm} {signed(c.difference)}, {words_of(c).word}" for c in found)
    dots = f"Dots: {_unit(found)}, mean over seeds"
    return panel(
        figure, "differences", f"Difference of each arm from {findings.reference} with interval: {said}. {dots}."
    )


def _unit(contrasts: Sequence[Contrast]) -> str:
    return {"animal": "animals", "stimulus": "held-out stimuli"}[contrasts[0].unit]


def _difference_row(ax: Axes, contrast: Contrast, row: int, color: str, marker: str) -> None:
    units = np.asarray(contrast.differences).mean(axis=0)
    ax.plot(units, np.full(units.size, row + 0.24), ".", color=color, alpha=0.75, ms=5.5, mew=0)
    if np.isfinite(contrast.interval[0]):
        ax.plot(contrast.interval, (row, row), color=color, lw=2.2, solid_capstyle="butt")
    ax.plot(contrast.difference, row, marker, color=color, ms=6.5, mec=INK, mew=0.7)


def _rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), [short(name, 18) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def scores(findings: Findings, tier: str) -> Panel | None:
    """Draw each arm's score: mean and range over seeds, and every session."""
    found = [
        (arm, arm.scores[tier][findings.metric]) for arm in findings.arms if findings.metric in arm.scores.get(tier, {})
    ]
    found = [(arm, scored) for arm, scored in found if scored.all]
    if not found:
        return None
    figure, ax = axes(height=1.3 + _ROW * len(found))
    for row, (arm, scored) in enumerate(found):
        color, total = colors(findings)[arm.name], scored.all
        means = [session.mean for session in scored.sessions.values()]
        ax.plot(means, np.full(len(means), row + 0.24), ".", color=color, alpha=0.75, ms=5.5, mew=0)
        ax.plot((total.low, total.high), (row, row), color=color, lw=2.2)  # pyright: ignore[reportOptionalMemberAccess]
        ax.plot(total.mean, row, markers(findings)[arm.name], color=color, ms=6.5, mec=INK, mew=0.7)  # pyright: ignore
    _rows(ax, [arm.name for arm, _ in found])
    n = counted(found[0][1].all.neurons, "neuron")  # pyright: ignore[reportOptionalMemberAccess]
    figure.supxlabel(f"{findings.metric}, {TIER_WORDS[tier]}\nmean over {n}, range over seeds", fontsize=9)
    alt = "Score of each arm: " + "; ".join(f"{arm.name} {s.all.mean:.3f}" for arm, s in found if s.all)
    return panel(figure, "scores", f"{alt}. Bars: range over seeds. Dots: sessions.")


def _fifths(ax: Axes, n: str) -> None:
    ax.set_xticks(FIFTHS, ["1\nlowest", "2", "3", "4", "5\nhighest"])
    ax.set_xlabel(f"SNR fifth within each session\n({n})")


def gain_by_snr(findings: Findings, tier: str) -> Panel | None:
    """Draw the share of explainable variance that each arm gains per SNR fifth, every seed as a dot."""
    found = [c for c in findings.of_tier(tier) if c.snr.gain]
    if not found:
        return None
    figure, ax = axes()
    ax.axhline(0, color=INK, lw=0.8)
    for k, contrast in enumerate(found):
        color, at = colors(findings)[contrast.arm], FIFTHS + 0.09 * (k - (len(found) - 1) / 2)
        for row in contrast.snr.seeds:
            ax.plot(at, row, ".", color=color, alpha=0.75, ms=5.5, mew=0)
        style = {"ms": 5, "mec": INK, "mew": 0.6, "lw": 1.4, "label": short(contrast.arm)}
        ax.plot(at, contrast.snr.gain, f"-{markers(findings)[contrast.arm]}", color=color, **style)
    _fifths(ax, f"about {counted(round(found[0].snr.neurons[0]), 'neuron')} each")
    ax.set_ylabel("gain in explainable variance\n(share, no unit)")
    _legend(ax, len(found))
    said = "; ".join(f"{c.arm} {signed(c.snr.gain[0], 3)} lowest to {signed(c.snr.gain[-1], 3)} highest" for c in found)
    alt = f"Share of explainable variance gained over {findings.reference} per SNR fifth: {said}. Dots: seeds."
    return panel(figure, "gain", alt)


def score_by_snr(findings: Findings, tier: str) -> Panel | None:
    """Draw each arm's score per SNR fifth; it describes arms and does not compare gains."""
    found = [(arm, _fifth_means(arm, tier, findings.metric)) for arm in findings.arms]
    found = [(arm, means) for arm, means in found if np.isfinite(means).any()]
    if not found:
        return None
    figure, ax = axes()
    for arm, means in found:
        style = {"ms": 5, "mec": INK, "mew": 0.6, "lw": 1.4, "label": short(arm.name)}
        ax.plot(FIFTHS, means, f"-{markers(findings)[arm.name]}", color=colors(findings)[arm.name], **style)
    _fifths(ax, counted(sum(findings.neurons.values()), "neuron") + " in all")
    ax.set_ylabel(findings.metric)
    _legend(ax, len(found))
    said = "; ".join(f"{arm.name} {means[0]:.3f} lowest to {means[-1]:.3f} highest" for arm, means in found)
    return panel(figure, "by-snr", f"{findings.metric} per SNR fifth: {said}.")


def _fifth_means(arm: ArmFindings, tier: str, metric: str) -> np.ndarray:
    scored = arm.scores.get(tier, {}).get(metric)
    fifths = scored.quintiles if scored and scored.quintiles else [None] * FIFTHS.size
    return np.asarray([fifth.mean if fifth else np.nan for fifth in fifths])


def _legend(ax: Axes, n: int) -> None:
    """Put the legend above the axes, where it hides nothing."""
    columns = 2 if n > 1 else 1
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=8, handlelength=1.4, borderpad=0.1)


_PHASES: dict[str, dict[str, Any]] = {
    "tune": {"lw": 0.8, "alpha": 0.5, "zorder": 1},
    "confirm": {"lw": 1.7, "alpha": 1.0, "zorder": 2},
}


def learning(findings: Findings, arm: ArmFindings, index: int) -> Panel | None:
    """Draw the validation score of every run of an arm after each epoch; confirm runs are thick."""
    if not arm.curves:
        return None
    figure, ax = axes()
    for curve in arm.curves:
        color = {"tune": _REFERENCE_COLOR}.get(curve.phase, colors(findings)[arm.name])
        single = "." if len(curve.epochs) == 1 else ""
        ax.plot(curve.epochs, curve.scores, f"-{single}", color=color, **_PHASES.get(curve.phase, {}))
    _shared_scale(ax, [score for each in findings.arms for curve in each.curves for score in curve.scores])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    phases = [curve.phase for curve in arm.curves]
    n = f"{counted(phases.count('tune'), 'trial')}, {counted(phases.count('confirm'), 'confirm run')}"
    ax.set_title(f"{short(arm.name)}: {n}")
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"validation {findings.metric}")
    ends = [curve.scores[-1] for curve in arm.curves if np.isfinite(curve.scores[-1])]
    said = f"last scores {min(ends):.3f} to {max(ends):.3f}" if ends else "no run has a score"
    alt = f"Validation score per epoch of arm {arm.name}, {n}: {said}. Thin gray: trials. Thick: confirm runs."
    return panel(figure, f"learning-{index}", alt)


def _shared_scale(ax: Axes, values: Sequence[float]) -> None:
    """Use one range for all arms; early epochs far below the others are cut off."""
    finite = np.asarray([value for value in values if np.isfinite(value)])
    if finite.size:
        low, high = np.quantile(finite, 0.02), finite.max()
        margin = 0.06 * (high - low) or 0.01
        ax.set_ylim(low - margin, high + margin)


def search(findings: Findings) -> Panel | None:
    """Draw the best validation score after each trial, per arm."""
    found = [arm for arm in findings.arms if np.isfinite(arm.best_so_far).any()]
    if not found:
        return None
    figure, ax = axes()
    for arm in found:
        trials = np.arange(1, len(arm.best_so_far) + 1)
        style: dict[str, Any] = {"drawstyle": "steps-post", "lw": 1.4, "ms": 4, "mec": INK, "mew": 0.5, "alpha": 0.9}
        color, marker = colors(findings)[arm.name], markers(findings)[arm.name]
        ax.plot(trials, arm.best_so_far, f"-{marker}", color=color, label=short(arm.name), **style)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel("trials ended")
    ax.set_ylabel(f"best validation\n{findings.metric}")
    _legend(ax, len(found))
    said = "; ".join(f"{arm.name} {np.nanmax(arm.best_so_far):.3f} in {len(arm.best_so_far)} trials" for arm in found)
    return panel(figure, "search", f"Best validation score so far: {said}.")
