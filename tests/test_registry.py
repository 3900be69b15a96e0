"""A component's signature is its schema: facts come from the data, choices from YAML."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from neuroint.registry import (
    BelowOne,
    Count,
    Fact,
    Fraction,
    MissingFactError,
    Positive,
    Registry,
    UnknownNameError,
    nearest,
    split_signature,
)


@dataclass(frozen=True)
class Kernel:
    """A family's options."""

    width: Count = 5
    decay: Positive = 0.5


@dataclass(frozen=True)
class Family:
    """Options shared by a family."""

    rate: Fraction = 0.5
    mode: Literal["rates", "spikes"] = "rates"
    kernel: Kernel = Kernel()


def blur(
    n_neurons: Fact[int],
    *,
    positions_um: Fact[list] | None = None,
    width: Count = 3,
    rate: Positive = 1e-2,
    mode: Literal["lateral", "depth"] = "lateral",
    sparse: bool = False,
    channels: tuple[Count, ...] = (8,),
    family: Family = Family(),
) -> dict:
    """Blur every neuron's drive over its neighbors."""
    return {"n_neurons": n_neurons, "positions_um": positions_um, "rate": rate, "width": width, "family": family}


@pytest.fixture
def room(tmp_path, monkeypatch) -> Registry:
    """An empty registry whose home is a package of one test."""
    home = tmp_path / "isolated_room"
    home.mkdir()
    (home / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("blur", "isolated_room")
    for name in [name for name in sys.modules if name.split(".")[0] == "isolated_room"]:
        del sys.modules[name]


@pytest.fixture
def component(room):
    room.register("blur")(blur)
    return room["blur"]


def test_a_signature_is_split_into_facts_and_choices(component):
    assert component.facts == {"n_neurons": True, "positions_um": False}
    assert list(component.choices) == ["width", "rate", "mode", "sparse", "channels", "family"]
    assert component.choices["width"].default == 3
    assert component.summary == "Blur every neuron's drive over its neighbors."


def test_a_fact_is_found_under_a_union_and_around_one():
    def f(*, a: Fact[int] | None = None, b: Fact[int | None] = None, c: Annotated[int, Field(ge=1)] = 1) -> None:
        """Do nothing."""

    facts, choices = split_signature("blur", "f", f)
    assert facts == {"a": False, "b": False}
    assert list(choices) == ["c"]


def test_a_fact_that_may_be_absent_needs_a_default():
    def f(*, a: Fact[int | None]) -> None:
        """Do nothing."""

    with pytest.raises(ValueError, match="fact 'a' may be absent, so give it the default None"):
        split_signature("blur", "f", f)


def test_a_fact_whose_parts_may_be_none_must_still_be_there():
    def f(*, a: Fact[tuple[int | None, ...]]) -> None:
        """Do nothing."""

    assert split_signature("blur", "f", f)[0] == {"a": True}


def test_a_class_is_split_by_its_constructor(room):
    @room.register("sharpen")
    class Sharpen:
        """Sharpen every drive."""

        def __init__(self, *, n_neurons: Fact[int], gain: Positive = 2.0) -> None:
            self.gain = gain

    assert room["sharpen"].facts == {"n_neurons": True}
    assert room["sharpen"].build({"gain": "3"}, {"n_neurons": 4}).gain == 3.0


def test_a_component_that_builds_another_is_given_every_fact(room):
    @room.register("frame")
    def frame(*, n_neurons: Fact[int], of: str = "blur", **facts: Fact[Any]) -> dict:
        """Frame what another one does."""
        return {"n_neurons": n_neurons, **facts}

    @room.register("plain")
    def plain(*, width: Count = 3, **others: int) -> dict:
        """Take keywords of its own."""
        return others

    assert room["frame"].facts == {"n_neurons": True}
    assert list(room["frame"].choices) == ["of"]
    assert room["frame"].build({}, {"n_neurons": 4, "bin_s": 0.1, "positions_um": None}) == {
        "n_neurons": 4,
        "bin_s": 0.1,
    }
    assert room["plain"].build({}, {"n_neurons": 4}) == {}


def test_a_component_without_docstring_is_refused(room):
    with pytest.raises(ValueError, match="blur 'bare' has no docstring"):
        room.register("bare")(lambda: None)


def test_a_name_that_is_taken_is_refused(component, room):
    with pytest.raises(ValueError, match="blur 'blur' is registered already; give the new one another name"):
        room.register("blur")(blur)


@pytest.mark.parametrize("name", ["Blur", "blur-2", "2blur", "", "a.b"])
def test_a_name_that_is_not_snake_case_is_refused(room, name):
    with pytest.raises(ValueError, match="is not snake_case"):
        room.register(name)(blur)


def test_a_choice_without_default_or_annotation_is_refused():
    def no_default(*, width: int) -> None: ...
    def no_annotation(*, width=3) -> None: ...

    for f in (no_default, no_annotation):
        with pytest.raises(ValueError, match="choice 'width' needs an annotation and a default"):
            split_signature("blur", "f", f)


def test_an_unknown_name_is_answered_with_the_nearest(component, room):
    with pytest.raises(
        UnknownNameError, match=r"'blurr' is not a registered blur. Did you mean 'blur'\? Registered: blur"
    ):
        room["blurr"]
    assert "blur" in room
    assert "blurr" not in room


def test_nearest_says_nothing_when_nothing_is_near():
    assert nearest("attention", ["attentoin", "none"]) == " Did you mean 'attentoin'?"
    assert nearest("xyz", ["attention"]) == ""


def test_numbers_are_coerced_and_what_is_handed_in_stays(component):
    options = {"rate": "1e-3", "width": 4.0, "channels": [8, "16"]}
    coerced, faults = component.validate(options)
    assert faults == []
    assert coerced == {"rate": 0.001, "width": 4, "channels": (8, 16)}
    assert options == {"rate": "1e-3", "width": 4.0, "channels": [8, "16"]}


def test_every_fault_of_the_options_is_listed(component):
    _, faults = component.validate({"widht": 3, "n_neurons": 5, "rate": -1, "mode": "latral"})
    assert faults == [
        "'widht' is not a choice of blur 'blur'. Did you mean 'width'? Choices: width, rate, mode, sparse, channels, "
        "family",
        "n_neurons is measured from the data; remove it from the YAML",
        "rate: got -1: input should be greater than 0",
        "mode: got 'latral': input should be 'lateral' or 'depth'. Did you mean 'lateral'?",
    ]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("rate", float("nan"), "finite number"),
        ("rate", "inf", "finite number"),
        ("rate", True, r"expected a number \(YAML reads on/off/yes/no as true/false"),
        ("width", True, "expected a number"),
        ("width", 1.5, "fractional part"),
        ("width", "three", "valid integer"),
        ("sparse", 1, "expected true or false"),
        ("sparse", "yes", "expected true or false"),
        ("mode", False, "quote the word"),
        ("channels", [8, True], "1: expected a number"),
        ("channels", 8, "valid tuple"),
        ("family", {"rate": float("inf")}, "rate: input should be a finite number"),
        ("family", {"rte": 0.5}, "rte: unexpected keyword argument"),
        ("family", {"kernel": {"width": True}}, "kernel: width: expected a number"),
        ("family", 3, "dictionary"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(component, key, value, reason):
    with pytest.raises(ValueError, match=reason):
        component.choices[key].coerce(value)


def test_options_of_a_family_are_one_frozen_dataclass(component):
    built = component.build({"family": {"rate": "1e-1", "kernel": {"width": 7}}}, {"n_neurons": 2})
    assert built["family"] == Family(rate=0.1, kernel=Kernel(width=7))


def test_a_decay_of_one_is_refused():
    def f(*, decay: BelowOne = 0.9) -> None: ...

    choice = split_signature("blur", "f", f)[1]["decay"]
    assert choice.coerce(0.0) == 0.0
    with pytest.raises(ValueError, match="less than 1"):
        choice.coerce(1.0)


def test_a_component_is_built_from_choices_and_the_facts_it_asks_for(component):
    built = component.build({"rate": 2}, {"n_neurons": 7, "positions_um": None, "bin_s": 0.1})
    assert built == {"n_neurons": 7, "positions_um": None, "rate": 2.0, "width": 3, "family": Family()}


def test_a_missing_fact_is_named(component):
    with pytest.raises(
        MissingFactError,
        match="blur 'blur' needs n_neurons, which the data does not have; supply it or choose another blur",
    ):
        component.build({}, {"n_neurons": None})


def test_bad_options_are_refused_when_building(component):
    with pytest.raises(ValueError, match="blur 'blur': width: got 0"):
        component.build({"width": 0}, {"n_neurons": 3})


PLUGIN = '''
from isolated_registry import room

@room.register("out_of_tree")
def out_of_tree(*, gain: float = 1.0):
    """Scale every drive by a constant."""
'''


LOOK = """
import sys
from neuroint.registry import Registry

isolated = type(sys)("isolated_registry")
isolated.room = room = Registry("blur", "isolated_registry")
sys.modules["isolated_registry"] = isolated
for _ in range(2):  # the second look must not find a room that is merely empty
    try:
        print(room.names(), room["out_of_tree"].summary)
    except ImportError as error:
        print(error)
"""


def seen_with(folder, code: str) -> list[str]:
    """What a process of its own finds twice, with a distribution and its entry point on the path as pip puts them."""
    info = folder / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[neuroint.blur]\nout_of_tree = plugin_of_a_test:out_of_tree\n")
    (folder / "plugin_of_a_test.py").write_text(code)
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_component_of_another_package_comes_in_by_entry_point(tmp_path):
    assert seen_with(tmp_path, PLUGIN) == ["['out_of_tree'] Scale every drive by a constant."] * 2


def test_a_package_that_cannot_be_imported_is_named(tmp_path):
    first, second = seen_with(tmp_path, "raise RuntimeError('no card')")
    assert first == second
    assert re.search(r"blur 'out_of_tree' of the package 'plugin' cannot be imported .*no card", first)


def test_every_file_of_a_room_is_imported_once(tmp_path, monkeypatch, room):
    monkeypatch.setitem(sys.modules, "isolated_registry", registry := type(sys)("isolated_registry"))
    registry.room = room
    code = "from isolated_registry import room\n@room.register('{0}')\ndef {0}():\n    'Do {0}.'\n"
    for name in ("first", "second"):
        (tmp_path / "isolated_room" / f"{name}.py").write_text(code.format(name))
    assert room.names() == ["first", "second"]
    assert room.names() == ["first", "second"]
