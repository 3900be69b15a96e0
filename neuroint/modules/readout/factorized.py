"""The readout of low rank: where times what."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.base import Reads
from neuroint.modules.chunks import in_chunks
from neuroint.modules.penalties import absolute_sum, spatial_roughness, weighed_sum
from neuroint.modules.selection import of_neurons
from neuroint.registry import Count, Fact, NonNegative, readouts


@readouts.register("factorized")
class Factorized(nn.Module):
    r"""Read each neuron's drive through spatial masks times feature weights.

    .. math:: d_n(t) = b_n + \sum_r \sum_p m_{nrp} \sum_c w_{nrc} F_{cp}(t)

    Of rank R it is a full readout whose weights, seen as a matrix of pixels by channels, have rank R at most. Behind
    core ``linear`` it makes the low-rank linear-nonlinear model. Its null is rank 1 for more ranks, and ``linear`` for
    the restriction itself.

    Args:
        rank: masks per neuron.
        mask_l1: weight of the sum of absolute mask entries, beside a loss per response.
        mask_smoothness: weight of the roughness of the masks.

    Source: Klindt et al. (2017), NeurIPS 30.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        n_neurons: Fact[int],
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        rank: Count = 1,
        mask_l1: NonNegative = 0.0,
        mask_smoothness: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        channel, height, width = feature_shape
        self.embedding_channels = rank * channel
        self.mask = nn.Parameter(torch.randn(n_neurons, rank, height, width) / (height * width) ** 0.5)
        self.weights = nn.Parameter(torch.randn(n_neurons, rank, channel) * 0.1 / channel**0.5)
        self.bias = nn.Parameter(torch.tensor(mean_drive, dtype=torch.float32))
        self.strengths = (mask_l1, mask_smoothness)

    def forward(
        self,
        features: Float[Tensor, "batch time channel height width"],
        pupil: Float[Tensor, "batch pupil_time pupil"] | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "batch time chosen"]:
        """Read the drive of all neurons, or of the chosen ones; the pupil is not looked at."""
        weights = of_neurons(self.weights, neurons)
        read = partial(_read, mask=of_neurons(self.mask, neurons), weights=weights)
        drive = in_chunks(read, max(1, weights.numel()), features.flatten(0, 1))
        return drive.unflatten(0, features.shape[:2]) + of_neurons(self.bias, neurons)

    def embedding(self) -> Float[Tensor, "neurons embed"]:
        """Feature weights of every neuron, all ranks in a row."""
        return self.weights.flatten(1)

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the masks' absolute entries and their roughness."""
        l1, smoothness = self.strengths
        return weighed_sum((l1, absolute_sum, self.mask), (smoothness, spatial_roughness, self.mask))


def _read(
    features: Float[Tensor, "frames channel height width"],
    mask: Float[Tensor, "neurons rank height width"],
    weights: Float[Tensor, "neurons rank channel"],
) -> Float[Tensor, "frames neurons"]:
    seen = features.flatten(2) @ mask.flatten(2).flatten(0, 1).T  # frames, channel, neurons x rank
    return (seen * weights.flatten(0, 1).T).sum(1).unflatten(1, mask.shape[:2]).sum(-1)
