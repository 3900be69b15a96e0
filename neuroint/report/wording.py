"""Put numbers and verdicts into words, the same ones in the page, in Markdown and on a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from neuroint.report.contrasts import ACROSS
from neuroint.report.evidence import TIER_WORDS
from neuroint.report.findings import Contrast, Findings

CORRELATIONS = ("single_trial_correlation", "correlation_to_average", "cc_norm")  # blind to the scale of rates
_SPELLED_OUT = 3  # contrasts; more are grouped by verdict
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class VerdictWords:
    """A verdict as a mark, a word, and the middle of a sentence from an arm to its reference."""

    mark: str
    word: str
    says: str


VERDICTS = {
    "supported": VerdictWords("✓", "supported", "predicts better than"),
    "not_supported": VerdictWords("✗", "not supported", "was not shown to predict better than"),
    "equivalent": VerdictWords("≈", "equivalent", "predicts as well as"),
    "not_testable": VerdictWords("?", "not testable", "could not be compared with"),
}
WORSE = VerdictWords("✗", "not supported", "predicts worse than")
BLOCKED = VerdictWords("?", "not testable here", "cannot be judged on this data against")


def words_of(contrast: Contrast) -> VerdictWords:
    """Words for a contrast; a difference that is surely negative is said to be one."""
    if contrast.blocked:
        return BLOCKED
    worse = contrast.verdict == "not_supported" and contrast.p < contrast.alpha and contrast.difference < 0
    return WORSE if worse else VERDICTS[contrast.verdict]


def number(value: float | None, digits: int = 3) -> str:
    """Write a number, or a dash where there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """Write a difference with its sign."""
    return NONE if value is None or not math.isfinite(value) else f"{value:+.{digits}f}".replace("-", MINUS)


def p_value(p: float, named: bool = True) -> str:
    """Write a p value, with the sign before it where a sentence needs one."""
    return f"{'p ' if named else ''}< 0.0001" if p < 1e-4 else f"{'p = ' if named else ''}{p:.2g}"


def interval(contrast: Contrast) -> str:
    """Write the interval of a difference with its coverage."""
    low, high = contrast.interval
    if not math.isfinite(low):
        return ""
    return f"{1 - contrast.alpha:.0%} interval {signed(low)} to {signed(high)}"


def by_jackknife(contrast: Contrast) -> str:
    """Say why a difference over stimuli is not the difference of the two mean scores that stand beside it."""
    if contrast.unit != "stimulus" or not contrast.differences:
        return ""
    return (
        "Estimated over held-out stimuli by the jackknife, which takes off the bias of a score of few frames: it is "
        "not the difference of the two mean scores"
    )


def could_hide(contrast: Contrast) -> str:
    """Say how large a difference would have gone unnoticed, where none was shown and one that matters may be there."""
    half = (contrast.interval[1] - contrast.interval[0]) / 2
    if (
        contrast.verdict != "not_supported"
        or not math.isfinite(half)
        or contrast.interval[1] <= contrast.smallest_effect
    ):
        return ""
    return (
        f"This does not say that there is no difference: the interval reaches {signed(contrast.interval[1])}, and "
        f"what is smaller than about {half:.2g} cannot be told from 0 with these units and seeds"
    )


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Write a count with its noun."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def statuses(counts: dict[str, int], named: tuple[str, ...] = ("stopped", "failed", "diverged", "running")) -> str:
    """Write a number of runs, and how many of them ended in one of the named ways."""
    others = [f"{n} {status}" for status, n in counts.items() if status in named]
    return f"{sum(counts.values())}" + (f" ({', '.join(others)})" if others else "")


def duration(seconds: float) -> str:
    """Write seconds as a person would."""
    steps = ((3600.0, "h"), (60.0, "min"))
    return next((f"{seconds / size:.1f} {unit}" for size, unit in steps if seconds >= size), f"{seconds:.0f} s")


def sample(findings: Findings) -> str:
    """Say how much was recorded and retrained."""
    parts = []
    if findings.neurons:
        animals = {findings.animals.get(name, "") for name in findings.neurons} - {""}
        parts = [counted(sum(findings.neurons.values()), "neuron"), counted(len(findings.neurons), "session")]
        parts += [counted(len(animals), "animal")] if animals else []
    seeds = max((len(arm.seeds) for arm in findings.arms), default=0)
    return ", ".join([*parts, counted(seeds, "seed")])


def answer(findings: Findings, tier: str) -> str:
    """Answer the question in one or two sentences."""
    contrasts = findings.of_tier(tier)
    if not contrasts:
        return f"No answer yet: no arm was compared with the reference on {TIER_WORDS[tier]} data."
    if len(contrasts) <= _SPELLED_OUT:
        return " ".join(_clause(contrast) for contrast in contrasts)
    groups: dict[str, list[str]] = {}
    for contrast in contrasts:
        groups.setdefault(words_of(contrast).says, []).append(contrast.arm)
    said = [
        f"{len(arms)} of {len(contrasts)} arms ({', '.join(arms)}): each {says} {findings.reference}"
        for says, arms in groups.items()
    ]
    return ". ".join(said) + "."


def _clause(contrast: Contrast) -> str:
    sure = "" if contrast.obstacle else f" ({signed(contrast.difference)}, {interval(contrast)})"
    more = ", reading other information" if contrast.label == ACROSS else ""
    barred = f" ({contrast.obstacle})" if contrast.blocked else ""
    return f"{contrast.arm} {words_of(contrast).says} {contrast.reference}{sure}{more}{barred}."


def for_whom(contrast: Contrast) -> str:
    """Say for how many neurons a contrast holds."""
    if not contrast.neurons or not math.isfinite(contrast.improved):
        return ""
    return f"Higher in {contrast.improved:.0%} of {counted(contrast.neurons, 'neuron')}"


def at_odds(contrast: Contrast) -> str:
    """Say why the gain in explainable variance and the correlation disagree in sign, or such a gain exceeds 1."""
    selecting = contrast.metric in CORRELATIONS
    correlation = contrast.difference if selecting else contrast.other_metrics.get(CORRELATIONS[0], math.nan)
    gains = [gain for gain in contrast.snr.gain if math.isfinite(gain)]
    if not gains or not math.isfinite(correlation) or (median(gains) * correlation >= 0 and max(map(abs, gains)) <= 1):
        return ""
    return (
        f"This gain counts squared errors, correlation ({signed(correlation)}) does not: that the two disagree, or "
        "that a gain exceeds 1, can come from rates of one model that are badly scaled"
    )


def by_snr(contrast: Contrast) -> str:
    """Say how the gain depends on SNR, lowest fifth first."""
    if contrast.snr.unavailable:
        return f"Not split by SNR: {contrast.snr.unavailable}"
    return "Share of explainable variance gained, lowest to highest SNR fifth: " + ", ".join(
        signed(gain, 3) for gain in contrast.snr.gain
    )
