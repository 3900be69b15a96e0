"""A sweep becomes frozen configurations of trials; nothing handed in is changed."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Literal

import pytest
import yaml
from config_examples import LEARNING, minimal, only_fault, trial_of, written

from neuroint.config import ConfigError, Distribution, TrialConfig, dump, load_sweep, parse_sweep
from neuroint.config.settings import SPECS
from neuroint.registry import Count, Fact, Positive, Registry


def test_defaults_fill_what_is_not_said():
    sweep = parse_sweep(minimal())
    assert (sweep.name, sweep.seed, sweep.reference, list(sweep.arms)) == ("small", 0, "warm", ["warm", "cosine"])
    assert sweep.search.sampler == "tpe"
    assert trial_of(sweep).specs["interaction"].name == "none"
    assert trial_of(sweep).train.epochs == 20


def test_an_arm_overrides_the_base_and_keeps_the_rest():
    raw = minimal(arms={"warm": {}, "momentum": {"optimizer": {"beta_1": 0.5}}, "sgd": {"optimizer": {"name": "sgd"}}})
    raw["search"] = {"trials": 1}
    sweep = parse_sweep(raw)
    assert trial_of(sweep, "momentum").specs["optimizer"].options == {"learning_rate": 0.01, "beta_1": 0.5}
    assert sweep.arms["sgd"].tree["optimizer"] == {"name": "sgd"}, "options of adamw do not carry over to sgd"


def test_parameters_exist_only_in_the_arm_that_declares_them():
    sweep = parse_sweep(
        minimal(arms={"warm": {}, "cosine": {"schedule": {"name": "cosine", "floor": {"uniform": [0, 0.5]}}}})
    )
    assert list(sweep.arms["warm"].distributions) == [LEARNING]
    assert list(sweep.arms["cosine"].distributions) == [LEARNING, "schedule.floor"]


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [
        ({"loguniform": ["1e-4", "1e-1"]}, Distribution("loguniform", (1e-4, 0.1))),
        ({"uniform": [0, 1]}, Distribution("uniform", (0.0, 1.0))),
        ({"choice": ["1e-3", 0.1]}, Distribution("choice", (0.001, 0.1))),
        ({"int": [1, "3"]}, Distribution("int", (1, 3))),
    ],
)
def test_a_distribution_is_read_with_numbers_in_their_place(written_as, read_as):
    raw = minimal(optimizer={"name": "adamw", "learning_rate": written_as})
    if written_as == {"uniform": [0, 1]}:  # 0 is no learning rate, but may be a decay
        raw = minimal(optimizer={"name": "adamw", "weight_decay": written_as})
    (found,) = parse_sweep(raw).arms["warm"].distributions.values()
    assert found == read_as


def test_lists_may_be_chosen_among():
    raw = minimal(core={"name": "conv3d", "channels": {"choice": [[8, 16], [16, "32"]]}}, search={"trials": 1})
    sweep = parse_sweep(raw)
    found = sweep.arms["warm"].distributions["core.channels"]
    assert found == Distribution("choice", ([8, 16], [16, 32]))
    assert (16, 32) in found
    trial = trial_of(sweep, "warm", **{LEARNING: 0.01, "core.channels": [16, 32]})
    assert trial.flat()["core.channels"] == [16, 32]


def test_strings_that_are_numbers_are_coerced_everywhere():
    sweep = parse_sweep(minimal(optimizer={"learning_rate": "1e-3"}, train={"clip_norm": "1e1"}, search={"trials": 1}))
    trial = sweep.trial("warm", {}, key="k", phase="tune", seed=0)
    assert trial.specs["optimizer"].options == {"learning_rate": 0.001}
    assert trial.train.clip_norm == 10.0
    assert sweep.arms["warm"].tree["train"] == {"clip_norm": 10.0}


def test_train_may_be_searched():
    raw = minimal(train={"epochs": {"int": [2, 5]}, "batch_size": {"choice": [4, 8]}}, optimizer="adamw")
    sweep = parse_sweep(raw)
    assert trial_of(sweep, "warm", **{"train.epochs": 5, "train.batch_size": 8}).train.epochs == 5


def test_what_is_handed_in_is_never_changed():
    raw = minimal(data={"options": {"deep": {"list": [1]}}}, search={"points": [{LEARNING: "1e-3"}]})
    before = copy.deepcopy(raw)
    sweep = parse_sweep(raw)
    trial = trial_of(sweep)
    trial.to_dict()["data"]["options"]["deep"]["list"].append(2)
    sweep.data.options["deep"]["list"].append(2)
    assert raw == before
    assert sweep.raw == before


def test_a_trial_survives_json():
    raw = minimal(core={"name": "conv3d", "channels": [8, 16]}, data={"path": "x", "sessions": ["a", "b"]})
    trial = trial_of(parse_sweep(raw))
    again = TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict())))
    assert again == trial
    assert again.flat() == trial.flat()
    assert TrialConfig.from_dict(yaml.safe_load(dump(trial))) == trial


def test_searched_paths_are_paths_of_the_flat_configuration():
    arms = {"warm": {}, "cosine": {"schedule": {"name": "cosine", "floor": {"uniform": [0, 0.5]}}}}
    sweep = parse_sweep(minimal(arms=arms, train={"ema": {"choice": [None, 0.9]}}))
    values = {LEARNING: 0.02, "schedule.floor": 0.25, "train.ema": None}
    flat = trial_of(sweep, "cosine", **values).flat()
    assert {path: flat[path] for path in sweep.arms["cosine"].distributions} == values
    assert flat["core.name"] == "constant"
    assert flat["seed"] == 3


def test_a_sweep_written_out_and_read_again_is_the_same(tmp_path):
    file = written(tmp_path, "# Does µ matter?\n# neuroint run x\n" + yaml.safe_dump(minimal(seed=4)))
    sweep = load_sweep(file)
    again = load_sweep(written(tmp_path, dump(sweep)))
    assert again.question == sweep.question == "Does µ matter?"
    assert (again.raw, again.arms, again.search) == (sweep.raw, sweep.arms, sweep.search)


def test_points_are_spelled_as_the_search_spells_them():
    raw = minimal(search={"points": [{LEARNING: "1e-3"}]})
    assert parse_sweep(raw).search.points == [{LEARNING: 0.001}]


def test_a_searched_choice_without_a_value_is_refused():
    with pytest.raises(ValueError, match=r"arm 'warm' searches optimizer.learning_rate \(loguniform\); no value"):
        parse_sweep(minimal()).trial("warm", {}, key="k", phase="tune", seed=0)


def test_a_value_that_the_arm_does_not_search_is_refused():
    with pytest.raises(ValueError, match=r"'warm' does not search schedule.floor; it searches optimizer.learning_rate"):
        trial_of(parse_sweep(minimal()), "warm", **{LEARNING: 0.01, "schedule.floor": 0.1})


def test_a_value_that_does_not_fit_its_choice_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: got -1"):
        trial_of(parse_sweep(minimal()), "warm", **{LEARNING: -1})


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (Distribution("uniform", (0.0, 1.0)), [0, 0.5, 1], [-0.1, 1.1, True, "0.5", None]),
        (Distribution("loguniform", (0.1, 1.0)), [0.1, 1], [0.05, 2]),
        (Distribution("int", (1, 3)), [1, 2.0, 3], [1.5, 0, True]),
        (Distribution("choice", (1, "a", None, [1, 2])), [1, "a", None, (1, 2)], [True, "b", [2, 1]]),
    ],
)
def test_membership_is_what_a_search_could_have_drawn(distribution, inside, outside):
    assert all(value in distribution for value in inside)
    assert not any(value in distribution for value in outside)


@dataclass(frozen=True)
class Pool:
    """Options that a family shares."""

    weight: Positive = 1.0
    shape: tuple[Count, ...] = (3,)
    kind: Literal["lateral", "depth"] = "lateral"


@pytest.fixture
def with_family(monkeypatch):
    """A sweep over a component whose options are one dataclass."""
    room: Registry = Registry("interaction", "neuroint.modules.link")

    @room.register("pooled")
    def pooled(*, n_neurons: Fact[int], pool: Pool = Pool()) -> Pool:
        """Divide every drive by its pool."""
        return pool

    monkeypatch.setitem(SPECS, "interaction", room)
    return lambda pool: minimal(interaction={"name": "pooled", "pool": pool})


def test_options_inside_a_family_are_searched_by_dotted_path(with_family):
    raw = with_family({"weight": {"uniform": ["0.5", 1]}, "shape": {"choice": [[1], ["2"]]}, "kind": "depth"})
    sweep = parse_sweep(raw)
    assert sweep.arms["warm"].distributions == {
        "interaction.pool.weight": Distribution("uniform", (0.5, 1.0)),
        "interaction.pool.shape": Distribution("choice", ([1], [2])),
        LEARNING: Distribution("loguniform", (1e-4, 0.1)),
    }
    values = {"interaction.pool.weight": 0.75, "interaction.pool.shape": [2], LEARNING: 0.01}
    trial = trial_of(sweep, "warm", **values)
    flat = trial.flat()
    assert {path: flat[path] for path in values} == values
    assert flat["interaction.pool.kind"] == "depth"
    assert TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial
    spec = trial.specs["interaction"]
    assert SPECS["interaction"]["pooled"].build(spec.options, {"n_neurons": 2}) == Pool(0.75, (2,), "depth")


def test_a_fault_inside_a_family_names_its_place(with_family):
    assert "interaction.pool: got {'wieght': 1}: wieght: unexpected" in only_fault(with_family({"wieght": 1}))
    fault = only_fault(with_family({"weight": {"uniform": [1, 0]}}))
    assert fault.startswith("interaction.pool.weight: the range of uniform is empty")
    assert "weight: input should be greater than 0" in only_fault(with_family({"weight": {"choice": [1, -1]}}))
    assert "2.0 twice" in only_fault(with_family({"weight": {"choice": [2, "2"]}}))
