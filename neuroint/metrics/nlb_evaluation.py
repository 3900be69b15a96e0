"""All scores of the Neural Latents Benchmark that a target and predicted rates allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from neuroint.metrics.nlb import NlbScore, bits_per_spike, psth_r2, tp_correlation, velocity_r2

Arrays = Mapping[str, np.ndarray | Sequence[np.ndarray]]
PARTS = ("heldin", "heldout")
EVALUATED = ("eval_rates_heldin", "eval_rates_heldout")
FEWEST_BINS_PER_S = 50  # of the benchmark's two bin widths, 5 and 20 ms
BEHAVIOR_OF_INTERVALS = 2  # axes of the behavior where it is one row of five numbers per trial, not a velocity


def evaluate_nlb(target: Arrays, rates: Arrays) -> dict[str, NlbScore]:
    """Score rates per bin by every metric whose arrays are there: co-bps, vel R2 or tp corr, psth R2, fp-bps.

    Args:
        target: the group of a target file: ``eval_spikes_heldout``, behavior, masks, ``psth``, jitter, forward counts.
        rates: the group of a submission: ``eval_rates_heldin``, ``eval_rates_heldout``, ``train_rates_..``.

    Raises:
        ValueError: held-out rates or counts are missing, shapes differ, or rates are of the size of spikes per second.
    """
    for name, arrays, what in (("eval_spikes_heldout", target, "target"), ("eval_rates_heldout", rates, "rates")):
        if name not in arrays:
            raise ValueError(f"{what}: no '{name}' among {', '.join(sorted(arrays)) or 'nothing'}; co-bps needs it")
    _refuse_hz(np.asarray(rates["eval_rates_heldout"]), np.asarray(target["eval_spikes_heldout"]))
    return {name: score for name, scorer in SCORES.items() if (score := scorer(target, rates)) is not None}


def _refuse_hz(rates: np.ndarray, counts: np.ndarray) -> None:
    if rates.shape != counts.shape or not (known := ~np.isnan(counts)).any():
        return
    mean, count = float(rates[known].mean()), float(counts[known].mean())
    if mean > count * FEWEST_BINS_PER_S**0.5 > 0:
        raise ValueError(
            f"rates are {mean:.3g} on average where {count:.3g} spikes per bin were counted: they look like Hz; give "
            "spikes per bin, rates in Hz times the bin width in seconds"
        )


def _lacks(arrays: Arrays, *names: str) -> bool:
    return any(name not in arrays for name in names)


def _both(arrays: Arrays, kind: str) -> np.ndarray:
    return np.concatenate([np.asarray(arrays[kind.format(part)], np.float64) for part in PARTS], axis=2)


def _array(arrays: Arrays, name: str) -> np.ndarray | None:
    return np.asarray(arrays[name]) if name in arrays else None


def _co(target: Arrays, rates: Arrays) -> NlbScore | None:
    return bits_per_spike(_array(rates, "eval_rates_heldout"), _array(target, "eval_spikes_heldout"))  # pyright: ignore[reportArgumentType]


def _velocity(target: Arrays, rates: Arrays) -> NlbScore | None:
    behavior = _array(target, "eval_behavior")
    if behavior is None or behavior.ndim == BEHAVIOR_OF_INTERVALS or "train_behavior" not in target:
        return None
    if _lacks(rates, "train_rates_heldin", "train_rates_heldout", *EVALUATED):
        return None
    train, new = _both(rates, "train_rates_{}"), _both(rates, "eval_rates_{}")
    masks = (_array(target, "train_decode_mask"), _array(target, "eval_decode_mask"))
    return velocity_r2(train, np.asarray(target["train_behavior"]), new, behavior, *masks)


def _intervals(target: Arrays, rates: Arrays) -> NlbScore | None:
    behavior = _array(target, "eval_behavior")
    if behavior is None or behavior.ndim != BEHAVIOR_OF_INTERVALS or _lacks(rates, *EVALUATED):
        return None
    counts = np.asarray(target["eval_spikes_heldout"])
    return tp_correlation(counts, _both(rates, "eval_rates_{}"), behavior)


def _psth(target: Arrays, rates: Arrays) -> NlbScore | None:
    if _lacks(target, "psth", "eval_cond_idx") or _lacks(rates, *EVALUATED):
        return None
    jitter = _array(target, "eval_jitter")
    trials = [np.asarray(found) for found in target["eval_cond_idx"]]
    return psth_r2(np.asarray(target["psth"]), _both(rates, "eval_rates_{}"), trials, jitter)


def _forward(target: Arrays, rates: Arrays) -> NlbScore | None:
    counts, predicted = (tuple(f"eval_{kind}_{part}_forward" for part in PARTS) for kind in ("spikes", "rates"))
    if _lacks(target, *counts) or _lacks(rates, *predicted):
        return None
    return bits_per_spike(_both(rates, "eval_rates_{}_forward"), _both(target, "eval_spikes_{}_forward"))


SCORES: Mapping[str, Callable[[Arrays, Arrays], NlbScore | None]] = {
    "co-bps": _co,
    "vel R2": _velocity,
    "tp corr": _intervals,
    "psth R2": _psth,
    "fp-bps": _forward,
}
