"""What the attention family shares: tokens of neurons, weights with a way to attend to nobody, and safe arithmetic."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.base import Context
from neuroint.modules.embedding import EMBEDDINGS

EmbeddingFrom = Literal["readout", "free"]
Weights = Literal["softmax", "sigmoid"]


class Tokens(NamedTuple):
    """Queries, keys, values and outputs of all neurons, from their embeddings."""

    query: Float[Tensor, "neurons heads width"]
    key: Float[Tensor, "neurons heads width"]
    value: Float[Tensor, "neurons heads channel"]
    output: Float[Tensor, "neurons heads channel"]


class EmbeddingTokens(nn.Module):
    """Make queries, keys, values and outputs of neurons' embeddings; outputs start at 0.

    Args:
        n_neurons: how many there are.
        embedding_channels: width of the readout's embedding, if there is one.
        embedding: ``readout`` or ``free``.
        embedding_width: width of free embeddings.
        heads: maps.
        width: of queries and keys, per head.
        channels: width of values and outputs, per head.
    """

    def __init__(
        self,
        n_neurons: int,
        embedding_channels: int | None,
        embedding: EmbeddingFrom,
        embedding_width: int,
        heads: int,
        width: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.query = nn.Linear(self.embedding.width, heads * width)
        self.key = nn.Linear(self.embedding.width, heads * width)
        self.value = nn.Linear(self.embedding.width, heads * channels)
        self.output = nn.Linear(self.embedding.width, heads * channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, context: Context) -> Tokens:
        """Compute the tokens of all neurons."""
        embedding = self.embedding(context)
        layers = (self.query, self.key, self.value, self.output)
        return Tokens(*(layer(embedding).unflatten(-1, (self.heads, -1)) for layer in layers))


def null_start(heads: int, others: int, weights: Weights) -> nn.Parameter:
    """Find the logit at which attending to nobody has half the mass where all others are alike."""
    start = {"softmax": math.log(max(others, 1)), "sigmoid": 0.0}[weights]
    return nn.Parameter(torch.full((heads,), start))


def softmax_weights(
    logits: Float[Tensor, "*batch heads rows others"], null: Float[Tensor, " heads"], others: int
) -> Float[Tensor, "*batch heads rows others"]:
    """Share a mass of 1 among others and nobody."""
    nobody = null[:, None, None].expand(*logits.shape[:-1], 1).to(logits.dtype)
    return torch.cat([logits, nobody], dim=-1).softmax(-1)[..., :-1]


def sigmoid_weights(
    logits: Float[Tensor, "*batch heads rows others"], null: Float[Tensor, " heads"], others: int
) -> Float[Tensor, "*batch heads rows others"]:
    """Weigh each other neuron for itself, at most 1 over how many there are."""
    return torch.sigmoid(logits - null[:, None, None]) / max(others, 1)


WEIGHTS = {"softmax": softmax_weights, "sigmoid": sigmoid_weights}


def excluded(
    logits: Float[Tensor, "*batch rows neurons"], rows: Int[Tensor, " rows"]
) -> Float[Tensor, "*batch rows neurons"]:
    """Give a neuron's logit towards itself the least number, whose weight is exactly 0; rows say who asks."""
    own = rows[:, None] == torch.arange(logits.shape[-1], device=rows.device)
    return logits.masked_fill(own, torch.finfo(logits.dtype).min / 2)  # half of it, so that nothing added overflows


def compressed(drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compress a drive for queries and keys: itself near 0, its logarithm far from it, so that logits stay small."""
    return torch.asinh(drive)
