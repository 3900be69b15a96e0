"""How well the mean over repeats is predicted."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import correlation
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = False
RANKS_MODELS = True


@metrics.register("correlation_to_average")
def correlation_to_average(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Correlate the repeat means of prediction and response over all scored frames of all stimuli.

    As ``single_trial_correlation`` with y and p replaced by their means over the valid repeats of each frame; each
    frame counts once, however many repeats it has. Equals ``single_trial_correlation`` where nothing was repeated.

    Range -1 to 1, no unit; below 1 for a perfect model because the mean of few repeats is noisy (``cc_norm`` corrects
    that). 0 where prediction or mean response is constant, NaN where the neuron has no valid frame. Null: a constant
    prediction, 0.

    Source: Willeke et al. 2022 (Sensorium 2022), for still images; here frames of a video count like images.
    """
    m = moments
    return correlation(m["n_mean"], m["sum_ym"], m["sum_ymym"], m["sum_pm"], m["sum_pmpm"], m["sum_ympm"])
