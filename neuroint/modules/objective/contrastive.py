"""The masked Poisson loss, and two masked views of a clip that should look alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Batch
from neuroint.modules.alignment import PredictsRates
from neuroint.modules.masking import Masking, masked_view
from neuroint.modules.objective.masked_poisson import MASKING, MaskedPoisson
from neuroint.registry import NonNegative, Positive, objectives

VIEWS = Masking(least=0.05, most=0.2)
Layer = Literal["embedding", "features"]


@objectives.register("contrastive")
class Contrastive(nn.Module):
    r"""Add to the masked Poisson loss that two masked views of a clip resemble each other more than other clips do.

    .. math:: L + \lambda \sum_e \frac{1}{2B} \sum_i -\log
        \frac{e^{\cos(z_i, z_{i'}) / \tau}}{\sum_{j \ne i} e^{\cos(z_i, z_j) / \tau}}

    with :math:`L` the mean of ``masked_poisson`` in nats per hidden response, i and i' the two views of one clip, and a
    term for every embedding e that the core exposes, flattened over bins and channels. Under ``embedding`` the gradient
    of the second part reaches the embedding weights alone (an identity embedding has none: the term is then constant);
    under ``features`` it is that of the core's output, and reaches all of the core. It costs two more passes through
    the embedding, or the core. Its null is ``masked_poisson``, which is ``weight: 0``. With one clip in a batch there
    is nothing to tell apart, and the term is 0.

    Args:
        masking: of the Poisson loss.
        views: masks of the two views, drawn independently.
        temperature: of the cosines.
        weight: lambda, in nats per hidden response.
        layer: which representation is compared.
        eps: as in ``masked_poisson``.

    Raises:
        ValueError: the core exposes no embeddings, the data offers no recorded activity, or no frame is left.

    Source: Le and Shlizerman (2022), NeurIPS, arXiv:2206.04727; van den Oord et al. (2018), arXiv:1807.03748.
    """

    needs_positive_rate: ClassVar[bool] = True

    def __init__(
        self,
        *,
        masking: Masking = MASKING,
        views: Masking = VIEWS,
        temperature: Positive = 0.07,
        weight: NonNegative = 0.1,
        layer: Layer = "embedding",
        eps: Positive = 1e-8,
    ) -> None:
        super().__init__()
        self.poisson = MaskedPoisson(masking=masking, eps=eps)
        self.views, self.temperature, self.weight, self.layer = views, temperature, weight, layer

    def forward(
        self,
        model: PredictsRates,
        batch: Batch,
        generator: torch.Generator | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Sum the Poisson loss over hidden responses and count them; the other term counts once per response."""
        total, count = self.poisson(model, batch, generator, neurons)
        pairs = [self._compared(model, batch, generator) for _ in range(2)]
        likeness = [info_nce(a, b, self.temperature) for a, b in zip(*pairs, strict=True)]
        return total + self.weight * torch.stack(likeness).sum() * count, count

    def _compared(
        self, model: Any, batch: Batch, generator: torch.Generator | None
    ) -> list[Float[Tensor, "samples width"]]:
        """Embed one masked view."""
        core = getattr(model, "core", None)
        if core is None or not hasattr(core, "embeddings"):
            raise ValueError(
                f"objective 'contrastive' compares embeddings, which core '{type(core).__name__}' does not expose; "
                "choose core ndt, stndt or stndt_fixed, or objective masked_poisson"
            )
        if batch.inputs.observed is None:
            raise ValueError(
                "objective 'contrastive' masks recorded activity, which is not on offer; set data.observed"
            )
        shown, _ = masked_view(self.views, batch.inputs.observed, generator)
        inputs = replace(batch.inputs, observed=shown)
        found = core.embeddings(inputs) if self.layer == "embedding" else [core(inputs)]
        return [x.flatten(1) for x in found]


def info_nce(
    first: Float[Tensor, "samples width"], second: Float[Tensor, "samples width"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each view's partner among all other views, in nats."""
    unit = functional.normalize(torch.cat([first, second]), dim=1)
    cosines = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(unit), device=unit.device).roll(len(first))
    return functional.cross_entropy(cosines, partners)
