"""Which recorded responses a model's rates are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuroint.data.base import Batch, Inputs


@runtime_checkable
class PredictsRates(Protocol):
    """What objectives ask of a model."""

    def __call__(self, inputs: Inputs, session: str, neurons: Int[Tensor, " chosen"] | None) -> Tensor:
        """Rates of the last frames, fewer than were put in by those that the model consumes."""
        ...

    def burn_in(self, session: str) -> int:
        """First frames of the rates in which recurrent stages still remember how they were started."""
        ...


def aligned(
    model: PredictsRates, batch: Batch, neurons: Int[Tensor, " chosen"] | None
) -> tuple[Float[Tensor, "batch time chosen"], Float[Tensor, "batch time chosen"], Bool[Tensor, "batch time chosen"]]:
    """Predict a batch, and cut what was recorded to the frames and neurons predicted: rate, responses, valid.

    Raises:
        ValueError: no frame is left after those that the model consumes and its burn-in.
    """
    rate = model(batch.inputs, batch.session, neurons)
    burn_in = model.burn_in(batch.session)
    kept = rate.shape[1] - burn_in
    if kept < 1:
        raise ValueError(
            f"crops of {batch.responses.shape[1]} frames leave {rate.shape[1]} predicted ones, all within the model's "
            f"burn-in of {burn_in}; train on longer crops or choose a stage with a shorter memory"
        )
    responses, valid = batch.responses[:, -kept:], batch.valid[:, -kept:]
    if neurons is not None:
        responses, valid = responses[..., neurons], valid[..., neurons]
    return rate[:, burn_in:].to(responses.dtype), responses, valid


def summed(
    loss: Callable[[Tensor, Tensor], Tensor], rate: Tensor, responses: Tensor, valid: Tensor
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sum an elementwise loss over valid responses, and count them; what is not valid has no part in gradients."""
    safe = torch.where(valid, rate, torch.ones_like(rate))
    return torch.where(valid, loss(safe, responses), torch.zeros_like(rate)).sum(), valid.sum()
