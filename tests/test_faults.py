"""Sweeps that are broken on purpose: what was recorded stays, what failed is told, and the rest goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from sweeps import (
    assert_nothing_twice,
    epochs_of,
    events,
    family_of,
    interrupt,
    learned,
    mlflow_runs,
    neuroint,
    record_of,
    started,
    survivors,
    wait_until,
    write_plugin,
    write_question,
    write_recording,
)

from neuroint.cli import _finish
from neuroint.sweep.driver import Outcome
from neuroint.tracking import Pending, default_uri

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
ONE_AT_A_TIME = {"concurrent": 1}
RAY_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}  # idle; they look once a minute whether Ray is there


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return {"PYTHONPATH": str(write_plugin(tmp_path_factory.mktemp("site")))}


@pytest.fixture(scope="module")
def bad(tmp_path_factory, recording, plugin):
    """A sweep whose arms have a stopped and a diverged run, a crash, a killed process, and nothing but divergence."""
    folder = tmp_path_factory.mktemp("bad")
    marker = folder / "killed.pid"
    fragile = {"name": "fragile"}
    file = write_question(
        folder / "bad.yaml",
        name="bad",
        reference="calm",
        optimizer={"name": "adamw", "learning_rate": {"choice": [0.02, 1e-9, 1e30]}},
        train={"steps_per_epoch": 8},
        arms={
            "calm": {"objective": fragile},
            "killed": {"objective": {**fragile, "kill_at": 13, "marker": str(marker)}},
            "raising": {
                "optimizer": {"learning_rate": 0.02},
                "objective": {**fragile, "raises": {"choice": [False, True]}},
            },
            "hopeless": {"optimizer": {"learning_rate": {"choice": [1e30, 1e31]}}},
        },
        search={
            "trials": 3,
            "sampler": "random",
            "grace_epochs": 1,
            "reduction_factor": 2,
            "points": [
                {"optimizer.learning_rate": 0.02, "objective.raises": False},
                {"optimizer.learning_rate": 1e-9, "objective.raises": True},
                {"optimizer.learning_rate": 1e30},
            ],
            **ONE_AT_A_TIME,
        },
    )
    done = neuroint("run", file, "--data", recording, "--results", folder / "results", "--name", "bad", **plugin)
    assert marker.exists(), done.stderr
    return done, folder / "results" / "bad"


def test_a_bad_trial_is_stopped_at_the_epoch_it_is_compared_at_and_optuna_sees_it_pruned(bad):
    done, folder = bad
    runs = record_of(folder).runs
    assert runs["arm-calm-0000"].status == "finished", done.stderr
    assert runs["arm-calm-0001"].status == "stopped"
    first, second = ([m["best_validation_score"] for m in runs[f"arm-calm-000{n}"].epochs.values()] for n in (0, 1))
    worse = [epoch for epoch, (one, other) in enumerate(zip(first, second, strict=False), 1) if other < one]
    assert worse == [len(second)], "compared after 1 and 2 epochs, and stopped where it is worse for the first time"
    assert len(second) in (1, 2)
    assert states(folder, "arm-calm") == ["COMPLETE", "PRUNED", "FAIL"]


def test_a_diverged_trial_is_an_outcome_and_the_sweep_goes_on(bad):
    _, folder = bad
    record = record_of(folder)
    assert record.runs["arm-calm-0002"].status == "diverged"
    assert "lower the learning rate" in record.runs["arm-calm-0002"].message
    assert 0 not in record.runs["arm-calm-0002"].epochs
    assert record.runs["confirm-calm-c0-s0"].status == "finished"
    assert mlflow_runs(default_uri(folder.parent), "bad")["arm-calm-0002"].info.status == "KILLED"


def test_a_trial_that_raises_is_failed_with_its_traceback_in_journal_report_and_mlflow(bad):
    done, folder = bad
    run = record_of(folder).runs["arm-raising-0001"]
    assert run.status == "failed"
    assert "fragile_of_tests.py" in run.message
    assert run.message.rstrip().endswith("RuntimeError: the objective was told to raise")
    assert states(folder, "arm-raising")[:2] == ["COMPLETE", "FAIL"]
    assert "the objective was told to raise" in (folder / "report.html").read_text()
    shown = mlflow_runs(default_uri(folder.parent), "bad")["arm-raising-0001"]
    assert shown.info.status == "FAILED"
    assert "the objective was told to raise" in shown.data.tags["mlflow.note.content"]
    assert "failed: arm-raising-0001" in done.stdout


def test_an_arm_without_a_usable_trial_fails_the_sweep_and_the_others_are_scored(bad):
    done, folder = bad
    assert done.returncode == 4, done.stderr
    assert "sweep failed: arm 'hopeless' has no usable run among 3 trials" in done.stdout
    assert "arm-hopeless-0000 diverged" in done.stdout
    record = record_of(folder)
    assert record.status == "failed"
    scored = {run.arm for run in record.runs.values() if "dev_test/single_trial_correlation" in run.metrics}
    assert scored == {"calm", "killed", "raising"}


def test_a_crash_prints_no_traceback_of_the_libraries(bad):
    done, _ = bad
    assert "Traceback" not in done.stdout + done.stderr


def test_a_trial_whose_process_was_killed_ends_with_the_numbers_of_an_undisturbed_one(bad):
    _, folder = bad
    found = learned(record_of(folder))
    starts = [event["run"] for event in events(folder) if event["kind"] == "run_started"]
    again = [key for key in set(starts) if starts.count(key) > 1 and "killed" in key]
    assert again == ["arm-killed-0000"]
    assert_nothing_twice(folder)
    for number in ("arm-{}-0000", "arm-{}-0001", "confirm-{}-c0-s0"):
        assert found[number.format("killed")] == found[number.format("calm")], number
    assert len(found["arm-killed-0000"][1]) == 3


def test_a_sweep_that_ends_with_crashed_runs_exits_with_3(bad, capsys):
    _, folder = bad
    outcome = Outcome(folder, "finished", "", ("arm-raising-0001",), None, Pending(0, 0, (), ""))
    with pytest.raises(typer.Exit) as ended:
        _finish(outcome, None, as_json=False)
    assert ended.value.exit_code == 3
    assert "failed: arm-raising-0001" in capsys.readouterr().out


def states(folder: Path, study: str) -> list[str]:
    """How Optuna was told that the trials of a study ended."""
    from optuna import get_all_study_names, load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "ray" / f"{study}.optuna")))
    (name,) = get_all_study_names(storage)
    return [trial.state.name for trial in load_study(study_name=name, storage=storage).trials]


PLANNED = {"reference-calm-0000"} | {f"arm-{arm}-{n:04d}" for arm in ("calm", "other") for n in range(2)}
PLANNED |= {f"confirm-{arm}-c0-s0" for arm in ("calm", "other")}


def slow_question(file: Path) -> Path:
    """A sweep that takes long enough to be hit in the middle of a run."""
    calm = {"objective": {"name": "fragile", "pause_s": 0.1}}
    return write_question(
        file,
        name="slow",
        reference="calm",
        arms={"calm": calm, "other": {**calm, "normalization": {"name": "population_pool"}}},
        optimizer={"name": "adamw", "learning_rate": {"loguniform": [0.01, 0.05]}},
        search={"reference_trials": 1, "trials": 2, **ONE_AT_A_TIME},
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, recording, plugin):
    """What the slow sweep finds when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    file = slow_question(folder / "slow.yaml")
    done = neuroint("run", file, "--data", recording, "--results", folder, "--name", "slow", **plugin)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return learned(record_of(folder / "slow"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk of its own, of 24 MB, or why there is none."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        yield f"no disk can be mounted here: {mounted.stderr.strip()}"
        return
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class Troubles:
    """One sweep that is interrupted, killed, and run out of disk or else killed again, each time taken up anew."""

    results: Path
    command: tuple[object, ...]
    plugin: dict[str, str]
    log: Path
    told: dict[str, str] = field(default_factory=dict)
    kept: bool = False  # whether all that was in the journal before the disk was full was in it afterwards

    @property
    def folder(self) -> Path:
        return self.results / "slow"

    @contextmanager
    def running(self, phase: str, epochs: int):
        """Take the sweep up, and let it come to some epoch of a phase."""
        with started(self.log, *self.command, **self.plugin) as process:
            wait_until(lambda: epochs_of(self.folder, phase) >= epochs, process, self.log)
            yield process

    def interrupt(self, phase: str) -> None:
        with self.running(phase, 1) as process:
            family = family_of(process)
            interrupt(process)
            assert process.wait(60) == 130, self.log.read_text()
            assert survivors(family) == []
        self.told["interrupted"] = self.log.read_text()
        assert mlflow_runs(default_uri(self.results), "slow")["sweep"].info.status == "KILLED"

    def kill(self, phase: str) -> None:
        with self.running(phase, 2) as process:
            family = family_of(process)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            assert set(survivors(family, 10)) <= RAY_AGENTS

    def fill_disk(self, phase: str) -> None:
        filler = self.results / "filler"
        with self.running(phase, 1) as process:
            fill(filler)
            before = events(self.folder)
            assert process.wait(200) == 4, self.log.read_text()
        self.told["full"] = self.log.read_text()
        self.kept = events(self.folder)[: len(before)] == before
        filler.unlink()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory, recording, plugin, disk):
    """The sweep of the undisturbed question after all its troubles, finished."""
    here = tmp_path_factory.mktemp("troubled")
    results = disk if isinstance(disk, Path) else here
    file = slow_question(here / "slow.yaml")  # --resume of a name that does not exist starts it
    command = ("run", file, "--data", recording, "--results", results, "--name", "slow", "--resume")
    troubles = Troubles(results, command, plugin, here / "log")
    troubles.interrupt("arm-calm")
    troubles.kill("arm-other")
    (troubles.fill_disk if isinstance(disk, Path) else troubles.kill)("confirm-calm")
    done = neuroint(*command, **plugin)
    assert done.returncode == 0, done.stdout + done.stderr
    return troubles


def test_a_driver_that_is_interrupted_and_killed_finishes_with_the_same_numbers(troubled, undisturbed):
    record = record_of(troubled.folder)
    assert set(record.runs) == PLANNED
    assert learned(record) == undisturbed
    assert_nothing_twice(troubled.folder)
    shown = mlflow_runs(default_uri(troubled.results), "slow")
    assert set(shown) == PLANNED | {"sweep"}
    assert {run.info.status for run in shown.values()} == {"FINISHED"}
    for key, run in record.runs.items():
        assert shown[key].data.metrics["best_validation_score"] == run.metrics["best_validation_score"]
    assert list((troubled.folder / "ray").glob("*.tune")) == []


def test_a_driver_that_is_interrupted_says_how_to_go_on(troubled):
    told = troubled.told["interrupted"]
    assert "sweep interrupted" in told
    go_on = f"{troubled.folder}/sweep.yaml --results {troubled.results} --name slow --resume"
    assert f"go on with: neuroint run {go_on}" in told
    assert "Traceback" not in told


def test_a_full_disk_ends_the_sweep_with_a_message_and_loses_nothing(troubled, disk):
    if not isinstance(disk, Path):
        pytest.skip(disk)
    told = troubled.told["full"]
    assert "No space left on device" in told
    assert "sweep failed: a disk or folder refused" in told
    assert "nothing is lost: neuroint upload" in told
    assert "go on with: neuroint run" in told
    assert "Traceback" not in told
    assert troubled.kept


def fill(file: Path) -> None:
    """Take all the space that is left on a disk."""
    with file.open("wb", buffering=0) as filler:
        for size in (2**20, 2**12):
            try:
                while True:
                    filler.write(b"\0" * size)
            except OSError:
                continue
