"""What surrounds a sweep: who may run it where, what it is shown as, which CPUs and cards it takes."""

from __future__ import annotations

import json
import os

import pytest
import ray
import torch
from sweeps import (
    entering,
    small,
    write_recording,
)

from neuroint.config import Resources
from neuroint.sweep.claim import check_claim, claimed, rooted
from neuroint.sweep.cluster import cluster as cluster_of
from neuroint.sweep.driver import run_sweep
from neuroint.sweep.progress import follow
from neuroint.sweep.run import trials_at_once
from neuroint.sweep.scoring import _score
from neuroint.sweep.trial import run_trial
from neuroint.tracking import Journal


@pytest.fixture
def journal(tmp_path):
    """A journal that has begun, and a way to enter whole runs."""
    return entering(tmp_path / "journal.jsonl")


def test_a_sweep_is_not_resumed_with_other_recordings(tmp_path):
    sweep = rooted(small(data={"path": str(write_recording(tmp_path / "data"))}))
    with claimed(folder := tmp_path / "small", sweep):
        Journal(folder / "journal.jsonl").append("sweep_started", sweep="small", tags={"data_hash": "0"}, params={})
    with pytest.raises(ValueError, match=r"began with recordings of hash 0, .* another --name"):
        run_sweep(sweep, folder, resume=True, style="quiet")


def test_a_second_driver_in_the_same_folder_is_refused(tmp_path):
    sweep = small()
    with (
        claimed(tmp_path / "one", sweep),
        pytest.raises(ValueError, match="another driver runs this sweep now"),
        claimed(tmp_path / "one", sweep),
    ):
        pass
    check_claim(tmp_path / "one", sweep, resume=True)
    with pytest.raises(ValueError, match="asks something else"):
        check_claim(tmp_path / "one", small(seed=4), resume=True)


def test_relative_paths_are_fixed_where_the_sweep_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = {"data": {"path": "mouse"}, "init": {"source": "a/b"}}
    arms = {"none": {}, "other": {"init": {"source": {"choice": ["c", "/d"]}}, "interaction": "linear_autoregressive"}}
    found = rooted(small(**raw, arms=arms)).raw
    assert found["data"]["path"] == str(tmp_path / "mouse")
    assert found["init"]["source"] == str(tmp_path / "a/b")
    assert found["arms"]["other"]["init"]["source"] == {"choice": [str(tmp_path / "c"), "/d"]}


def test_small_trials_share_a_card_and_too_large_ones_are_refused():
    sweep = small(resources={"cpus_per_worker": 1, "gpus_per_worker": 0.25})
    assert trials_at_once(sweep.resources, {"CPU": 16, "GPU": 2}) == 8
    with pytest.raises(ValueError, match=r"a trial asks for 0\.25 GPU .* the cluster has 0; lower"):
        trials_at_once(sweep.resources, {"CPU": 16})


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (0.25, "cuda"), (1, "cuda")])
def test_a_trial_and_its_scoring_use_the_card_that_was_asked_for_and_no_other(monkeypatch, gpus, device):
    job = small(resources={"gpus_per_worker": gpus}).trial("none", {}, key="k", phase="tune", seed=1).to_dict()
    used = []
    monkeypatch.setattr("neuroint.sweep.trial.tune.get_checkpoint", lambda: None)
    monkeypatch.setattr("neuroint.sweep.trial.fit_here", lambda job, runtime: used.append(runtime.device.type))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr("neuroint.recordings.open_data", lambda data: [])
    score = lambda config, sessions, file, runtime, tier: used.append(runtime.device.type) or {}  # noqa: E731
    monkeypatch.setattr("neuroint.train.score_weights", score)
    run_trial({"job": json.dumps(job)})
    _score(job, b"", ("validation",))
    assert used == [device, device]


def test_progress_is_shown_as_lines_as_json_or_not_at_all(journal, tmp_path, capsys):
    sweep = small()

    def shown(style):
        with follow(tmp_path / "journal.jsonl", style, sweep):
            journal("arm-none-0000", "diverged", [0.5, float("nan")])
        return capsys.readouterr().out.splitlines()

    lines = shown("lines")
    assert [line.split()[:3] for line in lines[:2]] == [
        ["arm-none-0000", "epoch", "1"],
        ["arm-none-0000", "epoch", "2"],
    ]
    assert lines[2].split()[:2] == ["arm-none-0000", "diverged"]
    kinds = [json.loads(line, parse_constant=pytest.fail)["kind"] for line in shown("json")]
    assert kinds == ["run_started", "epoch", "epoch", "run_finished"]
    assert shown("quiet") == []


def test_bars_count_runs_that_ended_before_an_interruption_too(journal, tmp_path, capsys):
    journal("arm-none-0000", "finished", [0.5])
    with follow(tmp_path / "journal.jsonl", "bars", small(search={"trials": 1})):
        journal("confirm-none-c0-s0", "finished", [0.25], phase="confirm")
    err = capsys.readouterr().err
    assert "2/2" in err
    assert "best validation 0.500" in err


@pytest.mark.parametrize(("address", "joined"), [(None, "local"), ("10.0.0.1:6379", None)])
def test_a_cluster_that_happens_to_run_here_is_joined_only_if_it_is_named(monkeypatch, address, joined):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    seen = []
    monkeypatch.setattr(ray, "init", lambda *a, **k: seen.append((a, os.environ.get("RAY_ADDRESS"))))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with cluster_of(Resources(), cpus=2):
        assert os.environ.get("RAY_ADDRESS") == address, "what this process is told is as before"
    ((arguments, told),) = seen
    assert arguments == ((joined,) if joined else ())
    assert told, "processes of a Ray that is started know its address"


# Below, sweeps are run.
