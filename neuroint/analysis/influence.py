"""How a model's rates move with the drives of its neurons, or with their recorded activity: signed matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Context

Over = Literal["past", "same_frame"]


@runtime_checkable  # or else beartype cannot check it in tests
class Influenced(Protocol):
    """What is asked of a model (``neuroint.model.PopulationModel`` offers it)."""

    reads_recorded: Any

    def burn_in(self, session: str) -> int:
        """First frames of the rates in which stages still remember how they were started."""
        ...

    def lagged(self, inputs: Inputs) -> Inputs:
        """Shift recorded activity to where it may be read."""
        ...

    def drive(self, inputs: Inputs, session: str) -> tuple[Tensor, Any]:
        """Each neuron's input before the stages."""
        ...

    def context(self, session: str, neurons: Tensor | None, observed: Tensor | None) -> Context:
        """What stages may look at besides the drive."""
        ...

    def respond(self, drive: Tensor, session: str, context: Context, state: Any) -> tuple[Tensor, Any]:
        """Rates of frames, and what the frames after them need."""
        ...


def influence(
    model: Influenced,
    session: str,
    inputs: Inputs,
    *,
    targets: Sequence[int] | None = None,
    over: Over = "past",
) -> Float[Tensor, "targets neurons"]:
    r"""Compute how much the rate of each target neuron moves with the drive of every neuron.

    .. math:: I_{ij} = \frac{1}{|T|} \sum_{t \in T} \sum_{t' \le t} \frac{\partial \hat r_i(t)}{\partial d_j(t')}

    T are the frames of all clips after the model's burn-in. The sum over t' is the response to a change of drive j that
    is sustained from the clip's first frame on; ``same_frame`` keeps only t' = t, and what stages remember from before
    is held fixed. For feed-forward stages the two agree. Effects that pass through the model's own past predictions
    count; those that pass through recorded activity do not, because a record stays what it is: see
    :func:`recorded_influence`.

    The derivatives are exact, one backward pass per target and clip. Memory is that of one training step on one clip
    plus a row per target: neurons x neurons x frames are never held. ``same_frame`` runs the stages frame by frame,
    twice, so it costs as much as a recurrent model even where there is none.

    The null is the diagonal that a model without interaction has, where I_ii is the mean slope of the link; whether an
    entry off the diagonal is there is asked of the same matrix after a fit to permuted neurons, or to a truth without
    coupling. It says what this model does, not what the tissue does: with a free core, couplings under own predictions
    are not identified.

    Args:
        model: fitted; it is evaluated as in validation and left as it was.
        session: whose neurons.
        inputs: clips, longer than what the model loses and burns in.
        targets: rows that are wanted, indices of neurons; None means all. A sample of them costs in proportion.
        over: ``past`` or ``same_frame``.

    Returns:
        Rate per drive: responses per bin and unit of drive.

    Raises:
        ValueError: no frame is left after the burn-in, or a target is not a neuron.

    Source: the comparison of functional influence with anatomy of Chettih & Harvey (2019), Nature 567, 334-340.
    """
    with evaluated(model):
        return _mean_over_clips(inputs, lambda clip: _of_drives(model, session, clip, targets, RATES[over]))


def recorded_influence(
    model: Influenced, session: str, inputs: Inputs, *, targets: Sequence[int] | None = None
) -> Float[Tensor, "targets observed"]:
    r"""Compute how much the rate of each target neuron moves with recorded activity, channel by channel.

    .. math:: I_{ic} = \frac{1}{|T|} \sum_{t \in T} \sum_{t' \le t} \frac{\partial \hat r_i(t)}{\partial y_c(t')}

    T as in :func:`influence`; y_c is recorded activity as it was recorded, before the model lags it, so that the
    response is to a change of record c that is sustained over the clip. ``Facts.observed_neurons`` says which predicted
    neuron a channel is. Exact, one backward pass per target and clip, in the memory of one training step on a clip.
    The null is the same matrix after a fit to data whose neurons were shifted against each other in time: neurons that
    share an input that the core does not see predict each other without any coupling.

    Args:
        model: fitted, with a part that reads recorded activity.
        session: whose neurons.
        inputs: clips with recorded activity.
        targets: rows that are wanted; None means all.

    Returns:
        Rate per recorded activity: no unit where both are responses per bin.

    Raises:
        ValueError: the model reads no records or the inputs hold none, no frame is left after the burn-in, or a target
            is not a neuron.
    """
    if not model.reads_recorded or inputs.observed is None:
        raise ValueError(
            f"the model reads records: {bool(model.reads_recorded)}, the inputs hold some: "
            f"{inputs.observed is not None}; give both, or ask influence() how rates move with drives"
        )
    with evaluated(model):
        return _mean_over_clips(inputs, lambda clip: _of_records(model, session, clip, targets))


def _of_drives(model: Influenced, session: str, clip: Inputs, targets: Sequence[int] | None, rates: Any) -> Tensor:
    lagged = model.lagged(clip)
    with torch.no_grad():
        drive, _ = model.drive(lagged, session)
        context = model.context(session, None, lagged.observed)
    drive = drive.detach().requires_grad_()
    return _rows(rates(model, drive, session, context), drive, model.burn_in(session), targets)


def _of_records(model: Influenced, session: str, clip: Inputs, targets: Sequence[int] | None) -> Tensor:
    leaf = clip.observed.detach().clone().requires_grad_()  # pyright: ignore[reportOptionalMemberAccess]
    lagged = model.lagged(replace(clip, observed=leaf))
    drive, _ = model.drive(lagged, session)
    context = model.context(session, None, lagged.observed)
    return _rows(_in_one(model, drive, session, context), leaf, model.burn_in(session), targets)


def _in_one(model: Influenced, drive: Tensor, session: str, context: Context) -> Tensor:
    return model.respond(drive, session, context, None)[0]


def _frame_by_frame(model: Influenced, drive: Tensor, session: str, context: Context) -> Tensor:
    """Rates that depend on the drive of their own frame only: the state before it comes from a pass without a graph."""
    rates, state, frames = [], None, drive.shape[1]
    for t in range(frames):
        known = context if context.observed is None else context.until(t, frames, context.observed.shape[1])
        here = drive[:, t : t + 1]
        rates.append(model.respond(here, session, known, state)[0])
        with torch.no_grad():
            _, state = model.respond(here, session, known, state)
    return torch.cat(rates, dim=1)


RATES: Mapping[str, Callable[[Any, Tensor, str, Context], Tensor]] = {"past": _in_one, "same_frame": _frame_by_frame}


def _rows(rates: Tensor, leaf: Tensor, burn_in: int, targets: Sequence[int] | None) -> Tensor:
    """Differentiate the mean rate of one target after another by everything in a leaf, summed over its frames."""
    neurons, frames = rates.shape[2], rates.shape[1] - burn_in
    if frames < 1:
        raise ValueError(
            f"the clips give {rates.shape[1]} predicted frames, all within the model's burn-in of {burn_in}; give "
            f"clips at least {1 - frames} frame(s) longer"
        )
    chosen = range(neurons) if targets is None else targets
    if wrong := [target for target in chosen if not 0 <= target < neurons]:
        raise ValueError(f"targets {wrong[:5]} are not neurons; expected indices from 0 to {neurons - 1}")
    means = rates[:, burn_in:].mean((0, 1))
    if not means.requires_grad:
        return leaf.new_zeros(len(chosen), leaf.shape[2])
    found = [torch.autograd.grad(means[target], leaf, retain_graph=True, allow_unused=True)[0] for target in chosen]
    return torch.stack([leaf.new_zeros(leaf.shape[2]) if g is None else g.sum((0, 1)) for g in found])


def _mean_over_clips(inputs: Inputs, of_clip: Callable[[Inputs], Tensor]) -> Tensor:
    """Go through clips one at a time, so that one clip's graph is held."""
    total = None
    for clip in range(inputs.n_batch):
        found = of_clip(inputs.map(lambda x, clip=clip: x[clip : clip + 1]))
        total = found if total is None else total + found
    return total / inputs.n_batch  # pyright: ignore[reportOptionalOperand]


@contextmanager
def evaluated(model: Any) -> Iterator[None]:
    """Evaluate a model, and leave every part of it in the mode it was in."""
    modes = [(module, module.training) for module in model.modules() if isinstance(module, nn.Module)]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
