"""What is said of networks identified with a ring: maps, modulation, order of units, and recovery against shuffling."""

import numpy as np
import pytest

from neuroint.analysis.ring import (
    circulant_r2,
    connectivity_figure,
    correlation,
    gain_signed_product,
    profile,
    profile_correlation,
    recovery,
    sorted_by_heading,
    tuning_figure,
    tuning_maps,
    velocity_modulation,
)
from neuroint.data.simulators.ring_parts.network import ring_network

TRUE = ring_network(30).recurrent


def turns(trajectories=6, frames=4000):
    draw = np.random.default_rng(0)
    return draw.normal(0, 2, (trajectories, frames)), draw.uniform(0, 2 * np.pi, (trajectories, frames))


def test_maps_average_what_fell_into_a_bin():
    velocity, heading = np.array([[-5.0, -4.9, 4.9, 5.0, 7.0]]), np.array([[0.01, 0.02, 6.28, 0.0, 0.0]])
    rates = np.array([[[1.0], [3.0], [5.0], [100.0], [100.0]]])
    maps = tuning_maps(rates, velocity, heading)
    assert maps.shape == (40, 62, 1)
    assert maps[0, 0, 0] == 2.0
    assert maps[39, 61, 0] == 5.0
    assert np.isfinite(maps).sum() == 2, "velocities beyond 5 are left out"


def test_modulation_is_known_for_units_made_by_hand():
    velocity, heading = turns()
    tuned = 1 + np.cos(heading)
    rates = np.stack([tuned, tuned * np.where(velocity > 0, 3, 1), tuned * np.where(velocity > 0, 0, 1), 0 * tuned], -1)
    found = velocity_modulation(rates, velocity, heading)
    np.testing.assert_allclose(found[:3], [0, 0.5, -1], atol=0.01)
    assert np.isnan(found[3]), "a silent unit has none"


def test_headings_that_are_visited_unequally_make_no_modulation():
    velocity, heading = turns()
    heading = np.where((velocity > 0) & (heading > np.pi) & (heading < 5), heading - np.pi, heading)
    tuned = (1 + np.cos(heading))[..., None]
    apart = tuned[velocity > 1.5].mean() - tuned[velocity < -1.5].mean()
    assert abs(apart) > 0.1
    assert abs(velocity_modulation(tuned, velocity, heading)[0]) < 0.01


def test_units_are_sorted_by_the_heading_they_prefer_the_last_first():
    velocity, heading = turns()
    preferred = np.array([1.0, 5.0, 3.0])
    maps = tuning_maps(np.cos(heading[..., None] - preferred), velocity, heading)
    assert sorted_by_heading(maps).tolist() == [1, 2, 0]


def test_a_profile_averages_entries_at_equal_distance():
    matrix = np.array([[0.0, 1, 2], [5, 3, 4], [8, 9, 6]])
    np.testing.assert_allclose(profile(matrix), [(0 + 3 + 6) / 3, (1 + 4 + 8) / 3, (2 + 5 + 9) / 3])


def test_a_circulant_matrix_is_explained_by_its_profile_and_noise_is_not():
    noise = np.random.default_rng(0).normal(size=(30, 30))
    assert circulant_r2(TRUE) == pytest.approx(1)
    assert circulant_r2(noise) < 0.08
    noisy = TRUE + TRUE.std() * noise
    assert circulant_r2(noisy) == pytest.approx(0.5, abs=0.07)


def test_for_a_circulant_truth_the_scores_are_bound_by_an_identity():
    noisy = TRUE + 0.1 * np.random.default_rng(0).normal(size=TRUE.shape)
    product = profile_correlation(noisy, TRUE) ** 2 * circulant_r2(noisy)
    assert correlation(noisy, TRUE) ** 2 == pytest.approx(product)


def test_the_product_is_weighed_by_the_input():
    to_hidden, from_hidden = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(gain_signed_product(to_hidden, np.array([1.0, -1.0]), from_hidden), [[1, -2], [-1, -1]])


def test_the_truth_with_noise_is_found_and_beats_every_shuffled_draw():
    noisy = TRUE + TRUE.std() * np.random.default_rng(0).normal(size=TRUE.shape)
    found = recovery(noisy, TRUE, draws=99)
    assert found["correlation"].score == pytest.approx(np.corrcoef(noisy.ravel(), TRUE.ravel())[0, 1])
    for one in found.values():
        assert one.score > one.highest
        assert one.p == pytest.approx(0.01)


def test_noise_alone_is_not_found():
    found = recovery(np.random.default_rng(3).normal(size=TRUE.shape), TRUE, draws=99)
    assert found["correlation"].p > 0.05
    assert found["circulant_r2"].p > 0.05


def test_a_true_matrix_with_renamed_units_is_no_find():
    order = np.random.default_rng(1).permutation(30)
    assert recovery(TRUE[np.ix_(order, order)], TRUE, draws=99)["correlation"].p > 0.05


def test_the_same_seed_draws_the_same_null():
    noisy = TRUE + np.random.default_rng(0).normal(size=TRUE.shape)
    nulls = [recovery(noisy, TRUE, draws=5, seed=seed)["correlation"].null for seed in (0, 0, 1)]
    np.testing.assert_array_equal(nulls[0], nulls[1])
    assert not np.array_equal(nulls[0], nulls[2])


@pytest.mark.parametrize(
    ("found", "message"),
    [(TRUE[:5], r"found is \(5, 30\) and true \(30, 30\); give two square"), (0 * TRUE, "equal entries everywhere")],
    ids=["shape", "constant"],
)
def test_what_cannot_be_scored_is_refused(found, message):
    with pytest.raises(ValueError, match=message):
        recovery(found, TRUE)


def test_the_figure_shows_a_row_for_each_pair(tmp_path):
    connectivity_figure([{"W": TRUE, "found": TRUE}, {"Wv": TRUE, "product": -TRUE}], tmp_path / "ring.png")
    assert (tmp_path / "ring.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_of_tuning_takes_units_at_equal_steps_and_leaves_empty_bins_white(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda axis, image, **kw: shown.append((image, kw)))
    maps = np.arange(2 * 3 * 5, dtype=float).reshape(2, 3, 5)
    maps[0, 0] = np.nan
    tuning_figure({"true": maps, "found": maps[..., :2]}, 3, tmp_path / "tuning.png")
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert [int(image[1, 2]) - 25 for image, _ in shown] == [0, 2, 4, 0, 0, 1]
    assert all((kw["vmin"], kw["vmax"], kw["extent"]) == (0, 29.0, (0, 360, -5.0, 5.0)) for _, kw in shown)
    assert all(np.isnan(image[0, 0]) for image, _ in shown)
