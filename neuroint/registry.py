"""Map the names written in YAML onto components; a component's signature is its schema.

A keyword annotated ``Fact[T]`` is supplied by the data or by an earlier stage and may never be set in YAML. Every other
keyword is a choice and has a default. A component that builds another one asks for ``**facts: Fact[Any]`` and is given
all there are. Components of this package are found by importing every file of their room; components of other packages
come in through the entry-point group ``neuroint.<room>``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")


class _FactMark:
    """Marks a keyword that the data supplies."""


Fact = Annotated[T, _FactMark()]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]


class UnknownNameError(ValueError):
    """A name that no component is registered under."""


class MissingFactError(ValueError):
    """A component needs something that the data does not have."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


@dataclass(frozen=True)
class Choice:
    """One keyword that a configuration may set."""

    annotation: Any
    default: Any

    def coerce(self, value: Any) -> Any:
        """Turn a value read from YAML into the annotated type (``"1e-3"`` becomes .001), or raise ``ValueError``.

        NaN, infinity, a bool in the place of a number (or the reverse) and unknown keys of a dataclass are refused.
        """
        try:
            (read,) = self._adapter.validate_python((value,))
        except ValidationError as error:
            raise _refused(value, [_reason(e) for e in error.errors()]) from None
        if mistaken := list(_mistaken_bools(value, read, "")):
            raise _refused(value, mistaken)
        return read

    @cached_property
    def _adapter(self) -> TypeAdapter:
        """Wrap the type in a tuple, because pydantic takes no settings beside a bare dataclass."""
        wrapped: Any = types.GenericAlias(tuple, (self.annotation,))
        return TypeAdapter(wrapped, config=ConfigDict(extra="forbid", allow_inf_nan=False))


def _refused(value: Any, reasons: list[str]) -> ValueError:
    hint = " (YAML reads on/off/yes/no as true/false: quote the word)" if isinstance(value, bool) else ""
    return ValueError(f"got {value!r}: {'; '.join(reasons)}{hint}")


def _reason(error: Mapping[str, Any]) -> str:
    """One fault in words; the first part of its place is the tuple of ``Choice``."""
    where = ".".join(str(part) for part in error["loc"][1:])
    text = error["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if error["type"] == "literal_error":
        hint = nearest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        text += f".{hint}" if hint else ""
    return f"{where}: {text}" if where else text


def _mistaken_bools(given: Any, read: Any, where: str) -> Iterator[str]:
    """List where pydantic took true for 1, or 1 for true."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            inside = read.get(key) if isinstance(read, Mapping) else getattr(read, str(key), value)
            yield from _mistaken_bools(value, inside, f"{where}{key}: ")
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple):
        for index, (value, inside) in enumerate(zip(given, read, strict=False)):
            yield from _mistaken_bools(value, inside, f"{where}{index}: ")
    elif isinstance(read, bool) and not isinstance(given, bool):
        yield f"{where}expected true or false"
    elif isinstance(given, bool) and isinstance(read, int | float) and not isinstance(read, bool):
        yield f"{where}expected a number"


@dataclass(frozen=True)
class Component(Generic[T]):
    """A registered class or function, with its keywords split into facts and choices."""

    kind: str
    name: str
    factory: Callable[..., T]
    facts: dict[str, bool] = field(repr=False)  # name -> whether it must be there
    choices: dict[str, Choice] = field(repr=False)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n", 1)[0]

    def validate(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Coerce options and list every fault in them; the options handed in are not changed."""
        coerced, faults = {}, []
        for key, value in options.items():
            fault = self.key_fault(key)
            if fault:
                faults.append(fault)
                continue
            try:
                coerced[key] = self.choices[key].coerce(value)
            except ValueError as error:
                faults.append(f"{key}: {error}")
        return coerced, faults

    def key_fault(self, key: str) -> str | None:
        """Say what is wrong with setting this keyword in a configuration, if anything."""
        if key in self.choices:
            return None
        if key in self.facts:
            return f"{key} is measured from the data; remove it from the YAML"
        known = ", ".join(self.choices) or "none"
        return (
            f"'{key}' is not a choice of {self.kind} '{self.name}'.{nearest(str(key), self.choices)} Choices: {known}"
        )

    def build(self, options: Mapping[str, Any], facts: Mapping[str, Any]) -> T:
        """Call the factory with validated choices and those of the facts that it asks for.

        Raises:
            ValueError: a choice is unknown or of the wrong type.
            MissingFactError: the data lacks something that the component cannot do without.
        """
        coerced, faults = self.validate(options)
        if faults:
            raise ValueError(f"{self.kind} '{self.name}': " + "; ".join(faults))
        asked = facts if _takes_every_fact(self.factory) else self.facts
        given = {key: facts[key] for key in asked if facts.get(key) is not None}
        missing = [key for key, required in self.facts.items() if required and key not in given]
        if missing:
            raise MissingFactError(
                f"{self.kind} '{self.name}' needs {', '.join(missing)}, which the data does not have; "
                f"supply it or choose another {self.kind}"
            )
        return self.factory(**given, **coerced)


class Registry(Generic[T]):
    """The one list of names of a room."""

    def __init__(self, kind: str, home: str) -> None:
        self.kind = kind
        self.home = home
        self._components: dict[str, Component[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Enter a class or function under a snake_case name.

        Raises:
            ValueError: the name is taken or not snake_case, the docstring is missing, a keyword is neither a fact nor
                has a default, or a fact that may be absent has no default.
        """

        def enter(factory: Callable[..., T]) -> Callable[..., T]:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{self.kind} '{name}' is not snake_case; use small letters, digits and '_'")
            if name in self._components:
                raise ValueError(f"{self.kind} '{name}' is registered already; give the new one another name")
            if not inspect.getdoc(factory):
                raise ValueError(f"{self.kind} '{name}' has no docstring; its first line is shown by `neuroint list`")
            facts, choices = split_signature(self.kind, name, factory)
            self._components[name] = Component(self.kind, name, factory, facts, choices)
            return factory

        return enter

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._components)

    def __getitem__(self, name: str) -> Component[T]:
        """Look a component up, or raise ``UnknownNameError`` that names the nearest match."""
        self._load()
        if name not in self._components:
            raise UnknownNameError(
                f"'{name}' is not a registered {self.kind}.{nearest(str(name), self._components)} "
                f"Registered: {', '.join(self.names())}"
            )
        return self._components[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._components

    def _load(self) -> None:
        if self._loaded:
            return
        home = importlib.import_module(self.home)
        for module in pkgutil.iter_modules(getattr(home, "__path__", [])):
            importlib.import_module(f"{self.home}.{module.name}")
        for entry in entry_points(group=f"neuroint.{self.kind}"):
            self._load_entry(entry)
        self._loaded = True  # last, so that a module that fails to import fails again, and is not merely missing

    def _load_entry(self, entry: EntryPoint) -> None:
        try:
            entry.load()
        except Exception as error:
            package = f" of the package '{entry.dist.name}'" if entry.dist else ""
            raise ImportError(
                f"the {self.kind} '{entry.name}'{package} cannot be imported from {entry.value} ({error}); mend or "
                "uninstall that package"
            ) from error


def split_signature(kind: str, name: str, factory: Callable[..., Any]) -> tuple[dict[str, bool], dict[str, Choice]]:
    """Read facts (and whether each must be there) and choices off a signature.

    Positional parameters that are not facts are for the caller to fill, such as ``groups`` of an optimizer.

    Raises:
        ValueError: a choice without annotation or default, or a fact that may be None without the default None.
    """
    hints = _hints(factory)
    facts, choices = {}, {}
    for key, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        required = parameter.default is inspect.Parameter.empty
        annotation = hints.get(key)
        if _is_fact(annotation):
            if required and _may_be_none(annotation):
                raise ValueError(f"{kind} '{name}': fact '{key}' may be absent, so give it the default None")
            facts[key] = required
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if required or annotation is None:
                raise ValueError(f"{kind} '{name}': choice '{key}' needs an annotation and a default")
            choices[key] = Choice(annotation, parameter.default)
    return facts, choices


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    return typing.get_type_hints(target, include_extras=True)


def _takes_every_fact(factory: Callable[..., Any]) -> bool:
    parameters = inspect.signature(factory).parameters.values()
    rest = [one.name for one in parameters if one.kind is inspect.Parameter.VAR_KEYWORD]
    return bool(rest) and _is_fact(_hints(factory).get(rest[0]))


def _is_fact(annotation: Any) -> bool:
    if any(isinstance(mark, _FactMark) for mark in getattr(annotation, "__metadata__", ())):
        return True
    return _is_union(annotation) and any(_is_fact(part) for part in typing.get_args(annotation))


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _may_be_none(annotation: Any) -> bool:
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _may_be_none(parts[0])
    return any(part is type(None) or _may_be_none(part) for part in parts if _is_union(annotation))


readers: Registry[Any] = Registry("reader", "neuroint.data.readers")
simulators: Registry[Any] = Registry("simulator", "neuroint.data.simulators")
cores: Registry[Any] = Registry("core", "neuroint.modules.core")
readouts: Registry[Any] = Registry("readout", "neuroint.modules.readout")
links: Registry[Any] = Registry("link", "neuroint.modules.link")
normalizations: Registry[Any] = Registry("normalization", "neuroint.modules.normalization")
interactions: Registry[Any] = Registry("interaction", "neuroint.modules.interaction")
objectives: Registry[Any] = Registry("objective", "neuroint.modules.objective")
metrics: Registry[Any] = Registry("metric", "neuroint.metrics")
optimizers: Registry[Any] = Registry("optimizer", "neuroint.optimization")
schedules: Registry[Any] = Registry("schedule", "neuroint.optimization")
samplers: Registry[Any] = Registry("sampler", "neuroint.sweep.samplers")
