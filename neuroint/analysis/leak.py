"""Certify what a built model reads: fills of everything forbidden, the Jacobian there, and mixing of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuroint.data.base import Inputs, Recorded

Predict = Callable[[Inputs], Float[Tensor, "batch frames neurons"]]
MAX_NEURONS = 64


class LeakError(ValueError):
    """A model reads what its information class forbids."""


@dataclass(frozen=True)
class Claim:
    """What a model says it reads.

    Attributes:
        information: the declared class.
        causal: reads no input after t.
        recorded: the recorded activity on offer and its lag; None where the class forbids all of it.
        own_channels: for every predicted neuron, the channel of recorded activity that is its own; -1 for none.
    """

    information: str
    causal: bool
    recorded: Recorded | None = None
    own_channels: Int[Tensor, " neurons"] | None = None

    @property
    def own_record(self) -> bool:
        """Whether a neuron's own record is among what may be read."""
        held = self.own_channels is not None and bool((self.own_channels >= 0).any())
        return held and self.recorded is not None and self.recorded.information == "recorded_past"


@dataclass(frozen=True)
class LeakCertificate:
    """What was checked on a built configuration, and what was found (largest differences; all must be 0)."""

    information: str
    causal: bool
    own_record: bool
    lag_bins: int | None
    neurons: int
    frames: int
    future_difference: float
    future_jacobian: float
    recorded_difference: float
    own_difference: float
    clip_mixing: float

    @property
    def passed(self) -> bool:
        """Whether nothing forbidden was read."""
        found = (self.future_difference, self.future_jacobian, self.recorded_difference, self.own_difference)
        return all(x == 0.0 for x in (*found, self.clip_mixing))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the run's record."""
        return asdict(self) | {"passed": self.passed}


def certify(predict: Predict, inputs: Inputs, claim: Claim, *, seed: int = 0) -> LeakCertificate:
    """Fill what may not be read with different finite values and compare predictions bit for bit.

    Forbidden at frame t is, for a causal model, every input after t; for a model that reads records, all of them after
    t - lag (unless it reads other neurons and claims not to be causal); for one that reads other neurons, any record of
    the predicted neuron itself; for every other class, all records; and for every model, the other clips of the batch.
    NaN is not used as a fill: fused causal attention multiplies masked values by 0 and would return NaN in every row.

    Args:
        predict: the model in evaluation mode, on inputs of at least two clips.
        inputs: a batch, with the recorded activity on offer; the outputs of at most 64 neurons are looked at.
        claim: what the model says it reads.
        seed: of the fills.

    Raises:
        LeakError: says which of the checks failed and by how much.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        whole = _look(predict(inputs))
        mixing = _difference(_look(predict(_refill_clips(inputs, generator)))[:1], whole[:1])
        recorded = _recorded(predict, inputs, claim, whole, generator)
        own = _own(predict, inputs, claim, whole, generator)
    difference = jacobian = 0.0
    if claim.causal and inputs.n_frames > 1:
        difference, jacobian = _future(predict, inputs, whole.shape[1], generator)
    found = LeakCertificate(
        information=claim.information,
        causal=claim.causal,
        own_record=claim.own_record,
        lag_bins=claim.recorded.lag_bins if claim.recorded else None,
        neurons=whole.shape[2],
        frames=whole.shape[1],
        future_difference=difference,
        future_jacobian=jacobian,
        recorded_difference=recorded,
        own_difference=own,
        clip_mixing=mixing,
    )
    if not found.passed:
        raise LeakError(_explanation(found))
    return found


def _explanation(found: LeakCertificate) -> str:
    return (
        f"the model leaks: it claims {found.information}, causal={found.causal}, but inputs after t change the "
        f"prediction at t by {found.future_difference:g} (Jacobian {found.future_jacobian:g}), records it may not read "
        f"by {found.recorded_difference:g}, a neuron's own record by {found.own_difference:g}, and other clips of the "
        f"batch by {found.clip_mixing:g}; expected 0. Correct what the component reads, or what it declares in `reads`"
    )


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
    weighed = (past * _noise_like(past, generator)).sum()  # in a plain sum, derivatives of two frames might cancel
    gradients = torch.autograd.grad(weighed, leaves, allow_unused=True)
    found = [float(g[:, cut:].abs().max()) for g in gradients if g is not None]
    return _difference(first, second), max(found, default=0.0)


def _recorded(predict: Predict, inputs: Inputs, claim: Claim, whole: Tensor, generator: torch.Generator) -> float:
    """Largest change of predictions by records that lie outside the class: all of them, or those after t - lag."""
    if inputs.observed is None:
        return 0.0
    observed, offer = inputs.observed, claim.recorded
    if offer is None:
        return _difference(_look(predict(replace(inputs, observed=_noise_like(observed, generator)))), whole)
    if offer.information == "recorded_others" and not claim.causal:
        return 0.0
    cut = inputs.n_frames - offer.lag_bins - max(1, (whole.shape[1] - offer.lag_bins) // 2)
    filled = torch.cat([observed[:, :cut], _noise_like(observed[:, cut:], generator)], dim=1)
    kept = cut + offer.lag_bins - (inputs.n_frames - whole.shape[1])
    return _difference(_look(predict(replace(inputs, observed=filled)))[:, :kept], whole[:, :kept])


def _own(predict: Predict, inputs: Inputs, claim: Claim, whole: Tensor, generator: torch.Generator) -> float:
    """Largest change of a neuron's prediction by its own record, for models that may read other neurons' only."""
    offer = claim.recorded
    if inputs.observed is None or offer is None or offer.information != "recorded_others" or claim.own_channels is None:
        return 0.0
    found = [0.0]
    for neuron, channel in enumerate(claim.own_channels[: whole.shape[2]].tolist()):
        if channel >= 0:
            observed = inputs.observed.clone()
            observed[..., channel] = _noise_like(observed[..., channel], generator)
            changed = _look(predict(replace(inputs, observed=observed)))
            found.append(_difference(changed[..., neuron], whole[..., neuron]))
    return max(found)


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
