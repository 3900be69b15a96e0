"""All scores of the Neural Latents Benchmark that a target and predicted rates allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from neuroint.metrics.nlb import NlbScore, bits_per_spike, psth_r2, tp_correlation, velocity_r2

Arrays = Mapping[str, np.ndarray | Sequence[np.ndarray]]
BEHAVIOR_OF_INTERVALS = 2  # axes of the behavior where it is one row of five numbers per trial, not a velocity


def evaluate_nlb(target: Arrays, rates: Arrays) -> dict[str, NlbScore]:
    """Score rates per bin by every metric whose arrays are there: co-bps, vel R2 or tp corr, psth R2, fp-bps.

    Args:
        target: the group of a target file: ``eval_spikes_heldout``, behavior, masks, ``psth``, jitter, forward counts.
        rates: the group of a submission: ``eval_rates_heldin``, ``eval_rates_heldout``, ``train_rates_..``.

    Raises:
        ValueError: held-out rates or counts are missing, or shapes differ.
    """
    for name, arrays, what in (("eval_spikes_heldout", target, "target"), ("eval_rates_heldout", rates, "rates")):
        if name not in arrays:
            raise ValueError(f"{what}: no '{name}' among {', '.join(sorted(arrays)) or 'nothing'}; co-bps needs it")
    return {name: score for name, scorer in SCORES.items() if (score := scorer(target, rates)) is not None}


def _both(arrays: Arrays, kind: str) -> np.ndarray:
    return np.concatenate([np.asarray(arrays[kind.format(part)], np.float64) for part in ("heldin", "heldout")], axis=2)


def _array(arrays: Arrays, name: str) -> np.ndarray | None:
    return np.asarray(arrays[name]) if name in arrays else None


def _co(target: Arrays, rates: Arrays) -> NlbScore | None:
    return bits_per_spike(_array(rates, "eval_rates_heldout"), _array(target, "eval_spikes_heldout"))  # pyright: ignore[reportArgumentType]


def _velocity(target: Arrays, rates: Arrays) -> NlbScore | None:
    behavior = _array(target, "eval_behavior")
    if behavior is None or behavior.ndim == BEHAVIOR_OF_INTERVALS or "train_rates_heldin" not in rates:
        return None
    train, new = _both(rates, "train_rates_{}"), _both(rates, "eval_rates_{}")
    masks = (_array(target, "train_decode_mask"), _array(target, "eval_decode_mask"))
    return velocity_r2(train, np.asarray(target["train_behavior"]), new, behavior, *masks)


def _intervals(target: Arrays, rates: Arrays) -> NlbScore | None:
    behavior = _array(target, "eval_behavior")
    if behavior is None or behavior.ndim != BEHAVIOR_OF_INTERVALS:
        return None
    counts = np.asarray(target["eval_spikes_heldout"])
    return tp_correlation(counts, _both(rates, "eval_rates_{}"), behavior)


def _psth(target: Arrays, rates: Arrays) -> NlbScore | None:
    if "psth" not in target:
        return None
    jitter = _array(target, "eval_jitter")
    trials = [np.asarray(found) for found in target["eval_cond_idx"]]
    return psth_r2(np.asarray(target["psth"]), _both(rates, "eval_rates_{}"), trials, jitter)


def _forward(target: Arrays, rates: Arrays) -> NlbScore | None:
    if "eval_spikes_heldin_forward" not in target or "eval_rates_heldin_forward" not in rates:
        return None
    return bits_per_spike(_both(rates, "eval_rates_{}_forward"), _both(target, "eval_spikes_{}_forward"))


SCORES: Mapping[str, Callable[[Arrays, Arrays], NlbScore | None]] = {
    "co-bps": _co,
    "vel R2": _velocity,
    "tp corr": _intervals,
    "psth R2": _psth,
    "fp-bps": _forward,
}
