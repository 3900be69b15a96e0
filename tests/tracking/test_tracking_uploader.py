"""What the journal says arrives in MLflow once and in order; real MLflow on SQLite, read back with its own client."""

import math
import threading
import time

import pytest
from telling import LOSSES, curve, tell_run

from neuroint.tracking import Uploader


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
