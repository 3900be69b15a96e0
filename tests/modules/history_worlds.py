"""Run stages that remember, alone behind a link, and at any parameters an optimizer might reach."""

import numpy as np
import torch
from torch.nn import functional

from neuroint.modules.base import Context

BIN_S = 1 / 30
LINKS = {"softplus": functional.softplus, "elu1": lambda x: functional.elu(x) + 1}


def facts(n):
    return {
        "n_neurons": n,
        "mean_responses": np.random.default_rng(1).uniform(0.2, 2.0, n).astype(np.float32),
        "bin_s": BIN_S,
    }


def moved(stage, size=0.5, seed=2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return stage


def normal(*shape, scale=1.0, seed=3):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rates_of(stage, drive, link=functional.softplus, state=None, context=None):
    """Final rates of a recurrent stage alone behind a link, batch x time x neurons."""
    context = context or Context(prepared=stage.prepare(Context()))
    state = stage.initial_state(drive[:, 0], context) if state is None else state
    rate, rates = torch.zeros_like(drive[:, 0]), []
    for t in range(drive.shape[1]):
        now, state = stage.step(drive[:, t], rate, state, context)
        rate = link(now)
        rates.append(rate)
    return torch.stack(rates, 1)


def slope_at_rest(stage, drive, link, sustaining):
    """Fixed point of the state for a standing drive ``1 x neurons``, and how much of a deviation is left a bin later.

    ``sustaining(state)`` is the rate that keeps an average where it is: with it, a step says what the drive becomes.
    """
    context = Context(prepared=stage.prepare(Context()))

    def onward(state):
        answer, _ = stage.step(drive, sustaining(state), state, context)
        return stage.step(drive, link(answer), state, context)[1]

    lowest, highest = torch.full_like(drive, -2000.0), torch.full_like(drive, 2000.0)  # logarithms, as the state is
    with torch.no_grad():
        for _ in range(100):
            middle = (lowest + highest) / 2
            rising = onward(middle) > middle
            lowest, highest = torch.where(rising, middle, lowest), torch.where(rising, highest, middle)
    state = ((lowest + highest) / 2).requires_grad_()
    (slope,) = torch.autograd.grad(onward(state).sum(), state)
    return state.detach(), slope
