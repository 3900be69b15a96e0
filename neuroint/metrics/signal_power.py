"""How much of the response varies with the stimulus."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import signal
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = True
RANKS_MODELS = False


@metrics.register("signal_power")
def signal_power(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Estimate the variance over frames of the noise-free response.

    SP = var(mean over repeats, ddof 1) - mean(var across repeats / repeats), over the frames with at least two repeats,
    which may be unequal in number. Unbiased where noise is independent between frames. What all frames of a repeat
    share (a drift, say) lowers it by up to that variance / repeats, the less the more stimuli there are; Sahani and
    Linden's form, defined for equal repeats only, takes out a constant offset per repeat and otherwise agrees.

    Range: any sign, squared response units. Unbiased, so about half of the neurons that do not respond are below 0:
    keep the sign when averaging. NaN with fewer than two repeated frames. Null: 0 for a neuron of pure noise.

    Source: Sahani and Linden 2003; Schoppe et al. 2016.
    """
    return signal(moments)
