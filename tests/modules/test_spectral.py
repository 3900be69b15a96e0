"""Bounds of spectral norms against singular values, for any matrix."""

import numpy as np
import pytest
import torch

from neuroint.modules.spectral import bins_to_forget, capped, dense_norm, low_rank_norm, sparse_norm

SCALES = [1e-6, 1e-2, 1.0, 1e3, 1e8]


def draw(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def spectral(matrix):
    return np.linalg.svd(matrix.detach().numpy(), compute_uv=False)[0]


def test_the_dense_bound_is_the_root_of_row_sums_times_column_sums():
    matrix = torch.tensor([[0.0, 2.0], [-3.0, 1.0]])
    assert dense_norm(matrix).item() == 4 * 3


@pytest.mark.parametrize("seed", range(20))
def test_no_bound_is_below_the_spectral_norm(seed):
    matrix = draw(7, 7, seed=seed) ** 3
    neighbors = torch.stack([torch.randperm(7, generator=torch.Generator().manual_seed(seed))[:4] for _ in range(7)])
    weights = draw(7, 4, seed=seed)
    sparse = torch.zeros(7, 7, dtype=torch.float64).scatter(1, neighbors, weights)
    left, right = draw(7, 3, seed=seed), draw(7, 3, seed=seed + 100)
    assert dense_norm(matrix).sqrt() >= spectral(matrix)
    assert sparse_norm(neighbors, weights).sqrt() >= spectral(sparse)
    assert low_rank_norm(left, right).sqrt() >= spectral(left @ right.T) * (1 - 1e-12)


def test_the_sparse_bound_is_the_dense_bound_of_the_same_matrix():
    neighbors = torch.tensor([[1, 2], [2, 0], [0, 1]])
    weights = draw(3, 2)
    sparse = torch.zeros(3, 3, dtype=torch.float64).scatter(1, neighbors, weights)
    torch.testing.assert_close(sparse_norm(neighbors, weights), dense_norm(sparse))


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_the_low_rank_norm_is_the_spectral_norm_also_where_columns_depend_on_each_other(rank):
    left, right = draw(8, rank), draw(8, rank, seed=1)
    assert low_rank_norm(left, right).sqrt().item() == pytest.approx(spectral(left @ right.T), rel=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_a_capped_matrix_stays_below_the_cap_whatever_its_size(scale):
    matrix = draw(9, 9, scale=scale)
    assert spectral(capped(matrix, dense_norm(matrix), 0.9)) <= 0.9
    left, right = draw(9, 2, scale=scale), draw(9, 2, seed=1)
    assert spectral(capped(left, low_rank_norm(left, right), 0.9) @ right.T) <= 0.9 * (1 + 1e-12)


def test_a_small_matrix_is_only_scaled_by_the_cap():
    matrix = draw(4, 4, scale=1e-3)
    torch.testing.assert_close(capped(matrix, dense_norm(matrix), 0.9), 0.9 * matrix)


def test_gradients_at_nothing_are_numbers_and_not_zero():
    left = torch.zeros(6, 2, requires_grad=True)
    right = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (capped(left, low_rank_norm(left, right), 0.9) @ right.T).sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.isfinite().all()
    assert left.grad.any()
    assert right.grad.isfinite().all()


def test_the_memory_is_when_a_twentieth_is_left():
    assert bins_to_forget(0.9) == 29  # .9^28 = .052, .9^29 = .047
    assert bins_to_forget(0.01) == 1
