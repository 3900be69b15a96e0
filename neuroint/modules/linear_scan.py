"""Recurrences that are linear in their state, over a stretch of frames, with a backward pass as cheap."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def linear_scan(
    kept: Float[Tensor, "batch time *rest"],
    added: Float[Tensor, "batch time *rest"],
    start: Float[Tensor, " batch *rest"],
) -> Float[Tensor, "batch time *rest"]:
    r"""Follow a leaky sum whose leak may change from frame to frame.

    .. math:: y_t = a_t\, y_{t-1} + b_t

    The arithmetic is one multiplication and one addition per number, in two passes over the frames (forward and back)
    that keep y and a alone. A scan of logarithmic depth would hold and move log2(frames) times as much.
    It can be differentiated once.

    Args:
        kept: a.
        added: b.
        start: y before the first frame.
    """
    return _LinearScan.apply(kept, added, start)  # pyright: ignore[reportReturnType]


class _LinearScan(Function):
    @staticmethod
    def forward(ctx: Any, kept: Tensor, added: Tensor, start: Tensor) -> Tensor:
        found, last = torch.empty_like(added), start
        for t in range(added.shape[1]):
            last = torch.addcmul(added[:, t], kept[:, t], last)
            found[:, t] = last
        ctx.save_for_backward(kept, found, start)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient of what is added follows the same recurrence, back in time."""
        kept, found, start = ctx.saved_tensors
        grad_added, carried = torch.empty_like(grad), torch.zeros_like(start)
        for t in reversed(range(grad.shape[1])):
            total = grad[:, t] + carried
            grad_added[:, t] = total
            carried = total * kept[:, t]
        before = torch.cat([start[:, None], found[:, :-1]], dim=1)
        return grad_added * before, grad_added, carried
