"""What cores that read recorded activity share."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuroint.data.base import Inputs


def observed_of(core: str, inputs: Inputs) -> Float[Tensor, "batch time observed"]:
    """Recorded activity of the inputs, or ``ValueError`` where they hold none."""
    if inputs.observed is None:
        raise ValueError(
            f"core '{core}' reads recorded activity, and the inputs hold none; set data.observed to others "
            "(co-smoothing) or past (forecasting)"
        )
    return inputs.observed
