"""A sweep is checked word by word: every fault at once, each with what to do."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import yaml
from config_examples import LEARNING, faults_of, minimal, only_fault

from neuroint.config import ConfigError, parse_sweep


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cor": "linear"}, "'cor' is not a setting. Did you mean 'core'?"),
        ({"core": "constnat"}, "core: 'constnat' is not a registered core. Did you mean 'constant'? Registered: "),
        ({"core": 5}, "core: got 5, expected a name or a mapping with a name, such as "),
        ({"core": False}, "core: got False, expected a name or a mapping with a name, such as factorized_conv3d (YAML"),
        ({"core": {"name": {"choice": ["linear"]}}}, "core: got {'choice': ['linear']}; a distribution cannot choose"),
        ({"core": {"choice": ["linear"]}}, "core: got {'choice': ['linear']}; a distribution cannot choose among"),
        ({"readout": {"name": "linear", "n_neurons": 8}}, "readout: n_neurons is measured from the data; remove it"),
        ({"train": {"epocs": 3}}, "train: 'epocs' is not a choice of section 'train'. Did you mean 'epochs'?"),
        ({"train": {"epochs": 2.5}}, "train.epochs: got 2.5: input should be a valid integer"),
        ({"train": {"epochs": True}}, "train.epochs: got True: expected a number (YAML reads on/off/yes/no as"),
        ({"train": {"compile": "true"}}, "train.compile: got 'true': expected true or false"),
        ({"train": {"precision": "flaot32"}}, "train.precision: got 'flaot32': input should be 'float32'"),
        ({"train": {"ema": float("nan")}}, "train.ema: got nan, expected a finite number"),
        ({"train": {"clip_norm": "inf"}}, "train.clip_norm: got 'inf': input should be a finite number"),
        ({"train": 5}, "train: got 5, expected a mapping of settings"),
        ({"train": {"frames": {"uniform": [1, 9]}}}, "train.frames: got 4.055728: input should be a valid integer"),
        ({"init": {"core": "forzen"}}, "init.core: got 'forzen': input should be 'trained', 'finetuned' or 'frozen'."),
        ({"search": {"trials": {"choice": [1, 2]}}}, "search.trials: got {'choice': [1, 2]}; a distribution cannot"),
        ({"data": {"options": {"a": {"int": [1, 2]}}}}, "data.options: got {'a': {'int': [1, 2]}}; a distribution"),
        ({"search": {"reduction_factor": 1}}, "search.reduction_factor: got 1: input should be greater than or equal"),
        ({"search": {"sampler": "tep"}}, "search.sampler: 'tep' is not a registered sampler. Did you mean 'tpe'?"),
        ({"search": {"sampler": 3}}, "search.sampler: got 3: input should be a valid string"),
        ({"search": {"sampler": "grid"}}, "arms.warm: optimizer.learning_rate is loguniform; the grid sampler needs"),
        ({"score": {"metric": "feev"}}, "score.metric: 'feev' is not a registered metric. Did you mean 'feve'?"),
        ({"score": {"alpha": 1}}, "score.alpha: got 1: input should be less than 1"),
        ({"score": {"alpha": 0.5}}, "score.alpha: got 0.5, expected an error rate below 0.5"),
        ({"score": {"smallest_effect": 0}}, "score.smallest_effect: got 0, expected the smallest difference"),
        ({"data": {"reader": "sensorium202"}}, "data.reader: 'sensorium202' is not a registered reader. Did you mean"),
        (
            {"data": {"reader": "sensorium2023", "options": {"split_sed": 1}}},
            "data.options: 'split_sed' is not a choice of reader 'sensorium2023'. Did you mean 'split_seed'?",
        ),
        (
            {"data": {"reader": "sensorium2023", "options": {"withheld_fraction": 2}}},
            "data.options: withheld_fraction: got 2: input should be less than or equal to 1",
        ),
        ({"resources": {"workers": 0}}, "resources.workers: got 0: input should be greater than or equal to 1"),
        (
            {"resources": {"gpus_per_worker": 1.5}},
            "resources.gpus_per_worker: got 1.5, expected a share of one card or whole cards",
        ),
        (
            {"resources": {"gpus_per_worker": 0.5, "workers": 2}},
            "resources.gpus_per_worker: got 0.5 with workers: 2, expected a whole card for each worker of a trial",
        ),
        ({"seed": True}, "seed: got True, expected a whole number from 0 on"),
        ({"seed": -1}, "seed: got -1, expected a whole number"),
        ({"seed": 2**70}, f"seed: got {2**70}, expected a whole number of at most"),
        ({"name": "a/b"}, "name: got 'a/b', expected letters, digits, '-' and '_'; it names a folder"),
        ({"name": None}, "name: got None, expected letters"),
        ({"reference": "wram"}, "reference: got 'wram', expected the name of an arm. Did you mean 'warm'? Arms: warm,"),
        ({"reference": ["warm"]}, "reference: got ['warm'], expected the name of an arm"),
        ({"arms": {}}, "arms: got {}, expected a mapping from each arm's name to what it sets"),
        ({"arms": ["warm"]}, "arms: got ['warm'], expected a mapping"),
        ({1: 2}, "1: the key 1 is not a word; quote it"),
        ({True: 2}, "True: the key True is not a word; YAML reads on/off/yes/no as true/false; quote it"),
        ({"name": datetime.date(2024, 1, 1)}, "which YAML reads as a date; quote it"),
    ],
)
def test_a_fault_says_what_was_given_and_what_to_do(changes, message):
    assert any(
        message in fault
        for fault in faults_of(minimal(**changes) if isinstance(next(iter(changes)), str) else minimal() | changes)
    )


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (
            {"loguniform": [0.1, 0.001]},
            "the range of loguniform is empty; expected 0 < low < high, got low=0.1, high=0.",
        ),
        ({"loguniform": [0, 0.1]}, "the range of loguniform is empty; expected 0 < low < high, got low=0"),
        ({"uniform": [0.1, 0.1]}, "the range of uniform is empty; expected low < high"),
        ({"uniform": [0.1]}, "uniform got [0.1], expected two numbers [low, high]"),
        ({"uniform": 0.1}, "uniform got 0.1, expected two numbers"),
        ({"uniform": ["a", "b"]}, "uniform got ['a', 'b'], expected two numbers"),
        ({"uniform": [True, 2]}, "uniform got [True, 2], expected two numbers"),
        ({"uniform": ["1", "inf"]}, "the range of uniform is empty"),
        ({"uniform": ["nan", 1]}, "the range of uniform is empty"),
        ({"int": [1, 2.5]}, "int got [1, 2.5], expected two whole numbers [low, high]; fractions need uniform"),
        ({"int": [3, 1]}, "the range of int is empty"),
        ({"choice": []}, "choice got [], expected a list with at least one value"),
        ({"choice": 0.1}, "choice got 0.1, expected a list"),
        ({"choice": [0.1, "1e-1"]}, "choice lists 0.1 twice; name every value once"),
        ({"choice": [{"a": 1}]}, "to search inside a mapping, put a distribution on its settings"),
        ({"choice": [0.1, -1]}, "got -1: input should be greater than 0"),
        ({"choice": [0.1, True]}, "got True: expected a number"),
        ({"uniform": [-1, 1]}, "got -1.0: input should be greater than 0"),
        ({"logunifrom": [0.1, 1]}, "(a distribution stands alone in its mapping and is one of choice, uniform,"),
        ({"uniform": [0.1, 1], "log": True}, "(a distribution stands alone in its mapping and is one of"),
    ],
)
def test_a_distribution_that_cannot_be_drawn_from_is_refused(distribution, message):
    fault = only_fault(minimal(optimizer={"name": "adamw", "learning_rate": distribution}))
    assert fault.startswith("optimizer.learning_rate: ")
    assert message in fault


def test_a_uniform_range_of_whole_numbers_is_answered_with_int():
    fault = only_fault(minimal(train={"batch_size": {"uniform": [2, 8]}}))
    assert "(uniform draws fractions; for whole numbers write {int: [low, high]})" in fault


def test_a_distribution_on_a_fact_or_an_unknown_choice_is_one_fault():
    fault = only_fault(minimal(readout={"name": "linear", "n_neurons": {"int": [1, 9]}}))
    assert fault == "readout: n_neurons is measured from the data; remove it from the YAML"
    fault = only_fault(minimal(optimizer={"name": "adamw", "learning_rat": {"uniform": [1, 0]}}, search={"trials": 1}))
    assert "'learning_rat' is not a choice of optimizer 'adamw'. Did you mean 'learning_rate'?" in fault


def arms(**others: Any) -> dict[str, Any]:
    return minimal(arms={"warm": {}, **others})


def test_an_arm_that_sets_nothing_is_refused():
    for same in ({}, None, {"schedule": "constant"}, {"core": {"name": "constant"}}):
        fault = only_fault(arms(again=same))
        assert fault.startswith("arms.again: sets nothing that 'warm' does not, so it is the reference arm again; give")


def test_an_arm_without_parameters_is_refused():
    raw = minimal(optimizer="adamw", search={"trials": 2})
    faults = faults_of(raw)
    assert [fault.split(" to search")[0] for fault in faults] == [
        "arms.warm: has no parameters",
        "arms.cosine: has no parameters",
    ]
    assert "or set search.trials: 1" in faults[0]
    parse_sweep(minimal(optimizer="adamw", search={"trials": 1}))


def test_a_reference_without_parameters_takes_no_trials_of_its_own():
    raw = minimal(optimizer="adamw", search={"trials": 1, "reference_trials": 4})
    assert only_fault(raw).startswith("arms.warm: has no parameters to search, but gets 4 trials")


def test_an_arm_sets_components_train_and_init_only():
    fault = only_fault(arms(other={"schedul": "cosine", "link": "exp"}))
    assert fault.startswith(
        "arms.other: 'schedul' cannot be set by an arm. Did you mean 'schedule'? An arm sets: core,"
    )
    fault = only_fault(arms(other={"search": {"trials": 9}, "link": "exp"}))
    assert fault.startswith("arms.other: 'search' cannot be set by an arm.")


def test_a_fault_in_an_arm_names_the_arm():
    assert only_fault(arms(other={"core": "linaer"})).startswith("arms.other: core: 'linaer' is not a registered core.")
    assert only_fault(arms(other=5)) == "arms.other: got 5, expected a mapping of settings"
    assert only_fault(arms(other={"train": {"epochs": 0}})).startswith("arms.other: train.epochs: got 0")


def test_a_fault_that_all_arms_share_is_said_once():
    assert only_fault(minimal(train={"epochs": 0})).startswith("train.epochs: got 0")


def test_an_arm_named_off_is_answered_with_quotes():
    raw = yaml.safe_load("{warm: {}, off: {link: exp}}")
    fault = only_fault(minimal(arms=raw))
    assert fault == "arms.False: the key False is not a word; YAML reads on/off/yes/no as true/false; quote it"


def test_an_arm_whose_name_cannot_be_a_folder_is_refused():
    assert "arms: got the name 'a b', expected letters" in only_fault(
        minimal(arms={"warm": {}, "a b": {"link": "exp"}})
    )


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            {"optimizer.learning_rat": 0.1},
            "search.points.0: no arm searches 'optimizer.learning_rat'. Did you mean 'opt",
        ),
        ({"optimizer.weight_decay": 0.1}, "no arm searches 'optimizer.weight_decay'."),
        ({LEARNING: 5}, "search.points.0.optimizer.learning_rate: got 5, expected a value in loguniform [0.0001, 0.1]"),
        ({LEARNING: True}, "got True, expected a value in"),
        ({LEARNING: [0.01]}, "got [0.01], expected a value in"),
    ],
)
def test_a_point_that_no_arm_can_start_from_is_refused(point, message):
    assert message in only_fault(minimal(search={"points": [point]}))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"trials": 1}, "has 1 trials; set search.trials: 2 or more"),
        (
            {"trials": 2, "reference_trials": 2},
            "has 2 trials, the first of which begins from the best values of the ref",
        ),
    ],
)
def test_points_that_a_search_never_gets_to_are_refused(search, message):
    raw = minimal(search={"points": [{LEARNING: 0.001}, {LEARNING: 0.01}], **search})
    faults = faults_of(raw)
    assert faults
    assert all(f"would begin from 2 of them, but {message}" in fault for fault in faults)
    reached = minimal(search={"points": [{LEARNING: 0.001}, {LEARNING: 0.01}], **search, "trials": 3})
    assert len(parse_sweep(reached).search.points) == 2


def test_a_point_may_be_null_where_null_is_a_choice():
    raw = minimal(train={"ema": {"choice": [None, 0.9]}}, search={"points": [{"train.ema": None}]})
    assert parse_sweep(raw).search.points == [{"train.ema": None}]


def test_every_fault_is_listed_at_once():
    raw = minimal(
        nme="x",
        core="liner",
        train={"epochs": "many"},
        optimizer={"learning_rate": {"uniform": [1, 0]}},
        search={"sampler": "tep", "trials": 1},
        score={"metric": "nothing"},
        reference="cold",
        arms={"warm": {"links": "exp"}, "other": {"interaction": {"name": "none", "heads": 2}}},
    )
    starts = ["'nme'", "core:", "optimizer.learning_rate:", "train.epochs:", "arms.warm:", "arms.other:", "reference:"]
    starts += ["search.sampler:", "score.metric:"]
    assert [fault.split(" ")[0] for fault in faults_of(raw)] == starts


def test_the_message_counts_the_faults_and_names_the_source():
    with pytest.raises(ConfigError, match=r"(?s)here: 2 fault\(s\)\n  - name: got None.*\n  - seed: got -1"):
        parse_sweep(minimal(name=None, seed=-1), source="here")


@pytest.mark.parametrize("metric", ["poisson_loss", "noise_variance", "snr"])
def test_a_metric_that_does_not_rank_models_cannot_select(metric):
    assert f"a higher '{metric}' is not a better model" in only_fault(minimal(score={"metric": metric}))


def test_a_score_that_negative_rates_leave_undefined_is_refused_with_a_link_that_gives_them():
    arms = {"warm": {}, "linear": {"link": "identity"}}
    fault = only_fault(minimal(arms=arms, score={"metric": "bits_per_spike"}))
    assert fault.startswith("arms.linear: link 'identity' can predict negative rates")
    assert "use link: softplus, or score.metric: single_trial_correlation" in fault
    parse_sweep(minimal(arms=arms))
    parse_sweep(minimal(score={"metric": "bits_per_spike"}))
