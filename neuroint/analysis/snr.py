"""Split neurons by signal-to-noise ratio without letting the split itself make an effect.

A gain that is the same share of the explainable variance in all neurons looks larger in reliable ones when it is
measured as a difference of correlations, and is lost in noise when FEVE is averaged per neuron. ``gain_by_snr`` does
neither.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from neuroint.metrics.arithmetic import ratio, signal
from neuroint.metrics.moments import Half, Moments
from neuroint.metrics.snr import snr

QUINTILES = 5
_SWAPS: tuple[tuple[Half, Half], ...] = ((0, 1), (1, 0))


def snr_quintiles(snr: Float[np.ndarray, " neurons"]) -> Int[np.ndarray, " neurons"]:
    """Number the neurons of one session 1 (lowest SNR) to 5 by fifths of the SNR; 0 where it is not defined.

    Negative estimates take part: they belong to the noisiest neurons. Equal values share a number, so fifths may then
    differ in size. Form them within a session: what SNR means depends on the recording.
    """
    defined = np.isfinite(snr)
    labels = np.zeros(snr.shape, dtype=np.int64)
    if defined.any():
        edges = np.quantile(snr[defined], np.arange(1, QUINTILES) / QUINTILES)
        labels[defined] = 1 + np.searchsorted(edges, snr[defined])
    return labels


def mean_by_quintile(
    values: Float[np.ndarray, " neurons"], labels: Int[np.ndarray, " labels"]
) -> Float[np.ndarray, " quintiles"]:
    """Average a score over the neurons of each quintile; NaN where no neuron of it has the score.

    Fit for describing one model. Differences between two models need ``gain_by_snr``.

    Raises:
        ValueError: there is not one label per value.
    """
    if values.shape != labels.shape:
        raise ValueError(f"got {values.size} values and {labels.size} labels; give both for the same neurons")
    keep = (labels > 0) & ~np.isnan(values)
    return ratio(_sum_by_quintile(values, labels, keep), _sum_by_quintile(np.ones(values.shape), labels, keep))


def gain_by_snr(arm: Moments, reference: Moments) -> pa.Table:
    """Measure per SNR quintile what share of the explainable variance the arm gains over the reference.

    gain = sum_i (MSE_reference - MSE_arm) / sum_i SP_i over the neurons i of a quintile, frames with at least two
    repeats. SNR comes from one half of the repeats, errors and signal power from the other; the halves are swapped and
    both sums averaged before dividing. The numerator is unbiased for every neuron, so a constant difference in FEVE
    comes out equal in all quintiles. Neurons count in proportion to their signal power: give responses in comparable
    units.

    Returns:
        One row per quintile: ``quintile``, ``neurons`` (mean of the two swaps), ``error_reduction`` and
        ``signal_power`` (sums over neurons, squared response units, to be added up over sessions before dividing) and
        ``gain`` (no unit, positive where the arm is better, NaN where the signal power is not positive). Null: 0.

    Raises:
        ValueError: the two were scored on different frames, or there are fewer than four repeats.
    """
    _check_paired(arm, reference)
    neurons, reduction, power = np.mean([_half_gain(arm, reference, *swap) for swap in _SWAPS], axis=0)
    if not neurons.any():
        raise ValueError(
            "no neuron has two repeats in both halves; gain by SNR needs at least four presentations of a stimulus"
        )
    columns = {"neurons": neurons, "error_reduction": reduction, "signal_power": power, "gain": ratio(reduction, power)}
    return pa.table({"quintile": np.arange(1, QUINTILES + 1), **columns})


def _half_gain(arm: Moments, reference: Moments, snr_half: Half, gain_half: Half) -> Float[np.ndarray, "3 quintiles"]:
    labels = snr_quintiles(snr(reference.sum(half=snr_half)))
    arm, reference = arm.sum(half=gain_half), reference.sum(half=gain_half)
    reduction = ratio(reference["sum_se"] - arm["sum_se"], reference["n_var"])
    power = signal(reference)
    keep = (labels > 0) & ~np.isnan(reduction) & ~np.isnan(power)
    return np.stack([_sum_by_quintile(values, labels, keep) for values in (np.ones(keep.shape), reduction, power)])


def _sum_by_quintile(
    values: Float[np.ndarray, " neurons"], labels: Int[np.ndarray, " neurons"], keep: np.ndarray
) -> Float[np.ndarray, " quintiles"]:
    sums = np.bincount(labels[keep], values[keep], minlength=QUINTILES + 1)
    return sums[1:].astype(np.float64)  # numpy counts in integers where nothing is kept


def _check_paired(arm: Moments, reference: Moments) -> None:
    same = arm.values.shape == reference.values.shape and all(
        np.allclose(arm[column], reference[column], rtol=1e-9) for column in ("n_frames", "sum_y", "sum_yy")
    )
    if not same:
        raise ValueError(
            f"arm ('{arm.session}', {arm.tier}) and reference ('{reference.session}', {reference.tier}) were not "
            "scored on the same responses; score both on the same session, tier and frames"
        )
