"""Break an arm's scores and its contrast down by brain area: which area predicts which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroint.analysis.inference import Comparison, Unit, holm_correct
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
    count, which makes it the bits per spike of the area as a whole, where there is one session. Differences are tested
    over what those of all neurons are tested over (animals, or stimuli of one), p values adjusted over arms and areas
    (Holm); an arm that has no verdict over all neurons has none here. Runs that were scored on other neurons than the
    reference are left out. Empty for fewer than two areas of two neurons.
    """
    scored = _alike(evidence, tier)
    areas = _areas(evidence, scored[evidence.asked.reference][0]) if scored else {}
    if len(areas) < FEWEST:
        return []
    units: dict[str, Unit] = {c.arm: c.unit for c in contrasts if c.tier == tier and not c.obstacle}
    cells = [(arm, area) for arm in scored for area in areas]
    tested = {
        f"{arm}/{area}": _compared(evidence, arm, tier, areas[area], units[arm]) for arm, area in cells if arm in units
    }
    adjusted = holm_correct(tested)
    return [
        _found(evidence, area, tier, [run.of(areas[area]) for run in scored[arm]], adjusted.get(f"{arm}/{area}"))
        for arm, area in cells
    ]


def _alike(evidence: Evidence, tier: str) -> dict[str, list[ScoredRun]]:
    """Find the arms whose runs have the score, on the sessions and neurons of the reference's; none without it."""
    metric, scored = evidence.asked.score.metric, evidence.scored[tier]
    theirs = [run.neurons for run in scored.get(evidence.asked.reference, ())]
    fit = {
        arm: runs
        for arm, runs in scored.items()
        if runs and all(run.neurons == theirs[0] and _has(run, metric) for run in runs if theirs)
    }
    return fit if evidence.asked.reference in fit else {}


def _has(run: ScoredRun, metric: str) -> bool:
    return all(metric in found.values for found in run.sessions.values())


def _areas(evidence: Evidence, run: ScoredRun) -> dict[str, Picked]:
    """Mark each area's neurons in every session that was scored; areas with too few are left out."""
    known = evidence.neurons.areas
    areas = {name: known.get(name, (UNASSIGNED,) * one.snr.size) for name, one in run.sessions.items()}
    words = evidence.asked.areas or sorted({area for found in areas.values() for area in found} - {UNASSIGNED, ""})
    marked = {word: {name: np.isin(found, members_of(word)) for name, found in areas.items()} for word in words}
    return {word: picked for word, picked in marked.items() if sum(mask.sum() for mask in picked.values()) >= FEWEST}


def _compared(evidence: Evidence, arm: str, tier: str, picked: Picked, over: Unit) -> Comparison:
    comparison, *_ = compare_pairs(evidence, pair_runs(evidence, arm, tier).of(picked), tier, over)
    return comparison


def _found(
    evidence: Evidence, area: str, tier: str, runs: Sequence[ScoredRun], tested: Comparison | None
) -> AreaFindings:
    """Put a cell together, in the unit that it is told in."""
    metric, sessions = evidence.asked.score.metric, runs[0].sessions
    everyone = {name: np.ones(found.snr.size, dtype=bool) for name, found in sessions.items()}
    score, (scale, unit) = score_of(runs, metric, everyone), _unit(metric, runs[0])
    known = None if tested is None or tested.obstacle else tested
    difference, (low, high) = (known.difference, known.interval) if known else _UNTESTED
    return AreaFindings(
        arm=str(runs[0].run.arm),
        area=area,
        tier=tier,
        neurons=score.neurons if score else 0,
        unit=unit,
        score=score and replace(score, mean=score.mean * scale, low=score.low * scale, high=score.high * scale),
        difference=difference * scale,
        interval=(low * scale, high * scale),
        p=float(known.p) if known else 1.0,
        tested=known is not None,
    )


def _unit(metric: str, run: ScoredRun) -> tuple[float, str]:
    """What a mean over neurons of one session is multiplied by, and what it is then; several are left as they are."""
    if metric not in PER_RESPONSE or len(run.picked or ()) != 1:
        return 1.0, metric
    (found,) = run.sessions.values()
    frames, responses = (found.totals[name].sum() for name in ("n_frames", "sum_y"))
    return (float(frames / responses) if responses else np.nan), PER_RESPONSE[metric]
