"""Map the names written in YAML onto components; a component's signature is its schema.

A keyword annotated ``Fact[T]`` is supplied by the data or by an earlier stage and may never be set in YAML. Every other
keyword is a choice and has a default. Components of this package are found by importing every file of their room;
components of other packages come in through the entry-point group ``neuroint.<room>``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")


class _FactMark:
    """Marks a keyword that the data supplies."""


Fact = Annotated[T, _FactMark()]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
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
        """Turn a value read from YAML into the annotated type (``"1e-3"`` becomes .001), or raise ``ValueError``."""
        config = None if _has_own_config(self.annotation) else ConfigDict(extra="forbid")
        try:
            return TypeAdapter(self.annotation, config=config).validate_python(value)
        except ValidationError as error:
            reasons = "; ".join(_reason(e) for e in error.errors())
            hint = " (YAML reads on/off/yes/no as true/false: quote the word)" if isinstance(value, bool) else ""
            raise ValueError(f"got {value!r}: {reasons}{hint}") from None


def _has_own_config(annotation: Any) -> bool:
    """Say whether pydantic takes its configuration from the type itself (dataclasses do)."""
    return hasattr(annotation, "__dataclass_fields__") or hasattr(annotation, "model_config")


def _reason(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    text = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}: {text}" if where else text


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
        return f"'{key}' is not a choice of {self.kind} '{self.name}'.{nearest(key, self.choices)} Choices: {known}"

    def build(self, options: Mapping[str, Any], facts: Mapping[str, Any]) -> T:
        """Call the factory with validated choices and those of the facts that it asks for.

        Raises:
            ValueError: a choice is unknown or of the wrong type.
            MissingFactError: the data lacks something that the component cannot do without.
        """
        coerced, faults = self.validate(options)
        if faults:
            raise ValueError(f"{self.kind} '{self.name}': " + "; ".join(faults))
        given = {key: facts[key] for key in self.facts if facts.get(key) is not None}
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
            ValueError: the name is taken, the docstring is missing, or a keyword is neither a fact nor has a default.
        """

        def enter(factory: Callable[..., T]) -> Callable[..., T]:
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
        self._loaded = True
        home = importlib.import_module(self.home)
        for module in pkgutil.iter_modules(getattr(home, "__path__", [])):
            importlib.import_module(f"{self.home}.{module.name}")
        for entry in entry_points(group=f"neuroint.{self.kind}"):
            entry.load()


def split_signature(kind: str, name: str, factory: Callable[..., Any]) -> tuple[dict[str, bool], dict[str, Choice]]:
    """Read facts and choices off a signature."""
    target = factory.__init__ if inspect.isclass(factory) else factory
    hints = typing.get_type_hints(target, include_extras=True)
    facts, choices = {}, {}
    for key, parameter in inspect.signature(factory).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        annotation = hints.get(key)
        if _is_fact(annotation):
            facts[key] = required
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if required or annotation is None:
                raise ValueError(f"{kind} '{name}': choice '{key}' needs an annotation and a default")
            choices[key] = Choice(annotation, parameter.default)
    return facts, choices


def _is_fact(annotation: Any) -> bool:
    if any(isinstance(mark, _FactMark) for mark in getattr(annotation, "__metadata__", ())):
        return True
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_fact(part) for part in typing.get_args(annotation))
    return False


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
