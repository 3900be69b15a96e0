"""A rehearsal goes through what can be the peak of a training run, and its process is like that of a trial."""

import math
import os
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from worlds import make_config, make_session, make_sweep

from neuroint.data.base import UNUSED, VALIDATION, DataError, collate
from neuroint.evaluation import DivergedError
from neuroint.memory import files_mb, measure_anew
from neuroint.sweep import rehearsal
from neuroint.sweep.matching import Size
from neuroint.sweep.planning import PlanError, plan_sweep
from neuroint.sweep.rehearsal import CPU, RehearsalError, Rehearsed, first_step, heaviest, rehearse, rehearse_apart

FIRST = 6  # clips of the training tier come first; then those of validation: stimuli A, B, A, B
A, B = (FIRST, FIRST + 2), (FIRST + 1, FIRST + 3)
SHAPES = ((1, 30), (1, 30), (2, 30), (1, 40))  # clips and frames of batches


def changed(lengths, stimuli=None):
    """A session of clips of 40 frames, but for the lengths and stimuli of some."""
    session = make_session()
    arrays = np.array(session.lengths), np.array(session.stimulus_ids)
    for array, changes in zip(arrays, (lengths, stimuli or {}), strict=True):
        array[list(changes)] = list(changes.values())
    return replace(session, lengths=arrays[0], stimulus_ids=arrays[1])


def validated(session):
    return tuple(session.clips(VALIDATION))


def test_repeats_of_a_stimulus_and_the_longest_clip_are_the_heaviest_of_a_validation_tier():
    session = changed({6: 25, 8: 25, 9: 12}, stimuli={9: 99})
    # a clip at a time: rates of both clips of 25 frames are kept until all are there, one of 40 is the largest batch
    assert validated(heaviest(session, frames_at_once=20)) == (6, 7, 8)
    assert validated(heaviest(changed({7: 15, 9: 15}), frames_at_once=20)) == A


def test_stimuli_that_fill_a_batch_together_are_weighed_together():
    assert validated(heaviest(make_session(), frames_at_once=4 * 40)) == tuple(sorted(A + B))
    assert validated(heaviest(make_session(), frames_at_once=2 * 40)) == A


def test_nothing_but_the_validation_tier_is_made_smaller():
    session = make_session()
    before, after = session.tiers, heaviest(session, frames_at_once=20).tiers
    assert [(x, y) for x, y in zip(before, after, strict=True) if x != y] == [(VALIDATION, UNUSED)] * 2


def test_when_time_is_up_a_batch_larger_than_all_before_is_predicted_and_others_are_made_up_in_their_size():
    asked, model = [], first_step(make_config(), [make_session()])[0].model.eval()
    model.core.register_forward_hook(lambda *_: asked.append(1))
    read = make_session().source.read
    crops = [[read(clip, 0, frames) for clip in range(clips)] for clips, frames in SHAPES]
    batches = [collate("one", range(len(clips)), clips).inputs for clips in crops]
    found = [predictor(inputs, "one") for predictor in [rehearsal._InTime(model, until=0)] for inputs in batches]
    assert [one.shape for one in found] == [(clips, frames - model.lost_frames, 6) for clips, frames in SHAPES]
    assert [bool((one == 1).all()) for one in found] == [False, True, False, True], "ones are written, zeros are not"
    assert len(asked) == 2
    in_time = rehearsal._InTime(model, until=math.inf)
    assert torch.equal(in_time(batches[0], "one"), in_time(batches[1], "one"))
    assert len(asked) == 4


def recorded(monkeypatch, name, seen, told=lambda *given: None):
    """Note in ``seen`` that a function of the rehearsal was called, and what ``told`` says of its arguments."""
    function = getattr(rehearsal, name)

    def noting(*given):
        seen.append((name, told(*given)))
        return function(*given)

    monkeypatch.setattr(rehearsal, name, noting)


def test_a_rehearsal_steps_validates_keeps_and_steps_again_with_everything_in_memory(monkeypatch):
    seen = []
    state = lambda fit, *_: (len(fit.optimizer.state) > 0, len(fit.best_weights) > 0, fit.model.training)  # noqa: E731
    recorded(monkeypatch, "training_step", seen, state)
    recorded(monkeypatch, "moments_of", seen)
    recorded(monkeypatch, "write_outcome", seen)
    found = rehearse(make_config(train={"ema": 0.9}), [make_session("a"), make_session("b")])
    assert seen == [
        ("training_step", (False, False, True)),
        ("moments_of", None),
        ("moments_of", None),
        ("write_outcome", None),
        ("training_step", (True, True, True)),
    ]
    assert found.steps == 2, "6 clips in batches of 4"
    assert found.peak_memory_mb > 50


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
@pytest.mark.parametrize("part", ["training_step", "moments_of", "write_outcome"])
def test_what_any_part_takes_and_gives_back_is_part_of_the_peak(part, monkeypatch):
    rehearse(make_config(), [make_session()])  # what only the first one takes
    measure_anew(CPU)
    without = rehearse(make_config(), [make_session()]).peak_memory_mb
    recorded(monkeypatch, part, [], lambda *_: torch.ones(300 * 2**18).sum())  # 300 MiB
    measure_anew(CPU)
    assert rehearse(make_config(), [make_session()]).peak_memory_mb == pytest.approx(without + 300, abs=40)


def test_predictions_that_are_no_numbers_after_a_step_do_not_end_a_rehearsal(monkeypatch):
    def diverged(*given):
        raise DivergedError("rates are infinite")

    monkeypatch.setattr(rehearsal, "moments_of", diverged)
    assert rehearse(make_config(), [make_session()]).size.parameters > 0


def test_steps_are_taken_with_the_threads_that_a_worker_will_have(monkeypatch):
    seen, given = [], torch.get_num_threads()
    recorded(monkeypatch, "training_step", seen, lambda *_: torch.get_num_threads())
    rehearse(make_config(resources={"cpus_per_worker": 3}), [make_session()])
    assert [threads for _, threads in seen] == [3, 3]
    assert torch.get_num_threads() == given


def test_a_rehearsal_takes_the_part_of_one_worker_and_counts_that_of_all():
    sizes = {}
    for workers in (1, 2):
        config = make_config(resources={"workers": workers})
        _, _, (batch,), sizes[workers] = first_step(config, [make_session()])
        assert len(batch.clips) == 4 // workers
    assert sizes[2].parameters == sizes[1].parameters
    assert sizes[2].flops == pytest.approx(sizes[1].flops, rel=0.05)  # what does not grow with clips counts per worker


def test_windows_of_validation_are_as_few_as_cover_a_clip():
    config = make_config(train={"evaluation_hop": 2})  # crops of 20 frames, of which the core consumes 3
    predictor = rehearsal._predictor(first_step(config, [make_session()])[0], until=0)
    assert (predictor.windows.frames, predictor.windows.hop) == (20, 17)


def test_libraries_that_the_server_has_touched_are_part_of_the_peak(monkeypatch):
    monkeypatch.setattr(rehearsal, "files_mb", lambda process="self": 6.0 if process == "self" else 131.0)
    told = Rehearsed(make_config(), "stimulus", Size(1, 1), seconds=1.0, steps=1, peak_memory_mb=355.0)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *given: told)
    assert rehearsal._answer(told.config, [make_session()]).peak_memory_mb == 355 + 131 - 6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")
def test_what_a_process_holds_of_files_is_a_part_of_what_it_holds():
    assert 20 < files_mb() < 2000
    assert files_mb(os.getpid()) == pytest.approx(files_mb(), rel=0.1)
    assert files_mb("no process") == 0


@dataclass(frozen=True)
class Torn:
    """A source that cannot be read in another process, or takes it down."""

    source: object
    message: str = ""
    home: int = field(default_factory=os.getpid)

    def read(self, clip, start, frames):
        if os.getpid() == self.home:
            return self.source.read(clip, start, frames)
        if self.message:
            raise DataError(self.message)
        os._exit(9)


def torn(message=""):
    session = make_session()
    return replace(session, source=Torn(session.source, message))


def test_a_fault_in_the_process_of_a_rehearsal_is_told_with_its_arm():
    with pytest.raises(PlanError, match=r"^arm 'none': clip 3 is torn$"):
        plan_sweep(make_sweep(arms={"none": {}}), [torn("clip 3 is torn")])


def test_a_process_that_is_killed_is_told_with_what_to_do():
    with pytest.raises(RehearsalError, match="was killed, most likely because memory ran out; lower"):
        rehearse_apart(make_config(), [torn()])
