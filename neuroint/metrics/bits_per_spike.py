"""Likelihood gained over a constant rate, per spike."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import ratio
from neuroint.metrics.moments import Moments
from neuroint.metrics.poisson_loss import poisson_loss
from neuroint.metrics.poisson_loss_null import poisson_loss_null
from neuroint.registry import metrics

NEEDS_REPEATS = False
NEEDS_POSITIVE_RATES = True
RANKS_MODELS = True


@metrics.register("bits_per_spike")
def bits_per_spike(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Divide the gain in Poisson log likelihood over the constant-rate null by the number of spikes.

    bits = (loss_null - loss) * frames / (sum of responses * ln 2), per neuron. The pooled score of the Neural Latents
    Benchmark is the mean of these weighted by each neuron's spike count.

    Range: minus infinity to infinity, bits per spike; with responses that are not counts, bits per unit of response.
    NaN for a neuron without spikes, with a negative prediction, or without a valid frame. Null: the mean response of
    the evaluated frames, 0.

    Source: Pei et al. 2021.
    """
    gain = (poisson_loss_null(moments) - poisson_loss(moments)) * moments["n_frames"]
    return ratio(gain, moments["sum_y"] * np.log(2))
