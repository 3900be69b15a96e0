"""Controls like given neurons: traits by hand, partners of the same rate, and a word where nobody is alike."""

from dataclasses import replace

import numpy as np
import pytest
from silencing_worlds import masked_session

from neuroint.analysis.matching import Traits, imbalance, matched_draws, traits_of, unmatched
from neuroint.data.base import TRAIN, VALIDATION

COUNTS = np.array(  # four clips, three bins, two held-in neurons and one held out
    [
        [[1, 0, 2], [3, 2, 0], [9, 9, 9]],
        [[3, 0, 0], [5, 0, 0], [9, 9, 9]],
        [[2, 4, 0], [0, 0, 1], [9, 9, 9]],
        [[8, 8, 8], [8, 8, 8], [8, 8, 8]],
    ],
    dtype=np.float32,
)
TIERS = [TRAIN, TRAIN, TRAIN, VALIDATION]


def session_of(conditions):
    return masked_session(COUNTS, 2, forward_bins=1, conditions=conditions, tiers=TIERS)


def test_the_rate_is_the_mean_over_training_clips_of_bins_that_models_are_shown():
    np.testing.assert_allclose(traits_of(session_of([0, 0, 1, 2])).rate, [14 / 6, 6 / 6])


def test_reliability_is_signal_power_over_noise_variance_across_trials_of_a_condition():
    """Clips 0 and 1 repeat: neuron 0 has means 2, 4 and variances 2, 2; neuron 1 means 0, 1 and variances 0, 2."""
    found = traits_of(session_of([0, 0, 1, 2]))
    assert found.measure == "snr"
    np.testing.assert_allclose(found.reliability, [(2 - 2 / 2) / 2, (0.5 - 1 / 2) / 1], atol=1e-12)


def test_without_repeats_reliability_is_the_variance_beyond_that_of_poisson_counts():
    """Neuron 0: 1, 3, 3, 5, 2, 0, mean 7/3, variance 46/15; neuron 1: 0, 2, 0, 0, 4, 0, mean 1, variance 14/5."""
    found = traits_of(session_of([0, 1, 2, 3]))
    assert found.measure == "poisson_snr"
    np.testing.assert_allclose(found.reliability, [(46 / 15 - 7 / 3) / (7 / 3), 14 / 5 - 1])


def test_the_table_has_the_root_of_the_rate_and_reliability_in_standard_deviations():
    table = Traits(np.array([1.0, 9.0, 25.0]), np.array([0.2, 0.2, 0.8]), "snr").table()
    np.testing.assert_allclose(table.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(table.std(0), 1)
    np.testing.assert_allclose(np.diff(table[:, 0]), np.full(2, 2 / np.sqrt(8 / 3)))


def test_a_trait_that_is_the_same_in_all_neurons_matches_nobody_and_divides_by_nothing():
    assert (Traits(np.array([1.0, 4.0]), np.array([0.5, 0.5]), "snr").table()[:, 1] == 0).all()


def test_a_session_without_records_or_with_a_silent_neuron_is_refused():
    session = session_of([0, 0, 1, 2])
    blind = replace(session, facts=replace(session.facts, observed_channels=0))
    with pytest.raises(ValueError, match=r"offers records of 0 neurons and has 3 training clips; give a session with"):
        traits_of(blind)
    silent = COUNTS.copy()
    silent[..., 1] = 0
    with pytest.raises(ValueError, match=r"snr of observed neurons \[1\] of session 'masked' is not defined"):
        traits_of(masked_session(silent, 2, forward_bins=1, conditions=[0, 0, 1, 2], tiers=TIERS))


def groups():
    """Twelve quiet neurons and twelve loud ones, far from each other."""
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(0, 0.2, (12, 2)), random.normal(5, 0.2, (12, 2))])


def test_partners_are_as_loud_as_the_neurons_that_they_stand_for():
    chosen = np.array([0, 1, 12])
    partners = matched_draws(chosen, groups(), draws=50)
    assert (partners[:, :2] < 12).all()
    assert (partners[:, 2] >= 12).all()
    assert np.abs(imbalance(chosen, partners, groups())).max() < 0.2
    assert unmatched(chosen, groups()).size == 0


def test_partners_are_drawn_anew_none_twice_in_a_set_and_never_a_chosen_one():
    chosen = np.array([0, 1, 2, 3, 12])
    partners = matched_draws(chosen, groups(), draws=80)
    assert not np.isin(partners, chosen).any()
    assert all(len(set(row.tolist())) == 5 for row in partners)
    assert len({tuple(sorted(row.tolist())) for row in partners}) > 20
    np.testing.assert_array_equal(partners, matched_draws(chosen, groups(), draws=80))


def test_partners_are_among_the_nearest_that_are_free():
    line = np.arange(8.0)[:, None]
    partners = matched_draws(np.array([0]), line, draws=60, nearest=2, caliper=2.5)
    assert set(partners[:, 0].tolist()) == {1, 2}
    partners = matched_draws(np.array([0]), line, draws=200, nearest=None, caliper=3.5)
    assert set(partners[:, 0].tolist()) == {1, 2, 3}


def test_without_nearest_and_caliper_controls_are_any_others():
    partners = matched_draws(np.array([0]), groups(), draws=400, nearest=None, caliper=None)
    assert set(partners[:, 0].tolist()) == set(range(1, 24))


def test_drawn_from_all_a_neuron_stands_for_itself_as_often_as_a_neighbor_does():
    chosen = np.array([0, 3])
    table = np.array([[0.0], [0.1], [-0.1], [9.0], [9.1], [8.9]])
    drawn = matched_draws(chosen, table, draws=900, nearest=2, from_all=True)
    assert all(len(set(row.tolist())) == 2 for row in drawn)
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 900, np.full(3, 1 / 3), atol=0.06)
    np.testing.assert_allclose(np.bincount(drawn[:, 1])[3:] / 900, np.full(3, 1 / 3), atol=0.06)


def test_a_neuron_that_nobody_is_like_gets_the_nearest_and_is_named():
    table = np.array([[0.0], [10.0], [0.5], [4.0], [0.2]])
    chosen = np.array([0, 1])
    partners = matched_draws(chosen, table, draws=20)
    assert (partners[:, 1] == 3).all()
    assert unmatched(chosen, table).tolist() == [1]
    assert unmatched(chosen, table, caliper=None).size == 0
    assert imbalance(chosen, np.array([[2, 3], [4, 3]]), table)[0] == pytest.approx(5 - (0.35 + 4) / 2)


def test_more_chosen_neurons_than_are_left_over_are_refused():
    with pytest.raises(ValueError, match=r"3 chosen neurons of 5 leave 2 to draw controls from.*choose fewer"):
        matched_draws(np.arange(3), np.zeros((5, 1)), draws=1)


@pytest.mark.parametrize("chosen", [[], [1, 1], [-1], [5]])
def test_chosen_neurons_that_are_none_or_named_twice_are_refused(chosen):
    with pytest.raises(ValueError, match=r"of 5; give some, each once, by their index from 0"):
        matched_draws(np.array(chosen, np.int64), np.zeros((5, 1)), draws=1)
