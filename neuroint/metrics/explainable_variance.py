"""The share of single-trial variance that the stimulus can explain."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import noise, ratio, signal
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = True
RANKS_MODELS = False


@metrics.register("explainable_variance")
def explainable_variance(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Divide the signal power by signal power plus noise variance.

    EV = SP / (SP + sigma^2), both estimated without bias; the sign is kept.

    Range: -1 / (repeats - 1) to 1, no unit. NaN without two repeated frames or where the responses are constant.
    Null: 0 for a neuron of pure noise.

    Source: ratio of the estimators of Sahani and Linden 2003.
    """
    power = signal(moments)
    return ratio(power, power + noise(moments))
