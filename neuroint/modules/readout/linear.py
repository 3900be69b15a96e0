"""The readout without restriction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Reads
from neuroint.modules.penalties import absolute_sum, spatial_roughness, weighed_sum
from neuroint.modules.selection import of_neurons
from neuroint.registry import Fact, NonNegative, readouts


@readouts.register("linear")
class Linear(nn.Module):
    r"""Read each neuron's drive as a weighted sum of all features at all pixels.

    .. math:: d_n(t) = b_n + \sum_{cp} w_{ncp} F_{cp}(t)

    Behind core ``linear`` it makes the full-rank linear-nonlinear model; behind a convolutional core it has
    neurons x channels x pixels weights, too many for large populations. Its null is ``factorized``.

    Args:
        weight_l1: weight of the sum of absolute weights, beside a loss per response.
        smoothness: weight of the roughness of the weights over pixels.

    Source: Chichilnisky (2001), Network 12, 199-213.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        n_neurons: Fact[int],
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        weight_l1: NonNegative = 0.0,
        smoothness: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.embedding_channels = feature_shape[0]
        fan_in = int(np.prod(feature_shape))
        self.weights = nn.Parameter(torch.randn(n_neurons, *feature_shape) * 0.1 / fan_in**0.5)
        self.bias = nn.Parameter(torch.tensor(mean_drive, dtype=torch.float32))
        self.strengths = (weight_l1, smoothness)

    def forward(
        self,
        features: Float[Tensor, "batch time channel height width"],
        pupil: Float[Tensor, "batch pupil_time pupil"] | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "batch time chosen"]:
        """Read the drive of all neurons, or of the chosen ones; the pupil is not looked at."""
        weights = of_neurons(self.weights, neurons).flatten(1)
        return functional.linear(features.flatten(2), weights, of_neurons(self.bias, neurons))

    def embedding(self) -> Float[Tensor, "neurons embed"]:
        """Weights of every neuron summed over pixels: its answer to a uniform feature map, channel by channel."""
        return self.weights.sum((2, 3))

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the absolute weights and their roughness over pixels."""
        l1, smoothness = self.strengths
        return weighed_sum((l1, absolute_sum, self.weights), (smoothness, spatial_roughness, self.weights))
