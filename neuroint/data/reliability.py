"""Signal and noise of recorded neurons from repeats of a stimulus, before any model."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuroint.data.running import RunningMoments


class Reliability:
    """Accumulate signal power and noise variance per neuron over stimulus frames shown at least twice.

    Noise variance is the mean over frames of the variance across repeats (ddof 1); signal power is the variance over
    frames of the repeat mean (ddof 1), less the mean of noise variance / number of repeats, which is what noise alone
    adds to it. Both are unbiased, so that signal power of a neuron without signal is negative half of the time; the
    sign is kept. Repeats may differ in number from frame to frame, and NaN counts as absent. Units are those of the
    responses, squared (Sahani and Linden 2003, NIPS 15).
    """

    def __init__(self, n_neurons: int) -> None:
        self._means = RunningMoments(n_neurons)
        self._noise = RunningMoments(n_neurons)
        self._noise_of_mean = RunningMoments(n_neurons)

    def add(self, responses: Float[np.ndarray, "repeats time neurons"]) -> None:
        """Take in the repeats of a stimulus, or of a stretch of it."""
        values = responses.astype(np.float64)
        missing = np.isnan(values)
        count = len(values) - missing.sum(axis=0)
        values[missing] = 0.0
        mean = values.sum(axis=0) / np.maximum(count, 1)
        squares = np.where(missing, 0.0, np.square(values - mean)).sum(axis=0)
        repeated = count >= 2
        noise = np.where(repeated, squares / np.maximum(count - 1, 1), np.nan)
        self._means.add(np.where(repeated, mean, np.nan))
        self._noise.add(noise)
        self._noise_of_mean.add(noise / np.maximum(count, 1))

    def signal_power(self) -> Float[np.ndarray, " neurons"]:
        """Unbiased and signed; NaN with fewer than two frames shown twice."""
        return self._means.variance(ddof=1) - self._noise_of_mean.mean

    def noise_variance(self) -> Float[np.ndarray, " neurons"]:
        """NaN for neurons that were never recorded twice under the same stimulus."""
        return np.where(self._noise.count > 0, self._noise.mean, np.nan)

    def snr(self) -> Float[np.ndarray, " neurons"]:
        """Signal power / noise variance, signed; NaN where the noise is zero or either is undefined."""
        noise = self.noise_variance()
        return self.signal_power() / np.where(noise > 0, noise, np.nan)
