"""The readout that looks for each neuron's features on the map."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Reads
from neuroint.modules.chunks import in_chunks
from neuroint.modules.selection import of_neurons
from neuroint.registry import Count, Fact, readouts


@readouts.register("attention")
class Attention(nn.Module):
    r"""Read each neuron's drive from features that its query finds on the map, anew in every frame.

    .. math::
        a_{np}(t) = \mathrm{softmax}_p\big(q_n^T (K F_p(t) + e_p) / \sqrt{k}\big), \quad
        d_n(t) = b_n + \sum_c w_{nc} \sum_p a_{np}(t)\, F_{cp}(t)

    with q a query per neuron and e learned places: a neuron may look at one place, as in ``gaussian``, or at whatever
    is like its query, wherever it is. Queries start small, so that it starts from the mean over the map. Its null is
    ``gaussian``, whose place does not depend on the stimulus. Cost is frames x neurons x pixels x (width + channels);
    maps are computed in chunks of frames and never held.

    Args:
        width: k, of queries and keys.

    Source: cross-attention from neurons to visual tokens as in Li et al. (2023), arXiv:2302.03023, and Pierzchlewicz et
    al. (2023), NeurIPS 36.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        n_neurons: Fact[int],
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        width: Count = 32,
    ) -> None:
        super().__init__()
        channels, height, wide = feature_shape
        self.embedding_channels = channels
        self.key = nn.Linear(channels, width, bias=False)
        self.places = nn.Parameter(0.1 * torch.randn(height * wide, width))
        self.queries = nn.Parameter(0.1 * torch.randn(n_neurons, width))
        self.weights = nn.Parameter(torch.randn(n_neurons, channels) * 0.1 / channels**0.5)
        self.bias = nn.Parameter(torch.tensor(mean_drive, dtype=torch.float32))

    def forward(
        self,
        features: Float[Tensor, "batch time channel height width"],
        pupil: Float[Tensor, "batch pupil_time pupil"] | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "batch time chosen"]:
        """Read the drive of all neurons, or of the chosen ones; the pupil is not looked at."""
        tokens = features.flatten(0, 1).flatten(2).transpose(1, 2)
        query, weights = of_neurons(self.queries, neurons), of_neurons(self.weights, neurons)
        read = partial(_read, query=query, weights=weights)
        per_frame = max(1, len(query) * (tokens.shape[1] + tokens.shape[2]))
        drive = in_chunks(read, per_frame, tokens, self.key(tokens) + self.places)
        return drive.unflatten(0, features.shape[:2]) + of_neurons(self.bias, neurons)

    def maps(
        self, features: Float[Tensor, "batch time channel height width"]
    ) -> Float[Tensor, "batch time neurons height width"]:
        """Return where each neuron looks, for analysis; sums to 1 over the map."""
        tokens = features.flatten(3).transpose(2, 3)
        logits = torch.einsum("nk,btpk->btnp", self.queries, self.key(tokens) + self.places)
        return (logits / math.sqrt(self.queries.shape[1])).softmax(-1).unflatten(-1, features.shape[3:])

    def embedding(self) -> Float[Tensor, "neurons embed"]:
        """Feature weights of every neuron."""
        return self.weights


def _read(
    tokens: Float[Tensor, "frames pixel channel"],
    keys: Float[Tensor, "frames pixel width"],
    query: Float[Tensor, "neurons width"],
    weights: Float[Tensor, "neurons channel"],
) -> Float[Tensor, "frames neurons"]:
    found = functional.scaled_dot_product_attention(query.expand(len(keys), -1, -1), keys, tokens)
    return (found * weights).sum(-1)
