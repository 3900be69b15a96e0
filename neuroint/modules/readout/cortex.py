"""The readout of groups of pooled channels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.base import Reads
from neuroint.modules.selection import of_neurons
from neuroint.registry import BelowOne, Count, Fact, readouts


@readouts.register("cortex")
class Cortex(nn.Module):
    r"""Read each neuron's drive from one group of the channels, in the mean over pixels.

    .. math:: d_n(t) = b_n + \sum_{c \in g(n)} w_{nc}\, \bar F_c(t)

    The channels are divided into as many equal groups as asked for, and so are the neurons, in the order in which they
    were recorded. In training whole channels are dropped, the same ones in all frames of a clip. It stands behind the
    shuffled layers of core ``depthwise_conv3d``. Its null is ``linear``, which reads all channels.

    Args:
        groups: of channels and of neurons.
        dropout: share of channels dropped in training.

    Raises:
        ValueError: the groups do not divide the channels.

    Source: the winner of Sensorium 2023 (DwiseNeuro), described in Turishcheva et al. (2024), NeurIPS 37.
    """

    reads: ClassVar[Reads] = Reads()
    group: Tensor

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        n_neurons: Fact[int],
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        groups: Count = 2,
        dropout: BelowOne = 0.4,
    ) -> None:
        super().__init__()
        channels = feature_shape[0]
        if channels % groups:
            raise ValueError(f"readout 'cortex': {groups} groups do not divide {channels} channels; change groups")
        self.groups, self.embedding_channels = groups, channels // groups
        self.dropout = nn.Dropout1d(dropout)
        self.weights = nn.Parameter(torch.randn(n_neurons, channels // groups) * 0.1 / (channels // groups) ** 0.5)
        self.bias = nn.Parameter(torch.tensor(mean_drive, dtype=torch.float32))
        self.register_buffer("group", torch.arange(n_neurons) * groups // n_neurons, persistent=False)

    def forward(
        self,
        features: Float[Tensor, "batch time channel height width"],
        pupil: Float[Tensor, "batch pupil_time pupil"] | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "batch time chosen"]:
        """Read the drive of all neurons, or of the chosen ones; the pupil is not looked at."""
        pooled = self.dropout(features.mean((3, 4)).transpose(1, 2)).unflatten(1, (self.groups, -1))
        group, weights = self.group if neurons is None else self.group[neurons], of_neurons(self.weights, neurons)
        members = [torch.nonzero(group == index).flatten() for index in range(self.groups)]
        read = [pooled[:, index].transpose(1, 2) @ weights[of_group].T for index, of_group in enumerate(members)]
        return torch.cat(read, 2)[..., torch.cat(members).argsort()] + of_neurons(self.bias, neurons)

    def embedding(self) -> Float[Tensor, "neurons embed"]:
        """Weights of every neuron on the channels of its group."""
        return self.weights
