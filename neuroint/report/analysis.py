"""Turn a sweep's folder into findings."""

from __future__ import annotations

from pathlib import Path

from neuroint.report import context
from neuroint.report.areas import by_area
from neuroint.report.arms import summarize_arm
from neuroint.report.contrasts import contrast_arms
from neuroint.report.evidence import TEST_TIERS, Evidence, gather
from neuroint.report.findings import Findings


def analyse(folder: Path) -> Findings:
    """Read a sweep's folder, finished or not, and say what was found, for which neurons and how sure.

    Differences are paired by seed and crossed with animals, or with held-out stimuli where there is one animal; the
    null is that of ``analysis.inference.compare``.

    Raises:
        ValueError: the folder is not that of a sweep.
    """
    return conclude(gather(Path(folder)))


def conclude(evidence: Evidence) -> Findings:
    """Draw the conclusions from what was read."""
    asked, record = evidence.asked, evidence.record
    data_cautions = context.cautions(record.tags)
    arms = [summarize_arm(evidence, arm) for arm in asked.arms]
    contrasts = [c for tier in TEST_TIERS for c in contrast_arms(evidence, arms, tier, data_cautions)]
    areas = [found for tier in TEST_TIERS for found in by_area(evidence, tier, contrasts)]
    return Findings(
        name=record.name or asked.name,
        question=asked.question,
        status=record.status,
        status_message=record.message or "",
        started=context.moment(record.started_s),
        metric=asked.score.metric,
        smallest_effect=asked.score.smallest_effect,
        alpha=asked.score.alpha,
        reference=asked.reference,
        arms=arms,
        contrasts=contrasts,
        areas=areas,
        neurons=_neurons(evidence),
        animals=dict(evidence.neurons.animals),
        cautions=data_cautions,
        failures=context.failures(evidence),
        test_looks=context.test_looks(evidence),
        provenance=context.provenance(evidence),
        missing=context.missing(evidence, arms, contrasts),
        limits=context.limits(evidence, arms, contrasts),
    )


def _neurons(evidence: Evidence) -> dict[str, int]:
    """Number of neurons of every session that was scored."""
    runs = [run for by_arm in evidence.scored.values() for scored in by_arm.values() for run in scored]
    return {name: count for run in runs for name, count in run.neurons.items()}
