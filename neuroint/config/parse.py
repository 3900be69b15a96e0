"""Check every word of a sweep at once, and turn it into configurations of trials.

A sweep holds component specs (``core``, ``readout``, ``normalization``, ``interaction``, ``link``, ``objective``,
``optimizer``, ``schedule``), sections of plain settings, and ``arms``: each arm overrides some of these. Wherever a
component's choice or a setting of ``train`` and ``init`` may stand, a distribution may stand: ``{choice: [..]}``,
``{uniform: [lo, hi]}``, ``{loguniform: [lo, hi]}``, ``{int: [lo, hi]}``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from neuroint import registry
from neuroint.config.settings import (
    ARM_SECTIONS,
    SECTIONS,
    SPEC_DEFAULTS,
    SPECS,
    TOP_KEYS,
    Arm,
    ConfigError,
    DataConfig,
    ScoreConfig,
    SearchConfig,
    SweepConfig,
    receiver,
    section,
)
from neuroint.config.space import check_option, is_written
from neuroint.config.tidy import tidy
from neuroint.metrics.scoring import needs_positive_rates, ranks_models
from neuroint.registry import Registry, UnknownNameError, nearest

SETTABLE = (*SPECS, *ARM_SECTIONS)
FIXED_SECTIONS = tuple(key for key in SECTIONS if key not in ARM_SECTIONS)
HALF = 0.5  # from here on two one-sided tests say nothing
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def parse_sweep(
    raw: Mapping[Any, Any], source: str = "configuration", question: str = "", faults: tuple[str, ...] = ()
) -> SweepConfig:
    """Check a sweep given as plain data; nothing handed in is changed.

    Args:
        raw: what a YAML file holds.
        source: where it comes from, for messages.
        question: what the sweep asks.
        faults: found before, to be listed with the others.

    Raises:
        ConfigError: lists every fault found.
    """
    found = list(faults)
    raw = tidy(raw, found)
    found += [f"'{key}' is not a setting.{nearest(key, TOP_KEYS)}" for key in raw if key not in TOP_KEYS]
    arms, sound = _arms(raw, found)
    sections = {key: _fixed_section(key, raw.get(key), found) for key in FIXED_SECTIONS}
    found += _identity_faults(raw, arms)
    found += _name_faults(sections)
    found += _link_faults(sound, sections["score"].get("metric", ScoreConfig.metric))
    found += _resource_faults(sections["resources"])
    found += _budget_faults(sound, sections["search"], raw.get("reference"))
    if len(sound) == len(arms):
        search = sections["search"]
        search["points"] = _points(arms, search.get("points", []), found)
        found += _reach_faults(arms, search, search["points"], raw.get("reference"))
    if found:
        raise ConfigError(list(dict.fromkeys(found)), source)
    made = {key: SECTIONS[key](**options) for key, options in sections.items()}
    return SweepConfig(raw["name"], raw.get("seed", 0), raw["reference"], arms, raw=raw, question=question, **made)


def _arms(raw: Mapping[str, Any], faults: list[str]) -> tuple[dict[str, Arm], dict[str, Arm]]:
    """Check what all arms share once, then what each arm makes of it; returns all arms, and those without a fault.

    What follows from a fault, such as an arm without parameters where its range is empty, is not a fault of its own.
    """
    base = {key: _spec(raw.get(key, default), key, faults) for key, default in SPEC_DEFAULTS.items()}
    base |= {key: _mapping(raw.get(key), f"{key}: ", faults) for key in ARM_SECTIONS}
    shared: list[str] = []
    _check_tree(base, shared)
    faults += shared
    declared = raw.get("arms")
    if not isinstance(declared, dict) or not declared:
        faults.append(f"arms: got {declared!r}, expected a mapping from each arm's name to what it sets")
        return {}, {}
    arms, sound = {}, {}
    for name, overrides in declared.items():
        found: list[str] = []
        arms[name] = Arm(name, _check_tree(_merge(base, overrides, found), found))
        faults += [f"arms.{name}: {fault}" for fault in found if fault not in shared]
        sound |= {} if found else {name: arms[name]}
    faults += _empty_arms(sound, declared, raw.get("reference"))
    return arms, sound


def _empty_arms(arms: Mapping[str, Arm], declared: Mapping[str, Any], reference: Any) -> Iterator[str]:
    """Find arms that are the reference arm again."""
    same = arms.get(reference) if isinstance(reference, str) else None
    for name, arm in arms.items():
        overrides = declared[name] or {}
        # Arms that differ in nothing but the length of training become equal when a smoke test shortens all.
        if same is not None and arm is not same and arm.tree == same.tree and "train" not in overrides:
            yield (
                f"arms.{name}: sets nothing that '{reference}' does not, so it is the reference arm again; give it a "
                "choice of its own or remove it"
            )


def _merge(base: Mapping[str, Any], overrides: Any, faults: list[str]) -> dict[str, Any]:
    """Lay an arm's words over the base; a spec of another name replaces the base's spec whole."""
    tree = copy.deepcopy(dict(base))
    for key, value in _mapping(overrides, "", faults).items():
        if key in SPECS:
            spec = _spec(value, key, faults, tree[key]["name"])
            tree[key] = {**tree[key], **spec} if spec["name"] == tree[key]["name"] else spec
        elif key in ARM_SECTIONS:
            tree[key] = {**tree[key], **_mapping(value, f"{key}: ", faults)}
        else:
            hint = nearest(key, SETTABLE)
            faults.append(f"'{key}' cannot be set by an arm.{hint} An arm sets: {', '.join(SETTABLE)}")
    return tree


def _spec(value: Any, key: str, faults: list[str], default: str | None = None) -> dict[str, Any]:
    """Read ``name`` or ``{name: .., option: ..}``; without a name the options belong to the base's component."""
    name = default or SPEC_DEFAULTS[key]
    if isinstance(value, str):
        return {"name": value}
    chosen = value.get("name", name) if isinstance(value, dict) and not is_written(value) else value
    if is_written(chosen):
        faults.append(f"{key}: got {chosen!r}; a distribution cannot choose among components: make an arm for each")
        return {"name": name}
    if isinstance(value, dict) and isinstance(chosen, str):
        return {"name": name, **value}
    word = " (YAML reads on/off/yes/no as true/false: quote the word)" if isinstance(value, bool) else ""
    faults.append(f"{key}: got {value!r}, expected a name or a mapping with a name, such as {name}{word}")
    return {"name": name}


def _mapping(value: Any, where: str, faults: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return dict(value)
    faults.append(f"{where}got {value!r}, expected a mapping of settings")
    return {}


def _check_tree(tree: Mapping[str, dict[str, Any]], faults: list[str]) -> dict[str, Any]:
    """Check every option, and every distribution in it, against the signature that will receive it."""
    checked = {}
    for key, options in tree.items():
        name = {"name": options["name"]} if key in SPECS else {}
        checked[key] = dict(name)
        try:
            component = receiver(key, options)
        except UnknownNameError as error:
            faults.append(f"{key}: {error}")
            continue
        for option in (word for word in options if word not in name):
            checked[key][option] = check_option(component, key, option, options[option], faults)
    return checked


def _fixed_section(key: str, value: Any, faults: list[str]) -> dict[str, Any]:
    """Check a section that holds for the whole sweep and is never searched."""
    given = _mapping(value, f"{key}: ", faults)
    checked = {}
    for option, one in given.items():
        found: list[str] = []
        read = check_option(section(key), key, option, one, found)
        if _holds_distribution(one):
            allowed = f"give one value (components, {', '.join(ARM_SECTIONS)} are searched)"
            found = [f"{key}.{option}: got {one!r}; a distribution cannot stand here, {allowed}"]
        faults += found
        checked |= {} if found else {option: read}
    return checked


def _holds_distribution(value: Any) -> bool:
    return is_written(value) or (isinstance(value, dict) and any(_holds_distribution(one) for one in value.values()))


def _identity_faults(raw: Mapping[str, Any], arms: Mapping[str, Arm]) -> Iterator[str]:
    """Faults of names and seed."""
    name, seed, reference = raw.get("name"), raw.get("seed", 0), raw.get("reference")
    expected = "expected letters, digits, '-' and '_'; it names a folder"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"name: got {name!r}, {expected}"
    yield from (f"arms: got the name {arm!r}, {expected}" for arm in arms if not NAME.fullmatch(arm))
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        yield f"seed: got {seed!r}, expected a whole number from 0 on"
    if arms and (not isinstance(reference, str) or reference not in arms):
        hint = nearest(str(reference), arms)
        yield f"reference: got {reference!r}, expected the name of an arm.{hint} Arms: {', '.join(arms)}"


def _name_faults(sections: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Faults of names that sections mention, and of the options of the reader that is named."""
    data = sections["data"]
    yield from _unknown("search.sampler", sections["search"].get("sampler", SearchConfig.sampler), registry.samplers)
    metric = sections["score"].get("metric", ScoreConfig.metric)
    unknown_metric = list(_unknown("score.metric", metric, registry.metrics))
    yield from unknown_metric
    if not unknown_metric and not ranks_models(metric):
        usable = ", ".join(name for name in registry.metrics.names() if ranks_models(name))
        yield f"score.metric: a higher '{metric}' is not a better model, so it cannot select; use one of {usable}"
    yield from _verdict_faults(sections["score"])
    for side in ("from_areas", "to_areas"):
        if data.get(side) is not None and data.get("observed") not in ("others", "masked"):
            yield (
                f"data.{side}: got {data[side]!r}, but data.observed is {data.get('observed')}; set it to others or "
                "masked"
            )
    reader = data.get("reader", DataConfig.reader)
    if reader == "auto":
        return
    unknown = list(_unknown("data.reader", reader, registry.readers, "auto"))
    yield from unknown
    if not unknown:
        faults = registry.readers[reader].validate(data.get("options", {}))[1]
        yield from (f"data.options: {fault}" for fault in faults)


def _verdict_faults(score: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are in range but leave every contrast without a verdict, after all has been trained."""
    if score.get("smallest_effect", ScoreConfig.smallest_effect) == 0:
        yield "score.smallest_effect: got 0, expected the smallest difference of the score that would matter, above 0"
    if (alpha := score.get("alpha", ScoreConfig.alpha)) >= HALF:
        yield f"score.alpha: got {alpha}, expected an error rate below {HALF}, such as 0.05"


def _resource_faults(resources: Mapping[str, Any]) -> Iterator[str]:
    gpus, workers = resources.get("gpus_per_worker", 0), resources.get("workers", 1)
    if 0 < gpus < 1 < workers:
        yield (
            f"resources.gpus_per_worker: got {gpus} with workers: {workers}, expected a whole card for each worker of "
            "a trial: NCCL refuses two on one; use workers: 1, whose trials share cards, or gpus_per_worker: 1"
        )
    if gpus > 1 and gpus != int(gpus):
        yield f"resources.gpus_per_worker: got {gpus}, expected a share of one card or whole cards: Ray gives no others"


def _unknown(where: str, name: str, known: Registry[Any], *more: str) -> Iterator[str]:
    words = [*more, *known.names()]
    if name not in words:
        hint = nearest(name, words)
        yield f"{where}: '{name}' is not a registered {known.kind}.{hint} Registered: {', '.join(words)}"


def _link_faults(arms: Mapping[str, Arm], metric: str) -> Iterator[str]:
    """Find arms that could win by negative rates: the score would be a mean over the neurons that have none."""
    if metric not in registry.metrics.names() or not needs_positive_rates(metric):
        return
    for name, arm in arms.items():
        link = arm.tree["link"]["name"]
        if not getattr(registry.links[link].factory, "positive", False):
            yield (
                f"arms.{name}: link '{link}' can predict negative rates, and 'score.metric: {metric}' would leave such "
                "neurons out of its mean; use link: softplus, or score.metric: single_trial_correlation"
            )


def _budget_faults(arms: Mapping[str, Arm], search: Mapping[str, Any], reference: Any) -> Iterator[str]:
    """Faults of arms that cannot spend their trials."""
    sampler = search.get("sampler", SearchConfig.sampler)
    for name, arm in arms.items():
        searched = arm.distributions
        trials = search.get("trials", SearchConfig.trials)
        if name == reference:
            trials = max(trials, search.get("reference_trials", SearchConfig.reference_trials))
        if trials > 1 and not searched:
            yield (
                f"arms.{name}: has no parameters to search, but gets {trials} trials; give it a distribution such as "
                "optimizer: {learning_rate: {loguniform: [0.0001, 0.01]}}, or set search.trials: 1"
            )
        for path, one in searched.items():
            if sampler == "grid" and one.kind != "choice":
                yield f"arms.{name}: {path} is {one.kind}; the grid sampler needs {{choice: [..]}}"


def _reach_faults(
    arms: Mapping[str, Arm], search: Mapping[str, Any], points: list[dict[str, Any]], reference: Any
) -> Iterator[str]:
    """Find points that an arm never gets to: where the reference is searched first, its best values come before."""
    trials, first = (search.get(key, getattr(SearchConfig, key)) for key in ("trials", "reference_trials"))
    whole = search.get("sampler", SearchConfig.sampler) == "grid"  # where every combination is tried
    for name, arm in ({} if whole else arms).items():
        known = sum(any(path in arm.distributions for path in point) for point in points)
        left = max(first, trials - 1) if name == reference and first else trials - bool(first)
        if known > left:
            behind = ", the first of which begins from the best values of the reference" if first else ""
            yield (
                f"search.points: arm '{name}' would begin from {known} of them, but has {trials} trials{behind}; set "
                f"search.trials: {known + bool(first)} or more, or give fewer points"
            )


def _points(arms: Mapping[str, Arm], points: list[dict[str, Any]], faults: list[str]) -> list[dict[str, Any]]:
    """Check the points that searches start from: some arm searches every path, and its range holds the value."""
    spaces = [arm.distributions for arm in arms.values()]
    known = sorted({path for space in spaces for path in space})
    read = []
    for index, point in enumerate(points):
        where, kept = f"search.points.{index}", {}
        for path, value in point.items():
            ranges = [space[path] for space in spaces if path in space]
            held = [spelled for one in ranges for spelled in one.spelled(value)]
            kept |= {path: held[0]} if held else {}
            if not ranges:
                listed = ", ".join(known) or "nothing"
                faults.append(f"{where}: no arm searches '{path}'.{nearest(path, known)} Searched: {listed}")
            elif not held:
                listed = " or ".join(dict.fromkeys(f"{one.kind} {list(one.values)}" for one in ranges))
                faults.append(f"{where}.{path}: got {value!r}, expected a value in {listed}")
        read.append(kept)
    return read
