"""A submission to the Neural Latents Benchmark from a finished sweep: whose rates, in which unit, and bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sweeps import question, record_of
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.config import load_sweep
from neuroint.data.nlb.hdf5 import read_arrays, write_arrays
from neuroint.data.readers.nlb import read_folder
from neuroint.data.simulators.nlb import simulate_nlb
from neuroint.metrics.nlb_evaluation import evaluate_nlb
from neuroint.recordings import open_for
from neuroint.runtime import LocalRuntime
from neuroint.sweep.selection import METRIC
from neuroint.sweep.submission import predicted_splits
from neuroint.tracking import Journal
from neuroint.train import finished_predictor, train_trial

KEYS = ("confirm-ndt-c0-s0", "confirm-ndt-c0-s1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep on generated files: of one arm two runs of an epoch, of the other none."""
    data, folder = simulate_nlb(tmp_path_factory.mktemp("nlb") / "files"), tmp_path_factory.mktemp("results") / "small"
    (frames,) = {counts.shape[1] for counts in read_folder(data, {}).counts.values()}
    folder.mkdir()
    asked = question(
        data={"reader": "nlb", "path": str(data)},
        core={"name": "ndt", "layers": 1, "heads": 1, "hidden": 8, "frames": frames},
        readout="linear",
        objective="masked_poisson",
        train={"epochs": 1, "frames": frames, "batch_size": 16},
        reference="ndt",
        arms={"ndt": {}, "other": {"optimizer": {"name": "sgd"}}},
    )
    (folder / "sweep.yaml").write_text(yaml.safe_dump(asked))
    sweep, journal = load_sweep(folder / "sweep.yaml"), Journal(folder / "journal.jsonl")
    journal.append("sweep_started", sweep="small")
    for seed, key in enumerate(KEYS):
        config, last = sweep.trial("ndt", {}, key=key, phase="confirm", seed=seed), {}

        def report(metrics, checkpoint, last=last, key=key):
            last.update(metrics)
            shutil.copytree(checkpoint, folder / "runs" / key, dirs_exist_ok=True)

        train_trial(config, open_for(config), LocalRuntime(report, device=torch.device("cpu")))
        about = {"phase": "confirm", "arm": "ndt", "seed": seed, "params": config.flat(), "tags": {}}
        journal.append("run_started", run=key, **about)
        ended = {"status": "finished", "metrics": {METRIC: last[METRIC]}, "folder": f"runs/{key}"}
        journal.append("run_finished", run=key, **ended)
    journal.append("sweep_finished", status="finished")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "small"))


def ask(*arguments):
    return CliRunner().invoke(app, ["submission", *map(str, arguments)])


def best_of(folder):
    return max(KEYS, key=lambda key: record_of(folder).runs[key].metrics[METRIC])


def predictor_of(folder, key):
    config = load_sweep(folder / "sweep.yaml").trial("ndt", {}, key=key, phase="confirm", seed=0)
    runtime = LocalRuntime(device=torch.device("cpu"))
    return finished_predictor(config, open_for(config), folder / "runs" / key / "best.safetensors", runtime)


def choose(folder, *members):
    """Enter an ensemble as the command of that name does."""
    about = {"phase": "ensemble", "arm": "ndt", "seed": None, "tags": {}, "params": {"ensemble.members": list(members)}}
    Journal(folder / "journal.jsonl").append("run_started", run=f"ensemble-{'-'.join(members)}", **about)


def test_the_best_run_by_validation_predicts_all_that_the_benchmark_scores(folder, tmp_path):
    outcome = ask(folder, tmp_path / "mine.h5", "--arm", "ndt")
    assert outcome.exit_code == 0, outcome.output
    assert best_of(folder) in outcome.output
    data = read_folder(Path(load_sweep(folder / "sweep.yaml").data.path), {})
    written, counts = read_arrays(tmp_path / "mine.h5", "mc_maze"), data.counts["train"]
    held_out, window = counts.shape[2] - data.held_in, counts.shape[1] - data.forward_bins
    assert written["train_rates_heldin"].shape == (len(counts), window, data.held_in)
    assert written["train_rates_heldout"].shape == (len(counts), window, held_out)
    assert written["eval_rates_heldout_forward"].shape[1:] == (data.forward_bins, held_out)
    assert np.isfinite(evaluate_nlb(data.target, written)["co-bps"].value)


def test_nothing_that_is_scored_has_a_part_in_it(folder, tmp_path):
    """Counts of held-out neurons are withheld in a second copy of the files: the same rates come out."""
    assert ask(folder, tmp_path / "mine.h5", "--arm", "ndt").exit_code == 0
    asked = yaml.safe_load((folder / "sweep.yaml").read_text())
    withheld = Path(shutil.copytree(asked["data"]["path"], tmp_path / "withheld"))
    target = read_arrays(withheld / "target.h5", "mc_maze")
    scored = {k: np.full_like(v, np.nan, dtype=float) for k, v in target.items() if k.startswith("eval_spikes_heldout")}
    (withheld / "target.h5").unlink()
    write_arrays(withheld / "target.h5", {k: v for k, v in target.items() if k not in scored} | scored, "mc_maze")
    rates = [
        predicted_splits(predictor_of(folder, best_of(folder)), read_folder(path, {}), "mc_maze_5ms")
        for path in (Path(asked["data"]["path"]), withheld)
    ]
    for split, found in rates[0].items():
        np.testing.assert_array_equal(found, rates[1][split])


def test_an_unfinished_sweep_is_refused(folder, tmp_path):
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "sweep_finished" not in line))
    outcome = ask(folder, tmp_path / "mine.h5", "--arm", "ndt")
    assert outcome.exit_code == 2
    assert "finish it with --resume before an arm of it predicts" in " ".join(outcome.stderr.split())


def test_a_sweep_on_files_that_have_changed_is_refused(folder, tmp_path):
    journal = folder / "journal.jsonl"
    begun, *rest = journal.read_text().splitlines()
    journal.write_text("\n".join([json.dumps(json.loads(begun) | {"tags": {"data_hash": "0" * 16}}), *rest]) + "\n")
    outcome = ask(folder, tmp_path / "mine.h5", "--arm", "ndt")
    assert outcome.exit_code == 2
    assert f"began with recordings of hash {'0' * 16}" in " ".join(outcome.stderr.split())
    assert not (tmp_path / "mine.h5").exists()


def test_an_ensemble_is_the_mean_of_its_runs_rates(folder, tmp_path):
    for members in ((KEYS[0],), (KEYS[1],), KEYS):
        choose(folder, *members)
        assert ask(folder, tmp_path / f"{len(members)}-{members[0]}.h5", "--arm", "ndt").exit_code == 0
    one, other, both = (
        read_arrays(tmp_path / name, "mc_maze") for name in (f"1-{KEYS[0]}.h5", f"1-{KEYS[1]}.h5", f"2-{KEYS[0]}.h5")
    )
    assert not np.allclose(one["eval_rates_heldout"], other["eval_rates_heldout"])
    for name, rates in both.items():
        np.testing.assert_allclose(rates, (one[name] + other[name]) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("ntd", "'ntd' is not an arm. Did you mean 'ndt'? Arms: ndt, other"),
        ("other", "arm 'other' has no finished run with its weights"),
    ],
)
def test_an_arm_that_cannot_predict_says_why(folder, tmp_path, arm, message):
    outcome = ask(folder, tmp_path / "mine.h5", "--arm", arm)
    assert outcome.exit_code == 2
    assert message in " ".join(outcome.stderr.split())
    assert not (tmp_path / "mine.h5").exists()


def test_a_sweep_on_other_data_is_refused(folder, tmp_path):
    file = folder / "sweep.yaml"
    asked = yaml.safe_load(file.read_text())
    asked["data"] = {"reader": "sensorium2023", "path": asked["data"]["path"]}
    asked["core"], asked["objective"] = "linear", "poisson"
    file.write_text(yaml.safe_dump(asked))
    outcome = ask(folder, tmp_path / "mine.h5", "--arm", "ndt")
    assert outcome.exit_code == 2
    assert "was run with reader 'sensorium2023', expected 'nlb'" in " ".join(outcome.stderr.split())
