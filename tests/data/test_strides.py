"""Every so many frames are read, and what a model is told of the recording follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from counted import CLIP, counted_session

from neuroint.data.base import TRAIN, Clip, Facts, Recorded
from neuroint.data.loader import read_batch
from neuroint.data.plan import Request, TrainingPlan, training_visits


def test_a_request_with_a_stride_becomes_every_so_many_frames():
    batch = read_batch(counted_session({TRAIN: [300] * 5}), Request("mouse", (4, 1), (7, 200), 3, stride=2))
    expected = [[4 * CLIP + 10 * t for t in (7, 9, 11)], [CLIP + 10 * t for t in (200, 202, 204)]]
    assert batch.responses[:, :, 0].tolist() == expected
    assert batch.inputs.stimulus[:, :, 0, 1, 2].tolist() == expected
    assert batch.inputs.pupil[:, :, 0].tolist() == expected
    assert batch.valid.shape == (2, 3, 2)


def test_a_crop_begins_wherever_its_last_frame_still_lies_in_the_clip():
    session = counted_session({TRAIN: [20] * 3})
    plan = TrainingPlan([session], frames=5, batch_size=3, seed=0, stride=3)  # spans 13 frames: 8 places
    starts = [start for epoch in range(60) for (request,) in plan.epoch(epoch) for start in request.starts]
    assert set(starts) == set(range(8))
    assert plan.step(0, 0)[0].span == 13


def test_without_a_stride_crops_are_what_they_were():
    session = counted_session({TRAIN: [20] * 3})
    plans = [TrainingPlan([session], frames=5, batch_size=3, seed=0, **more) for more in ({}, {"stride": 1})]
    assert list(plans[0].epoch(1)) == list(plans[1].epoch(1))
    assert plans[0].step(0, 0)[0].span == 5


def test_a_continuous_recording_is_visited_as_often_as_its_frames_fill_crops():
    session = counted_session({TRAIN: [1000, 40]})
    assert [training_visits(session, 20, stride).tolist().count(0) for stride in (1, 2)] == [50, 50]


def test_a_training_clip_shorter_than_what_a_crop_spans_is_refused():
    session = counted_session({TRAIN: [30, 16]})
    expected = r"has 16 valid frames, fewer than the 17 of a crop \(9, every 2 frames\); set frames to at most 8"
    with pytest.raises(ValueError, match=expected):
        TrainingPlan([session], frames=9, batch_size=2, seed=0, stride=2)
    TrainingPlan([session], frames=8, batch_size=2, seed=0, stride=2)
    with pytest.raises(ValueError, match="stride is 0; give an integer of at least 1"):
        TrainingPlan([session], frames=8, batch_size=2, seed=0, stride=0)


@pytest.mark.parametrize(("unseen", "kept"), [(0, 0), (1, 1), (2, 1), (3, 2), (7, 4)])
def test_frames_without_a_record_at_the_end_of_a_crop_are_counted_among_those_kept(unseen, kept):
    clip = Clip(np.arange(7, dtype=np.float32)[:, None], unseen=unseen).strided(2)  # frames 0, 2, 4 and 6
    assert clip.responses[:, 0].tolist() == [0, 2, 4, 6]
    assert clip.unseen == kept
    assert kept == sum(frame >= 7 - unseen for frame in (0, 2, 4, 6))


def test_bins_are_longer_and_lags_no_shorter_in_seconds():
    offer = Recorded("recorded_past", lag_bins=9, shortest_lag=1)
    facts = Facts(2, (1, 2, 3), np.ones(2, np.float32), shortest_clip=61, bin_s=1 / 30, recorded=offer)
    told = facts.strided(2)
    assert told.bin_s == pytest.approx(1 / 15)
    assert told.recorded == replace(offer, lag_bins=5, shortest_lag=1)
    assert told.shortest_clip == 30  # the second of the two phases
    assert (told.n_neurons, told.mean_responses.tolist()) == (2, [1.0, 1.0])
    assert facts.strided(1) is facts
    blind = replace(facts, bin_s=None, recorded=None).strided(3)
    assert (blind.bin_s, blind.recorded) == (None, None)
