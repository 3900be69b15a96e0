"""Where a design takes its neuron embeddings from: the readout's weights, or free ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context
from neuroint.registry import MissingFactError


class ReadoutEmbedding(nn.Module):
    """Hand on the readout's weights per neuron, scaled to root mean square 1."""

    def __init__(self, n_neurons: int, embedding_channels: int | None, width: int) -> None:
        super().__init__()
        if embedding_channels is None:
            raise MissingFactError("embedding: readout needs embedding_channels, which no readout gave; choose free")
        self.width = embedding_channels

    def forward(self, context: Context) -> Float[Tensor, "neurons embed"]:
        """Pick the embeddings of the neurons present; raises ``ValueError`` if the context holds none."""
        if context.embedding is None:
            raise ValueError("the context holds no embedding; give Context(embedding=readout.embedding())")
        return scaled(context.of_neurons(context.embedding))


class FreeEmbedding(nn.Module):
    """Learn an embedding per neuron, handed on scaled to root mean square 1."""

    def __init__(self, n_neurons: int, embedding_channels: int | None, width: int) -> None:
        super().__init__()
        self.width = width
        self.vectors = nn.Parameter(torch.randn(n_neurons, width))

    def forward(self, context: Context) -> Float[Tensor, "neurons embed"]:
        """Pick the embeddings of the neurons present."""
        return scaled(context.of_neurons(self.vectors))


EMBEDDINGS = {"readout": ReadoutEmbedding, "free": FreeEmbedding}


def scaled(embedding: Float[Tensor, "neurons embed"]) -> Float[Tensor, "neurons embed"]:
    """Scale every neuron's embedding to root mean square 1, so that the scale of readout weights does not matter."""
    size = embedding.square().mean(-1, keepdim=True)
    return embedding * torch.rsqrt(size + 1e-12)  # weights below 1e-6 are none
