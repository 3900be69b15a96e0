"""Certify what a built model reads: two fills of everything forbidden, the Jacobian there, and mixing of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuroint.data.base import Inputs

Predict = Callable[[Inputs], Float[Tensor, "batch frames neurons"]]
MAX_NEURONS = 64


class LeakError(ValueError):
    """A model reads what its information class forbids."""


@dataclass(frozen=True)
class LeakCertificate:
    """What was checked on a built configuration, and what was found (largest differences; all must be 0)."""

    information: str
    causal: bool
    neurons: int
    frames: int
    future_difference: float
    future_jacobian: float
    clip_mixing: float

    @property
    def passed(self) -> bool:
        """Whether nothing forbidden was read."""
        return self.future_difference == self.future_jacobian == self.clip_mixing == 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the run's record."""
        return asdict(self) | {"passed": self.passed}


def certify(predict: Predict, inputs: Inputs, *, information: str, causal: bool, seed: int = 0) -> LeakCertificate:
    """Fill what may not be read with two different finite values and compare predictions bit for bit.

    Forbidden for a causal model at frame t is every input after t; for every model, the other clips of the batch.
    Recorded responses are never handed to a model. NaN is not used as a fill: fused causal attention multiplies masked
    values by 0 and would return NaN in every row.

    Args:
        predict: the model in evaluation mode, on inputs of at least two clips.
        inputs: a batch; at least 64 neurons' outputs are looked at.
        information: the declared class, for the record.
        causal: whether the model claims to read nothing after t.
        seed: of the fills.

    Raises:
        LeakError: says which of the checks failed and by how much.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        whole = _look(predict(inputs))
        mixing = _difference(_look(predict(_refill_clips(inputs, generator)))[:1], whole[:1])
    difference = jacobian = 0.0
    if causal and inputs.n_frames > 1:
        difference, jacobian = _future(predict, inputs, whole.shape[1], generator)
    frames, neurons = whole.shape[1:]
    found = LeakCertificate(information, causal, neurons, frames, difference, jacobian, mixing)
    if not found.passed:
        raise LeakError(
            f"the model leaks: it claims {information}, causal={causal}, but inputs after t change the prediction at t "
            f"by {difference:g} (Jacobian {jacobian:g}) and other clips of the batch by {mixing:g}; expected 0. "
            "Correct what the component reads, or what it declares in `reads`"
        )
    return found


def _future(predict: Predict, inputs: Inputs, frames: int, generator: torch.Generator) -> tuple[float, float]:
    """Largest change, and largest derivative, of predictions up to a frame by inputs after it."""
    cut = inputs.n_frames - max(1, frames // 2)
    kept = frames - (inputs.n_frames - cut)
    fills = [_refill_frames(inputs, cut, generator) for _ in range(2)]
    with torch.no_grad():
        first, second = (_look(predict(fill))[:, :kept] for fill in fills)
    watched = fills[0].map(lambda x: x.detach().requires_grad_())
    leaves = [x for x in vars(watched).values() if x is not None]
    past = _look(predict(watched))[:, :kept]
    if not past.requires_grad or past.numel() == 0:
        return _difference(first, second), 0.0
    gradients = torch.autograd.grad(past.sum(), leaves, allow_unused=True)
    found = [float(g[:, cut:].abs().max()) for g in gradients if g is not None]
    return _difference(first, second), max(found, default=0.0)


def _look(rate: Tensor) -> Tensor:
    return rate[..., :MAX_NEURONS]


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.numel() else 0.0


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)


def _refill_frames(inputs: Inputs, cut: int, generator: torch.Generator) -> Inputs:
    return inputs.map(lambda x: torch.cat([x[:, :cut], _noise_like(x[:, cut:], generator)], dim=1))


def _refill_clips(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return inputs.map(lambda x: torch.cat([x[:1], _noise_like(x[1:], generator)], dim=0))
