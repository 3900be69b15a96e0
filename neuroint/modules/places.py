"""Which tokens of a frame stand for places in it, and where those lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class PlaceGrid:
    """Where the tokens of a core on video lie in its frames: what maps of attention are drawn by.

    Attributes:
        first: index of the first place among the tokens of a frame; the places follow one another row by row, and all
            tokens before and behind them are extra ones, of no place.
        rows: of places.
        columns: of places.
        side_px: side of the block of pixels that a place is made of.
        stride_px: pixels from one place to the next.
        padding_px: pixels by which frames are padded on every side before blocks are cut.
    """

    first: int
    rows: int
    columns: int
    side_px: int
    stride_px: int
    padding_px: int = 0

    @property
    def tokens(self) -> slice:
        """The tokens that are places."""
        return slice(self.first, self.first + self.rows * self.columns)

    def rows_px(self) -> Float[np.ndarray, " rows"]:
        """Middle of every row of places, in pixels below the middle of the topmost pixel."""
        return self._centers_px(self.rows)

    def columns_px(self) -> Float[np.ndarray, " columns"]:
        """Middle of every column of places, in pixels right of the middle of the leftmost pixel."""
        return self._centers_px(self.columns)

    def _centers_px(self, count: int) -> Float[np.ndarray, " places"]:
        return np.arange(count) * self.stride_px + (self.side_px - 1) / 2 - self.padding_px
