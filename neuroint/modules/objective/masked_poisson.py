"""The Poisson loss of what a model was not shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from neuroint.data.base import Batch
from neuroint.modules.alignment import PredictsRates, aligned, summed
from neuroint.modules.masking import Masking, masked_view
from neuroint.registry import Positive, objectives

MASKING = Masking()


@objectives.register("masked_poisson")
class MaskedPoisson(nn.Module):
    r"""Mask recorded activity, and score rates by the Poisson loss of everything that was hidden.

    .. math:: \sum_{hidden} (\hat r - y \log(\hat r + \epsilon))

    in nats, over valid responses that are hidden: masked entries of held-in neurons, all of held-out neurons, and all
    neurons in bins of forward prediction. Which neurons are held in follows from the data (``data.observed: masked``,
    or a reader that says so); where no predicted neuron is observed, everything counts and the mask is a dropout of the
    input. Without recorded activity this is ``poisson``, its null. Models are evaluated unmasked. It costs one
    prediction per step, as ``poisson``.

    Args:
        masking: how much is masked and by what (``neuroint.modules.masking.Masking``).
        eps: keeps the logarithm finite where the rate is 0, in responses per bin.

    Raises:
        ValueError: no frame is left after the model's lost frames and burn-in.

    Source: Ye and Pandarinath (2021), Neurons, Behavior, Data analysis, and Theory; arXiv:2108.01210.
    """

    needs_positive_rate: ClassVar[bool] = True

    def __init__(self, *, masking: Masking = MASKING, eps: Positive = 1e-8) -> None:
        super().__init__()
        self.masking, self.eps = masking, eps

    def forward(
        self,
        model: PredictsRates,
        batch: Batch,
        generator: torch.Generator | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Sum the loss over hidden valid responses, and count them; masks are drawn from the generator."""
        counted = batch.valid
        if batch.inputs.observed is not None:
            shown, mask = masked_view(self.masking, batch.inputs.observed, generator)
            counted = counted & hidden(model, batch, mask)
            batch = replace(batch, inputs=replace(batch.inputs, observed=shown))
        rate, responses, valid = aligned(model, replace(batch, valid=counted), neurons)
        return summed(lambda r, y: r - y * torch.log(r + self.eps), rate, responses, valid)


def hidden(model: Any, batch: Batch, mask: Bool[Tensor, "batch time observed"]) -> Bool[Tensor, "batch time neurons"]:
    """Say of every response whether the model is not shown it under a mask."""
    offer = getattr(model, "recorded", None)
    found = torch.ones_like(batch.valid)
    if offer is None or not offer.reconstructs:
        return found
    time = mask.shape[1]
    if batch.unseen is not None:
        last = torch.arange(time, device=mask.device) >= time - batch.unseen.to(mask.device)[:, None]
        mask = mask | last[..., None]
    found[..., : mask.shape[2]] = mask
    return found
