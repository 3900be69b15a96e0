"""Poisson negative log likelihood of single trials."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import ratio
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = False
NEEDS_POSITIVE_RATES = True
RANKS_MODELS = False


@metrics.register("poisson_loss")
def poisson_loss(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Average the Poisson loss over all scored frames of all repeats; lower is better.

    loss = mean(p - y log(p + 1e-8)), without the term log y! that no model changes.

    Range: any sign, nats per frame. NaN where the neuron has no valid frame or a prediction of it is negative (an
    identity link can do that). Null: ``poisson_loss_null``, the best constant rate.

    Source: the training loss of Sensorium 2022 and 2023, averaged instead of summed.
    """
    return ratio(moments["sum_poisson"], moments["n_frames"])
