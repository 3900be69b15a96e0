"""What goes wrong between journal and MLflow is told, holds nothing else up, and is made good."""

import json
import sqlite3
import threading
import time

import pytest
from telling import LOSSES, curve, tell_run

from neuroint.tracking import TrackingError, Uploader, default_uri
from neuroint.tracking.server import alone


def test_a_server_that_refuses_for_a_while_gets_everything_in_order_and_training_does_not_wait(
    sweep, journal, make, runs, monkeypatch
):
    uploader = make(longest_wait_s=0.1)
    log_batch, failures = uploader._runs.client.log_batch, []

    def refuse_ten_times(*arguments, **options):
        if len(failures) < 10:
            failures.append(1)
            raise ConnectionError("503")
        log_batch(*arguments, **options)

    monkeypatch.setattr(uploader._runs.client, "log_batch", refuse_ten_times)
    uploader.start()
    for key in "abc":
        tell_run(journal, key)
    assert not uploader.stop(20.0)
    assert len(failures) == 10
    with sqlite3.connect(sweep.parent / "mlflow.db") as database:
        arrived = database.execute(
            "select r.name, m.step from metrics m join runs r using (run_uuid) where key = 'loss' order by m.rowid"
        ).fetchall()
    database.close()
    assert arrived == [(key, epoch) for key in "abc" for epoch in range(3)]


def test_a_server_that_hangs_holds_up_neither_training_nor_the_end(sweep, journal, make, monkeypatch):
    uploader, released = make(), threading.Event()
    monkeypatch.setattr(uploader._runs.client, "log_batch", lambda *_, **__: released.wait(30))
    uploader.start()
    began = time.monotonic()
    tell_run(journal, epochs=100)
    left = uploader.stop(0.3)
    assert time.monotonic() - began < 10
    assert left
    assert left.events >= 101
    assert f"nothing is lost: neuroint upload {sweep} sends them" in left.message
    released.set()


def test_files_that_meet_a_full_disk_are_told_and_sent_when_there_is_room(sweep, journal, make, runs, no_space):
    (sweep / "runs" / "a").mkdir(parents=True)
    (sweep / "runs" / "a" / "weights.safetensors").write_bytes(bytes(8_000_000))
    tell_run(journal, "a", folder="runs/a")
    tell_run(journal, "b")
    uploader = make()
    with no_space(4_000_000):  # more than the database takes, less than the weights
        left = uploader.flush()
    assert (left.events, left.uploads) == (0, 1)
    assert "File too large" in left.message
    assert "File too large" in json.loads((sweep / "upload_state.json").read_text())["waiting"][0]["error"]
    assert curve(runs, "b") == LOSSES
    assert not make().flush()  # the next driver takes over what waits
    stored = sweep.parent / "mlartifacts" / runs()["a"].info.run_id / "artifacts" / "weights.safetensors"
    assert stored.stat().st_size == 8_000_000


def test_a_missing_folder_is_told_and_stops_nothing_else(journal, make, runs):
    tell_run(journal, "a", folder="runs/a")
    tell_run(journal, "b")
    left = make().flush()
    assert not left
    assert any("runs/a does not exist" in reason for reason in left.refused)
    assert curve(runs, "b") == LOSSES


def test_a_value_that_mlflow_refuses_is_told_and_the_rest_of_the_run_arrives(sweep, journal, make, runs):
    tell_run(journal)
    make().flush()
    journal.path.write_text(journal.path.read_text().replace('"lr": 0.1', '"lr": 0.2'))
    (sweep / "upload_state.json").unlink()
    journal.append("epoch", run="a", epoch=3, metrics={"loss": 0.25})
    left = make().flush()
    assert not left
    assert len(left.refused) == 1
    assert "run_started of a: Changing param values is not allowed" in left.refused[0]
    assert "1 refused for good" in left.message
    assert runs()["a"].data.params == {"lr": "0.1"}
    assert curve(runs, "a") == [*LOSSES, (3, 0.25)]


def test_a_run_deleted_in_the_ui_is_told_once_and_stops_nothing_else(journal, make, runs):
    journal.append("run_started", run="a", phase="tune", arm="pool", seed=3)
    uploader = make()
    uploader.flush()
    runs.client.delete_run(runs()["a"].info.run_id)
    for epoch in range(3):
        journal.append("epoch", run="a", epoch=epoch, metrics={"loss": 1.0})
    tell_run(journal, "b")
    left = uploader.flush()
    assert not left
    assert len(left.refused) == 1
    assert "epoch of a" in left.refused[0]
    assert curve(runs, "b") == LOSSES


def test_a_line_torn_by_a_crash_is_passed_over(journal, make, runs):
    with journal.path.open("a") as file:
        file.write('{"kind": "epo')
    tell_run(journal)
    assert not make().flush()
    assert curve(runs, "a") == LOSSES


def test_an_uploader_says_what_is_missing_before_it_can_work(tmp_path):
    uploader = Uploader(tmp_path, default_uri(tmp_path), "experiment")
    with pytest.raises(ValueError, match=r"expected prepare\(\) first"):
        uploader.start()
    with pytest.raises(ValueError, match="does not exist; expected the journal"):
        uploader.prepare()
    uploader.journal.path.touch()
    with pytest.raises(ValueError, match="is empty; expected a sweep_started event"):
        uploader.prepare()
    uploader.journal.append("epoch", run="a", epoch=0)
    with pytest.raises(ValueError, match="begins with 'epoch'; expected 'sweep_started'"):
        uploader.prepare()


def test_an_experiment_deleted_in_the_ui_is_told_before_training(make, runs):
    make()
    runs.client.delete_experiment(runs.client.get_experiment_by_name("experiment").experiment_id)
    with pytest.raises(TrackingError, match=r"experiment 'experiment' could not be opened.*restore or rename"):
        make()


def test_an_uploader_takes_up_what_was_sent_only_when_no_other_is_sending(sweep, journal, make):
    """A sender that was given up may still be waiting for its last answer."""
    tell_run(journal)
    first = make()
    with alone(sweep / "upload.lock"):
        preparing = threading.Thread(target=lambda: Uploader(sweep, first.tracking_uri, first.experiment).prepare())
        preparing.start()
        preparing.join(0.5)
        assert preparing.is_alive()
    preparing.join(30)
    assert not preparing.is_alive()
