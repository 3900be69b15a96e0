"""``benchmarks/ring_cells.py``: how recorded cells are prepared, and what is said of a network fitted to them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from ring_cells import HIDDEN, ahead, baselines, markdown, next_bin_correlation, read, scores, smoothed, turning
from ring_parts.fitting import model_with


def write_cells(file, neurons=6, bins=10_000):
    """Cells of a head that turns steadily, awake and asleep; one bin is 10 ms."""
    draw = np.random.default_rng(0)
    angle = (0.02 * np.arange(bins)) % (2 * np.pi)
    preferred = np.arange(neurons) * 2 * np.pi / neurons
    rate = np.exp(3 * (np.cos(angle[:, None] - preferred) - 1))
    counts = draw.poisson(rate).astype(np.uint8)
    arrays = {"wake_counts": counts, "rem_counts": counts[: bins // 2], "preferred_angle_rad": preferred}
    np.savez(file, wake_angle_rad=angle.astype(np.float32), **arrays)
    return file


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    return read(write_cells(tmp_path_factory.mktemp("cells") / "cells.npz"))


def test_counts_become_rates_between_0_and_1_scaled_by_those_awake():
    counts = np.random.default_rng(0).poisson(1.0, (5000, 3))
    rates, scale = smoothed(counts)
    assert rates.shape == (1000, 3)
    assert 0 <= rates.min() < rates.max() == 1
    np.testing.assert_allclose(rates.mean(axis=0), 5 / scale, rtol=0.05)
    odd = (1 - np.exp(-2)) / 2  # of Poisson counts of mean 1
    np.testing.assert_allclose(smoothed(counts // 2 * 2, scale)[0].mean() * scale.mean(), 5 * (1 - odd), rtol=0.05)


def test_velocity_is_in_radians_per_second_across_a_full_turn():
    angle = (1.5 * 0.01 * np.arange(3000)) % (2 * np.pi)
    np.testing.assert_allclose(turning(angle)[5:-5], 1.5, atol=1e-3)


def test_every_fifth_clip_of_ten_seconds_is_held_out(cells):
    assert cells.rates.shape == (10, 200, 6)
    assert cells.session.clips("validation").tolist() == [4, 9]
    assert cells.session.facts.bin_s == 0.05


def test_correlations_are_with_the_bin_before():
    first = np.random.default_rng(0).normal(size=500)
    rates = np.stack([first, np.roll(first, 1)], axis=1)
    found = next_bin_correlation(rates)
    assert found[1, 0] == pytest.approx(1)
    assert abs(found[0, 1]) < 0.2


def network(cells, shift):
    """A network without hidden units whose bump is handed from each unit to its neighbor (or to itself)."""
    model = model_with({"hidden": HIDDEN, "alpha": 1.0}, cells.session, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.core.factors[0][:6, :6] = torch.roll(torch.eye(6), shift, dims=1)
    return model


def test_going_on_in_rem_uses_the_neurons_it_is_given(cells):
    keeps = network(cells, 0)
    order = np.array([1, 2, 3, 4, 5, 0])
    assert ahead(keeps, cells.rem, order) == pytest.approx(ahead(keeps, cells.rem, np.arange(6)), abs=1e-6)
    turns = network(cells, 1)  # five bins on, the bump stands at the neighbor on the other side: six units are a ring
    assert ahead(turns, cells.rem, np.arange(6)) != pytest.approx(ahead(turns, cells.rem, order[::-1].copy()), abs=0.01)


def test_couplings_along_the_ring_are_told_from_renamed_ones(cells):
    model = network(cells, 0)
    with torch.no_grad():
        near = np.cos(cells.preferred[:, None] - cells.preferred[None, :])
        model.core.factors[0][:6, :6] = torch.from_numpy(near)
    found = scores(model, cells, 0, draws=19)
    assert found["preferred"]["score"] > 0.9  # ranks: equal differences tie, and rounding breaks ties
    assert found["preferred"]["p"] <= 0.3  # of 720 names, 12 leave a ring of six as it is
    table = markdown([found], baselines(cells))
    assert "| 0 |" in table
    assert "| without a network | |" in table


def test_activity_that_stays_needs_no_network(cells):
    slow = cells._replace(rem=np.linspace(0, 1, 240, dtype=np.float32).reshape(40, 6))  # every neuron rises
    assert baselines(slow)["rem_ahead"] == pytest.approx(1, abs=1e-5)


@pytest.mark.recordings
def test_the_real_cells_are_read_whole(recordings):
    cells = read(recordings / "head_direction_peyrache2015" / "head_direction.npz")
    assert cells.rates.shape == (148, 200, 19)
    assert cells.rem.shape == (19520, 19)
    assert 0.5 < cells.velocity.std() < 3
