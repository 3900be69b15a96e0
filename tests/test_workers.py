"""Trials of two workers through Ray Train, inside Ray Tune: the numbers of one worker, and nothing left behind."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psutil
import pytest
import ray
from ray.util import placement_group_table
from sweeps import assert_nothing_twice, epochs_of, question, record_of, write_recording

from neuroint.config import Resources, parse_sweep
from neuroint.sweep.cluster import cluster as cluster_of
from neuroint.sweep.driver import run_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def cluster():
    """One Ray of two CPUs for all sweeps of this module."""
    with cluster_of(Resources(workers=2), cpus=2):
        yield


def sweep_on(workers: int, recording):
    """The second trial does not learn and is stopped; everything is exact: no sampling, no statistics of batches."""
    return parse_sweep(
        question(
            data={"path": str(recording)},
            readout={"name": "gaussian", "sampling": False},
            optimizer={"name": "sgd", "learning_rate": {"choice": [0.5, 1e-12]}},
            train={
                "precision": "float64",
                "batch_statistics": "frozen",
                "epochs": 4,
                "steps_per_epoch": 12,
                "clip_norm": 1.0,
            },
            arms={"none": {}},
            search={
                "trials": 2,
                "sampler": "random",
                "grace_epochs": 1,
                "reduction_factor": 2,
                "points": [{"optimizer.learning_rate": 0.5}, {"optimizer.learning_rate": 1e-12}],
                "concurrent": 1,
            },
            resources={"workers": workers},
        )
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, recording, cluster):
    """The sweep with one worker per trial."""
    return swept(tmp_path_factory.mktemp("one"), 1, recording)


@pytest.fixture(scope="module")
def together(tmp_path_factory, recording, cluster):
    """The sweep with two workers per trial, of which one is killed while the best configuration is confirmed."""
    folder = tmp_path_factory.mktemp("two")
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(folder / "small", killed), daemon=True)
    killer.start()
    folder = swept(folder, 2, recording)
    killer.join(5)
    assert len(killed) == 1, "no worker was found to be killed"
    return folder


def swept(results, workers: int, recording):
    outcome = run_sweep(sweep_on(workers, recording), results / "small", style="quiet")
    assert (outcome.status, outcome.message, outcome.failed) == ("finished", "", ())
    return outcome.folder


def kill_a_worker(folder, killed: list[int]) -> None:
    """Kill one of the processes of this Ray that train, as soon as a confirm run has an epoch."""
    while not (folder / "journal.jsonl").exists() or epochs_of(folder, "confirm") < 1:
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.kill()
                killed.append(process.pid)
                return


def test_two_workers_have_the_scores_of_one_even_if_one_is_killed_on_the_way(alone, together):
    one, two = record_of(alone).runs, record_of(together).runs
    assert {key: run.status for key, run in two.items()} == {key: run.status for key, run in one.items()}
    for key, run in one.items():
        assert list(two[key].epochs) == list(run.epochs), key
        for epoch, metrics in run.epochs.items():
            for name in ("train_loss", "validation_score", "best_validation_score"):
                assert two[key].epochs[epoch][name] == pytest.approx(metrics[name], rel=0, abs=1e-9), (key, epoch, name)
    scores = [runs["confirm-none-c0-s0"].metrics["dev_test/single_trial_correlation"] for runs in (one, two)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-6), "weights are stored in float64, and scored in float32"
    assert_nothing_twice(together)


def test_the_trial_that_did_not_learn_was_stopped(together):
    runs = record_of(together).runs
    assert (runs["arm-none-0000"].status, runs["arm-none-0001"].status) == ("finished", "stopped")
    assert len(runs["arm-none-0001"].epochs) < 4


def test_every_run_of_two_workers_keeps_its_files(together):
    for run in record_of(together).runs.values():
        files = {file.name for file in (together / run.folder).iterdir()}
        assert {"best.safetensors", "config.yaml", "leak_certificate.json"} <= files, run.key
        assert "state.pt" not in files


def test_no_place_of_a_worker_is_left_taken(together):
    groups = placement_group_table().values()
    assert groups
    assert {group["state"] for group in groups} == {"REMOVED"}
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2.0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources().get("CPU") == 2.0
    assert list((together / "ray").glob("*.tune")) == []
    assert list((together / "ray" / "workers").iterdir()) == []
