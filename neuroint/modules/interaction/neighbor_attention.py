"""Attention of each neuron to a few others: near ones, similar ones, or random ones as a control."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.graphs import Graph, dense, edge_scores, neighbor_graph
from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.pair_bias import PAIR_BIASES, Position
from neuroint.modules.positions import Positions
from neuroint.modules.rectified import full
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import WEIGHTS, EmbeddingFrom, EmbeddingTokens, Weights, null_start
from neuroint.registry import Count, Fact, Index, Positive, interactions


class _Prepared(NamedTuple):
    """The graph, and what every edge weighs."""

    neighbors: Int[Tensor, "neurons neighbor"]
    attended: Float[Tensor, "heads neurons neighbor"]
    coupling: Float[Tensor, "neurons neighbor"]


@interactions.register("neighbor_attention")
class NeighborAttention(nn.Module):
    r"""Add to each neuron's drive what it attends to in the rectified drives of k others at the same frame.

    .. math::
        d'_i(t) = d_i(t) + \sum_{j \in N_k(i)} C_{ij}\, \mathrm{softplus}(d_j(t)), \quad
        C_{ij} = \sum_h o_{ih} A_{hij} K_h(x_i - x_j) v_{jh}, \\
        A_{hij} = \mathrm{softmax}_{j \in N_k(i),\,\varnothing}\big(q_{hi} \cdot k_{hj} / \sqrt{w} + b_h(x_i - x_j)\big)

    as ``attention``, over a graph that never holds the neuron itself. Queries, keys, values and outputs come from
    embeddings alone, so the weights are made once per call and a frame costs one sum over neighbors; the drive of a
    neighbor enters as what is weighed, not in the weighing (``dynamic_attention`` has that). The null token takes half
    the mass at the start; with ``weights: sigmoid`` A = sigmoid(logit - null) / k. It reads drives of the same frame,
    no records. Outputs start at 0, which is ``none``, its null, and so does strength 0 (:meth:`off`).

    The nulls of *where* it attends are its own ``graph: random`` (each reads and is read by k) and ``degree_matched``
    (each is read as often as in the graph of positions). Positions of random neighbors are their true ones, so a bias
    over distance has little to say there.

    Cost is neurons x k x (heads x width + frames); ``graph: embedding`` adds neurons^2 x embedding once per call.

    Args:
        neighbors: k.
        graph: ``position`` (nearest cells), ``embedding`` (most alike, found anew at every call), or the two controls.
        graph_seed: of the random graphs.
        heads: maps.
        head_width: w, width of queries and keys.
        weights: ``softmax`` (neighbors compete) or ``sigmoid``.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        position: term from where cells lie, as in ``attention``.
        position_bases: radial bases each of lateral distance and of depth; waves; a fourth of hidden units.
        lateral_um: range of the bases, or length of the slope, in the plane.
        depth_um: the same in depth.

    Raises:
        MissingFactError: a graph or a bias from positions without positions, or ``embedding: readout`` without one.
        ValueError: fewer than two neurons, a subset of neurons, or no embedding in the context.

    Source: Velickovic et al. (2018), ICLR, with weights from embeddings; degree-preserving rewiring after Maslov &
    Sneppen (2002), Science 296, 910-913.
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
        heads: Count = 4,
        head_width: Count = 16,
        weights: Weights = "softmax",
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 32,
        position: Position = "rbf",
        position_bases: Count = 4,
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
    ) -> None:
        super().__init__()
        self.graph = neighbor_graph(graph, n_neurons, positions_um, neighbors, graph_seed)
        self.bias = PAIR_BIASES[position](positions_um, heads, position_bases, lateral_um, depth_um)
        self.weigh = WEIGHTS[weights]
        self.tokens = EmbeddingTokens(
            n_neurons, embedding_channels, embedding, embedding_width, heads, head_width, channels=1
        )
        self.null_logit = null_start(heads, self.graph.count, weights)
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all couplings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Find the neighbors, and weigh every edge."""
        refuse_subset("neighbor_attention", context)
        tokens = self.tokens(context)
        neighbors = self.graph(self.tokens.embedding(context))
        bias = self.bias.along(neighbors)
        logits = edge_scores(tokens.query, tokens.key, neighbors) + bias.logit
        attended = self.weigh(logits, self.null_logit, self.graph.count)
        value = functional.embedding(neighbors, tokens.value.squeeze(-1)).permute(2, 0, 1)
        output = self.strength * tokens.output.permute(1, 0, 2)
        return _Prepared(neighbors, attended, (attended * bias.factor * value * output).sum(0))

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add the influence of the neighbors."""
        held = prepared(self, context)
        return drive + neighbor_sum(functional.softplus(full(drive)), held.neighbors, held.coupling)

    def attention_map(self, context: Context) -> Float[Tensor, "heads neurons neurons"]:
        """Return A for analysis; what is missing from 1 in a row went to the null token."""
        held = prepared(self, context)
        return torch.stack([dense(held.neighbors, weights) for weights in held.attended])

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return C for analysis: the signed influence of column j's rectified drive on row i's drive."""
        held = prepared(self, context)
        return dense(held.neighbors, held.coupling)
