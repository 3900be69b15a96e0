"""What the driver's callback writes down when Ray Tune's trials end in ways that are not in the book."""

import json

import pytest
from sweeps import small

from neuroint.sweep.outcome import refusal_in
from neuroint.sweep.watch import Watch
from neuroint.tracking import Journal, SweepRecord


class Trial:
    """A Tune trial, as callbacks see it."""

    def __init__(self, key="arm-none-0000", status="RUNNING", error_file=None, **result):
        job = small().trial("none", {}, key=key, phase="tune", seed=1).to_dict()
        self.config, self.status, self.error_file = {"job": json.dumps(job)}, status, error_file
        self.last_result = result


@pytest.fixture
def watch(tmp_path):
    Journal(tmp_path / "journal.jsonl").append("sweep_started", sweep="small")
    return Watch(tmp_path, {"none": {}}, SweepRecord())


def test_a_trial_whose_process_never_started_is_a_failed_run_that_can_be_read(watch, tmp_path):
    (tmp_path / "error.txt").write_text("RuntimeError: no process")
    watch.on_trial_error(0, [], Trial(status="ERROR", error_file=str(tmp_path / "error.txt")))
    run = SweepRecord.from_journal(tmp_path / "journal.jsonl").runs["arm-none-0000"]
    assert (run.status, run.message) == ("failed", "RuntimeError: no process")


def test_files_that_cannot_be_kept_end_the_sweep_at_the_next_step_and_no_run_is_recorded(watch, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    trial = Trial(finished=1, best_validation_score=0.5)
    watch.on_trial_start(0, [trial], trial)
    monkeypatch.setattr(watch.files, "keep", refuse)
    watch.on_trial_complete(0, [trial], trial)
    with pytest.raises(OSError, match="No space left"):
        watch.on_step_begin(1, [trial])
    assert SweepRecord.from_journal(tmp_path / "journal.jsonl").runs["arm-none-0000"].status == "running"


def test_nothing_of_a_run_stays_in_tunes_folder_once_it_has_ended(watch, tmp_path):
    ended, other = (tmp_path / f"ray/1.tune/arm-none-000{n}/checkpoint_000001" for n in range(2))
    for folder in (ended, other):
        folder.mkdir(parents=True)
    watch.files.forget("arm-none-0000")
    assert (ended.exists(), other.exists()) == (False, True)


def test_a_trial_that_tune_gave_up_without_a_word_ends_the_sweep(watch):
    with pytest.raises(RuntimeError, match="gave up arm-none-0000 before it began; go on with --resume"):
        watch.on_step_begin(0, [Trial(status="ERROR")])


@pytest.mark.parametrize(
    ("traceback", "found"),
    [
        ("ray::f() (pid=1)\n  File x\nOSError: [Errno 28] No space left", "OSError: [Errno 28] No space left"),
        ("Failure # 1\nOSError: [Errno 28] full\nFailure # 2\nRuntimeError: shapes differ", None),
        ("ConnectionResetError: [Errno 104] reset by peer", None),
        ("TimeoutError: no answer", None),
    ],
    ids=["a full disk", "another failure last", "the network", "a time limit"],
)
def test_only_a_system_that_refuses_files_in_the_last_failure_ends_the_sweep(traceback, found):
    assert refusal_in(traceback) == found
