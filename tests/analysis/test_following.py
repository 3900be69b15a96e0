"""What follows behavior is found, what only wanders as it does is not; swapped behavior tells input from brain."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import make_session

from neuroint.analysis.following import follows, swap
from neuroint.data.base import TIERS, DataError
from neuroint.data.swapped import others, swap_behavior
from neuroint.seeding import generator


def wandering(draw, clips, frames, keep=0.97):
    """Noise that forgets slowly: a correlation over frames takes it for an effect."""
    noise = draw.normal(size=(clips, frames))
    for t in range(1, frames):
        noise[:, t] = keep * noise[:, t - 1] + np.sqrt(1 - keep**2) * noise[:, t]
    return noise


def test_the_correlation_is_pearsons_over_frames_less_what_clips_share():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 4, 30))
    found = follows({"one": a}, {"one": b}, draws=9)
    less = [x - x.mean(axis=0) for x in (a, b)]
    np.testing.assert_allclose(found.correlation, np.corrcoef(less[0].ravel(), less[1].ravel())[0, 1])
    np.testing.assert_allclose(found.slope, (less[0] * less[1]).sum() / (less[1] ** 2).sum())
    course = 9 * np.sin(np.arange(30))
    np.testing.assert_allclose(follows({"one": a + course}, {"one": b - course}, draws=9).null, found.null)


def test_two_clips_that_go_together_are_exchanged_or_not():
    """By hand: what is left of clips (1, 1) and (3, 5) is -+(1, 2); exchanged, the correlation turns its sign."""
    trace = np.array([[1.0, 1.0], [3.0, 5.0]])
    found = follows({"one": trace}, {"one": trace}, draws=50)
    assert found.correlation == pytest.approx(1)
    np.testing.assert_allclose(sorted(set(found.null.round(9))), [-1, 1])
    assert found.p == 1, "as far from 0 either way"


def test_a_planted_effect_is_found_and_its_slope_with_it():
    draw = np.random.default_rng(1)
    animal = {name: wandering(draw, 10, 80) for name in ("one", "two")}
    model = {name: 0.3 * trace + wandering(draw, 10, 80) for name, trace in animal.items()}
    found = follows(model, animal, draws=999)
    assert found.p < 0.01
    assert found.slope == pytest.approx(0.3, abs=0.15)
    assert found.correlation == pytest.approx(np.mean(list(found.sessions.values())))
    assert found.clips == 20


def test_sessions_are_dealt_separately_and_count_together():
    """Each of four sessions of 3 clips can reach p = 1/6 at best, together they can reach 1/6**4."""
    draw = np.random.default_rng(2)
    animal = {str(k): wandering(draw, 3, 40) for k in range(4)}
    found = follows(animal, animal, draws=3999)
    assert found.correlation == pytest.approx(1)
    assert found.p < 0.005


def test_traces_that_wander_alike_and_know_nothing_of_each_other_are_found_at_the_nominal_rate():
    """400 data sets without an effect: 5 % of p values below .05, give or take; a plain test finds half of them."""
    draw = np.random.default_rng(3)
    p, plain = [], []
    for _ in range(400):
        a, b = wandering(draw, 8, 60), wandering(draw, 8, 60)
        p.append(follows({"one": a}, {"one": b}, draws=99).p)
        plain.append(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * np.sqrt(a.size) > 1.96)
    assert 0.025 <= np.mean(np.array(p) <= 0.05) <= 0.08
    assert np.mean(plain) > 0.4


def test_p_counts_what_was_found_itself():
    draw = np.random.default_rng(4)
    trace = {"one": wandering(draw, 12, 40)}
    assert follows(trace, trace, draws=99).p == 1 / 100


def test_the_same_seed_deals_the_same():
    draw = np.random.default_rng(5)
    a, b = ({"one": wandering(draw, 6, 40)} for _ in range(2))
    np.testing.assert_array_equal(follows(a, b, draws=20).null, follows(a, b, draws=20).null)
    assert not np.array_equal(follows(a, b, draws=20).null, follows(a, b, draws=20, seed=1).null)


def test_frames_without_a_value_in_some_clip_are_left_out_of_all():
    draw = np.random.default_rng(6)
    a, b = draw.normal(size=(2, 4, 30))
    known = follows({"one": a[:, :20]}, {"one": b[:, :20]}, draws=9)
    a[:, 20:25], a[2, 25:] = np.nan, np.nan
    np.testing.assert_allclose(follows({"one": a}, {"one": b}, draws=9).null, known.null)


def model_of(stimulus, behavior):
    return stimulus + behavior


def test_swapped_behavior_shows_what_is_only_passed_on():
    """A model that adds its input to something of the stimulus: the input is followed, whichever animal's it is."""
    draw = np.random.default_rng(7)
    stimulus, animal, given = wandering(draw, 24, 60), wandering(draw, 24, 60), others(24)
    found = swap(
        {"one": model_of(stimulus, animal)},
        {"one": model_of(stimulus, animal[given])},
        {"one": animal},
        {"one": given},
        draws=199,
    )
    assert found.own.correlation > 0.5
    assert found.passed_on.correlation == pytest.approx(found.own.correlation, abs=0.1)
    assert max(found.own.p, found.passed_on.p) < 0.01
    assert min(found.mispaired.p, found.left_over.p) > 0.05


def test_swapped_behavior_shows_what_comes_through_the_stimulus():
    """An animal that reacts to the stimulus, and a model that reads nothing else: only ``left_over`` and ``own``."""
    draw = np.random.default_rng(8)
    stimulus, given = wandering(draw, 24, 60), others(24)
    animal = stimulus + wandering(draw, 24, 60)
    found = swap({"one": stimulus}, {"one": stimulus}, {"one": animal}, {"one": given}, draws=199)
    assert found.left_over.correlation == found.own.correlation > 0.5
    assert found.left_over.p < 0.01
    assert found.passed_on.p > 0.05


def test_a_model_that_ignores_behavior_follows_none():
    draw = np.random.default_rng(9)
    stimulus, animal, given = wandering(draw, 24, 60), wandering(draw, 24, 60), others(24)
    found = swap({"one": stimulus}, {"one": stimulus}, {"one": animal}, {"one": given}, draws=199)
    assert min(one.p for one in (found.own, found.mispaired, found.passed_on, found.left_over)) > 0.05


def test_the_floor_of_wrong_pairs_is_below_zero_by_one_over_the_other_clips():
    """Behavior that is followed perfectly: r = 1, and -1/(C - 1) in the mean over all ways to give another's."""
    draw = np.random.default_rng(10)
    animal = wandering(draw, 5, 40)
    rings = [others(5, seed) for seed in range(200)]
    floor = [swap(*[{"one": x} for x in (animal, animal[g], animal, g)], draws=1).mispaired.correlation for g in rings]
    assert np.mean(floor) == pytest.approx(-1 / 4, abs=0.02)


@pytest.mark.parametrize("clips", [2, 3, 8])
def test_every_clip_is_given_another_one_and_each_is_given_once(clips):
    given = others(clips, seed=1)
    assert sorted(given) == list(range(clips))
    assert (given != np.arange(clips)).all()


def test_swapped_sessions_keep_all_but_behavior_and_stay_inside_their_tier():
    session = make_session()
    swapped = swap_behavior(session, 0)
    for tier in TIERS:
        clips = session.clips(tier)
        for clip in clips:
            own, other = (one.source.read(int(clip), 5, 10) for one in (session, swapped))
            np.testing.assert_array_equal(own.responses, other.responses)
            np.testing.assert_array_equal(own.stimulus, other.stimulus)
            assert not np.array_equal(own.behavior, other.behavior)
            from_tier = [session.source.read(int(c), 5, 10).pupil for c in clips if c != clip]
            assert any(np.array_equal(other.pupil, pupil) for pupil in from_tier)
    assert not np.array_equal(swap_behavior(session, 0).source.given, swap_behavior(session, 1).source.given)


def test_what_cannot_be_swapped_is_refused():
    with pytest.raises(DataError, match="session 'one' has no behavior and no pupil that could be swapped"):
        swap_behavior(make_session(behavior=False), 0)
    session = make_session()
    with pytest.raises(DataError, match="have 30 to 40 frames; behavior can be swapped between clips of one length"):
        swap_behavior(replace(session, lengths=np.array([30, *session.lengths[1:]])), 0)
    with pytest.raises(DataError, match="1 clip in a tier has no other one to swap behavior with"):
        swap_behavior(make_session(train=1), 0)


def test_what_cannot_be_tested_is_refused():
    draw = generator(0, "refused")
    trace = draw.normal(size=(3, 9))
    with pytest.raises(ValueError, match="session lone has a single clip, and the null deals behavior to other clips"):
        follows({"lone": trace[:1]}, {"lone": trace[:1]})
    with pytest.raises(
        ValueError, match=r"the model has \(clips, frames\) {'one': \(3, 9\)}, the animal {'one': \(3, 8\)}"
    ):
        follows({"one": trace}, {"one": trace[:, :8]})
    with pytest.raises(ValueError, match="give both for the same frames of the same clips of at least one session"):
        follows({}, {})
    with pytest.raises(
        ValueError, match="session one: the trace of the animal is the same in all 3 clips at the 9 frames"
    ):
        follows({"one": trace}, {"one": np.zeros((3, 9))})
    with pytest.raises(ValueError, match=r"clips of \['one'\] were not given the behavior of another clip"):
        swap({"one": trace}, {"one": trace}, {"one": trace}, {"one": np.array([0, 2, 1])})
