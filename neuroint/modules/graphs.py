"""Who is a neighbor of whom: near cells, cells with like embeddings, and random graphs as controls of both.

Every graph gives each neuron k distinct others. In the ``random`` one each is also read by k; ``degree_matched``
keeps from the graph of near cells how often each is read, and nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from neuroint.modules.chunks import in_chunks
from neuroint.modules.positions import Positions, nearest_neighbors
from neuroint.registry import MissingFactError

Graph = Literal["position", "embedding", "random", "degree_matched"]
ROUNDS = 12  # in each, every edge is offered one exchange; a sparse graph is mixed after a few per edge
ROWS = 512  # rows of similarities held at a time

Neighbors = Int[np.ndarray, "neurons neighbor"]


def random_regular(n_neurons: int, count: int, seed: int) -> Neighbors:
    """Draw a graph in which each neuron reads, and is read by, ``count`` others.

    Raises:
        ValueError: fewer than two neurons.
    """
    if n_neurons < 2:
        raise ValueError(f"neighbors need at least 2 neurons, got {n_neurons}; choose a design without neighbors")
    steps = np.arange(1, min(count, n_neurons - 1) + 1)
    ring = (np.arange(n_neurons)[:, None] + steps) % n_neurons
    return rewired(ring, seed)


def rewired(neighbors: Neighbors, seed: int, rounds: int = ROUNDS) -> Neighbors:
    """Exchange the targets of random pairs of edges, so that only degrees are kept.

    Edges i -> j and u -> v become i -> v and u -> j unless that makes a loop or an edge that is there already. A graph
    in which everyone is read by everyone has no other form.
    """
    n_neurons, count = neighbors.shape
    source, target = np.repeat(np.arange(n_neurons), count), neighbors.astype(np.int64).ravel()
    return exchanged(source, target, n_neurons, np.random.default_rng(seed), rounds).reshape(neighbors.shape)


def exchanged(
    source: Int[np.ndarray, " edges"],
    target: Int[np.ndarray, " edges"],
    n_neurons: int,
    draw: np.random.Generator,
    rounds: int,
    closed: Bool[np.ndarray, "sources targets"] | None = None,
) -> Int[np.ndarray, " edges"]:
    """Exchange the targets of random pairs of edges; no edge goes where it is ``closed``. Returns the new targets."""
    target = target.copy()
    for _ in range(rounds):
        first, second = draw.permutation(len(target))[: len(target) // 2 * 2].reshape(2, -1)
        made = np.stack([source[first] * n_neurons + target[second], source[second] * n_neurons + target[first]])
        refused = np.isin(made, source * n_neurons + target) | _repeated(made)
        refused |= (made // n_neurons == made % n_neurons) | (False if closed is None else closed.ravel()[made])
        kept = ~refused.any(0)
        first, second = first[kept], second[kept]
        target[first], target[second] = target[second], target[first]
    return target


def _repeated(codes: Int[np.ndarray, "*shape"]) -> np.ndarray:
    """Mark entries that occur more than once."""
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return (counts[inverse] > 1).reshape(codes.shape)


class FixedGraph(nn.Module):
    """A graph that does not change with training."""

    neighbors: Tensor

    def __init__(self, kind: Graph, n_neurons: int, positions_um: Positions | None, count: int, seed: int) -> None:
        super().__init__()
        found = FIXED[kind](n_neurons, positions_um, count, seed)
        self.count = found.shape[1]
        self.register_buffer("neighbors", torch.tensor(found), persistent=False)

    def forward(self, embedding: Float[Tensor, "neurons embed"]) -> Int[Tensor, "neurons neighbor"]:
        """Return the neighbors; the embedding is not looked at."""
        return self.neighbors


class EmbeddingGraph(nn.Module):
    """The neurons whose embeddings point most nearly the same way, looked up anew at every call."""

    def __init__(self, kind: Graph, n_neurons: int, positions_um: Positions | None, count: int, seed: int) -> None:
        super().__init__()
        if n_neurons < 2:
            raise ValueError(f"neighbors need at least 2 neurons, got {n_neurons}; choose a design without neighbors")
        self.count = min(count, n_neurons - 1)

    @torch.no_grad()
    def forward(self, embedding: Float[Tensor, "neurons embed"]) -> Int[Tensor, "neurons neighbor"]:
        """Find each neuron's nearest others, nearest first; no gradient goes through the choice."""
        unit = nn.functional.normalize(embedding.detach(), dim=-1)
        found = []
        for start in range(0, len(unit), ROWS):
            similarity = unit[start : start + ROWS] @ unit.T
            similarity.diagonal(start).fill_(-torch.inf)
            found.append(similarity.topk(self.count, dim=-1).indices)
        return torch.cat(found)


def neighbor_graph(
    kind: Graph, n_neurons: int, positions_um: Positions | None, count: int, seed: int
) -> FixedGraph | EmbeddingGraph:
    """Build a graph of ``count`` neighbors: a module from embeddings to indices.

    Args:
        kind: ``position`` (nearest cells), ``embedding`` (most similar), ``random``, or ``degree_matched``.
        n_neurons: how many there are.
        positions_um: where they lie; ``position`` and ``degree_matched`` need it.
        count: neighbors of each; all others, where there are fewer.
        seed: of the random graphs.

    Raises:
        MissingFactError: a graph of positions without positions.
        ValueError: fewer than two neurons.
    """
    return GRAPHS[kind](kind, n_neurons, positions_um, count, seed)


def edge_scores(
    query: Float[Tensor, "neurons heads width"],
    key: Float[Tensor, "neurons heads width"],
    neighbors: Int[Tensor, "neurons neighbor"],
) -> Float[Tensor, "heads neurons neighbor"]:
    """Compute products of queries with the keys of neighbors, over the root of their width, in chunks of neurons."""
    found = in_chunks(partial(_scores, key), neighbors.shape[1] * key[0].numel(), query, neighbors)
    return found.permute(2, 0, 1)


def _scores(
    key: Float[Tensor, "all_neurons heads width"],
    query: Float[Tensor, "rows heads width"],
    neighbors: Int[Tensor, "rows neighbor"],
) -> Float[Tensor, "rows neighbor heads"]:
    keys = nn.functional.embedding(neighbors, key.flatten(1)).unflatten(-1, key.shape[1:])
    return (query[:, None] * keys).sum(-1) / key.shape[-1] ** 0.5


def dense(
    neighbors: Int[Tensor, "neurons neighbor"], weights: Float[Tensor, "neurons neighbor"]
) -> Float[Tensor, "neurons neurons"]:
    """Write weights of neighbors into a matrix over all pairs, for analysis."""
    return weights.new_zeros(len(neighbors), len(neighbors)).scatter(1, neighbors, weights)


def _nearest(n_neurons: int, positions_um: Positions | None, count: int, seed: int) -> Neighbors:
    if positions_um is None:
        raise MissingFactError(
            "a graph of near cells needs positions_um, which the data does not have; supply it or set graph: embedding "
            "or random"
        )
    return nearest_neighbors(positions_um, count)[0]


def _random(n_neurons: int, positions_um: Positions | None, count: int, seed: int) -> Neighbors:
    return random_regular(n_neurons, count, seed)


def _degree_matched(n_neurons: int, positions_um: Positions | None, count: int, seed: int) -> Neighbors:
    return rewired(_nearest(n_neurons, positions_um, count, seed), seed)


FIXED = {"position": _nearest, "random": _random, "degree_matched": _degree_matched}
GRAPHS = {"position": FixedGraph, "random": FixedGraph, "degree_matched": FixedGraph, "embedding": EmbeddingGraph}
