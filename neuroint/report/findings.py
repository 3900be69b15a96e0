"""What a sweep found, as plain frozen data that JSON can hold; everything shown in a report is taken from here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from neuroint.analysis.inference import Unit

TierScores = Mapping[str, "MetricScores"]


@dataclass(frozen=True)
class Score:
    """Mean of a metric over neurons: its mean over seeds, lowest and highest seed.

    Attributes:
        neurons: those that the mean is over.
        undefined: those left out because the metric is not defined for them.
    """

    mean: float
    low: float
    high: float
    seeds: int
    neurons: int
    undefined: int


@dataclass(frozen=True)
class MetricScores:
    """A metric of one arm on one tier: all neurons pooled, per session, and per SNR fifth (lowest first).

    ``unavailable`` says why the metric or the fifths do not exist; empty where they do.
    """

    all: Score | None
    sessions: dict[str, Score]
    quintiles: list[Score | None]
    unavailable: str = ""


@dataclass(frozen=True)
class Curve:
    """Validation score of one run after every epoch."""

    run: str
    phase: str
    epochs: list[int]
    scores: list[float]


@dataclass(frozen=True)
class Compute:
    """What an arm's runs cost; seconds are wall time of epochs, added over runs."""

    epochs: int
    seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class ArmFindings:
    """One arm: its trials, its cost, its chosen configuration and that configuration's scores.

    Attributes:
        information: what its models may read.
        parameters: number of trained values, where recorded.
        trials: number of tuning trials by status.
        confirm_runs: number of confirm runs by status.
        best_validation: of its tuning trials.
        mean_validation: mean over seeds of the chosen configuration's confirm runs.
        chosen: settings of the chosen configuration that were searched or differ between arms.
        seeds: of the chosen configuration's confirm runs.
        scores: tier -> metric -> scores of the chosen configuration.
        best_so_far: best validation score after each tuning trial, in order of their end.
        missing: what this arm lacks, in sentences.
    """

    name: str
    reference: bool
    information: str
    causal: str
    certificate: str
    parameters: int | None
    trials: dict[str, int]
    confirm_runs: dict[str, int]
    compute: Compute
    best_validation: float | None
    mean_validation: float | None
    chosen: dict[str, Any]
    seeds: list[int]
    scores: dict[str, dict[str, MetricScores]]
    curves: list[Curve]
    best_so_far: list[float]
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SnrGain:
    """Share of the explainable variance that an arm gains, per SNR fifth (lowest first), and per seed.

    SNR comes from one half of the repeats, the gain from the other. ``unavailable`` says why there is none.
    """

    gain: list[float]
    seeds: list[list[float]]
    neurons: list[float]
    unavailable: str = ""


@dataclass(frozen=True)
class Contrast:
    """An arm against the reference arm on one tier; positive differences favor the arm.

    Attributes:
        label: ``same information`` or ``information contrast``.
        verdict: supported, not_supported, equivalent or not_testable.
        sentence: the verdict with its numbers.
        unit: what is crossed with seeds: animal or stimulus.
        differences: seeds x units, mean over neurons.
        improved: share of neurons whose score, averaged over seeds, is higher.
        other_metrics: mean difference of every other score, oriented as the arm's minus the reference's.
        blocked: conclusions that the data's cautions forbid; the verdict is then not_testable.
    """

    arm: str
    reference: str
    tier: str
    metric: str
    label: str
    verdict: str
    sentence: str
    scope: str
    unit: Unit
    units: list[str]
    seeds: list[int]
    difference: float
    interval: tuple[float, float]
    p: float
    p_equivalent: float
    smallest_effect: float
    alpha: float
    obstacle: str
    differences: list[list[float]]
    improved: float
    neurons: int
    other_metrics: dict[str, float]
    snr: SnrGain
    blocked: list[str]


@dataclass(frozen=True)
class AreaFindings:
    """One arm on the neurons of one brain area, beside its difference from the reference on the same neurons.

    Attributes:
        neurons: that the score is defined for.
        unit: of score, difference and interval.
        score: None where it is defined for no neuron.
        difference: from the reference, positive where the arm is better; NaN where it was not tested, as the reference
            itself is not.
        p: for no difference, adjusted over arms and areas; 1 where it was not tested.
    """

    arm: str
    area: str
    tier: str
    neurons: int
    unit: str
    score: Score | None
    difference: float
    interval: tuple[float, float]
    p: float
    tested: bool


@dataclass(frozen=True)
class Failure:
    """A run that crashed or diverged, with the last line of its message and all of it."""

    run: str
    arm: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class TestLook:
    """One read of a test tier."""

    run: str
    tier: str
    reason: str
    time: str


@dataclass(frozen=True)
class Findings:
    """Everything that a finished or interrupted sweep says.

    Attributes:
        metric: what selected configurations and what contrasts are made of.
        areas: arms by brain area, empty where neurons of fewer than two are known.
        neurons: session -> number of neurons scored.
        animals: session -> animal, where recorded.
        missing: what the sweep lacks, in sentences.
        limits: what the answer does not cover, in sentences.
    """

    name: str
    question: str
    status: str
    status_message: str
    started: str
    metric: str
    smallest_effect: float
    alpha: float
    reference: str
    arms: list[ArmFindings]
    contrasts: list[Contrast]
    areas: list[AreaFindings]
    neurons: dict[str, int]
    animals: dict[str, str]
    cautions: list[str]
    failures: list[Failure]
    test_looks: list[TestLook]
    provenance: dict[str, str]
    missing: list[str]
    limits: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain data; what is not a number becomes None, since JSON has no NaN."""
        return _finite(asdict(self))

    def of_tier(self, tier: str) -> list[Contrast]:
        """Contrasts made on one tier."""
        return [contrast for contrast in self.contrasts if contrast.tier == tier]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
