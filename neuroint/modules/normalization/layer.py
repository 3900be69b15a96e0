"""Normalization by mean and spread of the whole population's drive."""

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


@normalizations.register("layer")
class Layer(nn.Module):
    r"""Subtract the mean over neurons from all drives of a frame and divide by their spread, by a learned share.

    .. math:: d'_i = (1 - m)\, d_i + m \Big(\gamma_i \frac{d_i - \mu}{\sqrt{\sigma^2 + N^{-1} \sum_j (d_j - \mu)^2}}
        + b_i\Big), \quad \mu = N^{-1} \sum_j d_j

    ``batch time neurons`` in and out, every frame by itself, never over time; all in units of the drive but m and
    gamma. Sigma is learned and stands where such layers have a constant epsilon. It reads the stimulus only.

    It starts at m = .05, sigma at the spread of the neurons' mean drives, and gamma and b such that a population of
    that mean and spread keeps its drive. Strength zero (:meth:`off`) is m = 0: the drive, and so ``none``, its null;
    ``rms`` is what is left without the subtraction. Cost is linear in neurons.

    Raises:
        ValueError: a subset of neurons.

    Source: Ba, Kiros & Hinton (2016), arXiv:1607.06450, over the neurons of a recording.
    """

    reads: ClassVar[Reads] = Reads(population=True)

    def __init__(self, *, mean_drive: Fact[Float[np.ndarray, " neurons"]]) -> None:
        super().__init__()
        center = np.full_like(mean_drive, mean_drive.mean())
        size = spread(mean_drive - center)
        self.blend = Blend(scale=math.sqrt(2) * size, offset=center)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(size)))

    def off(self) -> None:
        """Set the share of the normalized drive to 0."""
        self.blend.off()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Normalize every frame by itself."""
        refuse_subset("layer", context)
        held = full(drive)
        apart = held - held.mean(-1, keepdim=True)
        return self.blend(held, divided_by_size(apart, apart.square().mean(-1, keepdim=True), self.log_sigma), context)
