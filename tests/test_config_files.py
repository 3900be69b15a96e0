"""Files, overrides and smoke tests of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from config_examples import LEARNING, minimal, trial_of, written

from neuroint.config import ConfigError, Distribution, dump, load_sweep


def file_of(folder: Path, **changes: Any) -> Path:
    return written(folder, "# Does it warm up?\n" + yaml.safe_dump(minimal(**changes), sort_keys=False))


def file_fault(file: Path, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_sweep(file, **arguments)
    assert str(file) in str(caught.value)
    assert len(caught.value.faults) == 1, caught.value.faults
    return caught.value.faults[0]


def test_the_first_line_asks_the_question(tmp_path):
    assert load_sweep(file_of(tmp_path)).question == "Does it warm up?"
    assert load_sweep(written(tmp_path, yaml.safe_dump(minimal()))).question == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML: "),
        ("", "holds NoneType, expected a mapping with name, seed, "),
        ("- a", "holds list, expected a mapping"),
        ("name: a\nname: b", "'name' stands twice; keep one"),
        ("arms:\n  a: {}\n  b: {}\n  a: {}", "'a' stands twice; keep one\n  in \"<unicode string>\", line 4"),
        ("a: " + "[" * 3000, "is not YAML: "),
        ("a: 2024-13-45", "is not YAML: "),
        ("a: !!timestamp x", "is not YAML: "),
        ("a: !!python/object:os.system {}", "is not YAML: could not determine a constructor"),
        ("? [a]\n: b", "is not YAML: "),
        ("a: \0", "is not YAML: "),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path, text, message):
    assert message in file_fault(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert "cannot be read: " in file_fault(tmp_path / "absent.yaml")
    assert "give the path of a YAML file" in file_fault(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    assert "cannot be read: " in file_fault(tmp_path / "latin.yaml")


def test_an_anchor_that_holds_itself_is_refused(tmp_path):
    text = yaml.safe_dump(minimal()) + "data: {options: &o {again: *o}}\n"
    assert "is nested deeper than 32 levels; an anchor may hold itself" in file_fault(written(tmp_path, text))


def test_anchors_and_merges_are_fine(tmp_path):
    text = """
        name: small
        core: constant
        optimizer: {learning_rate: {loguniform: [0.001, 0.1]}}
        reference: a
        arms:
          a: {train: &t {epochs: 3, patience: 2}}
          b: {train: {<<: *t, epochs: 4}}
    """
    sweep = load_sweep(written(tmp_path, text))
    assert sweep.arms["b"].tree["train"] == {"epochs": 4, "patience": 2}


def test_overrides_set_change_and_create(tmp_path):
    sets = (
        "train.epochs=3",
        "score.alpha=1e-2",
        "core=linear",
        "core.lags=3",
        "arms.cosine.schedule.floor=0.25",
        "optimizer.learning_rate={uniform: [0.1, 0.2]}",
        "arms.slow={optimizer: {weight_decay: 0.5}}",
    )
    sweep = load_sweep(file_of(tmp_path), overrides=sets)
    trial = trial_of(sweep, "cosine", **{LEARNING: 0.15})
    assert trial.train.epochs == 3
    assert sweep.score.alpha == 0.01
    assert trial.specs["core"].options == {"lags": 3}
    assert trial.specs["schedule"].name == "cosine"
    assert trial.specs["schedule"].options == {"floor": 0.25}
    assert sweep.arms["slow"].distributions[LEARNING] == Distribution("uniform", (0.1, 0.2))
    assert sweep.raw["core"] == {"name": "linear", "lags": 3}


def test_an_override_into_an_anchor_changes_one_place_only(tmp_path):
    base = {key: value for key, value in minimal().items() if key != "arms"}
    text = yaml.safe_dump(base) + "arms: {warm: {train: &t {epochs: 3}}, cosine: {schedule: cosine, train: *t}}"
    sweep = load_sweep(written(tmp_path, text), ("arms.warm.train.epochs=9",))
    assert [sweep.arms[arm].tree["train"] for arm in ("warm", "cosine")] == [{"epochs": 9}, {"epochs": 3}]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set got 'train.epochs', expected a.b=value"),
        ("=3", "--set got '=3', expected a.b=value"),
        ("train..epochs=3", "--set got 'train..epochs=3', expected a.b=value"),
        ("train.epochs=[", "--set 'train.epochs=[': is not YAML: "),
        ("name.x=3", "name.x cannot be set: 'name' is 'small', which has no settings inside"),
        ("trian.epochs=3", "'trian' is not a setting. Did you mean 'train'?"),
        ("train.epochs=0", "train.epochs: got 0: input should be greater than or equal to 1"),
    ],
)
def test_an_override_that_cannot_be_applied_is_refused(tmp_path, override, message):
    assert message in file_fault(file_of(tmp_path), overrides=(override,))


def test_faults_of_overrides_and_of_the_file_are_listed_together(tmp_path):
    with pytest.raises(ConfigError, match=r"2 fault\(s\)\n  - --set got 'x'.*\n  - seed: got -1"):
        load_sweep(file_of(tmp_path, seed=-1), overrides=("x",))


@pytest.mark.parametrize("section", [{}, {"data": None}, {"data": {"path": "old", "reader": "arrays"}}])
def test_data_replaces_the_path(tmp_path, section):
    sweep = load_sweep(file_of(tmp_path, **section), data="new/folder")
    assert sweep.data.path == "new/folder"
    assert sweep.data.reader == (section.get("data") or {}).get("reader", "auto")


def test_data_that_is_no_section_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.path cannot be set: 'data' is 5"):
        load_sweep(file_of(tmp_path, data=5), data="x")


def test_smoke_is_one_short_trial_per_arm(tmp_path):
    file = file_of(
        tmp_path,
        train={"epochs": {"int": [5, 9]}, "frames": 40},
        search={"trials": 30, "reference_trials": 5, "points": [{"train.epochs": 7}]},
        confirm={"top": 3, "seeds": 5},
        arms={"warm": {}, "long": {"train": {"epochs": 50}}, "cosine": {"schedule": "cosine", "train": None}},
    )
    sweep = load_sweep(file, smoke=True)
    assert (sweep.search.trials, sweep.search.reference_trials, sweep.search.points) == (1, 0, [])
    assert (sweep.confirm.top, sweep.confirm.seeds) == (1, 1)
    for arm in sweep.arms:
        train = trial_of(sweep, arm).train
        assert (train.epochs, train.steps_per_epoch, train.frames) == (1, 2, 40)
    again = load_sweep(written(tmp_path, dump(sweep)))
    assert (again.raw, again.arms) == (sweep.raw, sweep.arms)


def test_smoke_hides_no_fault(tmp_path):
    assert "search: got 5" in file_fault(file_of(tmp_path, search=5), smoke=True)
    assert "train.epochs: got 0" in file_fault(file_of(tmp_path, train={"epochs": 0}), smoke=True)
