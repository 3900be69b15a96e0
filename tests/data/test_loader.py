"""Batches hold what was planned, the same in one process as in many."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from counted import CLIP, CountedSource, counted_session

from neuroint.data.base import TRAIN, VALIDATION, Clip, DataError
from neuroint.data.loader import ClipLoader, evaluation_batches, read_batch, training_batches
from neuroint.data.plan import Request, TrainingPlan, evaluation_plan

OPTIONS = {"frames": 80, "batch_size": 4, "seed": 0}


def two_sessions():
    tiers = {TRAIN: [300] * 10, VALIDATION: [300] * 4}
    return [counted_session(tiers, name=name, stimuli=[*range(10), 90, 91, 90, 91]) for name in ("first", "second")]


def same(left, right):
    """Compare two batches to the last bit."""
    tensors = [
        (b.responses, b.valid, b.clips, b.inputs.stimulus, b.inputs.pupil, torch.tensor(b.inputs.behavior is None))
        for b in (left, right)
    ]
    return left.session == right.session and all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def all_same(left, right):
    return len(left) == len(right) and all(
        same(x, y) for a, b in zip(left, right, strict=True) for x, y in zip(a, b, strict=True)
    )


def test_a_request_becomes_the_frames_it_names():
    batch = read_batch(counted_session({TRAIN: [300] * 5}), Request("mouse", (4, 1), (7, 200), 3))
    expected = [[4 * CLIP + 10 * t for t in (7, 8, 9)], [CLIP + 10 * t for t in (200, 201, 202)]]
    assert batch.responses[:, :, 0].tolist() == expected
    assert batch.responses[:, :, 1].tolist() == [[x + 1 for x in row] for row in expected]
    assert batch.inputs.stimulus[:, :, 0, 1, 2].tolist() == expected
    assert batch.clips.tolist() == [4, 1]


def test_training_batches_are_those_of_the_plan():
    sessions = two_sessions()
    plan = TrainingPlan(sessions, **OPTIONS)
    steps = list(training_batches(sessions, **OPTIONS, epoch=2))
    assert len(steps) == plan.steps_per_epoch == 3
    for batches, requests in zip(steps, plan.epoch(2), strict=True):
        assert [batch.session for batch in batches] == ["first", "second"]
        for batch, request in zip(batches, requests, strict=True):
            frame = (batch.responses[:, 0, 0] - CLIP * batch.clips) / 10
            assert (tuple(batch.clips.tolist()), tuple(frame.int().tolist())) == (request.clips, request.starts)
            assert batch.responses.shape == (4, 80, 2)


def test_two_ranks_read_the_batches_of_one():
    sessions = two_sessions()
    ranks = [training_batches(sessions, **OPTIONS, epoch=0, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *shares in zip(training_batches(sessions, **OPTIONS, epoch=0), *ranks, strict=True):
        for k, batch in enumerate(whole):
            interleaved = torch.stack([share[k].responses for share in shares], dim=1).flatten(0, 1)
            assert torch.equal(interleaved, batch.responses)


def test_loading_draws_nothing_from_the_global_generators():
    torch_state, numpy_state = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    list(training_batches(two_sessions(), **OPTIONS, epoch=0))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_responses_that_are_nan_are_marked_and_zero():
    @dataclass(frozen=True)
    class Gappy:
        def read(self, clip, start, frames):
            return Clip(np.where(np.eye(frames) == 1, np.nan, 5).astype(np.float32))

    session = replace(counted_session({TRAIN: [4]}), source=Gappy())
    batch = read_batch(session, Request("mouse", (0,), (0,), 4))
    assert batch.valid[0].tolist() == (~np.eye(4, dtype=bool)).tolist()
    assert batch.responses[0].tolist() == (5 * (1 - np.eye(4))).tolist()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_clips_of_a_batch_are_read_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)

    @dataclass(frozen=True)
    class Meeting(CountedSource):
        def read(self, clip: int, start: int, frames: int) -> Clip:
            meeting.wait()  # raises when no second thread comes
            return super().read(clip, start, frames)

    session = counted_session({TRAIN: [300] * 8})
    plan = TrainingPlan([session], **OPTIONS)
    together = list(ClipLoader([replace(session, source=Meeting())]).training(plan, 0))
    apart = [[read_batch(session, request) for request in requests] for requests in plan.epoch(0)]
    assert all_same(together, apart)


def test_faults_of_the_plan_are_raised_before_the_first_batch_is_asked_for():
    with pytest.raises(ValueError, match="training clip 0"):
        training_batches([counted_session({TRAIN: [30]})], **OPTIONS, epoch=0)
    with pytest.raises(ValueError, match="not a tier"):
        evaluation_batches(two_sessions(), "oracle", batch_size=4)


def test_two_sessions_of_one_name_are_refused():
    with pytest.raises(ValueError, match="session names must differ, got mouse, mouse"):
        ClipLoader([counted_session({TRAIN: [300]})] * 2)


def test_a_negative_number_of_worker_processes_is_refused():
    with pytest.raises(ValueError, match="workers is -1; give 0"):
        ClipLoader(two_sessions(), workers=-1)


def test_a_pass_goes_on_with_its_own_batches_or_not_at_all():
    sessions = two_sessions()
    loader, plan = ClipLoader(sessions), TrainingPlan(sessions, **OPTIONS)
    left = loader.training(plan, 0)
    next(left)
    whole = list(loader.training(plan, 1))
    assert all_same(whole, list(training_batches(sessions, **OPTIONS, epoch=1)))
    with pytest.raises(RuntimeError, match="another pass over this loader has begun"):
        next(left)


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_an_evaluation_batch_says_what_it_holds():
    (first, second) = [
        piece for piece in evaluation_batches(two_sessions()[:1], VALIDATION, batch_size=3) if piece.start == 0
    ]
    assert first.batch.clips.tolist() == [10, 12]
    assert first.stimuli == (90, 90)
    assert second.batch.clips.tolist() == [11, 13]
    assert first.batch.responses.shape == (2, 300, 2)


def test_predictions_are_aligned_to_the_last_frames_and_scored_from_where_the_benchmark_says():
    session = counted_session({VALIDATION: [300]}, scored_from=50)
    (piece,) = evaluation_batches([session], VALIDATION, batch_size=1, lead=18)
    rates, responses, valid = piece.scored(piece.batch.responses[:, 18:] + 0.5)
    assert torch.equal(rates, responses + 0.5)
    assert responses[0, :, 0].tolist() == [10.0 * t for t in range(50, 300)]
    assert valid.all()
    assert valid.shape == (1, 250, 2)


def test_a_clip_scored_in_chunks_equals_the_clip_scored_whole():
    session = counted_session({VALIDATION: [300, 300]}, scored_from=20)

    def running_mean(batch):  # a model that loses 18 frames, as a convolution without padding does
        return batch.responses.unfold(1, 19, 1).double().mean(-1).float()

    passes = []
    for max_frames in (None, 64):
        pieces = list(evaluation_batches([session], VALIDATION, batch_size=2, lead=18, max_frames=max_frames))
        scored = [piece.scored(running_mean(piece.batch)) for piece in pieces]
        passes.append([torch.cat(part, dim=1) for part in zip(*scored, strict=True)])
    assert passes[0][0].shape == (2, 280, 2)
    assert all(torch.equal(whole, chunked) for whole, chunked in zip(*passes, strict=True))


def test_predictions_of_too_few_frames_are_refused():
    session = counted_session({VALIDATION: [300]}, scored_from=50)
    (piece,) = evaluation_batches([session], VALIDATION, batch_size=1)
    with pytest.raises(ValueError, match=r"230 frames were predicted, but 250 are scored from frame 50 .*as lead"):
        piece.scored(torch.zeros(1, 230, 2))


def test_a_full_pass_is_the_same_every_time():
    passes = [list(evaluation_batches(two_sessions(), VALIDATION, batch_size=4)) for _ in range(2)]
    assert len(passes[0]) == 2
    assert all(same(a.batch, b.batch) for a, b in zip(*passes, strict=True))


# --- worker processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessSource(CountedSource):
    """Writes the id of the process that read."""

    def read(self, clip: int, start: int, frames: int) -> Clip:
        return Clip(np.full((frames, 1), os.getpid(), np.float32))


def test_worker_processes_read_the_same_numbers_epoch_after_epoch():
    sessions = two_sessions()
    plan = TrainingPlan(sessions, **OPTIONS)
    with ClipLoader(sessions, workers=2) as loader:
        for epoch in (0, 1):
            assert all_same(
                list(loader.training(plan, epoch)), list(training_batches(sessions, **OPTIONS, epoch=epoch))
            )
        next(loader.training(plan, 2))  # a pass left unfinished does not leak into the next
        resumed = list(loader.training(plan, 0, first_step=1))
        assert all_same(resumed, list(training_batches(sessions, **OPTIONS, epoch=0))[1:])
        pieces = evaluation_plan(sessions, VALIDATION, batch_size=4)
        there, here = loader.evaluation(pieces), evaluation_batches(sessions, VALIDATION, batch_size=4)
        assert all(same(x.batch, y.batch) for x, y in zip(there, here, strict=True))


def test_worker_processes_live_over_epochs_and_end_with_the_loader():
    session = replace(counted_session({TRAIN: [80] * 8}), source=ProcessSource())
    plan = TrainingPlan([session], **OPTIONS)
    with ClipLoader([session], workers=2) as loader:
        epochs = [{int(b.responses[0, 0, 0]) for (b,) in loader.training(plan, epoch)} for epoch in (0, 1)]
        assert epochs[0] == epochs[1]
        assert len(epochs[0]) == 2
        assert os.getpid() not in epochs[0]
    assert not multiprocessing.active_children()


def test_a_fault_in_a_worker_process_is_raised_with_its_own_kind_and_message():
    session = counted_session({TRAIN: [300] * 6}, source=CountedSource(broken=3))
    with pytest.raises(DataError, match="clip 3 has NaN in frame 3; remove it"):
        list(training_batches([session], **OPTIONS, epoch=0, workers=1))
