"""Sessions made of trials of equal length."""

import numpy as np
import pytest

from neuroint.data.base import DataError
from neuroint.data.trials import trial_session

COUNTS = np.arange(4 * 5 * 3).reshape(4, 5, 3).astype(np.int16)
TIERS, CONDITIONS = ("train", "train", "dev_test", "validation"), np.array([0, 1, 0, 1])


def test_a_crop_is_what_was_counted_in_it():
    clip = trial_session("one", "a", COUNTS, TIERS, CONDITIONS, behavior=2.0 * COUNTS).source.read(2, 1, 3)
    np.testing.assert_array_equal(clip.responses, COUNTS[2, 1:4])
    np.testing.assert_array_equal(clip.behavior, 2 * COUNTS[2, 1:4])
    assert clip.responses.dtype == np.float32


def test_facts_are_of_the_training_tier_and_of_what_is_known_there():
    counts = COUNTS.astype(float)
    counts[0, :, 1] = np.nan
    facts = trial_session("one", "a", counts, TIERS, CONDITIONS, bin_s=0.01).facts
    np.testing.assert_allclose(facts.mean_responses, [13.5, 22.0, 15.5])
    assert (facts.n_neurons, facts.shortest_clip, facts.bin_s, facts.behavior_channels) == (3, 5, 0.01, 0)


def test_trials_of_one_condition_are_repeats():
    session = trial_session("one", "a", COUNTS, ("dev_test", "train", "dev_test", "train"), CONDITIONS)
    assert [group.tolist() for group in session.repeats("dev_test")] == [[0, 2]]


def test_the_fingerprint_knows_counts_and_tiers():
    prints = {
        trial_session("one", "a", counts, tiers, CONDITIONS).fingerprint
        for counts, tiers in ((COUNTS, TIERS), (COUNTS + 1, TIERS), (COUNTS, TIERS[::-1]))
    }
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tiers": TIERS[:3]}, r"numbers of clips differ: \{'responses': 4, 'tiers': 3, 'stimulus_ids': 4\}"),
        ({"behavior": COUNTS[:, :2]}, "responses have 5 frames and behavior 2"),
        ({"tiers": ("dev_test",) * 4}, "has no training clips among 4; give other tiers smaller shares"),
        (
            {"responses": np.where(np.arange(3) == 1, np.nan, COUNTS)},
            r"nothing is known of neurons \[1\] in the training",
        ),
    ],
    ids=["clips", "frames", "training", "neuron"],
)
def test_faults_say_what_was_found(changed, message):
    given = {"responses": COUNTS, "tiers": TIERS, "stimulus_ids": CONDITIONS} | changed
    with pytest.raises(DataError, match=message):
        trial_session("one", "a", **given)
