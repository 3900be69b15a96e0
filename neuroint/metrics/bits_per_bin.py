"""Likelihood gained over a constant rate, per bin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.moments import Moments
from neuroint.metrics.poisson_loss import poisson_loss
from neuroint.metrics.poisson_loss_null import poisson_loss_null
from neuroint.registry import metrics

NEEDS_REPEATS = False
NEEDS_POSITIVE_RATES = True
RANKS_MODELS = True


@metrics.register("bits_per_bin")
def bits_per_bin(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Average the gain in Poisson log likelihood over the constant-rate null, in bits per bin.

    bits = (loss_null - loss) / ln 2, per neuron. Unlike ``bits_per_spike`` it does not blow up for a neuron of few
    spikes, and its mean over neurons divided by their mean count per bin is the bits per spike of the whole population,
    the pooled score of the Neural Latents Benchmark. Its size depends on the width of the bins.

    Range: minus infinity to infinity; below 0 for a silent neuron that is predicted to respond. NaN where the neuron
    has no valid frame or a negative prediction. Null: the mean response of the evaluated frames, 0.

    Source: Pei et al. 2021, before their division by the number of spikes.
    """
    return (poisson_loss_null(moments) - poisson_loss(moments)) / np.log(2)
