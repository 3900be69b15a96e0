"""How well single presentations are predicted."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import correlation
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = False
RANKS_MODELS = True


@metrics.register("single_trial_correlation")
def single_trial_correlation(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Correlate prediction and response over all scored frames of all clips, every repeat by itself.

    rho = cov(y, p) / ((sd(y) + 1e-8) (sd(p) + 1e-8)), ddof 0, clips joined along time before correlating. A mean of
    correlations within clips is another number.

    Range -1 to 1, no unit; noise keeps it below 1 for a perfect model. 0 where prediction or response is constant (a
    silent neuron counts as not predicted), NaN where the neuron has no valid frame. Null: a constant prediction, 0.
    Its differences between models grow with SNR even if the gain in explained signal is equal: see ``analysis.snr``.

    Source: Turishcheva et al. 2023 (Sensorium 2023), whose benchmark also drops the first 50 frames of each clip: what
    is scored is the caller's choice of ``valid``.
    """
    m = moments
    return correlation(m["n_frames"], m["sum_y"], m["sum_yy"], m["sum_p"], m["sum_pp"], m["sum_yp"])
