"""Splits keep stimuli together, and a stimulus in two tiers is noticed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, Clip, DataError, Facts, Session
from neuroint.data.splits import (
    settle_between,
    settle_leakage,
    split_by_stimulus,
    stimuli_between,
    stimuli_in_several_tiers,
)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=40),
    st.integers(0, 1000),
)
def test_no_stimulus_is_split_between_tiers(ids, seed):
    ids = np.array([*ids, 1, 2, 3, 4, 5])
    tiers = split_by_stimulus(ids, {DEV_TEST: 0.1, FINAL_TEST: 0.2}, seed)
    assert stimuli_in_several_tiers(tiers, ids) == []
    assert {TRAIN, DEV_TEST, FINAL_TEST} == set(tiers)


def test_fractions_count_stimuli_not_clips():
    ids = np.repeat(np.arange(20), [1] * 10 + [9] * 10)
    tiers = split_by_stimulus(ids, {DEV_TEST: 0.1, FINAL_TEST: 0.25}, seed=0)
    stimuli = Counter(tier for _, tier in set(zip(ids.tolist(), tiers, strict=True)))
    assert stimuli == {DEV_TEST: 2, FINAL_TEST: 5, TRAIN: 13}


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_clips():
    ids = np.arange(100) * 7919
    order = np.random.default_rng(0).permutation(100)
    tiers = np.array(split_by_stimulus(ids, {DEV_TEST: 0.3}, seed=3))
    assert split_by_stimulus(ids[order], {DEV_TEST: 0.3}, seed=3) == tuple(tiers[order])
    assert split_by_stimulus(ids, {DEV_TEST: 0.3}, seed=4) != tuple(tiers)


def test_every_wanted_tier_gets_at_least_one_stimulus():
    assert Counter(split_by_stimulus(np.arange(4), {DEV_TEST: 0.01, FINAL_TEST: 0.01}, 0))[DEV_TEST] == 1


def test_a_fraction_of_zero_makes_no_tier():
    assert set(split_by_stimulus(np.arange(9), {DEV_TEST: 0.0}, 0)) == {TRAIN}


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match=r"2 different stimuli cannot be split into dev_test 1, final_test 1 and some"):
        split_by_stimulus(np.array([5, 5, 6]), {DEV_TEST: 0.1, FINAL_TEST: 0.1}, 0)


LEAKING = (TRAIN, VALIDATION, TRAIN, DEV_TEST, UNUSED, FINAL_TEST)
IDS = np.array([1, 1, 2, 3, 3, 3])


def test_a_stimulus_in_two_tiers_is_refused_and_named():
    with pytest.raises(
        DataError,
        match=r"train \(clips 0\) and validation \(clips 1\); in dev_test \(clips 3\) and final_test \(clips 5\)",
    ):
        settle_leakage(LEAKING, IDS, "refuse")


def test_leakage_can_be_reported_as_a_caution():
    tiers, cautions = settle_leakage(LEAKING, IDS, "report")
    assert tiers == LEAKING
    assert len(cautions) == 1
    assert "scores there are too high" in cautions[0]


def test_leakage_can_be_dropped_from_the_less_protected_tier():
    tiers, cautions = settle_leakage(LEAKING, IDS, "drop")
    assert tiers == (UNUSED, VALIDATION, TRAIN, UNUSED, UNUSED, FINAL_TEST)
    assert cautions == ()
    assert stimuli_in_several_tiers(tiers, IDS) == []


def test_repeats_within_a_tier_and_unused_clips_are_no_leakage():
    tiers = (TRAIN, TRAIN, UNUSED)
    assert settle_leakage(tiers, np.array([1, 1, 1]), "refuse") == (tiers, ())


def recorded(name: str, tiers: tuple[str, ...], ids: list[int]) -> Session:
    """A session of which only the table of clips matters."""
    facts = Facts(1, (1, 2, 2), np.ones(1, np.float32), 1)
    return Session(name, name, facts, tiers, np.ones(len(ids), np.int64), np.array(ids), source=Nothing())


class Nothing:
    """A source that is not read."""

    def read(self, clip: int, start: int, frames: int) -> Clip:
        raise AssertionError("tiers are settled without reading clips")


def test_what_one_session_trains_on_and_another_scores_is_refused_and_named():
    sessions = [recorded("a", (TRAIN, TRAIN, DEV_TEST), [1, 2, 3]), recorded("b", (TRAIN, VALIDATION), [4, 2])]
    with pytest.raises(
        DataError, match=r"session 'a' trains on a stimulus \(clip 1\) that session 'b' scores in validation.*drop"
    ):
        settle_between(sessions, "refuse")


def test_sessions_may_share_stimuli_within_a_tier_and_between_scored_tiers():
    sessions = [
        recorded("a", (TRAIN, DEV_TEST, FINAL_TEST), [1, 2, 3]),
        recorded("b", (TRAIN, DEV_TEST, VALIDATION), [1, 2, 3]),
        recorded("c", (UNUSED, TRAIN), [2, 9]),
    ]
    assert settle_between(sessions, "refuse") == sessions


def test_a_clash_within_one_session_is_not_told_again():
    assert stimuli_between({"a": ((TRAIN, DEV_TEST), np.array([1, 1])), "b": ((TRAIN,), np.array([2]))}) == []


def test_a_clash_between_sessions_can_be_reported_as_a_caution_of_the_one_that_scores():
    sessions = [recorded("a", (TRAIN, TRAIN), [1, 2]), recorded("b", (TRAIN, FINAL_TEST), [4, 2])]
    trained, scored = settle_between(sessions, "report")
    assert trained == sessions[0]
    assert scored.tiers == sessions[1].tiers
    assert "scores there are too high" in scored.cautions[0]


def test_a_clash_between_sessions_can_be_dropped_from_training():
    sessions = [recorded("a", (TRAIN, TRAIN), [1, 2]), recorded("b", (TRAIN, FINAL_TEST), [4, 2])]
    trained, scored = settle_between(sessions, "drop")
    assert (trained.tiers, scored) == ((TRAIN, UNUSED), sessions[1])


def test_dropping_all_that_a_session_trains_on_is_refused():
    sessions = [recorded("a", (TRAIN, DEV_TEST), [2, 5]), recorded("b", (TRAIN, FINAL_TEST), [4, 2])]
    with pytest.raises(DataError, match=r"session 'a' would have nothing left to train on"):
        settle_between(sessions, "drop")
