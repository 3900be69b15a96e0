"""Summarize each arm: trials, cost, chosen configuration, and its scores over neurons, sessions and SNR fifths."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from neuroint import registry
from neuroint.analysis.snr import QUINTILES
from neuroint.metrics.scoring import why_unavailable
from neuroint.report.evidence import OF_THE_RECORDING, Evidence, Picked, ScoredRun
from neuroint.report.findings import ArmFindings, Compute, Curve, MetricScores, Score
from neuroint.results import CERTIFICATE_FILE
from neuroint.sweep.selection import METRIC
from neuroint.tracking.journal import RunRecord

UNKNOWN = "unknown"
NO_REPEATS = "no stimulus of this tier was shown twice, so neurons cannot be split by SNR"
_NOT_DESIGN = ("data.", "resources.", "score.", "seed")


def summarize_arm(evidence: Evidence, arm: str) -> ArmFindings:
    """Put together what is known of an arm; an arm without usable runs has empty parts and says why."""
    tune, confirm, chosen = evidence.runs(arm, "tune"), evidence.runs(arm, "confirm"), evidence.chosen[arm]
    tags = next((run.tags for run in [*chosen, *confirm, *tune]), {})
    certificate = _certificate(evidence, chosen)
    bests = _finite(run.metrics.get(METRIC) for run in tune)
    return ArmFindings(
        name=arm,
        reference=arm == evidence.asked.reference,
        information=str(tags.get("information", certificate.get("information", UNKNOWN))),
        causal=str(tags.get("causal", certificate.get("causal", UNKNOWN))).lower(),
        certificate=_passed(certificate),
        parameters=int(tags["parameters"]) if str(tags.get("parameters", "")).isdigit() else None,
        trials=dict(Counter(run.status for run in tune)),
        confirm_runs=dict(Counter(run.status for run in confirm)),
        compute=_compute([*tune, *confirm]),
        best_validation=max(bests, default=None),
        mean_validation=float(np.mean([run.metrics[METRIC] for run in chosen])) if chosen else None,
        chosen=_chosen_settings(evidence, chosen),
        seeds=[run.seed for run in chosen if run.seed is not None],
        scores={tier: _tier_scores(by_arm[arm]) for tier, by_arm in evidence.scored.items() if by_arm[arm]},
        curves=[_curve(run) for run in [*tune, *confirm] if run.epochs],
        best_so_far=_best_so_far(tune),
        missing=list(evidence.missing[arm]),
    )


def _finite(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values if value is not None and np.isfinite(value)]


def _certificate(evidence: Evidence, chosen: Sequence[RunRecord]) -> dict[str, Any]:
    """Read the leak certificate of the first chosen run that has one."""
    files = [evidence.folder / (run.folder or f"runs/{run.key}") / CERTIFICATE_FILE for run in chosen]
    return next((json.loads(file.read_text()) for file in files if file.is_file()), {})


def _passed(certificate: Mapping[str, Any]) -> str:
    return {True: "passed", False: "failed"}.get(certificate.get("passed", None), UNKNOWN)


def _compute(runs: Sequence[RunRecord]) -> Compute:
    epochs = [metrics for run in runs for metrics in run.epochs.values()]
    seconds, memory = (_finite(m.get(name) for m in epochs) for name in ("seconds", "peak_memory_mb"))
    return Compute(len(epochs), sum(seconds), max(memory, default=float("nan")))


def _curve(run: RunRecord) -> Curve:
    epochs = sorted(run.epochs)
    values = [run.epochs[epoch].get("validation_score", float("nan")) for epoch in epochs]
    return Curve(run.key, run.phase, epochs, values)


def _best_so_far(tune: Sequence[RunRecord]) -> list[float]:
    ended = sorted((run for run in tune if run.ended_s is not None), key=lambda run: run.ended_s or 0.0)
    scores = [run.metrics.get(METRIC, float("nan")) for run in ended]
    return np.fmax.accumulate(scores).tolist() if scores else []


def _chosen_settings(evidence: Evidence, chosen: Sequence[RunRecord]) -> dict[str, Any]:
    """Settings of the chosen configuration that any run of the sweep has otherwise."""
    seen: dict[str, set[str]] = {}
    for run in evidence.record.runs.values():
        for key, value in run.params.items():
            seen.setdefault(key, set()).add(repr(value))
    everywhere = Counter(key for run in evidence.record.runs.values() for key in run.params)
    n_runs = len(evidence.record.runs)
    params = chosen[0].params if chosen else {}
    return {
        key: value
        for key, value in params.items()
        if not key.startswith(_NOT_DESIGN) and (len(seen[key]) > 1 or everywhere[key] < n_runs)
    }


def _tier_scores(runs: Sequence[ScoredRun]) -> dict[str, MetricScores]:
    names = [name for name in registry.metrics.names() if all(name in s.values for s in runs[0].sessions.values())]
    return {name: _metric_scores(runs, name) for name in names}


def _metric_scores(runs: Sequence[ScoredRun], metric: str) -> MetricScores:
    sessions = runs[0].sessions
    reasons = [why_unavailable(found.totals, metric) for found in sessions.values()]
    everyone = {name: np.ones(found.quintiles.shape, dtype=bool) for name, found in sessions.items()}
    fifths = [{name: s.quintiles == q for name, s in sessions.items()} for q in range(1, QUINTILES + 1)]
    split = any(found.quintiles.any() for found in sessions.values())
    return MetricScores(
        all=score_of(runs, metric, everyone),
        sessions={name: found for name in sessions if (found := score_of(runs, metric, {name: everyone[name]}))},
        quintiles=[score_of(runs, metric, fifth) for fifth in fifths] if split else [],
        unavailable=next((reason for reason in reasons if reason), "" if split else NO_REPEATS),
    )


def score_of(runs: Sequence[ScoredRun], metric: str, picked: Picked) -> Score | None:
    """Average a metric over picked neurons of all sessions, seed by seed; None where it is defined for none."""
    rows: Float[np.ndarray, "seeds neurons"] = np.stack(
        [np.concatenate([run.sessions[name].values[metric][keep] for name, keep in picked.items()]) for run in runs]
    )
    defined = ~np.isnan(rows).any(axis=0)
    if not defined.any():
        return None
    means = rows[:, defined].mean(axis=1)
    counts = int(defined.sum()), int((~defined).sum())
    return Score(float(means.mean()), float(means.min()), float(means.max()), len(runs), *counts)


def model_metrics(names: Iterable[str]) -> list[str]:
    """Metrics that say something about a model, not about the recording alone."""
    return [name for name in names if name not in OF_THE_RECORDING]
