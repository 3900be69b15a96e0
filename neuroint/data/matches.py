"""Which neurons of several sessions are taken for the same one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

from neuroint.data.base import DataError


def whole_ids(array: Shaped[np.ndarray, "*shape"], name: str) -> Int[np.ndarray, " neurons"]:
    """Turn whole numbers of any type into ids of matched neurons.

    Raises:
        DataError: something else than whole numbers.
    """
    if array.dtype.kind not in "iuf" or not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise DataError(
            f"{name} holds {array.dtype} that are no ids; expected a whole number per neuron, equal for neurons that "
            "are the same cell or type in several sessions, negative for one that is matched with none"
        )
    return array.astype(np.int64)
