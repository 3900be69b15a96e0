"""A leaky recurrence of rectified tanh units over a stretch of frames, with its own backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Scanned(NamedTuple):
    """Rates of the first units and of all, and the state behind the last frame, which carries no gradient."""

    shown: Float[Tensor, "batch time shown"]
    rates: Float[Tensor, "time batch units"]
    last: Float[Tensor, "batch units"]


def rectified_scan(
    drive: Float[Tensor, "batch time driven"],
    start: Float[Tensor, "batch units"],
    weights: Float[Tensor, "units units"],
    bias: Float[Tensor, " units"],
    alpha: float,
    shown: int,
) -> Scanned:
    r"""Follow rectified tanh units, of which the last ones are driven from outside and the first ones are shown.

    .. math:: r_t = \max(0, \tanh(u_{t-1} W + b + [0; d_t])), \quad u_t = (1 - \alpha) u_{t-1} + \alpha r_t

    Forward, a frame is one matrix product and a few passes in place. Backward, only the gradient of the state goes
    through frame by frame; those of W and b are one product and one sum over all frames, where autograd makes one per
    frame and adds them up. It can be differentiated once.

    Args:
        drive: d, onto the last ``driven`` units.
        start: u before the first frame.
        weights: W, from row to column.
        bias: b.
        alpha: share of the state that is new in every frame.
        shown: number of units whose rates are handed out batch first, as losses read them.
    """
    kind = weights.dtype
    found = _RectifiedScan.apply(drive.to(kind), start.to(kind), weights, bias, alpha, shown)
    return Scanned(*found)  # pyright: ignore[reportGeneralTypeIssues]


class _RectifiedScan(Function):
    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, start: Tensor, weights: Tensor, bias: Tensor, alpha: float, shown: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        frames, driven = drive.shape[1:]
        rates = start.new_empty(frames, *start.shape)
        states = start.new_empty(frames + 1, *start.shape)
        states[0] = start
        moments = zip(rates.unbind(0), states[:-1].unbind(0), states[1:].unbind(0), drive.unbind(1), strict=True)
        for rate, state, following, driving in moments:
            torch.addmm(bias, state, weights, out=rate)
            rate[:, rate.shape[1] - driven :].add_(driving)
            rate.tanh_().clamp_min_(0)
            torch.lerp(state, rate, alpha, out=following)
        seen, last = rates[..., :shown].transpose(0, 1).contiguous(), states[-1].clone()
        ctx.save_for_backward(rates, states, weights)
        ctx.alpha, ctx.driven = alpha, driven
        ctx.mark_non_differentiable(last)
        ctx.set_materialize_grads(False)
        return seen, rates, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take the gradient of the state back frame by frame; those of the parameters follow from all at once."""
        rates, states, weights = ctx.saved_tensors
        inner, carried = _through_frames(rates, weights.t().contiguous(), ctx.alpha, grads[0], grads[1])
        flat = inner.view(-1, inner.shape[2])
        grad_weights = states[:-1].reshape(flat.shape).t() @ flat
        grad_drive = inner[..., inner.shape[2] - ctx.driven :].transpose(0, 1)
        return grad_drive, carried, grad_weights, flat.sum(dim=0), None, None


def _through_frames(
    rates: Tensor, back: Tensor, alpha: float, of_shown: Tensor | None, of_rates: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of what stands inside the tanh in every frame, and of the state before the first."""
    inner, carried = torch.empty_like(rates), torch.zeros_like(rates[0])
    tanh_back, cut_back = torch.ops.aten.tanh_backward.grad_input, torch.ops.aten.threshold_backward.grad_input
    for t in reversed(range(rates.shape[0])):
        rate, found = rates[t], inner[t]
        torch.mul(carried, alpha, out=found)
        if of_shown is not None:
            found[:, : of_shown.shape[2]].add_(of_shown[:, t])
        if of_rates is not None:
            found.add_(of_rates[t])
        tanh_back(found, rate, grad_input=found)
        cut_back(found, rate, 0, grad_input=found)
        carried.addmm_(found, back, beta=1 - alpha)
    return inner, carried
