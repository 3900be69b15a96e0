"""Which neurons of several sessions are taken for the same one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

from neuroint.data.base import DataError

LARGEST = 2**53  # from here on floats are not told apart


def whole_ids(array: Shaped[np.ndarray, "*shape"], name: str) -> Int[np.ndarray, " neurons"]:
    """Turn whole numbers of any type into ids of matched neurons.

    Raises:
        DataError: something else than whole numbers.
    """
    if array.dtype.kind not in "iuf" or not (abs(array) < LARGEST).all() or (array != np.round(array)).any():
        raise DataError(
            f"{name} holds {array.dtype} that are not all ids; expected a whole number per neuron (below 2^53), equal "
            "for neurons that are the same cell or type in several sessions, -1 for one that is matched with none"
        )
    return array.astype(np.int64)
