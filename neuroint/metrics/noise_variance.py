"""How much responses to the same stimulus differ."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import noise
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = True
RANKS_MODELS = False


@metrics.register("noise_variance")
def noise_variance(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Average the variance across repeats (ddof 1) over the frames with at least two repeats.

    Range 0 to infinity, squared response units, unbiased. NaN where no frame was repeated. Null: none, it describes the
    recording and not the model.

    Source: Sahani and Linden 2003 (noise power).
    """
    return noise(moments)
