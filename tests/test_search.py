"""What a search proposes, which runs it gives up, and what it chooses, as the journal and the studies tell it."""

from __future__ import annotations

import json
from functools import partial
from itertools import product

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from sweeps import entering, small

from neuroint import registry
from neuroint.sweep.proposals import Jobs, Proposals, open_study, start_points
from neuroint.sweep.run import Sweeper
from neuroint.sweep.samplers import ARMS, REFERENCE, budget, runs_planned
from neuroint.sweep.selection import ArmError, best_runs, distinct, representatives
from neuroint.sweep.stopping import make_stopping
from neuroint.tracking import Journal, SweepRecord

RATE = "optimizer.learning_rate"
SEARCHED = {"name": "adamw", "learning_rate": {"loguniform": [0.005, 0.05]}}
TWO_ARMS = {
    "none": {},
    "pool": {"normalization": {"name": "population_pool", "initial_strength": {"uniform": [0.01, 0.5]}}},
}


class Scored:
    """A Tune trial, as schedulers see it."""

    def __init__(self, key: str, phase: str = "tune") -> None:
        self.trial_id, self.config = f"tune's name of {key}", {"job": json.dumps({"key": key, "phase": phase})}


def result(epoch: int, score: float, **more) -> dict:
    return {"epoch": epoch, "best_validation_score": score, **more}


@pytest.fixture
def journal(tmp_path):
    """A journal that has begun, and a way to enter whole runs."""
    return entering(tmp_path / "journal.jsonl")


def test_a_run_is_judged_by_runs_of_its_arm_at_the_same_epoch_only(journal):
    sweep = small(search={"grace_epochs": 1, "reduction_factor": 2})
    stopping = make_stopping(sweep, journal.record())
    keys = {"a": "arm-none-0000", "b": "arm-none-0001", "c": "arm-own_past-0000", "d": "arm-none-0002"}
    trials = {name: Scored(key) for name, key in keys.items()}
    for trial in trials.values():
        stopping.on_trial_add(None, trial)
    judge = lambda key, *how, **more: stopping.on_trial_result(None, trials[key], result(*how, **more))  # noqa: E731
    assert judge("a", 1, 0.5) == TrialScheduler.CONTINUE
    assert judge("c", 1, 0.1) == TrialScheduler.CONTINUE, "another arm's run is no rival"
    assert judge("b", 1, 0.4) == TrialScheduler.STOP, "below the better half at the same epoch"
    assert judge("a", 2, 0.6) == TrialScheduler.CONTINUE
    assert judge("d", 1, 0.55) == TrialScheduler.CONTINUE, "better than the others were at epoch 1"
    assert judge("d", 3, 0.1, finished=1) == TrialScheduler.CONTINUE, "what has run its length is not stopped"


def test_a_run_that_was_to_be_stopped_when_the_driver_was_is_stopped_at_its_next_report(journal):
    journal("arm-none-0000", "finished", [0.5, 0.6])
    journal("arm-none-0001", None, [0.1])
    journal("arm-none-0002", None, [0.1, 0.7])
    stopping = make_stopping(small(search={"grace_epochs": 1, "reduction_factor": 2}), journal.record())
    due, went_on = Scored("arm-none-0001"), Scored("arm-none-0002")
    for trial in (due, went_on):
        stopping.on_trial_add(None, trial)
    assert stopping.on_trial_result(None, due, result(1, 0.1)) == TrialScheduler.STOP
    assert stopping.on_trial_result(None, went_on, result(2, 0.7)) == TrialScheduler.CONTINUE


def test_an_undefined_score_neither_stops_a_run_nor_judges_others(journal):
    stopping = make_stopping(small(search={"grace_epochs": 1}), journal.record())
    trials = [Scored(f"arm-none-000{n}") for n in range(2)]
    for trial in trials:
        stopping.on_trial_add(None, trial)
    assert stopping.on_trial_result(None, trials[0], result(1, float("nan"))) == TrialScheduler.CONTINUE
    assert stopping.on_trial_result(None, trials[1], result(1, -0.3)) == TrialScheduler.CONTINUE


def test_after_an_interruption_runs_are_judged_by_those_that_had_ended(journal):
    journal("arm-none-0000", "finished", [0.5, 0.6, 0.7])
    journal("reference-none-0000", "finished", [0.9, 0.9, 0.9])
    stopping = make_stopping(small(search={"grace_epochs": 1, "reduction_factor": 2}), journal.record())
    worse, better = Scored("arm-none-0001"), Scored("arm-none-0002")
    for trial in (worse, better):
        stopping.on_trial_add(None, trial)
    assert stopping.on_trial_result(None, worse, result(1, 0.4)) == TrialScheduler.STOP
    assert stopping.on_trial_result(None, better, result(1, 0.6)) == TrialScheduler.CONTINUE, "a stage of its own"


def test_nothing_is_stopped_where_no_run_is_longer_than_its_grace(journal):
    stopping = make_stopping(small(search={"grace_epochs": 3}), journal.record())
    for number, score in enumerate((0.5, 0.1)):
        trial = Scored(f"arm-none-000{number}")
        stopping.on_trial_add(None, trial)
        assert stopping.on_trial_result(None, trial, result(1, score)) == TrialScheduler.CONTINUE


def test_a_confirmed_run_is_never_stopped(journal):
    stopping = make_stopping(small(search={"grace_epochs": 1, "reduction_factor": 2}), journal.record())
    for number, score in enumerate((0.5, 0.1)):
        trial = Scored(f"confirm-none-c0-s{number}", "confirm")
        stopping.on_trial_add(None, trial)
        assert stopping.on_trial_result(None, trial, result(1, score)) == TrialScheduler.CONTINUE


def proposals(sweep, folder, arm, stage=ARMS, optimum=None, record=None) -> tuple[Proposals, list[dict]]:
    """Ask for everything that is left of an arm, and give the configurations."""
    study = open_study(sweep, arm, stage, folder, optimum or {})
    if record is not None:
        study.take_up(record)
    found = Proposals([lambda: [study]], lambda key: None)
    return found, [json.loads(found.suggest(f"t{n}")["job"]) for n in range(study.left())]


def values(jobs: list[dict]) -> list[float]:
    return [job["specs"]["optimizer"]["options"]["learning_rate"] for job in jobs]


def test_an_arm_starts_at_the_references_optimum_then_at_the_given_points(tmp_path):
    sweep = small(optimizer=SEARCHED, arms=TWO_ARMS, search={"trials": 3, "points": [{RATE: 0.04}]})
    _, jobs = proposals(sweep, tmp_path, "pool", optimum={RATE: 0.0123})
    assert values(jobs)[:2] == [0.0123, 0.04]
    own = registry.normalizations["population_pool"].choices["initial_strength"].default
    assert jobs[0]["specs"]["normalization"]["options"]["initial_strength"] == own
    assert [job["key"] for job in jobs] == [f"arm-pool-{n:04d}" for n in range(3)]
    assert len({job["seed"] for job in jobs}) == 1, "tuning compares configurations at one seed"


def test_points_out_of_an_arms_range_are_left_to_its_sampler():
    narrow = {"none": {}, "slow": {"optimizer": {"learning_rate": {"loguniform": [1e-4, 1e-3]}}}}
    sweep = small(optimizer=SEARCHED, arms=narrow)
    assert start_points(sweep, "slow", {RATE: 0.02}) == []
    assert start_points(sweep, "none", {RATE: 0.02}) == [{RATE: 0.02}]


def test_what_is_proposed_does_not_depend_on_where_a_search_was_interrupted(tmp_path):
    sweep = small(optimizer=SEARCHED, search={"trials": 4, "sampler": "random"})
    (tmp_path / "whole").mkdir()
    whole = values(proposals(sweep, tmp_path / "whole", "none")[1])
    assert len(set(whole)) == 4
    study = open_study(sweep, "none", ARMS, tmp_path, {})
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("sweep_started", sweep="small")
    first = [study.ask(), study.ask()]
    journal.append("run_started", run=first[0].key, phase="tune", arm="none", seed=1)
    journal.append("run_finished", run=first[0].key, status="finished", metrics={"best_validation_score": 0.1})
    record = SweepRecord.from_journal(journal.path)
    _, rest = proposals(sweep, tmp_path, "none", record=record)
    assert [job["key"] for job in rest] == ["arm-none-0001", "arm-none-0002", "arm-none-0003"]
    assert values(rest) == whole[1:]
    states = [trial.state.name for trial in open_study(sweep, "none", ARMS, tmp_path, {}).study.trials]
    assert states == ["COMPLETE", "RUNNING", "RUNNING", "RUNNING"]


def test_a_run_that_had_begun_without_values_is_given_those_of_its_number(tmp_path):
    sweep = small(optimizer=SEARCHED, search={"trials": 3, "sampler": "random"})
    (tmp_path / "whole").mkdir()
    whole = values(proposals(sweep, tmp_path / "whole", "none")[1])
    study = open_study(sweep, "none", ARMS, tmp_path, {})
    study.study.ask()  # and the driver is killed before it asks for values
    assert values(proposals(sweep, tmp_path, "none", record=entering(tmp_path / "j").record())[1]) == whole


def test_a_line_of_a_study_that_a_full_disk_cut_is_left_out(tmp_path):
    sweep = small(optimizer=SEARCHED, search={"trials": 2, "sampler": "random"})
    _, before = proposals(sweep, tmp_path, "none")
    (file,) = tmp_path.glob("*.optuna")
    with file.open("a") as study:
        study.write('{"op_code": 5, "worker')
    again = open_study(sweep, "none", ARMS, tmp_path, {})
    again.take_up(entering(tmp_path / "j").record())
    assert values([again.ask().to_dict() for _ in range(2)]) == values(before)


def test_optuna_is_told_how_runs_ended_and_an_undefined_score_is_a_failure(tmp_path):
    sweep = small(optimizer=SEARCHED, search={"trials": 5})
    found, jobs = proposals(sweep, tmp_path, "none")
    found.on_trial_result("t1", result(1, 0.2))
    found.on_trial_complete("t0", result(3, 0.4, finished=1))
    found.on_trial_complete("t1", result(2, 0.25))
    found.on_trial_complete("t2", error=True)
    found.on_trial_complete("t3", result(0, float("nan"), finished=1, diverged=1))
    found.on_trial_complete("t4", result(3, float("nan"), finished=1))
    trials = open_study(sweep, "none", ARMS, tmp_path, {}).study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    assert trials[0].value == 0.4
    assert trials[1].intermediate_values == {1: 0.2, 2: 0.25}
    assert all(set(trial.params) == {RATE} for trial in trials)
    assert isinstance(found, Searcher)
    assert len(jobs) == 5


def test_a_phase_begins_when_all_runs_of_the_one_before_have_ended():
    sweep = small()
    job = lambda key: sweep.trial("none", {}, key=key, phase="confirm", seed=1)  # noqa: E731
    drawn = []

    def phase(names):
        drawn.append(names)
        return [Jobs([job(name) for name in names])]

    phases = [partial(phase, names) for names in ("ab", "", "c")]
    found = Proposals(phases, lambda key: f"checkpoint of {key}" if key == "b" else None)
    assert found.go_on()
    first = [found.suggest(name) for name in ("t0", "t1")]
    assert [json.loads(one["job"])["key"] for one in first] == ["a", "b"]
    assert [one["resume_from"] for one in first] == [None, "checkpoint of b"]
    assert found.suggest("t2") is None
    found.on_trial_complete("t0", result(1, 0.1, finished=1))
    assert (found.suggest("t3"), drawn) == (None, ["ab"])
    found.on_trial_complete("t1", error=True)
    assert json.loads(found.suggest("t4")["job"])["key"] == "c"
    found.on_trial_complete("t4", result(1, 0.1, finished=1))
    assert found.suggest("t5") == Searcher.FINISHED
    assert not found.go_on()


def test_a_grid_tries_every_combination_once_and_its_points_first(tmp_path):
    space = {"name": "adamw", "learning_rate": {"choice": [0.01, 0.02]}, "weight_decay": {"choice": [0, 0.1, 0.2]}}
    point = {RATE: 0.02, "optimizer.weight_decay": 0.1}
    sweep = small(optimizer=space, search={"sampler": "grid", "trials": 1, "reference_trials": 2, "points": [point]})
    _, jobs = proposals(sweep, tmp_path, "none", optimum={RATE: 0.01})
    tried = [tuple(job["specs"]["optimizer"]["options"][k] for k in ("learning_rate", "weight_decay")) for job in jobs]
    assert tried[0] == (0.02, 0.1)
    assert sorted(tried) == sorted(product([0.01, 0.02], [0, 0.1, 0.2]))
    assert (budget(sweep, "none", REFERENCE), budget(sweep, "none", ARMS)) == (0, 6)


def test_arms_get_equal_numbers_of_trials_and_the_reference_some_before(tmp_path):
    sweep = small(optimizer=SEARCHED, search={"reference_trials": 3, "trials": 4}, confirm={"top": 2, "seeds": 3})
    assert [budget(sweep, arm, REFERENCE) for arm in sweep.arms] == [3, 0]
    assert [budget(sweep, arm, ARMS) for arm in sweep.arms] == [4, 4]
    assert [runs_planned(sweep, arm) for arm in sweep.arms] == [3 + 4 + 6, 4 + 6]


def test_the_best_runs_are_complete_ones_first_and_an_arm_without_any_says_why(journal):
    journal("arm-none-0000", "finished", [0.2])
    journal("arm-none-0001", "stopped", [0.9])
    journal("arm-none-0002", "finished", [0.3])
    journal("arm-none-0003", "finished", [float("nan")])
    journal("arm-bad-0000", "diverged", [0.8], arm="bad")
    record = journal.record()
    assert [run.key[-1] for run in best_runs(record, "none")] == ["2", "0", "1"]
    with pytest.raises(ArmError, match=r"arm 'bad' has no usable run among 1 trials \(arm-bad-0000 diverged"):
        best_runs(record, "bad")


def test_a_configuration_that_was_tried_twice_is_confirmed_once(journal):
    for key, score, rate, channels in [
        ("reference-none-0000", 0.5, 0.01, [2]),
        ("arm-none-0000", 0.5, 0.01, [2]),
        ("arm-none-0001", 0.4, 0.01, [4]),
        ("arm-none-0002", 0.3, 0.02, [2]),
    ]:
        journal(key, "finished", [score], params={RATE: rate, "core.channels": channels, "seed": len(key)})
    best = best_runs(journal.record(), "none")
    assert [run.key[-9:] for run in distinct(best, [RATE, "core.channels"])] == ["none-0000", "none-0001", "none-0002"]
    assert distinct(best, []) == best[:1], "without anything to search there is one configuration"


def test_the_best_configurations_are_confirmed_and_none_of_them_twice(journal, tmp_path):
    sweep = small(optimizer=SEARCHED, confirm={"top": 2, "seeds": 2})
    for key, score, rate in [
        ("reference-none-0000", 0.5, 0.01),
        ("arm-none-0000", 0.5, 0.01),
        ("arm-none-0001", 0.4, 0.02),
    ]:
        journal(key, "finished", [score], params={RATE: rate})
    jobs = Sweeper(sweep, tmp_path, {}, {})._confirm_jobs(journal.record(), "none")
    assert [job.key[-5:] for job in jobs] == ["c0-s0", "c0-s1", "c1-s0", "c1-s1"]
    assert values([job.to_dict() for job in jobs]) == [0.01, 0.01, 0.02, 0.02]


def test_an_arm_is_represented_by_the_best_mean_over_seeds_of_whole_configurations(journal):
    for key, score, status in [
        ("c0-s0", 0.5, "finished"),
        ("c0-s1", 0.1, "finished"),
        ("c1-s0", 0.3, "finished"),
        ("c1-s1", 0.4, "finished"),
        ("c2-s0", 0.9, "finished"),
        ("c2-s1", 0.9, "failed"),
    ]:
        journal(f"confirm-none-{key}", status, [score], phase="confirm")
    chosen = representatives(journal.record(), ["none"])["none"]
    assert [run.key for run in chosen] == ["confirm-none-c1-s0", "confirm-none-c1-s1"]
    with pytest.raises(ArmError, match="arm 'other' has no configuration confirmed with every seed"):
        representatives(journal.record(), ["other"])


def test_no_arm_is_represented_by_a_configuration_whose_score_is_undefined(journal):
    for key, score in [("c0-s0", float("nan")), ("c0-s1", 0.9), ("c1-s0", 0.3), ("c1-s1", 0.4)]:
        journal(f"confirm-none-{key}", "finished", [score], phase="confirm")
    chosen = representatives(journal.record(), ["none"])["none"]
    assert [run.key for run in chosen] == ["confirm-none-c1-s0", "confirm-none-c1-s1"]
    journal("confirm-odd-c0-s0", "finished", [float("nan")], phase="confirm", arm="odd")
    with pytest.raises(ArmError, match="confirm-odd-c0-s0 finished, its score is undefined"):
        representatives(journal.record(), ["odd"])
