"""Each neuron's own past, predicted or recorded, weighed and added to its drive."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Fed, Reads, prepared
from neuroint.modules.spectral import OpenFraction, bins_to_forget
from neuroint.registry import Count, Fact, interactions


@interactions.register("linear_autoregressive")
class LinearAutoregressive(nn.Module):
    r"""Add each neuron's own past rates, predicted or recorded, to its drive.

    .. math:: z_i(t) = d_i(t) + \sum_{l=1}^{L} a_{il}\, r_i(t - l), \quad
        a_{il} = \rho\, c_{il} / (1 + \sum_m |c_{im}|)

    Fed with predictions, r are the model's own rates, never records, so it is in the same information class as the
    stimulus. Fed with records, r(t - l) is what was recorded l - 1 bins before the newest record that may be read; that
    is another class, and nothing recurs. Neurons do not mix. Before the first frame r counts as 0.

    The sum of absolute coefficients stays below the bound rho < 1, so behind a link of slope at most 1 (``elu1``,
    ``softplus``, ``identity``) the recurrence is stable for every parameter; behind ``exp`` it is not certified. It
    starts at a = 0, which is ``none``, its null; the null for the recurrence itself is a core with a longer temporal
    filter. ``memory_bins`` is when, at the bound, 5 % of what the initial state did is left; fed with records it is the
    number of lags.

    Args:
        lags: L, in bins.
        bound: rho, the cap of the sum of absolute coefficients.
        per_neuron: coefficients for every neuron, or one set shared by all.
        fed: ``predictions`` (the model's own) or ``recorded``.

    Source: the linear recurrence of Pillow et al. (2008), Nature 454, 995-999, fed with predictions.
    """

    couples_neurons: ClassVar[bool] = False
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        lags: Count = 3,
        bound: OpenFraction = 0.7,
        per_neuron: bool = True,
        fed: Fed = "predictions",
    ) -> None:
        super().__init__()
        self.lags, self.bound, self.per_neuron, self.fed = lags, bound, per_neuron, fed
        self.reads = Reads(information="recorded_past" if fed == "recorded" else "own_predictions")
        self.memory_bins = lags * bins_to_forget(bound) if fed == "predictions" else lags
        self.raw_coefficients = nn.Parameter(torch.zeros(n_neurons if per_neuron else 1, lags))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all coefficients to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def coefficients(self) -> Float[Tensor, "neurons lags"]:
        """Coefficients a, the last bin's first; one row if they are shared."""
        size = self.raw_coefficients.abs().sum(-1, keepdim=True)
        return self.strength * self.bound * self.raw_coefficients / (1 + size)

    def prepare(self, context: Context) -> Float[Tensor, "neurons lags"]:
        """Pick the coefficients of the neurons present."""
        coefficients = self.coefficients()
        return context.of_neurons(coefficients) if self.per_neuron else coefficients

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
        past = torch.cat([last_rate[..., None], state], dim=-1)
        return drive_t + (prepared(self, context) * past).sum(-1), past[..., : self.lags - 1]
