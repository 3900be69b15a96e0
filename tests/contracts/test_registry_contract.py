"""What every registered component owes: a name, a sentence, and defaults that its own schema accepts."""

import re

import pytest

from neuroint import registry

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
