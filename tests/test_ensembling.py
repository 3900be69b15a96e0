"""Ensembles of a finished sweep: which runs, how many, what is read when, and a message for every bad input."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sweeps import events, record_of, write_question, write_recording
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.config import SweepConfig, load_sweep
from neuroint.data.base import DEV_TEST, VALIDATION
from neuroint.evaluation import DivergedError, pooled_mean, score
from neuroint.recordings import open_data, open_for
from neuroint.report import analyse, write_neurons
from neuroint.results import read_moments
from neuroint.runtime import LocalRuntime
from neuroint.sweep import ensembling
from neuroint.sweep.ensembling import ensemble_arms
from neuroint.sweep.scoring import keep_scores
from neuroint.sweep.selection import METRIC, ArmError
from neuroint.tracking import Journal
from neuroint.train import score_weights, train_trial

SCORE = "single_trial_correlation"
CPU = torch.device("cpu")
MODEL = {"core": {"name": "linear", "lags": 2, "behavior": False}, "readout": "factorized", "train": {"epochs": 3}}
FIRST, TWIN, SECOND, BAD = "reference-none-0000", "arm-none-0000", "confirm-none-c0-s0", "arm-none-0003"
ALONE = "arm-own_past-0000"


def train(sweep: SweepConfig, folder: Path, key: str, arm: str, seed: int) -> None:
    """Train a run here and enter it as a sweep would."""
    phase = "confirm" if key.startswith("confirm") else "tune"
    config, kept, last = sweep.trial(arm, {}, key=key, phase=phase, seed=seed), folder / "runs" / key, {}

    def report(metrics, checkpoint):
        last.update(metrics)
        shutil.copytree(checkpoint, kept, dirs_exist_ok=True)

    train_trial(config, open_for(config), LocalRuntime(report, device=CPU))
    (kept / "state.pt").unlink()
    enter(folder, key, config, last[METRIC])


def enter(folder: Path, key: str, config, validation: float, status: str = "finished") -> None:
    journal, tags = Journal(folder / "journal.jsonl"), {"information": "stimulus", "parameters": "100"}
    about = {"phase": config.phase, "arm": config.arm, "seed": config.seed, "params": config.flat(), "tags": tags}
    journal.append("run_started", run=key, **about)
    kept = f"runs/{key}" if (folder / "runs" / key).is_dir() else None
    journal.append("run_finished", run=key, status=status, metrics={METRIC: validation}, folder=kept)


def reverse(folder: Path, key: str) -> None:
    """Turn a readout's weights around, so that it predicts less where there is more."""
    file = folder / "runs" / key / "best.safetensors"
    turned = {name: -value if name.endswith("weights") else value for name, value in load_file(file).items()}
    save_file(turned, file)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished sweep: of one arm two good runs, a twin, a bad one and two without use; of the other a single run."""
    folder = tmp_path_factory.mktemp("results") / "small"
    folder.mkdir()
    recording = write_recording(tmp_path_factory.mktemp("recording"))
    write_question(folder / "sweep.yaml", data={"path": str(recording)}, **MODEL)
    sweep = load_sweep(folder / "sweep.yaml")
    Journal(folder / "journal.jsonl").append("sweep_started", sweep="small")
    for key, arm, seed in ((FIRST, "none", 2), (SECOND, "none", 1), (ALONE, "own_past", 1)):
        train(sweep, folder, key, arm, seed)
    twin, bad = (sweep.trial("none", {}, key=key, phase="tune", seed=seed) for key, seed in ((TWIN, 2), (BAD, 3)))
    shutil.copytree(folder / "runs" / FIRST, folder / "runs" / TWIN)
    enter(folder, TWIN, twin, record_of(folder).runs[FIRST].metrics[METRIC])
    shutil.copytree(folder / "runs" / SECOND, folder / "runs" / BAD)
    reverse(folder, BAD)
    enter(folder, BAD, bad, -0.1)
    enter(folder, "arm-none-0001", twin, 0.9, status="stopped")
    enter(folder, "arm-none-0002", twin, 0.9, status="failed")
    write_neurons(folder, open_data(sweep.data))
    Journal(folder / "journal.jsonl").append("sweep_finished", status="finished")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the finished sweep."""
    return Path(shutil.copytree(made, tmp_path / "small"))


def watched(patch: pytest.MonkeyPatch) -> list[tuple[str, list[str], list[int]]]:
    """Note what is predicted: tier, runs, and the sizes of the averages."""
    seen, average = [], ensembling.evaluate_averages

    def watching(predictors, loader, tier, device, *, sizes, **how):
        seen.append((tier, list(predictors), sorted(sizes)))
        return average(predictors, loader, tier, device, sizes=sizes, **how)

    patch.setattr(ensembling, "evaluate_averages", watching)
    return seen


@pytest.fixture
def predicted(monkeypatch):
    """What is predicted in a test."""
    return watched(monkeypatch)


@dataclass(frozen=True)
class Done:
    """A sweep whose ensembles were made, what was told of them, and what was predicted for it."""

    folder: Path
    none: ensembling.Ensemble
    past: ensembling.Ensemble
    predicted: list[tuple[str, list[str], list[int]]]


@pytest.fixture(scope="module")
def done(made, tmp_path_factory):
    """Both ensembles, made once, for tests that only look."""
    copy = Path(shutil.copytree(made, tmp_path_factory.mktemp("done") / "small"))
    with pytest.MonkeyPatch.context() as patch:
        predicted = watched(patch)
        none, past = ensemble_arms(copy)
    return Done(copy, none, past, predicted)


@pytest.fixture
def broken(monkeypatch):
    """Let reads of dev-test end by an error, of as many arms as are to be."""

    def breaking(error, arms=1):
        average, left = ensembling.evaluate_averages, [error] * arms

        def reading(predictors, loader, tier, *rest, **how):
            if tier == DEV_TEST and left:
                raise left.pop()
            return average(predictors, loader, tier, *rest, **how)

        monkeypatch.setattr(ensembling, "evaluate_averages", reading)

    return breaking


def in_order(folder: Path) -> list[str]:
    """Runs of the first arm as validation ranks them, the bad one last."""
    runs = record_of(folder).runs
    return [*sorted((FIRST, SECOND), key=lambda key: -runs[key].metrics[METRIC]), BAD]


def direct(folder: Path, key: str, tier: str):
    """Score a run of the sweep alone, as the sweep does."""
    run = record_of(folder).runs[key]
    config = load_sweep(folder / "sweep.yaml").trial(run.arm, {}, key=key, phase=run.phase, seed=run.seed)
    file = folder / "runs" / key / "best.safetensors"
    return score_weights(config, open_for(config), file, LocalRuntime(device=CPU), tier)


def told(folder: Path) -> list[tuple[str, str]]:
    return [(e["kind"], e["run"]) for e in events(folder) if e["kind"] in ("run_started", "test_read", "run_finished")]


def test_the_best_runs_are_averaged_and_a_bad_one_is_left_out(made, done):
    best, second, bad = in_order(made)
    none, past = done.none, done.past
    assert (none.tried, none.metric) == ([best, second, bad], SCORE), "neither the twin nor what did not finish"
    alone, of_two, of_three = none.validation
    assert alone == pytest.approx(record_of(made).runs[best].metrics[METRIC], abs=1e-6)
    assert of_two > max(alone, of_three), "the bad run makes the average worse"
    assert none.n == 2
    assert (past.tried, past.n, past.better) == ([ALONE], 1, 0)
    assert past.dev_test == past.dev_test_best
    assert done.predicted == [
        (VALIDATION, [best, second, bad], [1, 2, 3]),
        (DEV_TEST, [best, second], [1, 2]),
        (VALIDATION, [ALONE], [1]),
        (DEV_TEST, [ALONE], [1]),
    ]


def test_n_is_in_the_journal_before_dev_test_is_read(made, done):
    best, second, bad = in_order(made)
    assert told(done.folder)[len(told(made)) :][:4] == [
        ("run_started", "ensemble-none"),
        ("test_read", "ensemble-none"),
        ("test_read", best),
        ("run_finished", "ensemble-none"),
    ]
    record = record_of(done.folder)
    run = record.runs["ensemble-none"]
    assert (run.phase, run.arm, run.seed, run.status) == ("ensemble", "none", None, "finished")
    assert run.params["ensemble.tried"] == [best, second, bad]
    assert run.params["ensemble.members"] == [best, second]
    assert run.params["core.name"] == "linear"
    assert "seed" not in run.params, "the runs do not share it"
    assert run.tags == {"information": "stimulus"}
    reasons = {read["run"]: read["reason"] for read in record.test_reads}
    assert reasons["ensemble-none"] == f"average of the 2 best by validation: {best}, {second}"
    assert reasons[best] == "best by validation, beside ensemble-none"


def test_the_final_test_is_never_read(done):
    assert {read["tier"] for read in record_of(done.folder).test_reads} == {DEV_TEST}
    assert {tier for tier, _, _ in done.predicted} == {VALIDATION, DEV_TEST}
    assert list(done.folder.rglob("*final_test*")) == []


def test_a_report_finds_the_same_and_lists_the_reads(made, done):
    assert done.none.tried[0] == FIRST, "a run of the search, which is not scored on dev-test otherwise"
    before, after = (analyse(folder).as_dict() for folder in (made, done.folder))
    assert before.pop("test_looks") == []
    assert [look["run"] for look in after.pop("test_looks")] == ["ensemble-none", FIRST, ALONE]
    assert json.dumps(after, default=str) == json.dumps(before, default=str)


def test_files_and_journal_hold_the_scores_that_are_told(done):
    none, runs = done.none, done.folder / "runs"
    ours, alone = (score(read_moments(runs / key, DEV_TEST), SCORE) for key in ("ensemble-none", none.tried[0]))
    plain = score(direct(done.folder, none.tried[0], DEV_TEST), SCORE)
    np.testing.assert_allclose(pooled_mean(alone), pooled_mean(plain), atol=1e-6)
    assert (none.dev_test, none.dev_test_best) == (pooled_mean(ours), pooled_mean(alone))
    (session,) = ours
    assert none.neurons == len(ours[session]) == 6
    assert none.better == sum(a > b for a, b in zip(ours[session], alone[session], strict=True))
    metrics = record_of(done.folder).runs["ensemble-none"].metrics
    assert metrics[f"{DEV_TEST}/{SCORE}"] == none.dev_test
    assert metrics[f"best_run/{DEV_TEST}/{SCORE}"] == none.dev_test_best
    assert metrics[METRIC] == none.validation[1]
    assert metrics[f"{VALIDATION}/{SCORE}"] == pytest.approx(none.validation[1])
    table = pd.read_parquet(runs / "ensemble-none/validation_per_neuron.parquet")
    assert list(table) == ["session", "neuron", SCORE]
    np.testing.assert_allclose(table[SCORE].mean(), none.validation[1], atol=1e-6)


def test_the_average_is_that_of_the_rates_of_both_runs(done):
    (ours,) = read_moments(done.folder / "runs" / "ensemble-none", DEV_TEST).values()
    (one,), (other,) = (direct(done.folder, key, DEV_TEST).values() for key in done.none.tried[:2])
    np.testing.assert_allclose(ours["sum_p"], (one["sum_p"] + other["sum_p"]) / 2, rtol=1e-5)
    assert (np.abs(one["sum_p"] / other["sum_p"] - 1) > 1e-3).any(), "or else a run counted twice would not show"


def test_a_second_call_tells_the_same_and_reads_nothing(done, predicted):
    journal = (done.folder / "journal.jsonl").read_bytes()
    again = ensemble_arms(done.folder)
    assert again == [replace(one, already_there=True) for one in (done.none, done.past)]
    assert not any(one.already_there for one in (done.none, done.past))
    assert (done.folder / "journal.jsonl").read_bytes() == journal
    assert predicted == []


def test_an_interrupted_read_is_completed_with_the_runs_that_were_chosen(folder, done, broken, predicted):
    broken(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ensemble_arms(folder, ["none"])
    assert record_of(folder).runs["ensemble-none"].status == "running"
    predicted.clear()
    assert ensemble_arms(folder, ["none"]) == [done.none]
    assert [tier for tier, _, _ in predicted] == [DEV_TEST], "n is not chosen again"
    reads = [(read["run"], read["tier"]) for read in record_of(folder).test_reads]
    assert len(reads) == len(set(reads)) == 2


def scored_before(folder: Path, key: str) -> None:
    """Score a run on dev-test as a sweep does with those that represent an arm."""
    journal = Journal(folder / "journal.jsonl")
    journal.append("test_read", run=key, tier=DEV_TEST, reason="comparison of arms")
    keep_scores(journal, folder, record_of(folder).runs[key], {DEV_TEST: direct(folder, key, DEV_TEST)})


def test_a_best_run_that_was_scored_before_is_not_read_again(folder, predicted):
    best, second, _ = in_order(folder)
    scored_before(folder, best)
    scored_before(folder, ALONE)
    before, reads = (folder / "runs" / best / next_of(folder, best)).read_bytes(), len(record_of(folder).test_reads)
    none, past = ensemble_arms(folder)
    assert [call for call in predicted if call[0] == DEV_TEST] == [(DEV_TEST, [best, second], [2])]
    assert [read["run"] for read in record_of(folder).test_reads[reads:]] == ["ensemble-none"]
    assert (folder / "runs" / best / next_of(folder, best)).read_bytes() == before
    assert none.dev_test_best == pooled_mean(score(direct(folder, best, DEV_TEST), SCORE))
    assert (past.n, past.dev_test) == (1, past.dev_test_best), "its scores are those of its only run"


def next_of(folder: Path, key: str) -> str:
    (file,) = (folder / "runs" / key).glob("moments_dev_test_*.parquet")
    return file.name


def test_rates_that_are_no_numbers_are_told_and_the_other_arms_are_there(folder, broken):
    broken(DivergedError("rates of a run are infinite"))
    with pytest.raises(ArmError, match="arm 'none' cannot be averaged: rates of a run are infinite"):
        ensemble_arms(folder)
    runs = record_of(folder).runs
    assert (runs["ensemble-none"].status, runs["ensemble-own_past"].status) == ("diverged", "finished")
    assert ensemble_arms(folder, ["own_past"])[0].already_there


@pytest.fixture
def call(monkeypatch):
    """Call the command line in this process; whatever is no message is raised."""

    def run(*arguments):
        found = CliRunner().invoke(app, ["ensemble", *(str(argument) for argument in arguments)])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max", "0"), "--max is 0; give the largest number of runs to average, at least 1"),
        (("--arm", "nnoe"), "'nnoe' is not an arm of this sweep. Did you mean 'none'\\? Arms: none, own_past"),
        (("--arm", "own_past", "--arm", "none", "--arm", "x"), "'x' is not an arm of this sweep. Arms: none, own_past"),
    ],
)
def test_what_cannot_be_asked_is_one_message_and_reads_nothing(call, folder, predicted, options, message):
    found = call(folder, *options)
    assert (found.exit_code, found.stdout) == (2, "")
    assert re.search(message, found.stderr), found.stderr
    assert predicted == []


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_an_unfinished_sweep_is_refused(call, folder, predicted, status):
    Journal(folder / "journal.jsonl").append("sweep_finished", status=status)
    found = call(folder)
    assert found.exit_code == 2
    assert f"the sweep is {status}; finish it with --resume before its runs are averaged" in found.stderr
    assert predicted == []


def test_an_arm_without_weights_is_refused_before_another_is_read(call, folder, predicted):
    (folder / "runs" / ALONE / "best.safetensors").unlink()
    found = call(folder)
    assert found.exit_code == 2
    assert "arm 'own_past' has no finished run with its weights, runs/NAME/best.safetensors, among 1" in found.stderr
    assert f"({ALONE} finished); put them back, or name other arms with --arm" in found.stderr
    assert predicted == []


def test_no_more_than_max_runs_are_tried(folder, predicted):
    best = in_order(folder)[0]
    (none,) = ensemble_arms(folder, ["none"], 1)
    assert (none.tried, none.n, predicted) == ([best], 1, [(VALIDATION, [best], [1]), (DEV_TEST, [best], [1])])


def test_another_max_after_dev_test_was_read_is_refused(call, done, predicted):
    found = call(done.folder, "--max", "2")
    assert found.exit_code == 2
    assert "--max is 2, but arm 'none' has an ensemble chosen with 8, and dev-test is read for one only" in found.stderr
    assert "give --max 8" in found.stderr
    assert predicted == []


def test_other_recordings_than_the_sweep_began_with_are_refused(call, folder, predicted):
    file = folder / "journal.jsonl"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(first) | {"tags": {"data_hash": "0"}}), *rest, ""]))
    found = call(folder)
    assert found.exit_code == 2
    assert "began with recordings of hash 0" in found.stderr
    assert predicted == []


def test_the_table_has_a_row_per_arm_and_says_what_was_there_already(call, folder):
    first = call(folder)
    assert first.exit_code == 0
    assert first.stderr == "averaging runs of none\naveraging runs of own_past\n"
    title, head, names, none, past = first.stdout.splitlines()
    assert title.startswith(f"{SCORE}, mean over neurons")
    assert head.split() == ["arm", "runs", "averaged", "validation", "dev-test", "neurons", "better"]
    assert none.split()[:4] == ["none", "2", "of", "3"]
    assert none.split()[-2:] == ["of", "6"]
    assert past.split()[-3:] == ["the", "same", "run"]
    again = call(folder)
    assert again.stderr == ""
    assert again.stdout.splitlines()[:5] == [title, head, names, none, past]
    assert again.stdout.splitlines()[5:] == [
        f"{arm}: was there already; dev-test was not read again" for arm in ("none", "own_past")
    ]


def test_json_holds_what_the_table_shows(call, done):
    (found,) = json.loads(call(done.folder, "--arm", "none", "--json").stdout)
    assert found == {**vars(done.none), "already_there": True}
