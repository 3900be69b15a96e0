"""Neighbors and bases of distance."""

import numpy as np
import pytest
import torch

from neuroint.modules.positions import nearest_neighbors, radial_basis

LINE = np.array([[0, 0, 0], [10, 0, 0], [0, 30, 0], [0, 0, 100]], dtype=np.float32)


def test_neighbors_are_the_nearest_others_in_three_dimensions():
    indices, distances = nearest_neighbors(LINE, 2)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    np.testing.assert_allclose(distances[0], [10, 30])
    np.testing.assert_allclose(distances[3], [100, np.hypot(100, 10)])


def test_no_more_neighbors_are_found_than_there_are():
    assert nearest_neighbors(LINE, 50)[0].shape == (4, 3)


def test_cells_that_share_a_position_are_never_their_own_neighbors():
    indices, distances = nearest_neighbors(np.zeros((6, 3), np.float32), 2)
    assert (indices != np.arange(6)[:, None]).all()
    assert indices.shape == (6, 2)
    assert (distances == 0).all()


def test_one_cell_has_no_neighbors():
    with pytest.raises(ValueError, match="neighbors need at least 2 neurons, got 1"):
        nearest_neighbors(LINE[:1], 2)


def test_positions_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="entries that are not finite"):
        nearest_neighbors(np.full((3, 3), np.nan, np.float32), 2)


def test_bumps_peak_at_equally_spaced_centers_and_vanish_far_away():
    basis = radial_basis(torch.tensor([0.0, 150.0, 300.0, 450.0, 5000.0], dtype=torch.float64), 450.0, 4)
    assert torch.equal(basis[:, :4].argmax(0), torch.arange(4))
    assert torch.equal(basis[:, :4].diagonal(), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(basis[0, 1], torch.tensor(np.exp(-0.5)))
    assert basis[:, 4].max() < 1e-100


def test_the_distances_are_left_as_they_were():
    distance = torch.tensor([1.0, 2.0])
    radial_basis(distance, 10.0, 1)
    assert distance.tolist() == [1.0, 2.0]
