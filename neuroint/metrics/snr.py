"""Signal power against noise variance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.metrics.arithmetic import noise, ratio, signal
from neuroint.metrics.moments import Moments
from neuroint.registry import metrics

NEEDS_REPEATS = True
RANKS_MODELS = False


@metrics.register("snr")
def snr(moments: Moments) -> Float[np.ndarray, " neurons"]:
    """Divide the signal power by the noise variance across repeats.

    SNR = SP / sigma^2, both unbiased: a neuron of pure noise averages to 0 and not to 1 / repeats. Dividing by an
    estimate still adds about 2 (SNR + 1 / repeats) / (frames (repeats - 1)).

    Range: above -1 / repeats, no upper end, no unit; the sign is kept. NaN without repeated frames or where repeats
    do not differ. Null: 0 for a neuron of pure noise. To compare gains between SNR groups, take SNR and gain from
    different halves of the repeats (``analysis.snr``).

    Source: ratio of the estimators of Sahani and Linden 2003.
    """
    return ratio(signal(moments), noise(moments))
