"""Scores of the Neural Latents Benchmark, as its own tool defines them, and what of them cannot be given.

Rates are in spikes per **bin**, never in Hz; arrays are ``trials time neurons``; a count that is NaN is not scored.
Nothing that is handed in is changed (the benchmark's tool writes into the rates). A score that the data cannot support
is NaN with its reason, so that few neurons, few trials or silent ones never stop an evaluation.

Source: Pei et al. (2021), Neural Latents Benchmark '21, NeurIPS Datasets and Benchmarks; few-shot co-smoothing:
Dabholkar and Barak (2024), arXiv:2405.14425.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.special import gammaln

from neuroint.seeding import generator

LEAST_RATE = 1e-9  # spikes per bin that a rate of exactly 0 counts as, as in the benchmark
EXTRAPOLATED = 10.0  # times the largest count: the highest rate that a regression on few trials may read
RIDGE_ALPHAS = np.logspace(-4, 0, 9)
FOLDS = 5  # of the search over ridge penalties
FEWEST_FOR_CORRELATION = 2


@dataclass(frozen=True)
class NlbScore:
    """A pooled score; where it is NaN, ``unscored`` says why, and otherwise what of the data had no part in it."""

    value: float
    unscored: str = ""


def bits_per_spike(rates: Float[np.ndarray, "*rated neurons"], counts: Num[np.ndarray, "*counted neurons"]) -> NlbScore:
    r"""Pooled bits per spike over the mean count of each neuron **of the evaluated data**; co-bps of held-out neurons.

    .. math:: \frac{NLL(\bar n) - NLL(r)}{\sum n \ln 2}, \quad NLL(r) = \sum r - n \ln r + \ln n!

    Sums run over trials, bins and neurons, so neurons with high rates dominate; :func:`bits_per_spike_per_neuron` does
    not pool. On bins after the window it is fp-bps. Its null is the mean count, 0 bits. NaN without a spike.

    Raises:
        ValueError: shapes differ, or a rate of a scored bin is negative, infinite or NaN.
    """
    gain, spikes, scored = _gains(rates, counts)
    if not scored.any():
        return NlbScore(float("nan"), "every count is NaN: nothing is scored")
    if not spikes.sum():
        return NlbScore(float("nan"), f"not one spike in {int(scored.sum())} scored bins: bits per spike has no spike")
    left_out = int((scored == 0).sum())
    note = f"{left_out} of {len(scored)} neurons have no scored bin" if left_out else ""
    return NlbScore(float(gain.sum() / spikes.sum() / np.log(2)), note)


def bits_per_spike_per_neuron(
    rates: Float[np.ndarray, "*rated neurons"], counts: Num[np.ndarray, "*counted neurons"]
) -> Float[np.ndarray, " neurons"]:
    """Bits per spike of every neuron by itself; NaN for a neuron without a spike. Weighted by spikes they pool.

    Raises:
        ValueError: shapes differ, or a rate of a scored bin is negative, infinite or NaN.
    """
    gain, spikes, _ = _gains(rates, counts)
    return np.divide(gain, spikes * np.log(2), out=np.full(len(spikes), np.nan), where=spikes > 0)


def _gains(rates: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per neuron: nats gained over its mean count, spikes, and scored bins."""
    if rates.shape != counts.shape:
        raise ValueError(f"rates are {rates.shape} and counts {counts.shape}; give a rate per bin for each count")
    r, n = (x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1]).astype(np.float64) for x in (rates, counts))
    known = ~np.isnan(n)
    if not np.isfinite(r[known]).all() or (r[known] < 0).any():
        raise ValueError(
            f"{int((~np.isfinite(r[known])).sum())} scored rates are NaN or infinite and {int((r[known] < 0).sum())} "
            "negative; give finite rates in spikes per bin, not logarithms of rates"
        )
    scored, spikes = known.sum(axis=0), np.where(known, n, 0).sum(axis=0)
    mean = np.divide(spikes, scored, out=np.zeros(len(spikes)), where=scored > 0)
    null = np.broadcast_to(mean, n.shape)
    return _nll(null, n, known) - _nll(r, n, known), spikes, scored


def _nll(rates: np.ndarray, counts: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Nats per neuron."""
    r, n = np.where(known & (rates > 0), rates, LEAST_RATE), np.where(known, counts, 0)
    return np.where(known, r - n * np.log(r) + gammaln(n + 1), 0).sum(axis=0)


def velocity_r2(
    train_rates: Float[np.ndarray, "train time neurons"],
    train_velocity: Float[np.ndarray, "train time axes"],
    eval_rates: Float[np.ndarray, "eval time neurons"],
    eval_velocity: Float[np.ndarray, "eval time axes"],
    train_masks: Bool[np.ndarray, "train masks"] | None = None,
    eval_masks: Bool[np.ndarray, "eval masks"] | None = None,
) -> NlbScore:
    """Variance of the (already lagged) velocity explained by ridge regression on rates at the same bin, on new trials.

    The penalty is chosen among nine by five folds of the training bins in their order; bins whose velocity is NaN are
    left out; R2 is the mean over axes, and over decode masks, each of which has a regression of its own. A mask that
    holds too little for the folds is left out, and said. Its null is the mean velocity, 0.
    """
    train_masks = np.ones((len(train_rates), 1), np.bool_) if train_masks is None else train_masks
    eval_masks = np.ones((len(eval_rates), 1), np.bool_) if eval_masks is None else eval_masks
    found, left_out = [], []
    for mask in range(train_masks.shape[1]):
        train = _known_rows(train_rates, train_velocity, train_masks[:, mask])
        scored = _known_rows(eval_rates, eval_velocity, eval_masks[:, mask])
        if len(train[0]) < 2 * FOLDS or len(scored[0]) < FEWEST_FOR_CORRELATION:
            left_out.append(f"mask {mask} has {len(train[0])} training and {len(scored[0])} evaluated bins of velocity")
        else:
            found.append(_ridge(*train, *scored))
    return NlbScore(float(np.mean(found)) if found else float("nan"), "; ".join(left_out))


def _known_rows(rates: np.ndarray, velocity: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (array[trials].reshape(-1, array.shape[-1]).astype(np.float64) for array in (rates, velocity))
    known = ~np.isnan(y).any(axis=1)
    return x[known], y[known]


def _ridge(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray) -> float:
    from sklearn.linear_model import Ridge  # a second to import
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(Ridge(), {"alpha": RIDGE_ALPHAS}, cv=FOLDS).fit(x, y)
    return float(np.asarray(search.score(x_new, y_new)))


def psth_r2(
    psth: Float[np.ndarray, "conditions time neurons"],
    eval_rates: Float[np.ndarray, "eval time neurons"],
    trials_of_condition: Sequence[Int[np.ndarray, " _"]],
    jitter_bins: Int[np.ndarray, " eval"] | None = None,
) -> NlbScore:
    """Variance of the true condition averages explained by the average rate of each condition's evaluated trials.

    A trial's jitter is undone first, which leaves NaN at its edge. Conditions are stacked in time, R2 is the mean over
    neurons; bins where the first neuron's PSTH is NaN are left out. Conditions without an evaluated trial have no part
    in it, and are counted. Its null is each neuron's mean PSTH, 0.

    Raises:
        ValueError: numbers of conditions differ, or a rate of a scored bin is NaN.
    """
    if len(trials_of_condition) != len(psth):
        raise ValueError(f"{len(psth)} conditions have a PSTH and {len(trials_of_condition)} trials; give both")
    jitter = np.zeros(len(eval_rates), np.int64) if jitter_bins is None else jitter_bins
    true, predicted, empty = [], [], 0
    for condition, trials in zip(psth, trials_of_condition, strict=True):
        if not len(trials):
            empty += 1
            continue
        known = ~np.isnan(condition[:, 0])
        average = np.mean([_unjittered(eval_rates[trial], int(jitter[trial])) for trial in trials], axis=0)
        true.append(condition[known].astype(np.float64))
        predicted.append(average[known])
    note = f"{empty} of {len(psth)} conditions have no evaluated trial" if empty else ""
    if not true or len(np.concatenate(true)) < FEWEST_FOR_CORRELATION:
        return NlbScore(float("nan"), note or "fewer than 2 bins of the PSTH are known")
    return NlbScore(_mean_r2(np.concatenate(true), np.concatenate(predicted)), note)


def _unjittered(rates: np.ndarray, bins: int) -> np.ndarray:
    bins = max(-len(rates), min(bins, len(rates)))  # a shift by more than the trial leaves nothing of it
    shifted = np.full(rates.shape, np.nan)
    first, last = max(bins, 0), len(rates) + min(bins, 0)
    shifted[first:last] = rates[max(-bins, 0) : len(rates) - max(bins, 0)]
    return shifted


def _mean_r2(true: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import r2_score

    if np.isnan(predicted).any():
        raise ValueError(
            "average rates are NaN in bins whose PSTH is known: jitter moved the edge of a trial there; mark these "
            "bins NaN in the PSTH"
        )
    return float(np.asarray(r2_score(true, predicted)))


def tp_correlation(
    heldout_counts: Float[np.ndarray, "eval time heldout"],
    eval_rates: Float[np.ndarray, "eval time neurons"],
    eval_behavior: Float[np.ndarray, "eval 5"],
) -> NlbScore:
    """Correlation of neural speed between set and go with the produced time; negative is good.

    Speed is the mean length of the change of all rates from bin to bin, over the bins whose held-out counts are known
    (the others stand for other periods). Behavior is (eye or hand, direction, short or long prior, sample time,
    produced time); the correlation is taken within each condition of the first three, and averaged. Conditions of
    fewer than two trials, and of constant speeds or times, are left out, and counted. Its null is 0.
    """
    known = np.asarray(~np.isnan(heldout_counts[..., :1]).any(axis=2))
    speeds = np.array([_speed(rate[bins]) for rate, bins in zip(eval_rates, known, strict=True)])
    usable = ~np.isnan(eval_behavior).any(axis=1) & ~np.isnan(speeds)
    conditions = np.unique(eval_behavior[usable, :3], axis=0)
    found = []
    for condition in conditions:
        trials = usable & (eval_behavior[:, :3] == condition).all(axis=1)
        found.append(_correlation(speeds[trials], eval_behavior[trials, 4].astype(np.float64)))
    kept = [r for r in found if not np.isnan(r)]
    note = f"{len(found) - len(kept)} of {len(found)} conditions cannot be correlated" if len(kept) < len(found) else ""
    if not kept:
        return NlbScore(float("nan"), note or "no trial has both a produced time and bins between set and go")
    return NlbScore(float(np.mean(kept)), note)


def _speed(rates: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(rates, axis=0), axis=1).mean()) if len(rates) > 1 else float("nan")


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < FEWEST_FOR_CORRELATION or not np.ptp(x) or not np.ptp(y):
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def few_shot_bits(
    train_latents: Float[np.ndarray, "train time latents"],
    train_counts: Num[np.ndarray, "train time heldout"],
    eval_latents: Float[np.ndarray, "eval time latents"],
    eval_counts: Num[np.ndarray, "eval time heldout"],
    *,
    shots: int,
    draws: int = 10,
    penalty: float = 1e-3,
    seed: int = 0,
) -> NlbScore:
    """Co-bps of held-out neurons that were never trained on, read from latents by Poisson regression on few trials.

    Extraneous dynamics in the latents do not harm co-bps, but do harm this. ``draws`` sets of ``shots`` trials are
    drawn; the score is the mean over them of pooled bits per spike. Its null is the mean count, 0; compare it at the
    same ``shots``. A neuron silent in the drawn trials is predicted at ``LEAST_RATE``. Latents far from
    the drawn ones are read as at most ``EXTRAPOLATED`` times the largest count: exponentials of them have no bound.

    Raises:
        ValueError: more shots than trials.
    """
    if not 0 < shots <= len(train_latents):
        raise ValueError(f"shots is {shots} and there are {len(train_latents)} training trials; give 1 to that many")
    found = []
    for draw in range(draws):
        trials = generator(seed, "few_shot", shots, draw).choice(len(train_latents), shots, replace=False)
        x, n = (array[trials].reshape(-1, array.shape[-1]) for array in (train_latents, train_counts))
        new = eval_latents.reshape(-1, eval_latents.shape[-1])
        rates = np.stack([_regressed(x, column, new, penalty) for column in n.T], axis=-1)
        rates = np.minimum(rates, EXTRAPOLATED * np.nanmax(n, initial=1))
        found.append(bits_per_spike(rates.reshape(eval_counts.shape), eval_counts))
    known = [score.value for score in found if not np.isnan(score.value)]
    return NlbScore(float(np.mean(known)) if known else float("nan"), found[0].unscored)


def _regressed(x: np.ndarray, counts: np.ndarray, new: np.ndarray, penalty: float) -> np.ndarray:
    from sklearn.linear_model import PoissonRegressor

    known = ~np.isnan(counts)
    if not counts[known].sum():
        return np.full(len(new), LEAST_RATE)
    center, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    fit = PoissonRegressor(alpha=penalty, max_iter=1000).fit((x[known] - center) / scale, counts[known])
    with np.errstate(over="ignore"):  # held below a bound where it is scored
        return fit.predict((new - center) / scale)
