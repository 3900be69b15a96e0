"""Mean and variance per column of data too large to hold, with missing values left out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped


class RunningMoments:
    """Accumulate count, mean and sum of squared deviations per column over chunks of rows.

    Chunks are merged by the pairwise update of Chan, Golub and LeVeque (1983, Am. Stat. 37:242), so that a large
    offset does not cancel the variance.
    """

    def __init__(self, columns: int) -> None:
        self.count = np.zeros(columns)
        self.mean = np.zeros(columns)
        self._squares = np.zeros(columns)

    def add(self, rows: Shaped[np.ndarray, "rows columns"]) -> None:
        """Take in a chunk; NaN entries are left out, column by column."""
        values = rows.astype(np.float64)
        missing = np.isnan(values)
        count = len(values) - missing.sum(axis=0)
        values[missing] = 0.0
        mean = values.sum(axis=0) / np.maximum(count, 1)
        deviations = values - mean
        deviations[missing] = 0.0
        self._merge(count, mean, np.square(deviations).sum(axis=0))

    def variance(self, ddof: int = 0) -> Float[np.ndarray, " columns"]:
        """Variance per column in squared units of the data; NaN where there are not more than ``ddof`` values."""
        enough = self.count > ddof
        return np.where(enough, self._squares / np.where(enough, self.count - ddof, 1), np.nan)

    def _merge(self, count: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        shift = mean - self.mean
        share = count / np.maximum(total, 1)
        self.mean = self.mean + shift * share
        self._squares = self._squares + squares + np.square(shift) * self.count * share
        self.count = total
