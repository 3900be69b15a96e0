"""The share of the explainable variance that the model explains."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import ROUNDING, mean_square, noise, ratio, variance
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = True
RANKS_MODELS = True


@metrics.register("feve")
def feve(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Compare the squared error with the total variance, after taking the noise out of both.

    FEVE = 1 - (MSE - sigma^2) / (total - sigma^2), over the frames with at least two repeats: MSE averages the
    squared error of single trials, total is the variance of single trials (ddof 1), each frame counting once. With
    equal numbers of repeats this is the published formula; the numerator is unbiased with unequal ones too.

    Range: minus infinity to infinity, not clipped, no unit; 1 for the noise-free response, above 1 by chance or for a
    model that also knows what changes between repeats (behavior). NaN where total - sigma^2 is 0 or below or no frame
    was repeated. Neurons with little signal scatter widely, so compare groups by ratios of sums (``analysis.snr``),
    not by means. Null: predicting the mean response, 0.

    Source: Cadena et al. 2019.
    """
    m = moments
    n, trials = m["n_var"], m["n_var_trials"]
    within = m["sum_var"] - m["sum_var_over_n"]  # sum over frames of the variance across repeats with ddof 0
    total = variance(n, m["sum_ym_var"], m["sum_ymym_var"]) + ratio(within, n)
    explainable = total * ratio(trials, trials - 1) - noise(m)
    explainable = np.where(explainable > ROUNDING * mean_square(m), explainable, 0.0)
    return 1 - ratio(ratio(m["sum_se"], n) - noise(m), explainable)
