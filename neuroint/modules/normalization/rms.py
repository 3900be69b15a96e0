"""Normalization by the size of the whole population's drive."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads
from neuroint.modules.blending import Blend, divided_by_size, spread
from neuroint.modules.rectified import full
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Fact, normalizations


@normalizations.register("rms")
class RootMeanSquare(nn.Module):
    r"""Divide all drives of a frame by their root mean square over neurons, as far as a learned share goes.

    .. math:: d'_i = (1 - m)\, d_i + m \Big(\gamma_i \frac{d_i}{\sqrt{\sigma^2 + N^{-1} \sum_j d_j^2}} + b_i\Big)

    ``batch time neurons`` in and out, every frame by itself, never over time; all in units of the drive but m and
    gamma. Squared, the fraction is divisive normalization with exponent 2 and a uniform pool of everyone, oneself
    included; sigma is learned and stands where such layers have a constant epsilon. It reads the stimulus only.

    It starts at m = .05, sigma at the size of the neurons' mean drives, and gamma such that a population of that size
    keeps its drive. Strength zero (:meth:`off`) is m = 0: the drive, and so ``none``, its null. A uniform pool is a
    gain for everyone, as arousal and luminance have; ``population_pool`` asks what choosing neighbors adds to it. Cost
    is linear in neurons.

    Raises:
        ValueError: a subset of neurons.

    Source: Zhang & Sennrich (2019), NeurIPS 32; as a pool, Carandini & Heeger (2012), Nat. Rev. Neurosci. 13, 51-62.
    """

    reads: ClassVar[Reads] = Reads(population=True)

    def __init__(self, *, mean_drive: Fact[Float[np.ndarray, " neurons"]]) -> None:
        super().__init__()
        size = spread(mean_drive)
        self.blend = Blend(scale=math.sqrt(2) * size, offset=np.zeros_like(mean_drive))
        self.log_sigma = nn.Parameter(torch.tensor(math.log(size)))

    def off(self) -> None:
        """Set the share of the normalized drive to 0."""
        self.blend.off()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Normalize every frame by itself."""
        refuse_subset("rms", context)
        held = full(drive)
        return self.blend(held, divided_by_size(held, held.square().mean(-1, keepdim=True), self.log_sigma), context)
