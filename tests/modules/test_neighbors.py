"""Sums over neighbors, written out."""

import torch

from neuroint.modules.neighbors import frame_sum, neighbor_sum


def given():
    generator = torch.Generator().manual_seed(0)
    neighbors = torch.stack([torch.randperm(6, generator=generator)[:3] for _ in range(6)])
    weights = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    return values, neighbors, weights


def test_a_frame_weighs_and_sums_each_neurons_neighbors():
    values, neighbors, weights = given()
    w, v, n = weights.tolist(), values.tolist(), neighbors.tolist()
    expected = [[sum(w[i][k] * clip[n[i][k]] for k in range(3)) for i in range(6)] for clip in v]
    torch.testing.assert_close(frame_sum(values, neighbors, weights), torch.tensor(expected, dtype=torch.float64))


def test_one_frame_is_a_stretch_of_one_frame():
    values, neighbors, weights = given()
    stretch = neighbor_sum(values[:, None], neighbors, weights)[:, 0]
    torch.testing.assert_close(frame_sum(values, neighbors, weights), stretch)


def test_gradients_of_a_frame_equal_finite_differences():
    values, neighbors, weights = given()
    assert torch.autograd.gradcheck(lambda v, w: frame_sum(v, neighbors, w), (values, weights))
