"""What can be set, as frozen plain data: sections, specs, arms, sweeps, and the configuration of one trial."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import yaml

from neuroint import registry
from neuroint.registry import Component, Count, Fraction, Index, NonNegative, Positive

SPECS: dict[str, registry.Registry[Any]] = {
    "core": registry.cores,
    "readout": registry.readouts,
    "normalization": registry.normalizations,
    "interaction": registry.interactions,
    "link": registry.links,
    "objective": registry.objectives,
    "optimizer": registry.optimizers,
    "schedule": registry.schedules,
}
SPEC_DEFAULTS = {
    "core": "factorized_conv3d",
    "readout": "gaussian",
    "normalization": "none",
    "interaction": "none",
    "link": "elu1",
    "objective": "poisson",
    "optimizer": "adamw",
    "schedule": "constant",
}
Part = Literal["trained", "finetuned", "frozen"]


class ConfigError(ValueError):
    """Every fault of a configuration, one a line."""

    def __init__(self, faults: list[str], source: str = "configuration") -> None:
        self.faults = faults
        super().__init__(f"{source}: {len(faults)} fault(s)\n" + "\n".join(f"  - {fault}" for fault in faults))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the recordings are and how they are read."""

    path: str | None = None
    reader: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    sessions: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How one configuration is trained; frames are bins of the recording."""

    epochs: Count = 20
    frames: Count = 80
    batch_size: Count = 4
    steps_per_epoch: Count | None = None
    patience: Count = 5
    clip_norm: Positive | None = None
    ema: Fraction | None = None
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    compile: bool = False
    neurons_per_step: Count | None = None
    loader_processes: Index = 0
    batch_statistics: Literal["synchronized", "frozen"] = "synchronized"
    evaluation_frames: Count | None = None


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Which fitted run a model starts from, and what of it is trained on."""

    source: str | None = None
    core: Part = "trained"
    readout: Part = "trained"
    normalization: Part = "trained"
    interaction: Part = "trained"
    finetune_factor: Positive = 0.1


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How many configurations are tried per arm, how they are proposed, and when they are given up."""

    reference_trials: Index = 0
    trials: Count = 8
    sampler: str = "tpe"
    asha: bool = True
    grace_epochs: Count = 3
    reduction_factor: Count = 3
    concurrent: Count | None = None
    points: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ConfirmConfig:
    """How many configurations of each arm are retrained, with how many fresh seeds paired across arms."""

    top: Count = 1
    seeds: Count = 3


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What selects configurations (``metric``), what else is reported, and the smallest difference that matters."""

    metric: str = "single_trial_correlation"
    smallest_effect: NonNegative = 0.005
    alpha: Fraction = 0.05


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial occupies; fractions of a GPU let small trials share a card."""

    workers: Count = 1
    cpus_per_worker: Positive = 1
    gpus_per_worker: NonNegative = 0


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "train": TrainConfig,
    "init": InitConfig,
    "search": SearchConfig,
    "confirm": ConfirmConfig,
    "score": ScoreConfig,
    "resources": Resources,
}
ARM_SECTIONS = ("train", "init")
TOP_KEYS = ("name", "seed", "reference", "arms", *SPECS, *SECTIONS)


@dataclass(frozen=True)
class Spec:
    """A component's name and the choices made for it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Distribution:
    """A range that a search draws from, one to one with an Optuna distribution."""

    kind: Literal["choice", "uniform", "loguniform", "int"]
    values: tuple[Any, ...]

    def corners(self) -> tuple[Any, ...]:
        """All values of a choice, both ends of a range."""
        return self.values

    def __contains__(self, value: object) -> bool:
        if self.kind == "choice":
            return value in self.values
        return isinstance(value, int | float) and self.values[0] <= value <= self.values[1]


DISTRIBUTIONS = ("choice", "uniform", "loguniform", "int")


@dataclass(frozen=True)
class TrialConfig:
    """Everything one training run needs; plain data, the same in every process."""

    key: str
    sweep: str
    arm: str
    phase: str
    seed: int
    specs: dict[str, Spec]
    data: DataConfig
    train: TrainConfig
    init: InitConfig
    score: ScoreConfig
    resources: Resources

    def to_dict(self) -> dict[str, Any]:
        """Plain nested data, for YAML and JSON."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Settings by dotted path, for tracking."""
        named = {key: {"name": spec.name, **spec.options} for key, spec in self.specs.items()}
        sections = {key: asdict(getattr(self, key)) for key in ("data", "train", "init", "score", "resources")}
        return dict(leaves({**named, **sections, "seed": self.seed}))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialConfig:
        """Rebuild from ``to_dict``."""
        specs = {key: Spec(**value) for key, value in plain["specs"].items()}
        sections = {key: SECTIONS[key](**plain[key]) for key in ("data", "train", "init", "score", "resources")}
        names = (plain[key] for key in ("key", "sweep", "arm", "phase", "seed"))
        return cls(*names, specs, **sections)


@dataclass(frozen=True)
class Arm:
    """One declared variant with its own conditional search space."""

    name: str
    tree: dict[str, Any]  # specs as {"name": .., **options}, sections as {..}; distributions at leaves

    @property
    def distributions(self) -> dict[str, Distribution]:
        """Searched choices by dotted path."""
        return {path: leaf for path, leaf in leaves(self.tree) if isinstance(leaf, Distribution)}

    def resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Put a value in the place of every distribution."""
        tree = copy.deepcopy(self.tree)
        for path, distribution in self.distributions.items():
            if path not in values:
                raise ValueError(f"arm '{self.name}' searches {path} ({distribution.kind}); no value was given for it")
            set_leaf(tree, path, values[path])
        return tree


@dataclass(frozen=True)
class SweepConfig:
    """A question: a reference arm, the arms held against it, and the budget."""

    name: str
    seed: int
    reference: str
    arms: dict[str, Arm]
    data: DataConfig
    search: SearchConfig
    confirm: ConfirmConfig
    score: ScoreConfig
    resources: Resources
    raw: dict[str, Any] = field(repr=False)
    question: str = ""

    def trial(self, arm: str, values: Mapping[str, Any], *, key: str, phase: str, seed: int) -> TrialConfig:
        """Make the configuration of one training run of an arm."""
        tree = self.arms[arm].resolve(values)
        specs = {}
        for slot, components in SPECS.items():
            options = {k: v for k, v in tree[slot].items() if k != "name"}
            specs[slot] = Spec(tree[slot]["name"], components[tree[slot]["name"]].validate(options)[0])
        sections = {name: SECTIONS[name](**section(name).validate(tree[name])[0]) for name in ARM_SECTIONS}
        return TrialConfig(
            key,
            self.name,
            arm,
            phase,
            seed,
            specs,
            data=self.data,
            score=self.score,
            resources=self.resources,
            **sections,
        )


def section(key: str) -> Component[Any]:
    """Treat a section's dataclass like a component: its fields are its choices."""
    _, choices = registry.split_signature("section", key, SECTIONS[key])
    return Component("section", key, SECTIONS[key], {}, choices)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def set_leaf(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def dump(config: TrialConfig | SweepConfig) -> str:
    """Write a configuration as YAML; a sweep's question stays in its first line."""
    asked = f"# {config.question}\n" if isinstance(config, SweepConfig) and config.question else ""
    plain = config.raw if isinstance(config, SweepConfig) else config.to_dict()
    return asked + yaml.safe_dump(json.loads(json.dumps(plain)), sort_keys=False)
