"""Decide whether one arm predicts better than another; neurons are never the unit.

Differences are paired by seed and by animal (or by held-out stimulus within one recording). Both are random, so the
test is min-F' (Clark 1973), which keeps its false-positive rate whichever of the two varies more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes a second to import

from neuroint.metrics.moments import Moments
from neuroint.metrics.scoring import pseudovalues

Unit = Literal["animal", "stimulus"]
Verdict = Literal["supported", "not_supported", "equivalent", "not_testable"]
SCOPES: dict[Unit, str] = {"animal": "animals like these", "stimulus": "this recording"}


@dataclass(frozen=True)
class Comparison:
    """What a paired comparison of an arm with its reference found; positive differences favor the arm.

    Attributes:
        unit: what is crossed with seeds: animals, or held-out stimuli of one recording.
        n_seeds: independent retrainings.
        n_units: animals or stimuli.
        difference: mean difference, in the units of the score.
        error: its standard error over seeds and units together.
        df: denominator degrees of freedom of min-F'.
        p: two-sided, for no difference; after ``holm_correct``, adjusted.
        p_equivalent: for a difference at least as large as ``smallest_effect`` (two one-sided tests).
        smallest_effect: the smallest difference that would matter, declared beforehand.
        alpha: error rate.
        obstacle: why it cannot be tested; empty where it can.
        family: testable contrasts that the p values are adjusted for.
    """

    unit: Unit
    n_seeds: int
    n_units: int
    difference: float
    error: float
    df: float
    p: float
    p_equivalent: float
    smallest_effect: float
    alpha: float
    obstacle: str = ""
    family: int = 1

    @property
    def scope(self) -> str:
        """What the verdict is about."""
        return SCOPES[self.unit]

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided interval of the difference at 1 - alpha, not adjusted for other contrasts."""
        half = -self.error * float(stdtrit(self.df, self.alpha / 2))
        return self.difference - half, self.difference + half

    @property
    def verdict(self) -> Verdict:
        """Equivalent beats supported: a difference surely smaller than what was declared to matter does not matter."""
        if self.obstacle:
            return "not_testable"
        if self.p_equivalent < self.alpha:
            return "equivalent"
        return "supported" if self.p < self.alpha and self.difference > 0 else "not_supported"

    @property
    def sentence(self) -> str:
        """The verdict with the numbers behind it, as a paper could print it."""
        if self.obstacle:
            return f"Not testable for {self.scope}: {self.obstacle}."
        low, high = self.interval
        min_f = (self.difference / self.error) ** 2
        family = f" (Holm over {self.family} contrasts)" if self.family > 1 else ""
        return (
            f"{_READING[self.verdict]} for {self.scope}: difference {_signed(self.difference)} "
            f"({1 - self.alpha:.0%} interval {_signed(low)} to {_signed(high)}), "
            f"min-F'(1, {self.df:.1f}) = {min_f:.2f}, p = {self.p:.3g}, "
            f"equivalence within {self.smallest_effect:g} p = {self.p_equivalent:.3g}{family}; "
            f"{self.n_seeds} seeds x {self.n_units} {_PLURAL[self.unit]}."
        )


_UNKNOWN = (np.nan, np.nan, np.nan, np.nan, np.nan)
_READING: dict[Verdict, str] = {
    "supported": "Supported",
    "not_supported": "Not supported",
    "equivalent": "Equivalent",
    "not_testable": "Not testable",
}
_PLURAL: dict[Unit, str] = {"animal": "animals", "stimulus": "stimuli"}


def _signed(value: float) -> str:
    """Write a number with a true minus sign."""
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def compare(
    difference: Float[np.ndarray, "seeds units"], smallest_effect: float, alpha: float = 0.05, unit: Unit = "animal"
) -> Comparison:
    """Test paired differences, seeds crossed with animals or with held-out stimuli, by min-F'.

    t = D / sqrt(V_s + V_u) with V_s the squared standard error of the seed means and V_u of the unit means;
    t^2 = min-F' = F_s F_u / (F_s + F_u), df = (V_s + V_u)^2 / (V_s^2 / (seeds - 1) + V_u^2 / (units - 1)), the same
    numbers written so that they hold at D = 0. The test is conservative: what seeds and units share is counted in both.

    ``unit="animal"`` speaks about animals like these, ``unit="stimulus"`` about this recording only. One seed, one
    animal, one stimulus, a missing difference or differences that do not vary at all are not testable; the result says
    which. Null: arms that differ by chance in training and in the animals (or stimuli) drawn.

    Source: Clark 1973; two one-sided tests: Schuirmann 1987.

    Raises:
        ValueError: the smallest effect is not positive, or alpha is not between 0 and .5.
    """
    if not (smallest_effect > 0 and 0 < alpha < 0.5):
        raise ValueError(
            f"got smallest effect {smallest_effect} and alpha {alpha}; declare an effect above 0 that would matter, in "
            "the units of the score, and an alpha between 0 and .5"
        )
    seeds, units = difference.shape
    obstacle = _obstacle(difference, unit)
    numbers = _UNKNOWN if obstacle else _min_f(difference.astype(np.float64), smallest_effect)
    return Comparison(unit, seeds, units, *numbers, smallest_effect, alpha, obstacle)


def _min_f(
    difference: Float[np.ndarray, "seeds units"], smallest_effect: float
) -> tuple[float, float, float, float, float]:
    """Mean difference, its error, degrees of freedom, p and p of equivalence."""
    seeds, units = difference.shape
    v_seeds = float(difference.mean(axis=1).var(ddof=1)) / seeds
    v_units = float(difference.mean(axis=0).var(ddof=1)) / units
    share = v_seeds / (v_seeds + v_units)  # shares, so that tiny variances do not underflow when squared
    df = 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / (units - 1))
    mean, error = float(difference.mean()), float(np.sqrt(v_seeds + v_units))
    p = 2 * float(stdtr(df, -abs(mean) / error))
    p_equivalent = float(stdtr(df, (abs(mean) - smallest_effect) / error))
    return mean, error, df, p, p_equivalent


def _obstacle(difference: Float[np.ndarray, "seeds units"], unit: Unit) -> str:
    """Say what forbids a test, or nothing."""
    seeds, units = difference.shape
    missing = np.count_nonzero(~np.isfinite(difference))
    complete = seeds > 1 and units > 1 and missing == 0
    flat = complete and _is_flat(difference.mean(axis=0)) and _is_flat(difference.mean(axis=1))
    checks = {
        f"{seeds} seed cannot tell a design from luck in training; retrain both arms with more seeds": seeds < 2,
        f"{units} animal; compare held-out stimuli within this recording instead": unit == "animal" and units < 2,
        f"{units} stimulus; score at least two": unit == "stimulus" and units < 2,
        f"{missing} of {difference.size} differences are missing; drop that seed or take another score": missing > 0,
        "all differences are equal, so seeds and data made no difference; check that seeds reach training": flat,
    }
    return next((text for text, applies in checks.items() if applies), "")


def _is_flat(means: Float[np.ndarray, " groups"]) -> bool:
    """Whether means agree up to rounding."""
    return bool(np.ptp(means) <= 1e-12 * np.abs(means).max())


def holm(p: Float[np.ndarray, " contrasts"]) -> Float[np.ndarray, " contrasts"]:
    """Adjust p values of declared contrasts so that the chance of any false claim stays below alpha (Holm 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty(p.shape)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def holm_correct(contrasts: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Adjust the p values of all testable contrasts, those of difference and of equivalence each as one family."""
    testable = [name for name, contrast in contrasts.items() if not contrast.obstacle]
    p = holm(np.array([contrasts[name].p for name in testable], dtype=np.float64))
    p_equivalent = holm(np.array([contrasts[name].p_equivalent for name in testable], dtype=np.float64))
    adjusted = {
        name: replace(contrasts[name], p=float(p[k]), p_equivalent=float(p_equivalent[k]), family=len(testable))
        for k, name in enumerate(testable)
    }
    return {name: adjusted.get(name, contrast) for name, contrast in contrasts.items()}


def difference_per_animal(
    arm: Mapping[str, Float[np.ndarray, "_ _"]],
    reference: Mapping[str, Float[np.ndarray, "_ _"]],
    animals: Mapping[str, str],
) -> Float[np.ndarray, "seeds animals"]:
    """Average the paired difference over the neurons of each animal, all its sessions together, animals sorted by name.

    Row k of both arms must come from the same seed. A neuron whose score is undefined in either arm or in any seed is
    left out in all of them; an animal without any neuron left is NaN.

    Args:
        arm: session -> scores, ``seeds neurons``.
        reference: session -> scores, ``seeds neurons``.
        animals: session -> animal.

    Raises:
        ValueError: sessions, seeds or neurons of the two arms do not match.
    """
    shapes = [{session: scores.shape for session, scores in side.items()} for side in (arm, reference)]
    if (
        shapes[0] != shapes[1]
        or not arm
        or not arm.keys() <= animals.keys()
        or len({s[0] for s in shapes[0].values()}) > 1
    ):
        raise ValueError(
            f"arm has (seeds, neurons) {shapes[0]}, reference {shapes[1]}, animals are known for {sorted(animals)}; "
            "score both arms on the same sessions with the same seeds"
        )
    names = sorted({animals[session] for session in arm})
    columns = []
    for name in names:
        sessions = [session for session in arm if animals[session] == name]
        columns.append(_mean_of_defined(np.concatenate([arm[s] - reference[s] for s in sessions], axis=1)))
    return np.stack(columns, axis=1)


def difference_per_stimulus(
    arm: Sequence[Moments], reference: Sequence[Moments], metric: str
) -> Float[np.ndarray, "seeds stimuli"]:
    """Split the paired difference of a score over the held-out stimuli of one recording, one pair of moments per seed.

    Jackknife pseudovalues per stimulus, averaged over the neurons that have the score in every seed.

    Raises:
        ValueError: the two arms do not have the same number of seeds, or there is one stimulus only.
    """
    if len(arm) != len(reference) or not arm:
        raise ValueError(f"got {len(arm)} seeds of the arm and {len(reference)} of the reference; pair them by seed")
    pairs = zip(arm, reference, strict=True)
    gains = np.stack([pseudovalues(ours, metric) - pseudovalues(theirs, metric) for ours, theirs in pairs])
    seeds, stimuli, neurons = gains.shape
    return _mean_of_defined(gains.reshape(seeds * stimuli, neurons)).reshape(seeds, stimuli)


def _mean_of_defined(gains: Float[np.ndarray, "rows neurons"]) -> Float[np.ndarray, " rows"]:
    """Average over the neurons that are defined in every row; NaN where there is none."""
    defined = gains[:, ~np.isnan(gains).any(axis=0)]
    return defined.mean(axis=1) if defined.shape[1] else np.full(gains.shape[0], np.nan)
