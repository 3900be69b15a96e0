"""Whatever a file holds, it becomes a sweep or one ConfigError; never another exception, and never a change of it."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings

from neuroint import registry
from neuroint.config import ConfigError, SweepConfig, TrialConfig, dump, load_sweep, parse_sweep
from neuroint.config.settings import SPECS, TOP_KEYS
from neuroint.config.space import DISTRIBUTIONS

VALID: dict[str, Any] = {
    "name": "fuzzed",
    "seed": 1,
    "core": {"name": "conv3d", "channels": {"choice": [[8, 16], [16, 32]]}},
    "readout": "linear",
    "optimizer": {"name": "adamw", "learning_rate": {"loguniform": ["1e-4", 0.1]}, "beta_1": {"uniform": [0.5, 0.9]}},
    "train": {"epochs": {"int": [2, 5]}, "frames": 40, "ema": None, "precision": "float32"},
    "init": {"core": "trained"},
    "data": {"path": "x", "reader": "sensorium2023", "options": {"split_seed": 1}, "sessions": ["a"]},
    "search": {"trials": 3, "sampler": "tpe", "points": [{"optimizer.learning_rate": "1e-3", "train.epochs": 3}]},
    "score": {"metric": "feve", "alpha": 0.05},
    "resources": {"workers": 2},
    "reference": "none",
    "arms": {
        "none": {},
        "attention": {"interaction": {"name": "attention", "heads": {"choice": [1, 2]}}},
        "cosine": {"schedule": {"name": "cosine", "floor": {"uniform": [0, 0.5]}}, "train": {"epochs": 3}},
    },
}
WORDS = [
    *TOP_KEYS, *DISTRIBUTIONS, "name", "none", "adamw", "linear", "learning_rate", "epochs", "points", "options",
    "trials", "n_neurons", "mapping", "responses", "bin_s", "optimizer.learning_rate", "", "a b", "1e-3", "nan",
    "inf", "\0", "é",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**63, 10**400, 1e308, 5e-324])
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=4)
    | st.dates()
    | st.binary(max_size=2)
)
keys = st.sampled_from(WORDS) | scalars
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
quick = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything inside nested data."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))]


@st.composite
def mutated(draw: Any) -> dict[Any, Any]:
    """A valid sweep with one to three places replaced, removed or added to."""
    tree = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from([place for place in places(tree) if place]))
        holder: Any = tree
        for key in parents:
            holder = holder[key]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "remove":
            del holder[last]
        elif how == "add" and isinstance(holder, dict):
            holder[draw(keys)] = draw(values)
        else:
            holder[last] = draw(values)
    return tree


def same(a: Any, b: Any) -> bool:
    """Equality that knows NaN."""
    return repr(a) == repr(b)


def check(raw: dict[Any, Any]) -> None:
    before = copy.deepcopy(raw)
    faults = []
    try:
        sweep = parse_sweep(raw)
    except ConfigError as error:
        faults = error.faults
    else:
        use(sweep)
    assert all(isinstance(fault, str) and fault for fault in faults)
    assert len(set(faults)) == len(faults)
    assert same(raw, before)


def use(sweep: SweepConfig) -> None:
    """Whatever is accepted can be resolved at every corner, written and read."""
    for name, arm in sweep.arms.items():
        found = arm.distributions
        for pick in (0, -1):
            point = {path: one.corners()[pick] for path, one in found.items()}
            trial = sweep.trial(name, point, key="k", phase="plan", seed=0)
            assert TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial
            flat = trial.flat()
            assert all(flat[path] in one for path, one in found.items())
    assert same(yaml.safe_load(dump(sweep)), sweep.raw)


def test_the_valid_sweep_is_valid():
    use(parse_sweep(VALID))


@quick
@given(st.dictionaries(keys, values, max_size=4))
def test_arbitrary_data_is_a_sweep_or_a_config_error(raw):
    check(raw)


@quick
@given(st.dictionaries(st.sampled_from(TOP_KEYS), values, max_size=6))
def test_arbitrary_settings_are_a_sweep_or_a_config_error(raw):
    check({**VALID, **raw})


@quick
@given(mutated())
def test_a_mutated_sweep_is_a_sweep_or_a_config_error(raw):
    check(raw)


COMPONENTS = [(slot, name) for slot, room in SPECS.items() for name in room.names()]


@quick
@given(st.data())
def test_every_choice_takes_a_value_or_names_the_fault(data):
    slot, name = data.draw(st.sampled_from(COMPONENTS))
    option = data.draw(st.sampled_from([*SPECS[slot][name].choices, "nothing"]))
    check({**VALID, slot: {"name": name, option: data.draw(values)}})


@quick
@given(st.sampled_from(registry.readers.names()), st.dictionaries(keys, values, max_size=3))
@example("arrays", {"mapping": {"responses": "r", "bin_s": 2**62}})
@example("arrays", {"mapping": "\0"})
def test_every_reader_takes_its_options_or_names_the_fault(reader, options):
    check({**VALID, "data": {"reader": reader, "options": options}})


@quick
@given(st.text(alphabet="abc:-[]{}&*!#?|>'\"\n 01.eE%@`\t,~", max_size=60))
def test_arbitrary_text_is_a_sweep_or_a_config_error(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load_sweep(file)


@quick
@given(st.text(alphabet="abc.=:-[]{} 01\n", max_size=12) | st.builds("{}={}".format, st.sampled_from(WORDS), st.text()))
def test_an_arbitrary_override_is_applied_or_named(tmp_path_factory, override):
    file = tmp_path_factory.getbasetemp() / "valid.yaml"
    if not file.exists():
        file.write_text(yaml.safe_dump(VALID), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        use(load_sweep(file, overrides=(override,)))
