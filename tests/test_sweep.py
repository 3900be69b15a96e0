"""A sweep from its question to scored arms, on a real Ray, a real Optuna and a real MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from sweeps import (
    assert_nothing_twice,
    events,
    learned,
    mlflow_runs,
    record_of,
    small,
    write_recording,
)

from neuroint.config import Resources
from neuroint.report import analyse
from neuroint.seeding import derive
from neuroint.sweep.cluster import cluster as cluster_of
from neuroint.sweep.driver import run_sweep, unlock
from neuroint.sweep.ensembling import ensemble_arms
from neuroint.sweep.scoring import score_arms
from neuroint.sweep.selection import ArmError
from neuroint.tracking import Journal, default_uri

RATE = "optimizer.learning_rate"
SEARCHED = {"name": "adamw", "learning_rate": {"loguniform": [0.005, 0.05]}}
TWO_ARMS = {
    "none": {},
    "pool": {"normalization": {"name": "population_pool", "initial_strength": {"uniform": [0.01, 0.5]}}},
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def cluster():
    """One Ray for the sweeps of this module."""
    with cluster_of(Resources(), cpus=2):
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory, recording, cluster):
    """A search of the reference, one of both arms, and a confirmation with paired seeds."""
    folder = tmp_path_factory.mktemp("results") / "small"
    sweep = small(
        optimizer=SEARCHED,
        arms=TWO_ARMS,
        data={"path": str(recording)},
        train={"epochs": 2},
        search={"reference_trials": 2, "trials": 2, "grace_epochs": 1},
        confirm={"seeds": 2},
    )
    outcome = run_sweep(sweep, folder, style="quiet")
    assert (outcome.status, outcome.message, outcome.failed) == ("finished", "", ())
    assert not outcome.pending, outcome.pending.message
    return outcome


def marked(test):
    """Mark a test that needs Ray."""
    for mark in (pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)):
        test = mark(test)
    return test


@marked
def test_the_reference_is_searched_first_then_all_arms_get_the_same_trials(swept):
    record = record_of(swept.folder)
    keys = list(record.runs)
    assert set(keys[:2]) == {"reference-none-0000", "reference-none-0001"}
    for arm in ("none", "pool"):
        assert sorted(key for key in keys if key.startswith(f"arm-{arm}-")) == [f"arm-{arm}-0000", f"arm-{arm}-0001"]
    assert len(keys) == 2 + 4 + 4
    assert_nothing_twice(swept.folder)


@marked
def test_the_first_trial_of_every_arm_has_the_values_of_the_references_optimum(swept):
    runs = record_of(swept.folder).runs
    optimum = max(
        (run for key, run in runs.items() if key.startswith("reference-")),
        key=lambda run: (run.status == "finished", run.metrics["best_validation_score"]),
    )
    assert [runs[f"arm-{arm}-0000"].params[RATE] for arm in ("none", "pool")] == [optimum.params[RATE]] * 2
    assert runs["arm-none-0000"].epochs[1]["train_loss"] == optimum.epochs[1]["train_loss"], "the same run once more"


@marked
def test_the_parameters_of_an_arm_exist_only_in_its_study_and_in_its_runs(swept):
    own = "normalization.initial_strength"
    searched = {}
    for file in (swept.folder / "ray").glob("arm-*.optuna"):
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
        (study,) = optuna.get_all_study_summaries(storage)
        searched[file.stem] = {p for t in storage.get_all_trials(study._study_id) for p in t.params}
    assert searched == {"arm-none": {RATE}, "arm-pool": {RATE, own}}
    runs = record_of(swept.folder).runs.values()
    assert {run.arm for run in runs if own in run.params} == {"pool"}


@marked
def test_confirm_runs_have_fresh_seeds_paired_across_arms(swept):
    runs = record_of(swept.folder).runs
    seeds = {arm: [runs[f"confirm-{arm}-c0-s{k}"].seed for k in range(2)] for arm in ("none", "pool")}
    assert seeds["none"] == seeds["pool"]
    assert len(set(seeds["none"])) == 2
    assert derive(3, "tune") not in seeds["none"]


@marked
def test_dev_test_is_read_for_the_representatives_alone_and_final_test_never(swept):
    record = record_of(swept.folder)
    reads = [(read["run"], read["tier"], read["reason"]) for read in record.test_reads]
    assert sorted(reads) == sorted(
        (f"confirm-{arm}-c0-s{k}", "dev_test", "comparison of arms") for arm in ("none", "pool") for k in range(2)
    )
    scored = {key for key, run in record.runs.items() if any(name.startswith("dev_test") for name in run.metrics)}
    assert scored == {run for run, _, _ in reads}
    assert list(swept.folder.rglob("*final_test*")) == []
    order = [event["kind"] for event in events(swept.folder)]
    assert order.index("test_read") < max(i for i, kind in enumerate(order) if kind == "run_finished")


@marked
def test_mlflow_holds_the_sweep_and_a_child_for_every_run(swept):
    runs, record = mlflow_runs(default_uri(swept.folder.parent), "small"), record_of(swept.folder)
    parent = runs.pop("sweep")
    assert set(runs) == set(record.runs)
    assert parent.info.status == "FINISHED"
    for key, run in runs.items():
        told = record.runs[key]
        tags, params = run.data.tags, run.data.params
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["arm"], tags["phase"], tags["seed"]) == (told.arm, told.phase, str(told.seed))
        assert tags["information"] == "stimulus"
        assert tags["sessions"].startswith("dynamic29515")
        assert all(len(tags[name]) > 4 for name in ("git_commit", "data_hash", "version.torch", "version.ray"))
        assert float(params[RATE]) == told.params[RATE]
        assert {"core.name", "readout.name", "train.epochs", "data.path", "seed"} <= set(params)
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[told.status]


@marked
def test_mlflow_holds_curves_final_scores_by_snr_and_files(swept):
    import mlflow

    uri = default_uri(swept.folder.parent)
    client, runs = mlflow.MlflowClient(uri), mlflow_runs(uri, "small")
    confirmed, tuned = runs["confirm-pool-c0-s1"], runs["arm-pool-0000"]
    for name in ("train_loss", "validation_score", "seconds", "clips_per_s", "peak_memory_mb"):
        steps = [point.step for point in client.get_metric_history(confirmed.info.run_id, name)]
        assert steps == [1, 2], name
    final = confirmed.data.metrics
    assert {f"dev_test/single_trial_correlation/snr_q{q}" for q in (1, 5)} <= set(final)
    assert {"dev_test/feve", "dev_test/cc_norm", "validation/single_trial_correlation"} <= set(final)
    assert not [name for name in tuned.data.metrics if name.startswith("dev_test")]
    files = {file.path for file in client.list_artifacts(confirmed.info.run_id)}
    assert {"config.yaml", "leak_certificate.json", "best.safetensors", "validation_per_neuron.parquet"} <= files
    assert any(name.startswith("moments_dev_test_dynamic29515") for name in files)
    assert "state.pt" not in files
    pages = {file.path for file in client.list_artifacts(runs["sweep"].info.run_id)}
    assert {"sweep.yaml", "report.html"} <= pages
    page = Path(client.download_artifacts(runs["sweep"].info.run_id, "report.html", str(swept.folder)))
    assert page.read_text() == (swept.folder / "report.html").read_text()


@marked
def test_a_tuning_run_leaves_one_validation_score_per_neuron_whose_mean_is_its_score(swept):
    run = record_of(swept.folder).runs["arm-none-0000"]
    table = pd.read_parquet(swept.folder / run.folder / "validation_per_neuron.parquet")
    assert len(table) == 6
    np.testing.assert_allclose(
        table["single_trial_correlation"].mean(), run.metrics["best_validation_score"], atol=1e-6
    )


@marked
def test_a_run_that_diverges_on_a_test_tier_is_told_and_the_others_are_scored(swept, tmp_path):
    copy = shutil.copytree(swept.folder, tmp_path / "small")
    journal = Journal(copy / "journal.jsonl")
    lines = [line for line in journal.path.read_text().splitlines() if '"dev_test' not in line]
    journal.path.write_text("\n".join(lines) + "\n")
    weights = copy / "runs/confirm-pool-c0-s1/best.safetensors"
    lost = lambda value: np.full_like(value, np.nan) if value.dtype.kind == "f" else value  # noqa: E731
    save_file({name: lost(value) for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ArmError, match="confirm-pool-c0-s1 cannot be scored on validation and dev_test: "):
        score_arms(parse_sweep_of(copy), copy, "dev_test", "again")
    scored = {key for key, run in record_of(copy).runs.items() if "dev_test/single_trial_correlation" in run.metrics}
    assert scored == {"confirm-none-c0-s0", "confirm-none-c0-s1", "confirm-pool-c0-s0"}


@marked
def test_resuming_a_finished_sweep_changes_nothing(swept, recording):
    before, reads = learned(record_of(swept.folder)), len(record_of(swept.folder).test_reads)
    again = run_sweep(parse_sweep_of(swept.folder), swept.folder, resume=True, style="quiet")
    assert again.status == "finished"
    assert learned(record_of(swept.folder)) == before
    assert len(record_of(swept.folder).test_reads) == reads


def parse_sweep_of(folder: Path):
    from neuroint.config import load_sweep

    return load_sweep(folder / "sweep.yaml")


@marked
def test_ensembles_change_neither_findings_nor_what_a_resumed_sweep_does_and_mlflow_shows_them(swept, tmp_path):
    copy = shutil.copytree(swept.folder, tmp_path / "results" / "small")
    before, found = learned(record_of(copy)), analyse(copy).as_dict()
    none, pool = ensemble_arms(copy)
    best = max(trained_runs(copy, "none"), key=lambda run: run.metrics["best_validation_score"])
    assert none.tried[0] == best.key
    assert none.validation[0] == pytest.approx(best.metrics["best_validation_score"], abs=1e-6)
    assert none.validation[none.n - 1] == max(none.validation)
    after = analyse(copy).as_dict()
    assert after.pop("test_looks") != found.pop("test_looks")
    assert json.dumps(after, default=str) == json.dumps(found, default=str)
    again = run_sweep(parse_sweep_of(copy), copy, resume=True, style="bars")
    assert (again.status, again.pending.events) == ("finished", 0)
    trained = {key: run for key, run in learned(record_of(copy)).items() if key in before}
    assert {key: run[:2] for key, run in trained.items()} == {key: run[:2] for key, run in before.items()}
    shown = mlflow_runs(default_uri(copy.parent), "small")["ensemble-pool"]
    assert (shown.data.tags["phase"], shown.data.tags["arm"], shown.info.status) == ("ensemble", "pool", "FINISHED")
    assert shown.data.metrics["dev_test/single_trial_correlation"] == pytest.approx(pool.dev_test)
    assert shown.data.params["ensemble.members"] == str(pool.tried[: pool.n])


def trained_runs(folder: Path, arm: str):
    return [
        run for run in record_of(folder).runs.values() if run.arm == arm and run.status == "finished" and run.epochs
    ]


@marked
def test_the_final_test_is_unlocked_once_with_its_reason_in_the_journal(swept):
    unlock(swept.folder, "acceptance")
    record = record_of(swept.folder)
    reads = [(read["run"], read["reason"]) for read in record.test_reads if read["tier"] == "final_test"]
    assert sorted(reads) == [(f"confirm-{arm}-c0-s{k}", "acceptance") for arm in ("none", "pool") for k in range(2)]
    assert "final_test/single_trial_correlation" in record.runs["confirm-none-c0-s0"].metrics
    shown = mlflow_runs(default_uri(swept.folder.parent), "small")["confirm-none-c0-s0"]
    assert shown.data.metrics["final_test/single_trial_correlation"] == pytest.approx(
        record.runs["confirm-none-c0-s0"].metrics["final_test/single_trial_correlation"]
    )
    with pytest.raises(ValueError, match=r"the final test was read already \('acceptance'\)"):
        unlock(swept.folder, "once more")


@marked
def test_a_fitted_run_is_where_another_sweep_starts_and_a_grid_tries_all(swept, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(swept.folder)
    fitted = "runs/confirm-none-c0-s0"
    sweep = small(
        data={"path": str(recording)},
        init={"source": fitted, "core": "frozen"},
        optimizer={"name": "adamw", "learning_rate": {"choice": [0.01, 0.02]}},
        arms={"none": {}, "pool": {"normalization": {"name": "population_pool"}}},
        train={"epochs": 1, "steps_per_epoch": 1},
        search={"sampler": "grid", "concurrent": 1},
    )
    outcome = run_sweep(sweep, tmp_path / "results" / "from", style="quiet")
    assert outcome.status == "finished", outcome.message
    runs = record_of(outcome.folder).runs
    for arm in ("none", "pool"):
        assert sorted(runs[f"arm-{arm}-000{n}"].params[RATE] for n in range(2)) == [0.01, 0.02]
    before = load_file(Path(fitted) / "best.safetensors")
    after = load_file(outcome.folder / runs["arm-pool-0000"].folder / "best.safetensors")
    same = {name for name in before if np.array_equal(before[name], after[name])}
    core = {name for name in before if name.startswith("core.") and name.endswith("weight")}
    assert core
    assert core <= same, "the core is frozen"
    assert {name for name in before if name.startswith("readouts.")} - same, "the readout is trained"
