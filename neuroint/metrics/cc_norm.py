"""Correlation with the mean response, corrected for its noise."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import ratio, signal, variance
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = True
RANKS_MODELS = True


@metrics.register("cc_norm")
def cc_norm(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Divide the covariance with the repeat mean by what a noise-free response would allow.

    CC_norm = cov(p, mean y) / sqrt(var(p) SP), ddof 1, over the frames with at least two repeats; p is averaged over
    the same repeats. Not clipped: sampling can carry it beyond 1.

    No unit, 1 for a prediction proportional to the noise-free response. 0 for a constant prediction. NaN where the
    signal power is 0 or below, which is frequent in noisy neurons: a mean over the others is a mean over selected
    neurons, so report ``undefined`` beside it. Null: a constant prediction, 0.

    Source: Schoppe et al. 2016.
    """
    m = moments
    power = signal(m)
    spread = variance(m["n_var"], m["sum_pm_var"], m["sum_pmpm_var"], ddof=1)
    covariance = ratio(m["sum_ympm_var"] - m["sum_ym_var"] * ratio(m["sum_pm_var"], m["n_var"]), m["n_var"] - 1)
    normed = ratio(covariance, np.sqrt(spread * np.maximum(power, 0)))
    return np.where((spread == 0) & (power > 0), 0.0, normed)
