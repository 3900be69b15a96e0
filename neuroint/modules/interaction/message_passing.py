"""Messages along a graph of neurons that add to a drive and scale it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.chunks import over_frames
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.graphs import Graph, dense, edge_scores, neighbor_graph
from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.pair_bias import PAIR_BIASES, Position
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import EmbeddingFrom
from neuroint.registry import Count, Fact, Index, Positive, interactions

KINDS = 2  # of messages: those that add, and those that scale


class _Prepared(NamedTuple):
    """The graph, the weights of its edges, and what embeddings add to hidden units."""

    neighbors: Int[Tensor, "neurons neighbor"]
    weights: Float[Tensor, "kinds neurons neighbor"]
    bias: Float[Tensor, "neurons hidden"]


@interactions.register("message_passing")
class MessagePassing(nn.Module):
    r"""Add messages of k others to each neuron's drive, and scale the drive by other messages, at the same frame.

    .. math::
        d'_i = d_i + \sum_{j \in N_k(i)} a_{ij}\, g(h_j) + d_i \sum_{j \in N_k(i)} m_{ij}\, g'(h_j), \\
        h_j = \phi(c\, s_j + E e_j) - \phi(E e_j), \quad g = u \cdot h_j, \quad g' = \tanh(u' \cdot h_j), \\
        a_{ij} = \big(q_i \cdot k_j / \sqrt{w} + b(x_i - x_j)\big) K(x_i - x_j) / k \quad (m_{ij} \text{ alike})

    with s = softplus(d) and phi = softplus. Weights a and m come from embeddings and positions alone, are made once per
    call, and are of either sign; a silent neuron sends nothing. Messages that scale are bounded, so the gain on a drive
    lies within 1 +- sum |m|. Queries and b start at 0, so that a = m = 0, which is ``none``, its null, and so does
    strength 0 (:meth:`off`). The nulls of *where* messages come from are its own ``graph: random`` (each reads and is
    read by k) and ``degree_matched``. It reads drives of the same frame, no records.

    Cost is neurons x (k + hidden) x frames, linear in neurons; ``graph: embedding`` adds neurons^2 x embedding once per
    call.

    Args:
        neighbors: k.
        graph: ``position`` (nearest cells), ``embedding`` (most alike, found anew at every call), or the two controls.
        graph_seed: of the random graphs.
        hidden: units h that make a message.
        edge_width: w, width of queries and keys.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        position: term from where cells lie, as in ``attention``.
        position_bases: radial bases each of lateral distance and of depth; waves; a fourth of hidden units.
        lateral_um: range of the bases, or length of the slope, in the plane.
        depth_um: the same in depth.

    Raises:
        MissingFactError: a graph or a bias from positions without positions, or ``embedding: readout`` without one.
        ValueError: fewer than two neurons, a subset of neurons, or no embedding in the context.

    Source: after the additive and multiplicative messages of AMAG, Li et al. (2023), NeurIPS 36; degree-preserving
    rewiring after Maslov & Sneppen (2002), Science 296, 910-913.
    """

    reads: ClassVar[Reads] = Reads(population=True)
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        positions_um: Fact[Positions] | None = None,
        embedding_channels: Fact[int] | None = None,
        neighbors: Count = 32,
        graph: Graph = "position",
        graph_seed: Index = 0,
        hidden: Count = 16,
        edge_width: Count = 16,
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 32,
        position: Position = "rbf",
        position_bases: Count = 4,
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
    ) -> None:
        super().__init__()
        self.graph = neighbor_graph(graph, n_neurons, positions_um, neighbors, graph_seed)
        self.bias = PAIR_BIASES[position](positions_um, KINDS, position_bases, lateral_um, depth_um)
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.query = nn.Linear(self.embedding.width, KINDS * edge_width)
        self.key = nn.Linear(self.embedding.width, KINDS * edge_width)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        self.of_drive = nn.Parameter(torch.randn(hidden))
        self.of_embedding = nn.Linear(self.embedding.width, hidden)
        self.message = nn.Parameter(torch.randn(hidden, KINDS) / hidden**0.5)
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set the weights of all edges to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Find the neighbors, and weigh every edge."""
        refuse_subset("message_passing", context)
        embedding = self.embedding(context)
        neighbors = self.graph(embedding)
        query, key = (layer(embedding).unflatten(-1, (KINDS, -1)) for layer in (self.query, self.key))
        bias = self.bias.along(neighbors)
        weights = self.strength * (edge_scores(query, key, neighbors) + bias.logit) * bias.factor
        return _Prepared(neighbors, weights / neighbors.shape[1], self.of_embedding(embedding))

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add and scale by what the neighbors send."""
        held = prepared(self, context)
        rectified = functional.softplus(drive).flatten(0, 1)
        parts = held.bias, self.of_drive, self.message
        sent = over_frames(_messages, 3 * held.bias.numel(), rectified, parts)
        added, scaled = sent.unflatten(0, drive.shape[:2]).unbind(-1)
        added = neighbor_sum(added, held.neighbors, held.weights[0])
        return drive + added + drive * neighbor_sum(scaled, held.neighbors, held.weights[1])

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return a for analysis: how column j's messages add to row i's drive."""
        held = prepared(self, context)
        return dense(held.neighbors, held.weights[0])

    def modulation(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return m for analysis: how column j's messages scale row i's drive."""
        held = prepared(self, context)
        return dense(held.neighbors, held.weights[1])


def _messages(
    rectified: Float[Tensor, "frames neurons"],
    bias: Float[Tensor, "neurons hidden"],
    of_drive: Float[Tensor, " hidden"],
    message: Float[Tensor, "hidden kinds"],
) -> Float[Tensor, "frames neurons kinds"]:
    """Compute what every neuron sends: g and g'."""
    hidden = functional.softplus(rectified[..., None] * of_drive + bias) - functional.softplus(bias)
    added, scaled = (hidden @ message).unbind(-1)
    return torch.stack([added, torch.tanh(scaled)], dim=-1)
