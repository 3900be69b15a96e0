"""Batch normalization whose statistics are those of the whole batch, however many workers share it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronizedBatchNorm(_BatchNorm):
    r"""Normalize every channel by its mean and variance over batch, time and pixels, over all workers.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    Channels are axis 1 of any number of axes. On one worker, in evaluation and without ``torch.distributed`` it is
    torch's own batch normalization. On several, the forward pass reduces counts, sums and squared deviations, so
    workers may hold unequal numbers of clips; the backward pass reduces the two sums that the input's gradient needs.
    Gradients are those of the *sum* of the workers' losses; those of gamma and beta are each worker's share, to be
    summed as every other parameter's. All workers must call it equally often. It runs wherever ``all_reduce`` does:
    gloo on CPU and nccl on GPU, where torch's own synchronized version knows GPUs only.

    ``momentum`` is the weight of the new batch in the running statistics (torch's convention).

    Source: Ioffe & Szegedy (2015), ICML.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(
                f"batch normalization needs axes batch and channel at least, got shape {tuple(input.shape)}"
            )

    def forward(self, input: Float[Tensor, "batch channel *rest"]) -> Float[Tensor, "batch channel *rest"]:
        """Normalize, and update the running statistics in training."""
        if not (self.training and _several_workers()):
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _Synchronized.apply(input, self.weight, self.bias, self.eps)  # type: ignore[misc]
        self._update(mean, variance, count)
        return output

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def _several_workers() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _reduced(*sums: Tensor) -> tuple[Tensor, ...]:
    """Sum per-channel tensors over workers in one message."""
    packed = torch.stack(sums)
    distributed.all_reduce(packed)
    return packed.unbind()


class _Synchronized(Function):
    """Normalize by statistics over all workers; the gradient reaches every worker's input."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two passes, because a one-pass variance loses digits when the mean is large."""
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        local = x.new_full((x.shape[1],), float(x.numel() // x.shape[1]))
        total, count = _reduced(x.sum(axes), local)
        mean = total / count
        centered = x - mean.view(shape)
        (squares,) = _reduced(centered.square().sum(axes))
        variance = squares / count
        inverse_sd = torch.rsqrt(variance + eps)
        normal = centered * inverse_sd.view(shape)
        ctx.save_for_backward(normal, inverse_sd, count, weight)
        ctx.axes, ctx.shape = axes, shape
        ctx.mark_non_differentiable(mean, variance, count)
        output = normal if weight is None or bias is None else normal * weight.view(shape) + bias.view(shape)
        return output.to(input.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the input by sums over all workers; of gamma and beta by this worker's."""
        normal, inverse_sd, count, weight = ctx.saved_tensors
        grad = grads[0].to(normal.dtype)
        grad_bias, grad_weight = grad.sum(ctx.axes), (grad * normal).sum(ctx.axes)
        sum_grad, sum_grad_normal = _reduced(grad_bias, grad_weight)
        slope = inverse_sd if weight is None else inverse_sd * weight
        mean_grad, mean_grad_normal = (sum_grad / count).view(ctx.shape), (sum_grad_normal / count).view(ctx.shape)
        grad_input = slope.view(ctx.shape) * (grad - mean_grad - normal * mean_grad_normal)
        affine = (None, None) if weight is None else (grad_weight, grad_bias)
        return grad_input.to(grads[0].dtype), *affine, None
