"""Sums over each neuron's neighbors, in memory that does not grow with how many there are."""

from __future__ import annotations

from typing import Any

import torch
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

    Never holds batch x time x neurons x neighbors numbers, neither here nor in the backward pass. Half precision is
    summed in single precision: on a card torch has no gradient of the weights otherwise.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    table = values.flatten(0, 1).T.to(dtype).contiguous()
    summed = functional.embedding_bag(neighbors, table, per_sample_weights=weights.to(dtype), mode="sum")
    return summed.T.unflatten(0, values.shape[:2]).to(values.dtype)


def frame_sum(
    values: Float[Tensor, "batch neurons"],
    neighbors: Int[Tensor, "chosen neighbor"],
    weights: Float[Tensor, "chosen neighbor"],
) -> Float[Tensor, "batch chosen"]:
    """Do what :func:`neighbor_sum` does for one frame, in a loop over frames.

    Going back through a single frame, ``embedding_bag`` spends its time on sorting neighbors: ten times what the sums
    take, for 8000 neurons of 64 neighbors on CPU. Keeps one frame and the weights, whatever the number of neighbors.
    """
    return _FrameSum.apply(values.to(weights.dtype), neighbors, weights)  # pyright: ignore[reportReturnType]


class _FrameSum(torch.autograd.Function):
    """One frame's sums, with values looked up again on the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbors: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, neighbors, weights)
        return functional.embedding_bag(neighbors, values.T.contiguous(), per_sample_weights=weights, mode="sum").T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        (grad,), (values, neighbors, weights) = grads, ctx.saved_tensors
        sent = (grad[..., None] * weights).flatten(1)
        of_values = torch.zeros_like(values).index_add_(1, neighbors.flatten(), sent)
        return of_values, None, torch.einsum("bn,bnk->nk", grad, values[:, neighbors])
