"""Read a question from a YAML file, with what the command line lays over it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from neuroint.config.parse import parse_sweep
from neuroint.config.settings import SPECS, TOP_KEYS, ConfigError, SweepConfig

SMOKE: dict[str, dict[str, Any]] = {
    "search": {"trials": 1, "reference_trials": 0, "sampler": "random", "points": []},
    "confirm": {"top": 1, "seeds": 1},
    "train": {"epochs": 1, "steps_per_epoch": 2},
}


def load_sweep(
    path: str | Path, overrides: tuple[str, ...] = (), data: str | None = None, smoke: bool = False
) -> SweepConfig:
    """Read a sweep file, apply ``a.b=c`` overrides, and check all of it.

    Args:
        path: of a YAML file whose first line asks the question.
        overrides: settings to replace; the value is YAML.
        data: replaces ``data.path``.
        smoke: shrinks the budget to one trial of one epoch of two steps per arm, and one seed.

    Raises:
        ConfigError: lists every fault found.
    """
    source = str(path)
    text = _text(path, source)
    raw = _yaml(text, source)
    if not isinstance(raw, dict):
        raise ConfigError([f"holds {type(raw).__name__}, expected a mapping with {', '.join(TOP_KEYS)}"], source)
    faults = tuple(fault for override in overrides if (fault := _override(raw, override)))
    if data is not None:
        faults += tuple(fault for fault in [_set(raw, ["data", "path"], data)] if fault)
    sweep = parse_sweep(raw, source, _question(text), faults)
    return parse_sweep(_shrunk(sweep.raw), source, sweep.question) if smoke else sweep


def _text(path: str | Path, source: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot be read: {error}; give the path of a YAML file"], source) from None


def _question(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


class _Loader(yaml.SafeLoader):
    """Reads plain data, and refuses a key that stands twice in a mapping."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value, key.start_mark) for key, _ in node.value if isinstance(key, ScalarNode)]
        for index, (tag, word, mark) in enumerate(keys):
            if (tag, word) in [known[:2] for known in keys[:index]]:
                raise yaml.MarkedYAMLError(problem=f"'{word}' stands twice; keep one", problem_mark=mark)
        return node


def _yaml(text: str, source: str) -> Any:
    """Read YAML; PyYAML lets numbers and dates that are none, and nesting without end, fail in ways of their own."""
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError([f"is not YAML: {error}"], source) from None
    finally:
        if loader is not None:
            loader.dispose()


def _override(raw: dict[str, Any], text: str) -> str | None:
    """Apply ``a.b=c`` (the value is YAML), or say what is wrong with it."""
    path, equals, value = text.partition("=")
    words = path.strip().split(".")
    if not equals or not all(words):
        return f"--set got {text!r}, expected a.b=value"
    try:
        return _set(raw, words, _yaml(value, f"--set {text!r}"))
    except ConfigError as error:
        return f"--set {text!r}: {error.faults[0]}"


def _set(raw: dict[str, Any], words: list[str], value: Any) -> str | None:
    """Put a value at a path, making what is missing on the way; ``core: linear`` becomes ``{name: linear}``."""
    tree, (*parents, last) = raw, words
    for key in parents:
        inside = tree.get(key)
        if key in SPECS and isinstance(inside, str):
            inside = {"name": inside}
        if not isinstance(inside, dict | None):
            return f"{'.'.join(words)} cannot be set: '{key}' is {inside!r}, which has no settings inside"
        tree[key] = {} if inside is None else dict(inside)  # a copy: an anchor may link it to another place
        tree = tree[key]
    tree[last] = value
    return None


def _shrunk(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the smoke budget over a checked sweep, and over what its arms say of training."""
    small = copy.deepcopy(dict(raw))
    for key, values in SMOKE.items():
        small[key] = {**(small.get(key) or {}), **values}
    for arm in small["arms"].values():
        if arm and arm.get("train"):
            arm["train"] |= SMOKE["train"]
    return small
