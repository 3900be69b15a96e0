"""Latents by condition: read from whole clips, told apart from chance, and drawn."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from neuroint.analysis.latents import condition_means, fewest_draws, latents_of, separation
from neuroint.data.base import TRAIN, VALIDATION
from neuroint.data.observed import observe_others
from neuroint.data.trials import trial_session
from neuroint.report.latents import draw_latents

COUNTS = np.random.default_rng(0).poisson(1.0, (8, 5, 6)).astype(np.float32)
TIERS = ("train", "validation") * 3 + ("dev_test", "final_test")
SESSION = observe_others(
    trial_session("one", "a", COUNTS, TIERS, np.arange(8), areas=("A",) * 3 + ("B",) * 3), 0.5, 0, ["A"], ["B"]
)


def as_features(inputs):
    return inputs.observed[..., None, None]


def test_latents_are_what_a_core_makes_of_the_clips_of_the_tiers_that_are_named():
    found, clips = latents_of(as_features, SESSION, [TRAIN, VALIDATION])
    assert clips.tolist() == [0, 2, 4, 1, 3, 5]
    np.testing.assert_array_equal(found, COUNTS[clips][:, :, :3])


def test_a_core_of_maps_and_an_empty_tier_are_refused():
    with pytest.raises(ValueError, match=r"features have shape \(3, 5, 3, 2, 1\), expected batch, time, latents, 1, 1"):
        latents_of(lambda inputs: torch.zeros(3, 5, 3, 2, 1), SESSION, [TRAIN])
    with pytest.raises(ValueError, match="tiers unused of session 'one' hold 0 clips"):
        latents_of(as_features, SESSION, ["unused"])


def test_means_are_over_the_trials_of_a_condition_and_rare_conditions_are_left_out():
    latents = np.arange(5.0)[:, None, None] * np.ones((5, 2, 3))
    means = condition_means(latents, np.array([7, 7, 7, 9, 9]), fewest=3)
    assert list(means) == [7]
    np.testing.assert_array_equal(means[7], np.ones((2, 3)))


def test_the_share_between_conditions_is_that_of_an_analysis_of_variance():
    """Two trials each of 0 and 2 (means) with -1 and +1 around them: 4 of 8 between; and a latent of noise alone."""
    one = np.array([-1.0, 1.0, 1.0, 3.0])
    latents = np.stack([one, one * 5 + 3, np.array([-1.0, 1.0, -1.0, 1.0])], axis=1)[:, None, :]
    found = separation(latents, np.array([0, 0, 1, 1]), draws=20)
    np.testing.assert_allclose(found.share, [0.5, 0.5, 0.0])
    assert found.null.shape == (20, 3)


def test_conditions_that_differ_are_beyond_chance_and_equal_ones_are_not():
    draw = np.random.default_rng(1)
    conditions = np.repeat(np.arange(3), 20)
    latents = draw.normal(size=(60, 4, 2))
    latents[:, :, 0] += conditions[:, None]
    found = separation(latents, conditions, draws=199)
    assert found.p[0] == pytest.approx(1 / 200)
    assert found.p[1] > 0.05
    np.testing.assert_allclose(found.null.mean(), 2 / 59, rtol=0.15)  # degrees of freedom: conditions - 1 of trials - 1
    again = separation(latents, conditions, draws=199)
    np.testing.assert_array_equal(found.null, again.null)


def test_one_condition_and_a_latent_that_never_changes_are_refused():
    with pytest.raises(ValueError, match="all 4 clips are of one condition"):
        separation(np.random.default_rng(0).normal(size=(4, 2, 2)), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"latents \[1\] are the same in every trial"):
        separation(np.stack([np.arange(4.0), np.ones(4)], axis=1)[:, None, :], np.array([0, 0, 1, 1]))


def test_a_picture_is_written_with_a_panel_for_each_latent(tmp_path):
    draw = np.random.default_rng(0)
    latents, conditions = draw.normal(size=(12, 5, 4)), np.repeat([0, 1, 2], 4)
    means = {value - 1.0: mean for value, mean in condition_means(latents, conditions).items()}
    time_s, apart = np.arange(5) * 0.01, separation(latents, conditions, draws=20)
    file = draw_latents(means, time_s, apart, tmp_path / "latents.png", key="contrast")
    pixels = imread(file)
    assert pixels.shape[0] > 200
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50, "lines of several colors are drawn"


@pytest.mark.parametrize("tests", [1, 15, 30])
def test_with_the_fewest_draws_bonferroni_can_be_passed_and_with_less_than_half_it_cannot(tests):
    draws = fewest_draws(tests)
    smallest_p = [1 / (1 + count) for count in (draws, draws // 2 - 2)]
    assert 2 * smallest_p[0] <= 0.05 / tests < smallest_p[1]
