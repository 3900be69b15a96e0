"""Break an arm's scores and its contrast down by brain area: which area predicts which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroint.analysis.inference import Comparison, holm_correct
from neuroint.data.areas import UNASSIGNED, members_of
from neuroint.report.arms import score_of
from neuroint.report.contrasts import compare_pairs, pair_runs
from neuroint.report.evidence import Evidence, Picked, ScoredRun
from neuroint.report.findings import AreaFindings, Contrast

_UNTESTED = (np.nan, (np.nan, np.nan))
FEWEST = 2  # areas, and neurons of one
# Means over neurons that are told in another unit, divided by the mean response of the same neurons.
PER_RESPONSE = {"bits_per_bin": "bits per spike of the area as a whole"}


def by_area(evidence: Evidence, tier: str, contrasts: Sequence[Contrast]) -> list[AreaFindings]:
    """Score every arm on the neurons of each area, beside its difference from the reference on the same neurons.

    Areas are those of ``data.to_areas``, or all that neurons are in. ``bits_per_bin`` is divided by the neurons' mean
    count, which makes it the bits per spike of the area as a whole. Differences are tested as those of all neurons are,
    p values adjusted over arms and areas (Holm); an arm that has no verdict over all neurons has none here.
    Empty for fewer than two areas.
    """
    scored = {arm: runs for arm, runs in evidence.scored[tier].items() if runs}
    areas = _areas(evidence, next(iter(scored.values()))[0]) if scored else {}
    if len(areas) < FEWEST:
        return []
    testable = [contrast.arm for contrast in contrasts if contrast.tier == tier and not contrast.obstacle]
    cells = [(arm, area) for arm in scored for area in areas]
    tested = {f"{arm}/{area}": _compared(evidence, arm, tier, areas[area]) for arm, area in cells if arm in testable}
    adjusted = holm_correct(tested)
    return [
        _found(evidence, area, tier, [run.of(areas[area]) for run in scored[arm]], adjusted.get(f"{arm}/{area}"))
        for arm, area in cells
    ]


def _areas(evidence: Evidence, run: ScoredRun) -> dict[str, Picked]:
    """Mark each area's neurons in every session that was scored; areas with too few are left out."""
    known = evidence.neurons.areas
    areas = {name: known.get(name, (UNASSIGNED,) * one.snr.size) for name, one in run.sessions.items()}
    words = evidence.asked.areas or sorted({area for found in areas.values() for area in found} - {UNASSIGNED, ""})
    marked = {word: {name: np.isin(found, members_of(word)) for name, found in areas.items()} for word in words}
    return {word: picked for word, picked in marked.items() if sum(mask.sum() for mask in picked.values()) >= FEWEST}


def _compared(evidence: Evidence, arm: str, tier: str, picked: Picked) -> Comparison:
    comparison, *_ = compare_pairs(evidence, pair_runs(evidence, arm, tier).of(picked), tier)
    return comparison


def _found(
    evidence: Evidence, area: str, tier: str, runs: Sequence[ScoredRun], tested: Comparison | None
) -> AreaFindings:
    """Put a cell together, in the unit that it is told in."""
    metric, sessions = evidence.asked.score.metric, runs[0].sessions
    everyone = {name: np.ones(found.snr.size, dtype=bool) for name, found in sessions.items()}
    score, scale = score_of(runs, metric, everyone), _scale(metric, runs[0])
    known = None if tested is None or tested.obstacle else tested
    difference, (low, high) = (known.difference, known.interval) if known else _UNTESTED
    return AreaFindings(
        arm=str(runs[0].run.arm),
        area=area,
        tier=tier,
        neurons=sum(found.snr.size for found in sessions.values()),
        unit=PER_RESPONSE.get(metric, metric),
        score=score and replace(score, mean=score.mean * scale, low=score.low * scale, high=score.high * scale),
        difference=difference * scale,
        interval=(low * scale, high * scale),
        p=float(known.p) if known else 1.0,
        tested=known is not None,
    )


def _scale(metric: str, run: ScoredRun) -> float:
    """One over the mean response where means over neurons are told per response, else 1."""
    if metric not in PER_RESPONSE:
        return 1.0
    totals = [found.totals for found in run.sessions.values()]
    frames, responses = (sum(total[name].sum() for total in totals) for name in ("n_frames", "sum_y"))
    return float(frames / responses) if responses else np.nan
