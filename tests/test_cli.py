"""The command line: what is printed where, exit codes, and one message for every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
from sweeps import write_question, write_recording
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.sweep.driver import Outcome
from neuroint.tracking import Journal
from neuroint.tracking.uploader import Pending


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch):
    """Call the command line in this process; whatever is no message is raised."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments):
        found = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Done(found.exit_code, found.stdout, found.stderr)

    return run


@pytest.fixture
def refused(call):
    """Call with bad input; returns the one message."""

    def run(*arguments):
        done = call(*arguments)
        assert done.code == 2, done.out + done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        return done.err

    return run


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture
def file(tmp_path):
    return write_question(tmp_path / "small.yaml")


def test_validate_lists_every_fault_of_every_file_and_exits_with_2(call, tmp_path):
    write_question(tmp_path / "good.yaml")
    write_question(tmp_path / "bad.yaml", reference="nnoe", core={"name": "linaer"})
    done = call("validate", tmp_path)
    assert done.code == 2
    assert f"{tmp_path / 'good.yaml'}: valid" in done.out
    assert "Did you mean 'none'?" in done.out
    assert "Did you mean 'linear'?" in done.out


def test_validate_as_json_maps_files_to_faults(call, file):
    done = call("validate", file, "--json")
    assert (done.code, json.loads(done.out)) == (0, {str(file): []})


def test_validate_of_a_folder_without_yaml_is_a_fault(call, tmp_path):
    done = call("validate", tmp_path)
    assert done.code == 2
    assert "holds no .yaml file" in done.out


def test_plan_prints_a_row_for_every_arm_and_the_hours_of_all(call, file, recording):
    done = call("plan", file, "--data", recording)
    assert done.code == 0, done.err
    head, none, own_past, *notes, end = done.out.strip().splitlines()
    assert head.split()[:3] == ["arm", "information", "parameters"]
    assert (none.split()[:2], own_past.split()[:2]) == (["none", "stimulus"], ["own_past", "own_predictions"])
    assert "hours of one worker" in end
    assert done.err.splitlines()[-3:] == ["one step of every corner of 2 arms", "  none", "  own_past"]
    assert all(note.startswith("not matched to none: own_past: ") for note in notes)


@pytest.mark.slow
def test_plan_says_which_arms_are_not_matched_to_the_reference(call, tmp_path, recording):
    arms = {"none": {}, "past": {"interaction": {"name": "linear_autoregressive", "lags": 8}}}
    file = write_question(tmp_path / "sizes.yaml", arms=arms, train={"frames": 78})
    *_, note, _ = call("plan", file, "--data", recording).out.strip().splitlines()
    assert note.startswith("not matched to none: past: ")
    assert "a matched control is interaction: {name: own_drive_filter, lags: 8}" in note


def test_dry_run_plans_in_json_and_leaves_nothing(call, file, recording, tmp_path):
    done = call("run", file, "--data", recording, "--dry-run", "--json", "--results", tmp_path / "results")
    assert done.code == 0, done.err
    arms = json.loads(done.out)
    assert [arm["name"] for arm in arms] == ["none", "own_past"]
    assert all(arm["hours"] > 0 and arm["trials"] == 1 for arm in arms)
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_plan_counts_the_trials_of_both_stages(call, tmp_path, recording):
    searched = {"name": "adamw", "learning_rate": {"choice": [0.01, 0.02]}}
    file = write_question(tmp_path / "two.yaml", optimizer=searched, search={"reference_trials": 2, "trials": 3})
    arms = json.loads(call("plan", file, "--data", recording, "--json").out)
    assert [(arm["trials"], arm["corners"]) for arm in arms] == [(5, 2), (3, 2)]


@pytest.mark.slow
def test_set_and_smoke_reach_the_configuration(call, file, recording):
    done = call("run", file, "--data", recording, "--dry-run", "--json", "--set", "train.batch_size=2", "--smoke")
    assert {arm["steps_per_epoch"] for arm in json.loads(done.out)} == {2}
    whole = call("run", file, "--data", recording, "--dry-run", "--json", "--set", "train.batch_size=2")
    assert {arm["steps_per_epoch"] for arm in json.loads(whole.out)} == {6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "FILE"), "data.path is not set"),
        (("run", "FILE", "--data", "/nowhere"), "'/nowhere' does not exist"),
        (("run", "/no.yaml", "--data", "DATA"), "cannot be read"),
        (("run", "FILE", "--data", "DATA", "--set", "core.chanels=[3]"), "Did you mean 'channels'"),
        (("run", "FILE", "--data", "DATA", "--set", "core"), "expected a.b=value"),
        (("run", "FILE", "--data", "DATA", "--resume"), "--resume needs --name"),
        (("run", "FILE", "--data", "DATA", "--tracking-uri", "http://127.0.0.1:9"), "does not answer"),
        (("run", "FILE", "--data", "DATA", "--tracking-uri", "./mlruns"), "expected sqlite:///"),
        (("run", "FILE", "--data", "DATA", "--set", "train.frames=200"), "has 80 valid frames, fewer than the 200"),
        (("run", "FILE", "--data", "DATA", "--set", "train.frames=20"), "own_past'.*discard 27 .their memory"),
        (("run", "FILE", "--data", "DATA", "--set", "init.source=/no/run"), "init.source: /no/run does not exist"),
        (("plan", "FILE", "--data", "DATA", "--set", "resources.workers=3"), "cannot be shared by 3 workers"),
        (("list", "coers"), "Did you mean 'cores'"),
        (("data", "inspect", "/nowhere"), "'/nowhere' does not exist"),
        (("data", "simulate", "v1", "/nowhere", "--set", "neurons"), "--set got 'neurons', expected name=value"),
        (("data", "inspect", "DATA", "--role", "responses"), "expected role=array"),
        (("data", "inspect", "DATA", "--mapping", "/no.yaml"), "No such file"),
        (("data", "inspect", "DATA", "--mapping", os.devnull), "is empty; a mapping is 'role: array' pairs"),
        (("data", "inspect", "DATA", "--mapping", os.devnull, "--role", "responses=spikes"), "is empty"),
        (("data", "simulate", "v2", "OUT"), "'v2' is not a registered simulator"),
        (("data", "simulate", "v1", "DATA"), "is not empty"),
        (("data", "simulate", "v1", "OUT", "--set", "pol=true"), "Did you mean 'pool'"),
        (("report", "DATA"), "is not the folder of a sweep"),
        (("ensemble", "DATA"), "is not the folder of a sweep"),
        (("upload", "DATA"), "is not the folder of a sweep"),
        (("unlock", "DATA", "--reason", "why not"), "is not the folder of a sweep"),
        (("unlock", "DATA"), "--reason"),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(refused, file, recording, tmp_path, arguments, message):
    places = {"FILE": file, "DATA": recording, "OUT": tmp_path / "out"}
    results = ("--results", tmp_path / "results") if arguments[0] == "run" else ()
    said = refused(*(places.get(a, a) for a in arguments), *results)
    assert re.search(message, said), said
    assert not (tmp_path / "results" / "small").exists()


def test_a_results_folder_that_is_a_file_is_refused_before_training(refused, file, recording, tmp_path):
    (tmp_path / "taken").write_text("")
    said = refused("run", file, "--data", recording, "--results", tmp_path / "taken")
    assert "expected a SQLite file in a folder that can be written" in said


def sweep_folder(tmp_path: Path, recording: Path, status: str | None, **changes) -> Path:
    """A folder as a sweep leaves it that ended so, without any run."""
    folder = tmp_path / "results" / "old"
    folder.mkdir(parents=True)
    write_question(folder / "sweep.yaml", **changes, data={"path": str(recording)})
    journal = Journal(folder / "journal.jsonl")
    journal.append("sweep_started", sweep="small")
    if status:
        journal.append("sweep_finished", status=status)
    return folder


def test_a_name_that_is_taken_is_refused_without_resume(refused, file, recording, tmp_path):
    sweep_folder(tmp_path, recording, "interrupted")
    said = refused("run", file, "--data", recording, "--results", tmp_path / "results", "--name", "old")
    assert "holds a sweep already; add --resume" in said


def test_a_folder_of_sweeps_is_refused_with_the_sweeps_in_it(refused, recording, tmp_path):
    folder = sweep_folder(tmp_path, recording, "finished")
    assert f"sweeps in it: {folder}" in refused("report", folder.parent)


def test_resume_with_another_question_is_refused(refused, file, recording, tmp_path):
    sweep_folder(tmp_path, recording, "interrupted")
    changed = ("--set", "train.epochs=4")
    results = ("--results", tmp_path / "results", "--name", "old", "--resume")
    said = refused("run", file, "--data", recording, *results, *changed)
    assert "asks something else than what is given now" in said


def test_a_trial_larger_than_the_cluster_is_refused_and_leaves_no_folder(
    monkeypatch, refused, file, recording, tmp_path
):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    large = ("--set", "resources.workers=4")
    said = refused("run", file, "--data", recording, "--results", tmp_path / "results", "--name", "big", *large)
    assert "a trial asks for 4 CPU" in said
    assert "the cluster has 2" in said
    assert not (tmp_path / "results" / "big").exists()


def test_unlock_needs_a_reason_that_says_something(refused, recording, tmp_path):
    folder = sweep_folder(tmp_path, recording, "finished")
    assert "unlock needs --reason" in refused("unlock", folder, "--reason", "  ")


@pytest.mark.parametrize("status", [None, "interrupted", "failed"])
def test_unlock_of_an_unfinished_sweep_is_refused(refused, recording, tmp_path, status):
    folder = sweep_folder(tmp_path, recording, status)
    said = refused("unlock", folder, "--reason", "acceptance")
    assert f"the sweep is {status or 'running'}; finish it with --resume" in said


def test_an_unknown_format_of_a_report_is_refused(refused, recording, tmp_path):
    folder = sweep_folder(tmp_path, recording, "finished")
    assert "expected one of html, md, json" in refused("report", folder, "--format", "pdf")


def test_list_shows_every_registry_with_summaries_and_choices(call):
    done = call("list")
    assert done.code == 0
    for kind in ("cores", "readouts", "normalizations", "interactions", "links", "objectives", "metrics", "samplers"):
        assert f"\n{kind}\n" in f"\n{done.out}"
    assert "Propose every combination of the choices once" in done.out
    found = json.loads(call("list", "samplers", "--json").out)
    assert found["samplers"]["tpe"]["choices"] == {"startup_trials": "10"}


def test_inspect_prints_a_card_and_json(call, recording):
    done = call("data", "inspect", recording)
    assert done.code == 0
    assert "1 session of 1 animal, 6 neurons" in done.out
    assert json.loads(call("data", "inspect", recording, "--json").out)


def test_inspect_exits_with_2_lists_the_faults_and_says_that_no_figure_was_drawn(call, recording, tmp_path):
    shutil.copytree(recording, tmp_path / "torn")
    video = next((tmp_path / "torn").rglob("videos/3.npy"))
    video.write_bytes(video.read_bytes()[:200])
    done = call("data", "inspect", tmp_path / "torn", "--figure", tmp_path / "card.png")
    assert done.code == 2
    assert "videos/3.npy" in done.out
    assert "card.png was not drawn: the recordings cannot be opened with these faults" in done.err
    assert not (tmp_path / "card.png").exists()


def test_inspect_shows_the_card_beside_faults_that_a_reader_tolerates(call, recording, tmp_path):
    shutil.copytree(recording, tmp_path / "cut")
    behavior = next((tmp_path / "cut").rglob("behavior/3.npy"))
    shorter = np.load(behavior)
    shorter[:, 79:] = np.nan
    np.save(behavior, shorter)
    done = call("data", "inspect", tmp_path / "cut", "--figure", tmp_path / "card.png")
    assert done.code == 2
    assert "1 session of 1 animal, 6 neurons" in done.out
    assert "clip 3 has different numbers of valid frames" in done.out
    assert (tmp_path / "card.png").exists()


@pytest.fixture
def holed(recording, tmp_path):
    """A recording in which one response inside a scored clip is NaN, beyond the first row of neurons."""
    shutil.copytree(recording, tmp_path / "holed")
    file = next((tmp_path / "holed").rglob("responses/17.npy"))
    counts = np.load(file)
    counts[4, 30] = np.nan
    np.save(file, counts)
    return tmp_path / "holed"


def test_a_hole_in_any_clip_is_told_before_anything_is_trained(refused, file, holed, tmp_path):
    words = ("--data", holed)
    for said in (refused("plan", file, *words), refused("run", file, *words, "--results", tmp_path / "results")):
        assert "clip 17, of the tier dev_test: session dynamic" in said
        assert "responses" in said
    assert not (tmp_path / "results").exists()


ROLES = {"video": "movie", "responses": "spikes", "split": {"block_frames": 50, "gap_frames": 10}}


@pytest.fixture
def arrays(tmp_path):
    """A recording of arrays whose names tell nothing, without positions."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rec.npz", movie=rng.normal(size=(600, 8, 8)), spikes=rng.poisson(2, (600, 4)))
    return tmp_path / "rec.npz"


def test_inspect_draws_the_card_and_takes_roles_from_the_command_line(call, arrays, tmp_path):
    roles = [word for name, array in ROLES.items() for word in ("--role", f"{name}={json.dumps(array)}")]
    done = call("data", "inspect", arrays, *roles, "--figure", tmp_path / "card.png")
    assert (done.code, done.err) == (0, "")
    assert "1 session of 1 animal, 4 neurons" in done.out
    assert (tmp_path / "card.png").read_bytes()[:4] == b"\x89PNG"


def test_a_mapping_can_be_set_for_a_sweep_on_the_command_line(call, file, arrays):
    mapping = f"data.options.mapping={json.dumps(ROLES)}"
    done = call("plan", file, "--data", arrays, "--set", mapping, "--set", "readout.grid=free", "--json")
    assert done.code == 0, done.err
    assert [arm["name"] for arm in json.loads(done.out)] == ["none", "own_past"]


def test_a_design_that_needs_positions_is_refused_where_there_are_none(refused, arrays, tmp_path):
    arms = {"none": {}, "attention": {"interaction": {"name": "attention"}}}
    free = {"name": "gaussian", "grid": "free"}
    file = write_question(tmp_path / "new.yaml", arms=arms, readout=free, data={"options": {"mapping": ROLES}})
    said = refused("run", file, "--data", arrays, "--results", tmp_path / "results")
    assert "arm 'attention': a bias from positions needs positions_um, which the data does not have" in said
    assert not (tmp_path / "results").exists()


def outcome(folder: Path, status: str, **more) -> Outcome:
    told = {"message": "", "failed": (), "report": folder / "report.html", "pending": Pending(0, 0, (), "all there")}
    return Outcome(folder, status, **(told | more))


@pytest.mark.parametrize(
    ("status", "failed", "code"),
    [("finished", (), 0), ("finished", ("arm-none-0000",), 3), ("failed", (), 4), ("interrupted", (), 130)],
)
def test_exit_codes_say_how_a_sweep_ended(monkeypatch, call, file, recording, tmp_path, status, failed, code):
    folder = sweep_folder(tmp_path, recording, status)
    monkeypatch.setattr("neuroint.sweep.driver.run_sweep", lambda *a, **k: outcome(folder, status, failed=failed))
    done = call("run", file, "--data", recording, "--results", tmp_path)
    assert done.code == code
    assert f"sweep {status}" in done.out
    assert ("--name old --resume" in done.out) == (status != "finished")
    assert all(f"failed: {key}" in done.out for key in failed)


def test_json_ends_in_one_document_with_the_findings(monkeypatch, call, file, recording, tmp_path):
    folder = sweep_folder(tmp_path, recording, "finished")
    monkeypatch.setattr("neuroint.sweep.driver.run_sweep", lambda *a, **k: outcome(folder, "finished"))
    done = call("run", file, "--data", recording, "--json")
    found = json.loads(done.out.splitlines()[-1])
    assert (found["status"], found["folder"], found["not_in_mlflow"]) == ("finished", str(folder), None)
    assert [arm["name"] for arm in found["findings"]["arms"]] == ["none", "own_past"]
    assert found["mlflow"].startswith("mlflow ui --backend-store-uri sqlite:")


def test_what_mlflow_did_not_take_is_told(monkeypatch, call, file, recording, tmp_path):
    folder = sweep_folder(tmp_path, recording, "finished")
    left = Pending(3, 1, (), "3 events and 1 uploads are not in MLflow yet")
    monkeypatch.setattr("neuroint.sweep.driver.run_sweep", lambda *a, **k: outcome(folder, "finished", pending=left))
    assert "3 events and 1 uploads are not in MLflow yet" in call("run", file, "--data", recording).out


def test_ctrl_c_before_training_exits_with_130_and_a_message(monkeypatch, call, file, recording):
    def pressed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("neuroint.sweep.driver.run_sweep", pressed)
    done = call("run", file, "--data", recording)
    assert done.code == 130
    assert done.err == "interrupted\n"
