"""The Poisson loss that a constant rate reaches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import ratio
from neuroint.metrics.moments import LOG_OFFSET, Moments
from neuroint.registry import metrics

NEEDS_REPEATS = False
RANKS_MODELS = False


@metrics.register("poisson_loss_null")
def poisson_loss_null(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Score each neuron's mean response over the evaluated frames as if it were the prediction.

    loss = m - m log(m + 1e-8) with m the mean response of the frames that are scored: the lowest loss of any
    constant, and so a stricter null than the mean of the training data.

    Range: any sign, nats per frame; 0 for a silent neuron. NaN where the neuron has no valid frame or a negative mean.
    It is the null of ``poisson_loss``.

    Source: Pei et al. 2021 (Neural Latents Benchmark), whose null rate is also taken from the evaluated data.
    """
    mean = ratio(moments["sum_y"], moments["n_frames"])
    return np.where(mean >= 0, mean - mean * np.log(np.maximum(mean, 0) + LOG_OFFSET), np.nan)
