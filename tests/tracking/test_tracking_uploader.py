"""What the journal says arrives in MLflow once and in order; real MLflow on SQLite, read back with its own client."""

import json
import math
import sqlite3
import threading
import time

import pytest

from neuroint.tracking import Journal, TrackingError, Uploader, default_uri
from neuroint.tracking.server import alone


@pytest.fixture
def journal(sweep):
    return Journal(sweep / "journal.jsonl")


def tell_run(journal, key="a", epochs=3, status="finished", arm="pool", **end):
    """Journal a run; its loss at epoch e is 1 / (1 + e), and epoch e was over 10 e seconds after the start."""
    began = 1_700_000_100.0
    journal.append(
        "run_started", run=key, phase="tune", arm=arm, seed=3, params={"lr": 0.1}, tags={"own": "x"}, time=began
    )
    for epoch in range(epochs):
        journal.append("epoch", run=key, epoch=epoch, metrics={"loss": 1 / (1 + epoch)}, time=began + 10 * epoch)
    journal.append("run_finished", run=key, status=status, **{"metrics": {"dev_test/correlation": 0.4}, **end})


def curve(runs, key, metric="loss"):
    history = runs.client.get_metric_history(runs()[key].info.run_id, metric)
    return [(point.step, point.value) for point in history]


LOSSES = [(0, 1.0), (1, 0.5), (2, 1 / 3)]


def test_a_run_arrives_with_parent_params_tags_curve_scores_and_files(sweep, journal, make, runs):
    (sweep / "runs" / "a" / "figures").mkdir(parents=True)
    (sweep / "runs" / "a" / "config.yaml").write_text("lr: 0.1\n")
    (sweep / "runs" / "a" / "figures" / "fit.svg").write_text("<svg/>")
    tell_run(journal, folder="runs/a")
    journal.append("sweep_finished", status="finished")
    uploader = make()
    assert not uploader.flush()
    parent, run = runs()["sweep"], runs()["a"]
    assert parent.info.run_id == uploader.parent
    assert (parent.data.params, parent.info.status, parent.info.run_name) == ({"epochs": "3"}, "FINISHED", "which_arm")
    assert (run.data.params, run.info.status, run.info.run_name) == ({"lr": "0.1"}, "FINISHED", "a")
    expected = {
        "mlflow.parentRunId": parent.info.run_id,
        "neuroint.run": "a",
        "neuroint.status": "finished",
        "arm": "pool",
        "phase": "tune",
        "seed": "3",
        "own": "x",
        "git_commit": "abc",
        "data_hash": "d1",
    }
    assert expected.items() <= run.data.tags.items()
    assert curve(runs, "a") == LOSSES
    assert [p.timestamp for p in runs.client.get_metric_history(run.info.run_id, "loss")] == [
        1_700_000_100_000 + 10_000 * epoch for epoch in range(3)
    ]
    assert curve(runs, "a", "dev_test/correlation") == [(0, 0.4)]
    assert [file.path for file in runs.client.list_artifacts(run.info.run_id)] == ["config.yaml", "figures"]
    assert [file.path for file in runs.client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    assert (sweep.parent / "mlartifacts" / run.info.run_id / "artifacts" / "figures" / "fit.svg").is_file()


def test_a_final_value_of_a_curve_is_its_latest_and_a_score_told_again_replaces_the_first(journal, make, runs):
    later = 1_700_001_000.0
    tell_run(journal, metrics={"loss": 0.25, "score": 1.0}, time=later)
    journal.append("run_finished", run="a", status="finished", metrics={"score": 0.5, "other": 2.0}, time=later + 1)
    make().flush()
    metrics = runs()["a"].data.metrics
    assert metrics == {"loss": 0.25, "score": 0.5, "other": 2.0}
    assert curve(runs, "a") == [*LOSSES, (2, 0.25)]


@pytest.mark.parametrize(
    ("status", "shown"),
    [("finished", "FINISHED"), ("stopped", "KILLED"), ("diverged", "KILLED"), ("failed", "FAILED")],
)
def test_how_a_run_ended_is_shown(journal, make, runs, status, shown):
    tell_run(journal, status=status)
    make().flush()
    assert (runs()["a"].info.status, runs()["a"].data.tags["neuroint.status"]) == (shown, status)


def test_a_failed_run_carries_its_traceback(sweep, journal, make, runs):
    traceback = "x" * 9000 + "\nRuntimeError: singular"
    tell_run(journal, status="failed", message=traceback)
    make().flush()
    run = runs()["a"]
    assert run.data.tags["mlflow.note.content"].endswith("RuntimeError: singular\n```")
    assert (sweep.parent / "mlartifacts" / run.info.run_id / "artifacts" / "message.txt").read_text() == traceback


def test_every_read_of_a_test_tier_is_shown(journal, make, runs):
    tell_run(journal)
    for reason in ("confirmed", "asked again"):
        journal.append("test_read", run="a", tier="final_test", reason=reason, time=0.0)
    make().flush()
    tags = runs()["a"].data.tags
    assert tags["neuroint.read.final_test.1"] == "1970-01-01T00:00:00Z confirmed"
    assert tags["neuroint.read.final_test.2"] == "1970-01-01T00:00:00Z asked again"


def test_a_journal_sent_again_from_its_beginning_doubles_nothing(sweep, journal, make, runs):
    tell_run(journal)
    first = make()
    first.flush()
    (sweep / "upload_state.json").unlink()
    second = make()
    assert not second.flush()
    assert second.parent == first.parent
    assert set(runs()) == {"sweep", "a"}
    assert curve(runs, "a") == LOSSES


def test_an_uploader_that_starts_again_goes_on_where_the_last_one_stopped(sweep, journal, make, runs, monkeypatch):
    tell_run(journal, "a")
    make().flush()
    tell_run(journal, "b")
    second = make()
    sent = []
    replay = second._runs.replay
    monkeypatch.setattr(second._runs, "replay", lambda event: (sent.append(event.get("run")), replay(event)))
    second.flush()
    assert sent == ["b"] * 5
    assert curve(runs, "b") == LOSSES


def test_a_crash_between_sending_and_noting_it_doubles_nothing(journal, make, runs, monkeypatch):
    tell_run(journal)
    uploader = make()
    save, left = uploader._save, [2]

    def crash():
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        save()

    monkeypatch.setattr(uploader, "_save", crash)
    assert "No space left" in uploader.flush().message
    assert not uploader.flush()
    assert curve(runs, "a") == LOSSES


def test_an_unreadable_state_is_reported_and_doubles_nothing(sweep, journal, make, runs, caplog):
    tell_run(journal)
    make().flush()
    (sweep / "upload_state.json").write_text('{"tracking')
    make().flush()
    assert "the journal is replayed from its beginning" in caplog.text
    assert curve(runs, "a") == LOSSES


def test_another_store_gets_everything_from_the_beginning(sweep, journal, make, runs):
    tell_run(journal)
    make().flush()
    (sweep.parent / "mlflow.db").rename(sweep.parent / "old.db")
    other = Uploader(sweep, f"sqlite:///{sweep.parent / 'old.db'}", "another experiment")
    other.prepare()
    assert not other.flush()
    experiment = other._runs.client.get_experiment_by_name("another experiment").experiment_id
    found = other._runs.client.search_runs([experiment])
    assert sorted(run.data.tags.get("neuroint.run", "sweep") for run in found) == ["a", "sweep"]


def test_an_epoch_told_twice_is_shown_once(journal, make, runs):
    journal.append("run_started", run="a", phase="tune", arm="pool", seed=0)
    journal.append("epoch", run="a", epoch=0, metrics={"loss": 1.0})
    uploader = make()
    uploader.flush()
    journal.append("epoch", run="a", epoch=0, metrics={"loss": 7.0})
    uploader.flush()
    make().flush()
    assert curve(runs, "a") == [(0, 1.0)]


def test_a_run_that_is_resumed_is_running_again(journal, make, runs):
    tell_run(journal, status="failed", message="killed")
    journal.append("run_started", run="a", phase="tune", arm="pool", seed=3, params={"lr": 0.1})
    uploader = make()
    uploader.flush()
    assert runs()["a"].info.status == "RUNNING"
    assert "killed" in runs()["a"].data.tags["mlflow.note.content"]
    journal.append("run_finished", run="a", status="finished")
    uploader.flush()
    assert runs()["a"].info.status == "FINISHED"
    assert runs()["a"].data.tags["mlflow.note.content"] == ""


def test_long_many_and_oddly_named_values_arrive(journal, make, runs):
    params = {f"p{i}": i for i in range(250)} | {"long": "x" * 7000, "other": "x" * 7001}
    journal.append("run_started", run="a", phase="tune", arm="pool", seed=0, params=params, tags={"t": "y" * 9000})
    metrics = {f"m{i}": float(i) for i in range(1200)} | {"score/é (a)": 1.0, "score/é [a]": 2.0, "//": 3.0}
    journal.append("epoch", run="a", epoch=0, metrics={**metrics, "nan": math.nan, "inf": math.inf})
    uploader = make()
    assert not uploader.flush()
    assert uploader.pending.refused == ()
    data = runs()["a"].data
    assert {name: value for name, value in data.params.items() if name[0] == "p"} == {
        f"p{i}": str(i) for i in range(250)
    }
    assert data.params["long"].startswith("x" * 5900)
    assert data.params["long"] != data.params["other"]
    assert len(data.tags["t"]) <= 8000
    assert {name: value for name, value in data.metrics.items() if name[0] == "m"} == {f"m{i}": i for i in range(1200)}
    assert sorted(value for name, value in data.metrics.items() if name.startswith("score/")) == [1.0, 2.0]
    assert math.isnan(data.metrics["nan"])
    assert data.metrics["inf"] > 1e308


def test_a_run_whose_creation_was_answered_into_the_void_exists_once(journal, make, runs, monkeypatch):
    tell_run(journal)
    uploader = make()
    create = uploader._runs.client.create_run

    def lose_the_answer(*arguments):
        monkeypatch.undo()
        create(*arguments)
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(uploader._runs.client, "create_run", lose_the_answer)
    assert "reset by peer" in uploader.flush().message
    assert not uploader.flush()
    assert curve(runs, "a") == LOSSES


def test_a_twin_that_a_slow_server_created_late_is_deleted(journal, make, runs):
    journal.append("run_started", run="a", phase="tune", arm="pool", seed=3)
    uploader = make()
    uploader.flush()
    ours = runs()["a"]
    runs.client.create_run(ours.info.experiment_id, tags=ours.data.tags)
    journal.append("run_finished", run="a", status="finished")
    uploader.flush()
    assert runs()["a"].info.run_id == ours.info.run_id


def test_a_pause_waits_for_one_event_of_a_slow_server_and_not_for_all(journal, make, runs, monkeypatch):
    for key in "abcdefgh":
        tell_run(journal, key)
    uploader = make()
    begun, replay = threading.Event(), uploader._runs.replay

    def slowly(event):
        begun.set()
        time.sleep(0.3)
        replay(event)

    monkeypatch.setattr(uploader._runs, "replay", slowly)
    uploader.start()
    begun.wait(10)
    asked = time.monotonic()
    with uploader.paused():
        waited, left = time.monotonic() - asked, uploader.pending.events
    assert left > 8
    assert waited < 0.3 * left
    monkeypatch.undo()
    assert not uploader.stop(60)
    assert set(runs()) == {"sweep", *"abcdefgh"}


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
