"""Hold every arm against the reference, paired by seed, and put what was found into a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from neuroint import registry
from neuroint.analysis.inference import (
    Comparison,
    Unit,
    compare,
    difference_per_animal,
    difference_per_stimulus,
    holm_correct,
)
from neuroint.analysis.snr import QUINTILES, gain_by_snr
from neuroint.data.cautions import forbidden
from neuroint.report.arms import model_metrics
from neuroint.report.evidence import LOWER_IS_BETTER, TIER_WORDS, Evidence, Picked, ScoredRun
from neuroint.report.findings import ArmFindings, Contrast, SnrGain

SAME, ACROSS = "same information", "information contrast"
# What own predictions are made of is in the stimulus, so both are one class.
INFORMATION_CLASS = {"own_predictions": "stimulus"}
# What a caution may forbid to conclude ("cells pooled over animals: no coupling"), by the slot that an arm changes.
CONCLUSIONS = {"interaction": "coupling", "normalization": "normalization"}
_NOTHING = (float("nan"), float("nan"))
Pair = tuple[ScoredRun, ScoredRun]


@dataclass(frozen=True)
class Paired:
    """Runs of an arm and of the reference that share a seed, in order of the seeds."""

    arm: str
    pairs: list[Pair]
    obstacle: str = ""

    def of(self, picked: Picked) -> Paired:
        """Keep some of the neurons."""
        return replace(self, pairs=[(ours.of(picked), theirs.of(picked)) for ours, theirs in self.pairs])

    @property
    def seeds(self) -> list[int]:
        """Seeds that both arms were trained with."""
        return [ours.run.seed for ours, _ in self.pairs if ours.run.seed is not None]

    def scores(self, side: int, metric: str) -> dict[str, Float[np.ndarray, "seeds neurons"]]:
        """Stack a metric of one side (0 arm, 1 reference) over seeds, by session."""
        runs = [pair[side] for pair in self.pairs]
        return {name: np.stack([run.sessions[name].values[metric] for run in runs]) for name in runs[0].sessions}


def contrast_arms(
    evidence: Evidence, arms: Sequence[ArmFindings], tier: str, cautions: Sequence[str]
) -> list[Contrast]:
    """Compare every arm with the reference on one tier; p values are adjusted over all of them (Holm)."""
    reference = next((arm for arm in arms if arm.reference), None)
    if reference is None or not any(evidence.scored[tier].values()):
        return []
    paired = {arm.name: pair_runs(evidence, arm.name, tier) for arm in arms if not arm.reference}
    found = {name: compare_pairs(evidence, pair, tier) for name, pair in paired.items()}
    blocked = {name: _blocked(evidence, name, cautions) for name in paired}
    corrected = holm_correct({name: _barred(comparison, blocked[name]) for name, (comparison, *_) in found.items()})
    by_name = {arm.name: arm for arm in arms}
    contrasts = []
    for name, pair in paired.items():
        about = _label(by_name[name], reference), blocked[name]
        contrasts.append(_contrast(evidence, pair, tier, corrected[name], *found[name][1:], *about))
    return contrasts


def pair_runs(evidence: Evidence, arm: str, tier: str) -> Paired:
    """Match runs by seed and see to it that both were scored on the same neurons."""
    scored = evidence.scored[tier]
    ours, theirs = ({run.run.seed: run for run in scored[name]} for name in (arm, evidence.asked.reference))
    lacking = [name for name, runs in ((arm, ours), (evidence.asked.reference, theirs)) if not runs]
    if lacking:
        return Paired(arm, [], f"{' and '.join(repr(name) for name in lacking)} has no {TIER_WORDS[tier]} scores")
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    if not pairs:
        return Paired(arm, [], "the two arms share no seed; retrain both with the same seeds")
    shapes = [[run.neurons for run in pair] for pair in pairs]
    if any(shape != shapes[0][0] for pair in shapes for shape in pair):
        return Paired(arm, [], "runs were scored on different sessions or neurons; score all of them again")
    if any(evidence.asked.score.metric not in s.values for run in pairs[0] for s in run.sessions.values()):
        return Paired(arm, [], f"score '{evidence.asked.score.metric}' is not installed here; install its package")
    return Paired(arm, pairs)


def compare_pairs(
    evidence: Evidence, paired: Paired, tier: str, over: Unit | None = None
) -> tuple[Comparison, list[str], Float[np.ndarray, "seeds units"]]:
    """Test the paired differences over animals, or over held-out stimuli where there is one animal (or as told).

    Returns the comparison, the names of the units, and the differences that it rests on.
    """
    score, empty = evidence.asked.score, np.empty((0, 0))
    sessions = list(paired.pairs[0][0].sessions if paired.pairs else evidence.neurons.animals)
    animals = {name: evidence.neurons.animals.get(name, "") for name in sessions}
    unit: Unit = over or ("animal" if len(set(animals.values())) > 1 else "stimulus")
    obstacle = paired.obstacle
    if not obstacle and len(sessions) > 1 and not all(animals.values()):
        obstacle = "which session belongs to which animal was not recorded; write neurons.parquet beside the sweep"
    if obstacle:
        return _not_testable(unit, empty, score.smallest_effect, score.alpha, obstacle), [], empty
    sign = -1.0 if score.metric in LOWER_IS_BETTER else 1.0
    try:
        units, differences = _DIFFERENCES[unit](paired, score.metric, tier, animals)
        return compare(sign * differences, score.smallest_effect, score.alpha, unit), units, sign * differences
    except ValueError as fault:  # shown in place of the verdict
        return _not_testable(unit, empty, score.smallest_effect, score.alpha, str(fault)), [], empty


def _per_animal(
    paired: Paired, metric: str, tier: str, animals: Mapping[str, str]
) -> tuple[list[str], Float[np.ndarray, "seeds units"]]:
    differences = difference_per_animal(paired.scores(0, metric), paired.scores(1, metric), animals)
    return sorted(set(animals.values())), differences


def _per_stimulus(
    paired: Paired, metric: str, tier: str, animals: Mapping[str, str]
) -> tuple[list[str], Float[np.ndarray, "seeds units"]]:
    """Split over held-out stimuli; sessions of one animal with equally many stimuli count as shown the same ones.

    Then they are averaged, weighted by neurons, so that a stimulus is not counted as several.
    """
    parts, weights = [], []
    for session, scored in paired.pairs[0][0].sessions.items():
        sides = [[pair[side].stimuli(tier, session) for pair in paired.pairs] for side in (0, 1)]
        parts.append(difference_per_stimulus(sides[0], sides[1], metric))
        weights.append(float(scored.snr.size))
    alike = len({part.shape for part in parts}) == 1
    joined = np.average(parts, axis=0, weights=weights) if alike else np.concatenate(parts, axis=1)
    return [f"stimulus {k + 1}" for k in range(joined.shape[1])], joined


_DIFFERENCES = {"animal": _per_animal, "stimulus": _per_stimulus}


def _not_testable(
    unit: Unit, differences: Float[np.ndarray, "seeds units"], smallest_effect: float, alpha: float, obstacle: str
) -> Comparison:
    nothing = (np.nan, np.nan, np.nan, np.nan, np.nan)
    seeds, units = differences.shape
    return Comparison(unit, seeds, units, *nothing, smallest_effect, alpha, obstacle.rstrip("."))


def _contrast(
    evidence: Evidence,
    paired: Paired,
    tier: str,
    comparison: Comparison,
    units: list[str],
    differences: Float[np.ndarray, "seeds units"],
    label: str,
    blocked: list[str],
) -> Contrast:
    metric = evidence.asked.score.metric
    improved, neurons = _improved(paired, metric)
    return Contrast(
        arm=paired.arm,
        reference=evidence.asked.reference,
        tier=tier,
        metric=metric,
        label=label,
        verdict=comparison.verdict,
        sentence=comparison.sentence,
        scope=comparison.scope,
        unit=comparison.unit,
        units=units,
        seeds=paired.seeds,
        difference=_mean(differences),
        interval=_NOTHING if comparison.obstacle else comparison.interval,
        p=comparison.p,
        p_equivalent=comparison.p_equivalent,
        smallest_effect=comparison.smallest_effect,
        alpha=comparison.alpha,
        obstacle=comparison.obstacle,
        differences=differences.tolist(),
        improved=improved,
        neurons=neurons,
        other_metrics=_other_metrics(paired, metric),
        snr=_snr_gain(paired),
        blocked=blocked,
    )


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def neuron_gain(paired: Sequence[Pair], metric: str) -> dict[str, Float[np.ndarray, " neurons"]]:
    """Average the paired difference of a score over seeds, per neuron and session; positive favors the arm.

    NaN where the score is undefined in either arm or in any seed.
    """
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    names = list(paired[0][0].sessions) if paired else []
    rows = {n: [a.sessions[n].values[metric] - r.sessions[n].values[metric] for a, r in paired] for n in names}
    return {name: sign * np.mean(found, axis=0) for name, found in rows.items()}


def _improved(paired: Paired, metric: str) -> tuple[float, int]:
    """Share of neurons whose score, averaged over seeds, is higher, and the number of neurons it is a share of."""
    gain = np.concatenate([*neuron_gain(paired.pairs, metric).values(), np.empty(0)])
    defined = np.isfinite(gain)
    return (float((gain[defined] > 0).mean()) if defined.any() else float("nan")), int(defined.sum())


def _other_metrics(paired: Paired, metric: str) -> dict[str, float]:
    """Mean difference (arm minus reference, over neurons with the score in all runs) of every other score."""
    if not paired.pairs:
        return {}
    known = next(iter(paired.pairs[0][0].sessions.values())).values
    found = {name: _mean_difference(paired, name) for name in model_metrics(known) if name != metric}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _mean_difference(paired: Paired, metric: str) -> float:
    ours, theirs = paired.scores(0, metric), paired.scores(1, metric)
    rows = np.concatenate([ours[name] - theirs[name] for name in ours], axis=1)
    return _mean(rows[:, ~np.isnan(rows).any(axis=0)])


def _snr_gain(paired: Paired) -> SnrGain:
    """Add up error reduction and signal power over sessions for each seed, then divide."""
    if not paired.pairs:
        return SnrGain([], [], [], paired.obstacle)
    try:
        sums = np.stack([_reduction_and_power(pair) for pair in paired.pairs])
    except ValueError as reason:
        return SnrGain([], [], [], str(reason))
    gain = _divide(sums[:, 0].sum(axis=0), sums[:, 1].sum(axis=0))
    seeds = [_divide(row[0], row[1]).tolist() for row in sums]
    return SnrGain(gain.tolist(), seeds, sums[0, 2].tolist())


def _reduction_and_power(pair: Pair) -> Float[np.ndarray, "3 quintiles"]:
    arm, reference = pair
    total = np.zeros((3, QUINTILES))
    for session, ours in arm.sessions.items():
        table = gain_by_snr(ours.totals, reference.sessions[session].totals)
        columns = ("error_reduction", "signal_power", "neurons")
        total += np.stack([table.column(name).to_numpy() for name in columns])
    return total


def _divide(
    reduction: Float[np.ndarray, " quintiles"], power: Float[np.ndarray, " quintiles"]
) -> Float[np.ndarray, " quintiles"]:
    return np.divide(reduction, power, out=np.full(power.shape, np.nan), where=power > 0)


def _label(arm: ArmFindings, reference: ArmFindings) -> str:
    classes = [INFORMATION_CLASS.get(side.information, side.information) for side in (arm, reference)]
    return SAME if (classes[0], arm.causal) == (classes[1], reference.causal) else ACROSS


def _blocked(evidence: Evidence, arm: str, cautions: Sequence[str]) -> list[str]:
    """List what the data's cautions forbid to conclude from an arm that changes the slot in question."""
    told = [(subject, why) for text in cautions for subject, why in forbidden(text).items()]
    changed = [subject for slot, subject in CONCLUSIONS.items() if _component(evidence, arm, slot)]
    return [f"Says nothing about {subject}: {why}." for subject in changed for what, why in told if subject == what]


def _barred(comparison: Comparison, blocked: Sequence[str]) -> Comparison:
    """Keep a comparison from a verdict that the data forbid; it is then none of the contrasts that Holm counts."""
    reasons = [f"{text[0].lower()}{text[1:].rstrip('.')}" for text in blocked]
    known = [comparison.obstacle] if comparison.obstacle else []
    return replace(comparison, obstacle="; ".join([*reasons, *known]))


def _component(evidence: Evidence, arm: str, slot: str) -> bool:
    """Whether an arm's component in a slot is another than the reference's; interactions count if one couples cells."""
    key = f"{slot}.name"
    ours, theirs = (
        {str(run.params.get(key, "none")) for run in evidence.record.runs.values() if run.arm == name}
        for name in (arm, evidence.asked.reference)
    )
    changed = bool(ours) and ours != theirs
    return changed and (slot != "interaction" or any(map(_couples, ours | theirs)))


def _couples(interaction: str) -> bool:
    """Whether an interaction relates neurons to each other; one that is not installed, or does not say, is taken to."""
    known = registry.interactions
    return interaction not in known.names() or getattr(known[interaction].factory, "couples_neurons", True)
