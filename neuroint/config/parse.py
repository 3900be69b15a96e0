"""Read a question from YAML, check every word of it at once, and turn it into configurations of trials.

A sweep file holds component specs (``core``, ``readout``, ``normalization``, ``interaction``, ``link``, ``objective``,
``optimizer``, ``schedule``), sections of plain settings, and ``arms``: each arm overrides some of these. Wherever a
choice may stand, a distribution may stand: ``{choice: [..]}``, ``{uniform: [lo, hi]}``, ``{loguniform: [lo, hi]}``,
``{int: [lo, hi]}``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from neuroint import registry
from neuroint.config.settings import (
    ARM_SECTIONS,
    DISTRIBUTIONS,
    SECTIONS,
    SPEC_DEFAULTS,
    SPECS,
    TOP_KEYS,
    Arm,
    ConfigError,
    Distribution,
    ScoreConfig,
    SearchConfig,
    SweepConfig,
    section,
)
from neuroint.registry import Component, nearest


def load_sweep(
    path: str | Path, overrides: tuple[str, ...] = (), data: str | None = None, smoke: bool = False
) -> SweepConfig:
    """Read a sweep file, apply ``a.b=c`` overrides, and check all of it.

    ``smoke`` shrinks the budget to one trial of one epoch of two steps per arm, and one seed.

    Raises:
        ConfigError: lists every fault found.
    """
    source = str(path)
    try:
        text = Path(path).read_text()
        raw = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"cannot be read: {error}; give the path of a YAML file"], source) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"is not YAML: {error}"], source) from None
    if not isinstance(raw, dict):
        raise ConfigError([f"holds {type(raw).__name__}, expected a mapping with {', '.join(TOP_KEYS)}"], source)
    faults = [fault for text in overrides if (fault := _override(raw, text))]
    if data is not None and isinstance(raw.setdefault("data", {}), dict):
        raw["data"]["path"] = data
    if faults:
        raise ConfigError(faults, source)
    if smoke:
        _shrink(raw)
    first = text.split("\n", 1)[0]
    return parse_sweep(raw, source, first.removeprefix("#").strip() if first.startswith("#") else "")


def parse_sweep(raw: Mapping[str, Any], source: str = "configuration", question: str = "") -> SweepConfig:
    """Check a sweep given as plain data; nothing handed in is changed.

    Raises:
        ConfigError: lists every fault found.
    """
    raw = copy.deepcopy(dict(raw))
    faults = [f"'{key}' is not a setting.{nearest(str(key), TOP_KEYS)}" for key in raw if key not in TOP_KEYS]
    base = {key: _spec(raw.get(key, default), key, faults) for key, default in SPEC_DEFAULTS.items()}
    base |= {key: _mapping(raw.get(key), key, faults) for key in ARM_SECTIONS}
    arms = _arms(raw, base, faults)
    sections = {}
    for key in ("data", "search", "confirm", "score", "resources"):
        options, found = section(key).validate(_mapping(raw.get(key), key, faults))
        faults += [f"{key}.{fault}" for fault in found]
        sections[key] = options
    faults += _wider_faults(raw, arms, sections)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)), source)
    made = {key: SECTIONS[key](**options) for key, options in sections.items()}
    return SweepConfig(raw["name"], raw.get("seed", 0), raw["reference"], arms, raw=raw, question=question, **made)


def _arms(raw: Mapping[str, Any], base: dict[str, Any], faults: list[str]) -> dict[str, Arm]:
    declared = raw.get("arms")
    if not isinstance(declared, dict) or not declared:
        faults.append(f"arms: got {declared!r}, expected a mapping from each arm's name to what it sets")
        return {}
    arms = {}
    for name, overrides in declared.items():
        found: list[str] = []
        tree = _merge(base, overrides, found)
        if not found:
            tree = _check_tree(tree, found)
        if not overrides and name != raw.get("reference"):
            found.append("sets nothing, so it is the reference arm again; give it a choice of its own or remove it")
        faults += [f"arms.{name}: {fault}" for fault in found]
        arms[str(name)] = Arm(str(name), tree)
    return arms


def _merge(base: Mapping[str, Any], overrides: Any, faults: list[str]) -> dict[str, Any]:
    """Lay an arm's words over the base; a spec of another name replaces the base's spec whole."""
    tree = copy.deepcopy(dict(base))
    for key, value in (_mapping(overrides, "", faults)).items():
        if key in SPECS:
            spec = _spec(value, key, faults, tree[key].get("name"))
            same = spec.get("name") == tree[key].get("name")
            tree[key] = {**tree[key], **spec} if same else spec
        elif key in ARM_SECTIONS:
            tree[key] = {**tree[key], **_mapping(value, key, faults)}
        else:
            known = (*SPECS, *ARM_SECTIONS)
            faults.append(f"'{key}' cannot be set by an arm.{nearest(str(key), known)} An arm sets: {', '.join(known)}")
    return tree


def _spec(value: Any, key: str, faults: list[str], default: str | None = None) -> dict[str, Any]:
    """Read ``name`` or ``{name: .., option: ..}``; without a name the options belong to the base's component."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and isinstance(value.get("name", default or SPEC_DEFAULTS[key]), str):
        return {"name": default or SPEC_DEFAULTS[key], **value}
    faults.append(f"{key}: got {value!r}, expected a name or a mapping with a name, such as {SPEC_DEFAULTS[key]}")
    return {"name": SPEC_DEFAULTS[key]}


def _mapping(value: Any, key: str, faults: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return dict(value)
    faults.append(f"{key + ': ' if key else ''}got {value!r}, expected a mapping of settings")
    return {}


def _check_tree(tree: dict[str, Any], faults: list[str]) -> dict[str, Any]:
    """Parse distributions and check every option against the signature that will receive it."""
    checked = {}
    for key, options in tree.items():
        name = options.get("name")
        try:
            component = SPECS[key][name] if key in SPECS else section(key)
        except registry.UnknownNameError as error:
            faults.append(f"{key}: {error}")
            continue
        body = {k: v for k, v in options.items() if not (key in SPECS and k == "name")}
        parsed = {option: _parse(f"{key}.{option}", value, faults) for option, value in body.items()}
        for option, value in parsed.items():
            faults += [f"{key}.{fault}" for fault in _option_faults(component, option, value)]
        checked[key] = ({"name": name} if key in SPECS else {}) | parsed
    return checked


def _option_faults(component: Component[Any], option: str, value: Any) -> Iterator[str]:
    for corner in value.corners() if isinstance(value, Distribution) else (value,):
        yield from component.validate({option: corner})[1]


def _parse(path: str, value: Any, faults: list[str]) -> Any:
    """Turn ``{uniform: [lo, hi]}`` into a ``Distribution``; leave everything else as it is."""
    if not (isinstance(value, dict) and len(value) == 1 and next(iter(value)) in DISTRIBUTIONS):
        return value
    kind, values = next(iter(value.items()))
    if kind == "choice":
        if not isinstance(values, list) or not values:
            faults.append(f"{path}: choice got {values!r}, expected a list with at least one value")
            return None
        return Distribution(kind, tuple(values))
    try:
        low, high = (float(v) for v in values)
    except (TypeError, ValueError):
        faults.append(f"{path}: {kind} got {values!r}, expected two numbers [low, high]")
        return None
    if not low < high or (kind == "loguniform" and low <= 0):
        floor = "0 < low < high" if kind == "loguniform" else "low < high"
        faults.append(f"{path}: the range of {kind} is empty; expected {floor}, got low={low:g}, high={high:g}")
        return None
    cast = int if kind == "int" else float
    return Distribution(kind, (cast(low), cast(high)))


def _wider_faults(raw: Mapping[str, Any], arms: Mapping[str, Arm], sections: Mapping[str, Any]) -> Iterator[str]:
    """Faults that concern more than one setting."""
    if not isinstance(raw.get("name"), str) or not raw["name"].replace("_", "").replace("-", "").isalnum():
        yield f"name: got {raw.get('name')!r}, expected letters, digits, '-' and '_'; it names the results folder"
    if not isinstance(raw.get("seed", 0), int) or isinstance(raw.get("seed", 0), bool):
        yield f"seed: got {raw.get('seed')!r}, expected a whole number"
    if raw.get("reference") not in arms:
        known = ", ".join(arms) or "none"
        hint = nearest(str(raw.get("reference")), arms)
        yield f"reference: got {raw.get('reference')!r}, expected the name of an arm.{hint} Arms: {known}"
    search = sections["search"]
    sampler = search.get("sampler", SearchConfig.sampler)
    if sampler not in registry.samplers:
        yield f"search.sampler: '{sampler}' is not known. Registered: {', '.join(registry.samplers.names())}"
    metric = sections["score"].get("metric", ScoreConfig.metric)
    if metric not in registry.metrics:
        yield f"score.metric: '{metric}' is not a registered metric.{nearest(metric, registry.metrics.names())}"
    reader = sections["data"].get("reader", "auto")
    if reader != "auto" and reader not in registry.readers:
        yield f"data.reader: '{reader}' is not known. Registered: auto, {', '.join(registry.readers.names())}"
    yield from _budget_faults(arms, search, sampler)


def _budget_faults(arms: Mapping[str, Arm], search: Mapping[str, Any], sampler: str) -> Iterator[str]:
    trials = search.get("trials", SearchConfig.trials)
    for name, arm in arms.items():
        if trials > 1 and not arm.distributions:
            yield (
                f"arms.{name}: has no parameters to search, but search.trials is {trials}; give it a distribution "
                "such as optimizer: {learning_rate: {loguniform: [0.0001, 0.01]}}, or set search.trials: 1"
            )
        for path, distribution in arm.distributions.items():
            if sampler == "grid" and distribution.kind != "choice":
                yield f"arms.{name}: {path} is {distribution.kind}; the grid sampler needs {{choice: [..]}}"


def _override(raw: dict[str, Any], text: str) -> str | None:
    """Apply ``a.b=c`` (the value is YAML), or say what is wrong with it."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        return f"--set got {text!r}, expected a.b=value"
    tree = raw
    *parents, last = path.split(".")
    for key in parents:
        if isinstance(tree.get(key), str):
            tree[key] = {"name": tree[key]}
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            return f"--set {text!r}: '{key}' is {tree!r}, which has no settings inside"
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        return f"--set {text!r}: the value is not YAML: {error}"
    return None


SMOKE: dict[str, dict[str, Any]] = {
    "search": {"trials": 1, "reference_trials": 0, "sampler": "random"},
    "confirm": {"top": 1, "seeds": 1},
    "train": {"epochs": 1, "steps_per_epoch": 2},
}


def _shrink(raw: dict[str, Any]) -> None:
    """Lay the smoke budget over a sweep and over whatever its arms say of training."""
    arms = raw.get("arms")
    for tree in (raw, *(arm for arm in (arms.values() if isinstance(arms, dict) else ()) if isinstance(arm, dict))):
        for key, values in SMOKE.items():
            present = tree.get(key)
            if tree is raw or isinstance(present, dict):
                tree[key] = {**(present if isinstance(present, dict) else {}), **values}
