"""Graphs of neighbors: who they hold, and which degrees the controls keep."""

import numpy as np
import pytest
import torch

from neuroint.modules.graphs import dense, edge_scores, neighbor_graph, random_regular, rewired
from neuroint.modules.positions import nearest_neighbors
from neuroint.registry import MissingFactError

N, K = 200, 6
POSITIONS = np.random.default_rng(0).uniform(0, 500, (N, 3)).astype(np.float32)
EMBEDDING = torch.randn(N, 5, generator=torch.Generator().manual_seed(1))


def neighbors(kind, seed=0, count=K):
    return neighbor_graph(kind, N, POSITIONS, count, seed)(EMBEDDING).numpy()


def in_degree(graph):
    return np.bincount(graph.ravel(), minlength=len(graph))


@pytest.mark.parametrize("kind", ["position", "embedding", "random", "degree_matched"])
def test_each_neuron_has_k_different_others(kind):
    graph = neighbors(kind)
    assert graph.shape == (N, K)
    for i, row in enumerate(graph):
        assert i not in row
        assert len(set(row)) == K
    assert graph.min() >= 0
    assert graph.max() < N


def test_in_a_random_graph_each_is_read_by_k():
    assert (in_degree(neighbors("random")) == K).all()


def test_degree_matching_keeps_how_often_each_is_read_and_nothing_else():
    near, matched = neighbors("position"), neighbors("degree_matched")
    assert np.array_equal(in_degree(matched), in_degree(near))
    assert len(set(in_degree(near))) > 1, "degrees have to differ for this to say anything"
    shared = np.mean([len(set(a) & set(b)) / K for a, b in zip(near, matched, strict=True)])
    assert shared < 0.1  # chance is k/N = .03
    assert np.linalg.norm(POSITIONS[matched] - POSITIONS[:, None], axis=-1).mean() > 200  # random pairs: 330 um


def test_a_random_graph_is_not_the_ring_it_was_made_from():
    steps = (neighbors("random") - np.arange(N)[:, None]) % N
    assert np.isin(steps, np.arange(1, K + 1)).mean() < 0.1


@pytest.mark.parametrize("kind", ["random", "degree_matched"])
def test_the_seed_decides(kind):
    assert np.array_equal(neighbors(kind, seed=3), neighbors(kind, seed=3))
    assert not np.array_equal(neighbors(kind, seed=3), neighbors(kind, seed=4))


def test_near_cells_are_the_neighbors_by_position():
    assert np.array_equal(neighbors("position"), nearest_neighbors(POSITIONS, K)[0])


def test_neighbors_by_embedding_point_the_same_way_whatever_their_length():
    graph = neighbor_graph("embedding", 4, None, 1, 0)
    found = graph(torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 1.0], [0.1, 5.0]]))
    assert found.squeeze(1).tolist() == [2, 3, 0, 1]


def test_rewiring_changes_neither_its_input_nor_a_complete_graph():
    complete = np.array([[1, 2], [0, 2], [0, 1]])
    assert np.array_equal(rewired(complete, 0), complete)
    ring = random_regular(30, 4, 0)
    before = ring.copy()
    rewired(ring, 1)
    assert np.array_equal(ring, before)


@pytest.mark.parametrize("kind", ["position", "embedding", "random", "degree_matched"])
def test_all_others_are_taken_where_there_are_fewer_than_asked_for(kind):
    graph = neighbor_graph(kind, 3, POSITIONS[:3], 10, 0)
    assert graph.count == 2
    assert {tuple(sorted(row)) for row in graph(EMBEDDING[:3]).tolist()} == {(1, 2), (0, 2), (0, 1)}


@pytest.mark.parametrize("kind", ["position", "embedding", "random", "degree_matched"])
def test_one_neuron_has_no_neighbors(kind):
    with pytest.raises(ValueError, match="at least 2 neurons, got 1; choose a design without neighbors"):
        neighbor_graph(kind, 1, POSITIONS[:1], 3, 0)


@pytest.mark.parametrize("kind", ["position", "degree_matched"])
def test_near_cells_need_positions(kind):
    with pytest.raises(MissingFactError, match=r"needs positions_um.*set graph: embedding or random"):
        neighbor_graph(kind, N, None, K, 0)


def test_scores_of_edges_are_entries_of_all_products(monkeypatch):
    query, key = torch.randn(2, N, 3, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    graph = torch.tensor(neighbors("random"))
    whole = torch.einsum("ihw,jhw->hij", query, key) / 2
    expected = whole.gather(2, graph.expand(3, N, K))
    torch.testing.assert_close(edge_scores(query, key, graph), expected)
    monkeypatch.setattr("neuroint.modules.chunks.CHUNK", {"cpu": 1000})
    torch.testing.assert_close(edge_scores(query, key, graph), expected)


def test_a_matrix_holds_each_weight_at_its_pair():
    graph, weights = torch.tensor([[1, 2], [0, 2], [1, 0]]), torch.arange(6.0).view(3, 2) + 1
    expected = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 4.0], [6.0, 5.0, 0.0]])
    assert torch.equal(dense(graph, weights), expected)
