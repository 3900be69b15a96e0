"""Pick neurons, and refuse to where neurons need each other."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from neuroint.modules.base import Context


def of_neurons(
    parameter: Float[Tensor, " all_neurons *rest"], neurons: Int[Tensor, " chosen"] | None
) -> Float[Tensor, " neurons *rest"]:
    """Pick the rows of a per-neuron parameter; None means all."""
    return parameter if neurons is None else parameter[neurons]


def refuse_subset(stage: str, context: Context) -> None:
    """Raise ``ValueError`` where a stage that mixes neurons is given only some of them."""
    if context.neurons is not None:
        raise ValueError(
            f"'{stage}' mixes neurons and was given {context.neurons.numel()} chosen ones; "
            "train on all neurons (no neuron subsampling) with it"
        )
