"""What every registered component owes: a name, a sentence, and defaults that its own schema accepts."""

import inspect
import re

import pytest
from typer.testing import CliRunner

from neuroint import registry
from neuroint.cli import app

REGISTRIES = {key: value for key, value in vars(registry).items() if isinstance(value, registry.Registry)}
ENTRIES = [(key, name) for key, room in REGISTRIES.items() for name in room.names()]


@pytest.fixture(params=ENTRIES, ids=lambda entry: "/".join(entry))
def component(request):
    key, name = request.param
    return REGISTRIES[key][name]


def test_every_room_has_members():
    assert len(REGISTRIES) == 12
    assert [key for key, room in REGISTRIES.items() if not room.names()] == []


def test_the_name_is_snake_case(component):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", component.name)


def test_the_first_docstring_line_is_a_sentence_on_what_is_done_to_the_data(component):
    line = component.summary
    assert len(line) <= 120
    assert re.match(r"[A-Z]", line), "starts with a capital letter"
    assert line.endswith("."), "ends with a full stop"
    assert len(line.split()) >= 4, "is a sentence"


def test_every_default_is_what_its_own_annotation_makes_of_it(component):
    for key, choice in component.choices.items():
        coerced = choice.coerce(choice.default)
        assert coerced == choice.default, key
        assert type(coerced) is type(choice.default), f"{key}: write the default as {coerced!r}"


def test_no_choice_has_the_name_of_a_fact_of_the_data(component):
    from neuroint.data.base import Facts

    measured = set(Facts.__dataclass_fields__)
    assert measured.isdisjoint(component.choices)


def test_defaults_survive_being_written_as_plain_data(component):
    from neuroint.config.space import plain

    for key, choice in component.choices.items():
        assert choice.coerce(plain(choice.default)) == choice.default, key


def listed(kind: str) -> dict[str, tuple[str, dict[str, str]]]:
    """First line and choices of every component, as ``neuroint list`` prints them."""
    done = CliRunner().invoke(app, ["list", kind], env={"COLUMNS": "1000"})
    assert done.exit_code == 0, done.output
    title, *entries = re.split(r"^  (?=\S)", done.stdout, flags=re.MULTILINE)
    assert title.strip() == kind
    found = {}
    for head, *choices in map(str.splitlines, entries):
        name, line = head.split(maxsplit=1)
        found[name] = (line, dict(choice.strip().split(" = ", 1) for choice in choices))
    return found


def written(factory: object) -> tuple[str, dict[str, str]]:
    """First line and choices of a component, read off its source: keywords that are no facts."""
    keywords = [p for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]
    choices = {p.name: repr(p.default) for p in keywords if not re.search(r"Fact\[|_FactMark", str(p.annotation))}
    return (factory.__doc__ or "").strip().splitlines()[0], choices


@pytest.mark.parametrize("kind", REGISTRIES)
def test_list_shows_the_sentence_and_every_choice_with_its_default_of_every_component(kind):
    room = REGISTRIES[kind]
    assert listed(kind) == {name: written(room[name].factory) for name in room.names()}
