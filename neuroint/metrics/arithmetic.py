"""Ratios, variances and correlations of sums, one per neuron, with their undefined cases stated."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.moments import Moments

Neurons = Float[np.ndarray, " neurons"]

# A spread below this share of the mean square cannot be told from rounding of float64 sums: it is taken as none.
ROUNDING = 1e-13
CORRELATION_OFFSET = 1e-8  # added to both standard deviations, as the Sensorium toolkit does


def ratio(numerator: Neurons, denominator: Neurons) -> Neurons:
    """Divide where the denominator is positive; NaN elsewhere."""
    out = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def variance(n: Neurons, total: Neurons, squares: Neurons, ddof: int = 0) -> Neurons:
    """Variance from sums; exactly 0 for a constant, NaN with no more than ``ddof`` values."""
    mean = ratio(total, n)
    spread = squares - total * mean
    return ratio(np.where(spread > ROUNDING * squares, spread, np.where(np.isnan(mean), np.nan, 0.0)), n - ddof)


def correlation(n: Neurons, y: Neurons, yy: Neurons, p: Neurons, pp: Neurons, yp: Neurons) -> Neurons:
    """Pearson correlation from sums (ddof 0, 1e-8 added to each standard deviation).

    0 where one of the two is constant, NaN where there is no value.
    """
    variances = variance(n, y, yy), variance(n, p, pp)
    covariance = ratio(yp - y * ratio(p, n), n)
    scale = np.prod([np.sqrt(part) + CORRELATION_OFFSET for part in variances], axis=0)
    return np.where((variances[0] == 0) | (variances[1] == 0), 0.0, covariance / scale)


def mean_square(moments: Moments) -> Neurons:
    """Scale that rounding is judged against: mean squared response of frames with at least two repeats."""
    return ratio(moments["sum_ymym_var"] + moments["sum_var"], moments["n_var"])


def noise(moments: Moments) -> Neurons:
    """Variance across repeats (ddof 1), averaged over frames with at least two; NaN without such frames."""
    level = ratio(moments["sum_var"], moments["n_var"])
    return np.where(level <= ROUNDING * mean_square(moments), 0.0, level)


def mean_variance(moments: Moments) -> Neurons:
    """Variance over frames of the repeat-mean response (ddof 1), frames with at least two repeats."""
    return variance(moments["n_var"], moments["sum_ym_var"], moments["sum_ymym_var"], ddof=1)


def signal(moments: Moments) -> Neurons:
    """Variance of the repeat mean less what noise adds to it: unbiased, signed; NaN with fewer than two frames."""
    share = ratio(moments["sum_var_over_n"], moments["n_var"])
    return mean_variance(moments) - np.where(noise(moments) == 0, 0.0, share)
