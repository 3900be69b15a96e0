"""Sums over each neuron's neighbors, in memory that does not grow with how many there are."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def neighbor_sum(
    values: Float[Tensor, "batch time neurons"],
    neighbors: Int[Tensor, "chosen neighbor"],
    weights: Float[Tensor, "chosen neighbor"],
) -> Float[Tensor, "batch time chosen"]:
    r"""Weigh and sum the values of each neuron's neighbors.

    .. math:: y_i(t) = \sum_k w_{ik}\, v_{n_{ik}}(t)

    Never holds batch x time x neurons x neighbors numbers, neither here nor in the backward pass.
    """
    table = values.flatten(0, 1).T.contiguous()
    summed = functional.embedding_bag(neighbors, table, per_sample_weights=weights.to(table.dtype), mode="sum")
    return summed.T.unflatten(0, values.shape[:2])
