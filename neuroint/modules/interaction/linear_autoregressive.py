"""Each neuron's own past predictions, weighed and added to its drive."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads
from neuroint.registry import Count, Fact, interactions

FORGOTTEN = 0.05  # share of the initial state's effect that may be left after the memory, in the worst case


@interactions.register("linear_autoregressive")
class LinearAutoregressive(nn.Module):
    r"""Add each neuron's own past predicted rates to its drive.

    .. math:: z_i(t) = d_i(t) + \sum_{l=1}^{L} a_{il} \hat r_i(t - l), \quad
        a_{il} = \rho\, c_{il} / (1 + \sum_m |c_{im}|)

    It reads the model's own predictions only, never records, so it is in the same information class as the stimulus.
    The sum of absolute coefficients stays below the bound rho < 1, so behind a link of slope at most 1 (``elu1``,
    ``softplus``, ``identity``) the recurrence is stable for every parameter; behind ``exp`` it is not certified. It
    starts at a = 0, which is ``none``, its null; the null for the recurrence itself is a core with a longer temporal
    filter. Before the first frame the rate counts as 0. ``memory_bins`` is when, at the bound, 5 % of what the initial
    state did is left.

    Args:
        lags: L, in bins.
        bound: rho, the cap of the sum of absolute coefficients.
        per_neuron: coefficients for every neuron, or one set shared by all.

    Source: the linear recurrence of Pillow et al. (2008), Nature 454, 995-999, fed with predictions.
    """

    reads: ClassVar[Reads] = Reads(information="own_predictions")
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        lags: Count = 3,
        bound: Annotated[float, Field(gt=0, lt=1)] = 0.7,
        per_neuron: bool = True,
    ) -> None:
        super().__init__()
        self.lags, self.bound, self.per_neuron = lags, bound, per_neuron
        self.memory_bins = lags * math.ceil(math.log(FORGOTTEN) / math.log(bound))
        self.raw_coefficients = nn.Parameter(torch.zeros(n_neurons if per_neuron else 1, lags))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all coefficients to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def coefficients(self) -> Float[Tensor, "neurons lags"]:
        """Coefficients a, the last bin's first; one row if they are shared."""
        size = self.raw_coefficients.abs().sum(-1, keepdim=True)
        return self.strength * self.bound * self.raw_coefficients / (1 + size)

    def initial_state(
        self, drive_0: Float[Tensor, "batch neurons"], context: Context
    ) -> Float[Tensor, "batch neurons past"]:
        """Rates of the bins before the last one: zeros."""
        return drive_0.new_zeros(*drive_0.shape, self.lags - 1)

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: Float[Tensor, "batch neurons past"],
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], Float[Tensor, "batch neurons past"]]:
        """Add what the last rates contribute, and shift them by one bin."""
        coefficients = self.coefficients()
        present = context.of_neurons(coefficients) if self.per_neuron else coefficients
        past = torch.cat([last_rate[..., None], state], dim=-1)
        return drive_t + (present * past).sum(-1), past[..., : self.lags - 1]
