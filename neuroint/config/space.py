"""What a search draws from: distributions at the leaves of an arm's tree of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args

from neuroint.registry import Component, nearest

Kind = Literal["choice", "uniform", "loguniform", "int"]
DISTRIBUTIONS: tuple[Kind, ...] = get_args(Kind)
INSIDE = 0.381966  # share of a range at which it is tried between its ends: no whole number by accident


@dataclass(frozen=True)
class Distribution:
    """A range that a search draws from, one to one with an Optuna distribution."""

    kind: Kind
    values: tuple[Any, ...]

    def corners(self) -> tuple[Any, ...]:
        """All values of a choice, both ends of a range."""
        return self.values

    def probes(self) -> tuple[Any, ...]:
        """Values that must all be allowed where the distribution stands: the corners, and one fraction of a range."""
        if self.kind in ("choice", "int"):
            return self.values
        low, high = self.values
        return (low, high, low + (high - low) * INSIDE)

    def spelled(self, value: Any) -> tuple[Any, ...]:
        """Spell a value as the search does (``"1e-3"`` becomes .001); empty if it is out of range."""
        if self.kind == "choice":
            return tuple(mine for mine in self.values if _same(value, mine))
        try:
            number = float(value) if isinstance(value, str) else value
        except ValueError:
            return ()
        return (number,) if number in self else ()

    def __contains__(self, value: object) -> bool:
        if self.kind == "choice":
            return any(_same(value, mine) for mine in self.values)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self.values[0] <= value <= self.values[1]
        ):
            return False
        return self.kind != "int" or float(value).is_integer()


def _same(a: object, b: object) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and plain(a) == plain(b)


def plain(value: Any) -> Any:
    """Turn dataclasses into mappings and tuples into lists, at any depth, so that JSON gives back what it was given."""
    if isinstance(value, Distribution):
        return value
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inside) for inside in value]
    return value


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested mappings; yields dotted paths and what stands there."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def set_leaf(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path."""
    *parents, last = path.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def is_written(value: Any) -> bool:
    """Say whether plain data looks like a distribution: ``{uniform: [lo, hi]}``."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in DISTRIBUTIONS


def check_option(component: Component[Any], path: str, option: str, value: Any, faults: list[str]) -> Any:
    """Check one option and the distributions in it against its choice; returns it coerced, as plain data."""
    if fault := component.key_fault(option):
        faults.append(f"{path}: {fault}")
        return value
    where = f"{path}.{option}"
    found: list[str] = []
    read = read_distributions(where, value, found)
    coerced = [] if found else _coerced(component, option, where, read, found)
    rebuilt = read if found else _rebuilt(read, coerced)
    faults += dict.fromkeys(found or _repeated(where, rebuilt))
    return rebuilt


def _repeated(where: str, value: Any) -> Iterator[str]:
    """List choices that name a value twice, be it in two spellings such as 1e-3 and .001."""
    for path, one in leaves({where: value}):
        values = one.values if isinstance(one, Distribution) and one.kind == "choice" else ()
        for index, mine in enumerate(values):
            if any(_same(mine, other) for other in values[:index]):
                yield f"{path}: choice lists {mine!r} twice; name every value once"


def _coerced(component: Component[Any], option: str, where: str, read: Any, faults: list[str]) -> list[Any]:
    coerced = []
    for variant in _variants(read):
        try:
            coerced.append(plain(component.choices[option].coerce(variant)))
        except ValueError as error:
            hint = _kind_hint(read, variant)
            faults += [] if hint and faults else [f"{where}: {error}{hint}"]  # ends that do not fit are fault enough
    return coerced


def _kind_hint(read: Any, variant: Any) -> str:
    if isinstance(read, Distribution) and variant not in read.values:
        return f" ({read.kind} draws fractions; for whole numbers write {{int: [low, high]}})"
    if isinstance(read, dict) and any(nearest(key, DISTRIBUTIONS) for key in read):
        return f" (a distribution stands alone in its mapping and is one of {', '.join(DISTRIBUTIONS)})"
    return ""


def _variants(value: Any) -> list[Any]:
    """Values that an option takes while every distribution in it steps through its probes."""
    if isinstance(value, Distribution):
        return list(value.probes())
    if not isinstance(value, dict) or not value:
        return [value]
    inside = {key: _variants(one) for key, one in value.items()}
    steps = max(len(ones) for ones in inside.values())
    return [{key: ones[min(step, len(ones) - 1)] for key, ones in inside.items()} for step in range(steps)]


def _rebuilt(read: Any, coerced: list[Any]) -> Any:
    """Put distributions back into the coerced option; the values of a choice are the coerced ones."""
    if isinstance(read, Distribution):
        return Distribution("choice", tuple(coerced[: len(read.values)])) if read.kind == "choice" else read
    if not isinstance(read, dict) or not isinstance(coerced[0], dict):
        return coerced[0]
    return {**coerced[0], **{key: _rebuilt(one, [c[key] for c in coerced]) for key, one in read.items()}}


def read_distributions(path: str, value: Any, faults: list[str]) -> Any:
    """Turn every ``{uniform: [lo, hi]}`` inside a value into a ``Distribution``."""
    if not isinstance(value, Mapping):
        return value
    if not is_written(value):
        return {key: read_distributions(f"{path}.{key}", inside, faults) for key, inside in value.items()}
    kind, values = next(iter(value.items()))
    try:
        return Distribution(kind, READ[kind](kind, values))
    except ValueError as error:
        faults.append(f"{path}: {error}")
        return value


def _choice(kind: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"{kind} got {values!r}, expected a list with at least one value")
    if any(isinstance(value, Mapping) for value in values):
        raise ValueError(
            f"{kind} got {values!r}, expected words, numbers or lists; to search inside a mapping, put a distribution "
            "on its settings"
        )
    return tuple(values)


def _range(kind: str, values: Any) -> tuple[Any, ...]:
    low, high = _bounds(kind, values)
    floor = 0 if kind == "loguniform" else -float("inf")
    if not floor < low < high < float("inf"):
        expected = "0 < low < high" if kind == "loguniform" else "low < high"
        raise ValueError(f"the range of {kind} is empty; expected {expected}, got low={low:g}, high={high:g}")
    return (low, high)


def _bounds(kind: str, values: Any) -> tuple[float, float]:
    if not isinstance(values, list) or len(values) != 2 or any(isinstance(value, bool | None) for value in values):
        raise ValueError(f"{kind} got {values!r}, expected two numbers [low, high]")
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{kind} got {values!r}, expected two numbers [low, high]") from None
    return low, high


def _int_range(kind: str, values: Any) -> tuple[Any, ...]:
    low, high = _range(kind, values)
    if not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{kind} got {values!r}, expected two whole numbers [low, high]; fractions need uniform")
    return (int(low), int(high))


READ = {"choice": _choice, "uniform": _range, "loguniform": _range, "int": _int_range}
