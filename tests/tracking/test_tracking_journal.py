"""The journal keeps what it was told, whatever happens to the process or the disk."""

import json
import logging
import math
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from neuroint.tracking import Journal, SweepRecord


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl")


def start(journal, run="a", **fields):
    journal.append("run_started", **{"run": run, "phase": "tune", "arm": "pool", "seed": 1, **fields})


def test_events_come_back_as_they_were_appended(journal):
    journal.append("epoch", run="a", epoch=2, metrics={"loss": np.float32(0.5)}, time=12.5)
    assert journal.read() == [{"kind": "epoch", "time": 12.5, "run": "a", "epoch": 2, "metrics": {"loss": 0.5}}]


def test_nan_and_infinity_survive_in_a_file_that_is_strict_json(journal):
    metrics = {"nan": math.nan, "up": math.inf, "down": np.float32(-np.inf)}
    journal.append("epoch", run="a", epoch=0, metrics=metrics)
    start(journal, params={"clip": math.inf, "nested": [math.nan]})
    epoch, run = journal.read()
    assert math.isnan(epoch["metrics"]["nan"])
    assert (epoch["metrics"]["up"], epoch["metrics"]["down"]) == (math.inf, -math.inf)
    assert run["params"] == {"clip": "Infinity", "nested": ["NaN"]}
    for line in journal.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_line_torn_by_a_crash_is_left_out_and_reported_and_the_next_event_is_whole(journal, caplog):
    start(journal, "a")
    with journal.path.open("a") as file:
        file.write('{"kind": "epoch", "run": "a", "ep')
    with caplog.at_level(logging.WARNING):
        assert [event["kind"] for event in journal.read()] == ["run_started"]
    assert "unreadable lines [2]" in caplog.text
    journal.append("epoch", run="a", epoch=0, metrics={"loss": 1.0})
    assert [event["kind"] for event in journal.read()] == ["run_started", "epoch"]
    assert SweepRecord.from_journal(journal.path).unreadable_lines == [2]


def test_a_reader_that_follows_stops_before_a_line_still_being_written(journal):
    start(journal, "a")
    whole = journal.path.stat().st_size
    with journal.path.open("a") as file:
        file.write('{"kind": "epoch"')
    assert [(end, event["run"]) for end, event in journal.follow(0)] == [(whole, "a")]


def test_threads_that_append_at_once_lose_and_mix_nothing(journal):
    def append(worker):
        for epoch in range(20):
            journal.append("epoch", run=str(worker), epoch=epoch, metrics={"loss": 0.1})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(append, range(16)))
    events, unreadable = journal.scan()
    assert unreadable == []
    for worker in range(16):
        assert [event["epoch"] for event in events if event["run"] == str(worker)] == list(range(20))


def test_a_pickled_journal_appends_to_the_same_file(journal):
    start(pickle.loads(pickle.dumps(journal)))
    assert len(journal.read()) == 1


def test_what_was_acknowledged_survives_a_killed_driver(journal):
    code = (
        "import sys, pathlib; from neuroint.tracking.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for epoch in range(10**9):\n"
        "    journal.append('epoch', run='a', epoch=epoch, metrics={'loss': 1.0}); print(epoch, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(journal.path)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        acknowledged = [int(driver.stdout.readline()) for _ in range(50)][-1]
        driver.send_signal(signal.SIGKILL)
    epochs = [event["epoch"] for event in journal.read()]
    assert len(epochs) > acknowledged
    assert epochs == list(range(len(epochs)))


def test_a_full_disk_leaves_no_half_event_behind_and_says_what_to_do(journal, no_space):
    start(journal)
    before = journal.path.read_bytes()
    with (
        no_space(len(before) + 40),
        pytest.raises(OSError, match=r"epoch event could not be written.*resume the sweep"),
    ):
        journal.append("epoch", run="a", epoch=0, metrics={"loss": 1.0})
    assert journal.path.read_bytes() == before
    journal.append("epoch", run="a", epoch=0, metrics={"loss": 1.0})
    assert len(journal.read()) == 2


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("epoc", {}, r"unknown event 'epoc'; expected one of .*Did you mean 'epoch'"),
        ("epoch", {"run": "a", "epoch": 0, "metric": {}}, r"unknown fields \['metric'\]"),
        ("epoch", {"run": "a"}, r"missing fields \['epoch'\]; expected run, epoch, metrics"),
        ("epoch", {"run": "a", "epoch": 0, "metrics": {"loss": "low"}}, r"metric 'loss' is 'low'; expected a number"),
        ("run_finished", {"run": "a", "status": "done"}, r"status 'done'; expected one of finished, stopped"),
        (
            "sweep_started",
            {"sweep": "s", "params": {"x": {1, 2}}},
            r"cannot hold \{1, 2\} of type set.*convert it first",
        ),
    ],
)
def test_an_event_that_says_something_else_is_refused(journal, kind, fields, message):
    with pytest.raises(ValueError, match=message):
        journal.append(kind, **fields)
    assert not journal.path.exists()


def test_a_missing_journal_is_reported(tmp_path):
    with pytest.raises(ValueError, match=r"journal.jsonl does not exist; expected the journal of a sweep"):
        SweepRecord.from_journal(tmp_path / "journal.jsonl")


def test_the_record_of_a_sweep_has_every_run_with_its_curve_and_outcome(journal):
    journal.append("sweep_started", sweep="s", tags={"data_hash": "d"}, params={"epochs": 2})
    start(journal, "a", params={"lr": 0.1})
    start(journal, "b", arm="none", phase="confirm", seed=7)
    journal.append("epoch", run="a", epoch=0, metrics={"loss": 2.0})
    journal.append("epoch", run="b", epoch=0, metrics={"loss": 3.0})
    journal.append("epoch", run="a", epoch=1, metrics={"loss": 1.0})
    journal.append("run_finished", run="a", status="finished", metrics={"validation": 0.3}, folder="runs/a")
    journal.append("test_read", run="a", tier="dev_test", reason="confirmed")
    record = SweepRecord.from_journal(journal.path)
    a, b = record.runs["a"], record.runs["b"]
    assert (record.name, record.tags, record.params, record.status) == (
        "s",
        {"data_hash": "d"},
        {"epochs": 2},
        "running",
    )
    assert (a.arm, a.phase, a.seed, a.params, a.status, a.folder) == (
        "pool",
        "tune",
        1,
        {"lr": 0.1},
        "finished",
        "runs/a",
    )
    assert a.epochs == {0: {"loss": 2.0}, 1: {"loss": 1.0}}
    assert a.metrics == {"validation": 0.3}
    assert (b.arm, b.phase, b.seed, b.status, b.epochs) == ("none", "confirm", 7, "running", {0: {"loss": 3.0}})
    assert [(read["run"], read["tier"]) for read in record.test_reads] == [("a", "dev_test")]


def test_of_an_epoch_told_twice_the_first_counts(journal):
    start(journal)
    for loss in (1.0, 9.0):
        journal.append("epoch", run="a", epoch=0, metrics={"loss": loss})
    assert SweepRecord.from_journal(journal.path).runs["a"].epochs == {0: {"loss": 1.0}}


def test_a_run_started_again_keeps_its_epochs_and_a_later_end_adds_metrics(journal):
    start(journal)
    journal.append("epoch", run="a", epoch=0, metrics={"loss": 1.0})
    journal.append("run_finished", run="a", status="failed", message="killed", metrics={"x": 1.0}, folder="runs/a")
    start(journal)
    assert SweepRecord.from_journal(journal.path).runs["a"].status == "running"
    journal.append("run_finished", run="a", status="finished", metrics={"y": 2.0})
    run = SweepRecord.from_journal(journal.path).runs["a"]
    assert (run.status, run.message, run.folder) == ("finished", None, "runs/a")
    assert (run.epochs, run.metrics) == ({0: {"loss": 1.0}}, {"x": 1.0, "y": 2.0})


def test_an_event_of_a_run_never_started_is_refused(journal):
    journal.append("epoch", run="ghost", epoch=0, metrics={})
    with pytest.raises(ValueError, match=r"speaks of run 'ghost' before its run_started event"):
        SweepRecord.from_journal(journal.path)
