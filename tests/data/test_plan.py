"""What is read at every step is fixed by the seed, and a full pass scores every frame once."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from counted import counted_session

from neuroint.data.base import DEV_TEST, TRAIN, VALIDATION
from neuroint.data.plan import Request, TrainingPlan, evaluation_plan


def plan(*sessions, frames=80, batch_size=4, seed=0, **options):
    return TrainingPlan(sessions, frames=frames, batch_size=batch_size, seed=seed, **options)


def places(requests):
    return [(r.session, clip, start) for r in requests for clip, start in zip(r.clips, r.starts, strict=True)]


# --- training ---------------------------------------------------------------------------------------------------------


def test_an_epoch_visits_every_training_clip_once():
    session = counted_session({TRAIN: [300] * 12, VALIDATION: [300] * 3})
    epoch = list(plan(session).epoch(0))
    assert len(epoch) == 3
    assert sorted(clip for requests in epoch for clip in requests[0].clips) == list(range(12))


def test_the_last_batch_of_an_epoch_is_filled_with_clips_drawn_anew():
    session = counted_session({TRAIN: [300] * 10})
    steps = list(plan(session).epoch(0))
    visits = Counter(clip for requests in steps for clip in requests[0].clips)
    assert [len(requests[0].clips) for requests in steps] == [4, 4, 4]
    assert sorted(visits.values()) == [1] * 8 + [2] * 2


def test_epochs_and_seeds_shuffle_differently():
    session = counted_session({TRAIN: [300] * 40})
    orders = [
        [clip for requests in plan(session, seed=seed).epoch(epoch) for clip in requests[0].clips]
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert list(range(40)) not in orders


def test_sessions_are_shuffled_independently_of_the_sessions_beside_them():
    first = counted_session({TRAIN: [300] * 8}, name="first")
    second = counted_session({TRAIN: [300] * 8}, name="second")
    alone, together = plan(second).step(3, 1), plan(first, second).step(3, 1)
    assert together[1] == alone[0]
    assert together[0].clips != together[1].clips


def test_every_step_has_a_full_batch_of_every_session_and_short_sessions_are_cycled():
    long, short = counted_session({TRAIN: [300] * 24}, name="long"), counted_session({TRAIN: [200] * 3}, name="short")
    steps = list(plan(long, short).epoch(0))
    assert len(steps) == 6
    assert all([len(r.clips) for r in requests] == [4, 4] for requests in steps)
    assert Counter(clip for _, r in steps for clip in r.clips) == {0: 8, 1: 8, 2: 8}


def test_a_given_number_of_steps_is_the_length_of_an_epoch():
    session = counted_session({TRAIN: [300] * 3})
    assert len(list(plan(session, steps_per_epoch=7).epoch(0))) == 7


def test_a_step_does_not_depend_on_the_steps_that_were_planned_before():
    sessions = [counted_session({TRAIN: [300] * n}, name=str(n)) for n in (5, 11, 2)]
    used, keys = plan(*sessions), [(epoch, step) for epoch in range(3) for step in range(3)]
    in_order = {key: used.step(*key) for key in keys}
    random.Random(0).shuffle(keys)
    assert all(used.step(*key) == in_order[key] == plan(*sessions).step(*key) for key in keys)


def test_an_epoch_resumed_inside_goes_on_with_the_same_steps():
    session = counted_session({TRAIN: [300] * 20})
    assert list(plan(session).epoch(2))[3:] == list(plan(session).epoch(2, first_step=3))


@pytest.mark.parametrize("world_size", [2, 4])
def test_workers_share_the_batches_of_one_worker(world_size):
    sessions = [counted_session({TRAIN: [300] * n}, name=str(n)) for n in (9, 3)]
    ranks = [plan(*sessions, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, whole in enumerate(plan(*sessions).epoch(1)):
        for k, request in enumerate(whole):
            shares = [p.step(1, step)[k] for p in ranks]
            assert all(len(share.clips) == 4 // world_size for share in shares)
            for rank, share in enumerate(shares):
                assert share.clips == request.clips[rank::world_size]
                assert share.starts == request.starts[rank::world_size]


def test_crops_begin_anywhere_they_fit_and_equally_often():
    session = counted_session({TRAIN: [84] * 1000})
    starts = Counter(start for r in plan(session, batch_size=1000).epoch(0) for start in r[0].starts)
    assert set(starts) == {0, 1, 2, 3, 4}
    assert all(abs(count - 200) < 4 * np.sqrt(1000 * 0.2 * 0.8) for count in starts.values())


def test_a_crop_may_be_as_long_as_the_clip():
    session = counted_session({TRAIN: [80] * 4})
    assert plan(session).step(0, 0)[0].starts == (0, 0, 0, 0)


def test_a_continuous_recording_is_visited_once_per_window_that_fits_in_it():
    session = counted_session({TRAIN: [20_000, 300, 400]})
    requests = [r for (r,) in plan(session, batch_size=1).epoch(0)]
    assert Counter(r.clips[0] for r in requests) == {0: 250, 1: 1, 2: 1}
    starts = [r.starts[0] for r in requests if r.clips[0] == 0]
    assert max(starts) <= 19_920
    assert abs(np.mean(starts) - 9960) < 4 * 19_920 / np.sqrt(12 * 250)


def test_single_frames_are_cropped_to_themselves():
    session = counted_session({TRAIN: [1] * 6})
    (request,) = plan(session, frames=1, batch_size=6).step(0, 0)
    assert request == Request("mouse", request.clips, (0,) * 6, 1)
    assert sorted(request.clips) == [0, 1, 2, 3, 4, 5]


def test_a_training_clip_shorter_than_a_crop_is_refused_by_name():
    session = counted_session({VALIDATION: [10], TRAIN: [300, 79, 300]})
    with pytest.raises(ValueError, match=r"training clip 2 of session 'mouse' has 79 valid frames.*at most 79"):
        plan(session)


def test_a_session_without_training_clips_is_refused():
    with pytest.raises(ValueError, match="session 'mouse' has no clip of tier 'train'"):
        plan(counted_session({VALIDATION: [300]}))


def test_a_batch_that_workers_cannot_share_evenly_is_refused():
    with pytest.raises(ValueError, match=r"batch_size 4 cannot be shared by 3 workers; give a multiple of 3"):
        plan(counted_session({TRAIN: [300]}), world_size=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
        ({"world_size": 0}, "world_size is 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not one of 2 workers; ranks run from 0 to 1"),
        ({"rank": -1}, "rank -1 is not one of 1 workers"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan(counted_session({TRAIN: [300]}), **options)


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_a_full_pass_reads_every_clip_of_the_tier_once_in_full_length():
    session = counted_session({TRAIN: [300] * 5, VALIDATION: [300, 280, 300]}, scored_from=50)
    pieces = evaluation_plan([session], VALIDATION, batch_size=1)
    assert [(p.request.clips, p.request.frames, p.start, p.skip) for p in pieces] == [
        ((5,), 300, 0, 50),
        ((6,), 280, 0, 50),
        ((7,), 300, 0, 50),
    ]


def test_repeats_of_a_stimulus_stand_together_whatever_the_order_of_presentation():
    session = counted_session({VALIDATION: [300] * 6}, stimuli=[7, 9, 7, 8, 9, 7])
    pieces = evaluation_plan([session], VALIDATION, batch_size=4)
    assert [(p.request.clips, p.stimuli, p.continued) for p in pieces] == [
        ((0, 2, 5), (7, 7, 7), False),  # both repeats of stimulus 9 do not fit in beside them
        ((1, 4, 3), (9, 9, 8), False),
    ]


def test_a_stimulus_with_more_repeats_than_a_batch_holds_goes_on_in_the_next():
    session = counted_session({VALIDATION: [300] * 6}, stimuli=[1, 1, 1, 1, 1, 2])
    pieces = evaluation_plan([session], VALIDATION, batch_size=2)
    assert [(p.stimuli, p.continued) for p in pieces] == [((1, 1), True), ((1, 1), True), ((1, 2), False)]


def test_single_frames_of_many_stimuli_fill_a_batch():
    session = counted_session({DEV_TEST: [1] * 100}, stimuli=[k // 2 for k in range(100)])
    assert [len(p.stimuli) for p in evaluation_plan([session], DEV_TEST, batch_size=64)] == [64, 36]


def test_clips_of_different_lengths_never_share_a_batch():
    session = counted_session({VALIDATION: [300, 300, 200, 200, 300]})
    pieces = evaluation_plan([session], VALIDATION, batch_size=8)
    assert [(p.request.clips, p.request.frames) for p in pieces] == [((0, 1), 300), ((2, 3), 200), ((4,), 300)]


def test_repeats_of_different_lengths_are_cut_to_the_shortest_and_the_user_is_told():
    session = counted_session({VALIDATION: [300, 290]}, stimuli=[4, 4])
    with pytest.warns(UserWarning, match=r"repeats of stimulus 4 .*clips 0, 1.* 290 to 300 .*only the first 290"):
        (piece,) = evaluation_plan([session], VALIDATION, batch_size=4)
    assert piece.request.frames == 290


def test_chunks_of_a_long_clip_begin_where_the_model_needs_them():
    session = counted_session({VALIDATION: [100]}, scored_from=20)
    pieces = evaluation_plan([session], VALIDATION, batch_size=1, lead=15, max_frames=60)
    assert [(p.start, p.start + p.request.frames, p.skip, p.continued) for p in pieces] == [
        (0, 60, 20, True),
        (45, 100, 15, False),
    ]


@pytest.mark.parametrize(("lead", "scored_from"), [(0, 0), (0, 5), (18, 18), (18, 50)])
@pytest.mark.parametrize("max_frames", [None, 51, 60, 97, 500])
@pytest.mark.parametrize("length", [51, 60, 97, 300])
def test_every_frame_from_scored_from_on_is_scored_exactly_once_and_predicted_from_lead_on(
    length, max_frames, lead, scored_from
):
    session = counted_session({VALIDATION: [length] * 3}, stimuli=[0, 1, 0], scored_from=scored_from)
    scored, predicted = np.zeros((3, length), int), np.zeros((3, length), int)
    for piece in evaluation_plan([session], VALIDATION, batch_size=2, lead=lead, max_frames=max_frames):
        assert piece.request.frames <= (max_frames or length)
        stop = piece.start + piece.request.frames
        for clip in piece.request.clips:
            scored[clip, piece.start + piece.skip : stop] += 1
            predicted[clip, piece.start + lead : stop] += 1
    assert np.array_equal(scored, np.broadcast_to(np.arange(length) >= scored_from, (3, length)))
    assert np.array_equal(predicted, np.broadcast_to(np.arange(length) >= lead, (3, length)))


def test_workers_share_the_stimuli_and_keep_their_repeats_whole():
    stimuli = [k % 7 for k in range(21)]
    session = counted_session({VALIDATION: [300] * 21}, stimuli=stimuli)
    shares = [evaluation_plan([session], VALIDATION, batch_size=4, rank=r, world_size=2) for r in range(2)]
    seen = [{s for piece in share for s in piece.stimuli} for share in shares]
    clips = sorted(clip for share in shares for piece in share for clip in piece.request.clips)
    assert seen == [{0, 2, 4, 6}, {1, 3, 5}]
    assert clips == list(range(21))


def test_sessions_without_the_tier_are_passed_over_unless_all_lack_it():
    with_tier, without = counted_session({DEV_TEST: [300]}), counted_session({TRAIN: [300]}, name="other")
    assert [p.request.session for p in evaluation_plan([without, with_tier], DEV_TEST, batch_size=1)] == ["mouse"]
    with pytest.raises(ValueError, match="no clip of tier 'validation' in 'other', 'mouse'"):
        evaluation_plan([without, with_tier], VALIDATION, batch_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tier": "test"}, "'test' is not a tier; tiers are train, validation, dev_test, final_test"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 1}, "rank 1 is not one of 1 workers"),
        ({"lead": 51}, r"needs 51 frames .* session 'mouse' is scored from frame 50"),
        ({"max_frames": 50}, r"max_frames 50 is too short for session 'mouse'.*at least 51"),
    ],
)
def test_a_pass_that_cannot_score_what_it_should_is_refused(options, message):
    session = counted_session({VALIDATION: [300]}, scored_from=50)
    with pytest.raises(ValueError, match=message):
        evaluation_plan([session], **({"tier": VALIDATION, "batch_size": 1} | options))


def test_a_clip_that_ends_before_scores_begin_is_refused():
    session = counted_session({VALIDATION: [300, 50]}, scored_from=50)
    with pytest.raises(ValueError, match=r"clip 1 of session 'mouse' has 50 valid frames, but is scored from frame 50"):
        evaluation_plan([session], VALIDATION, batch_size=1)
