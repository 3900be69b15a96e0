"""What can be set, as frozen plain data: sections, specs, arms, sweeps, and the configuration of one trial."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from neuroint import registry
from neuroint.config.space import Distribution, leaves, plain, set_leaf
from neuroint.registry import BelowOne, Component, Count, Fraction, Index, NonNegative, Positive

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
Level = Annotated[float, Field(gt=0, lt=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]


class ConfigError(ValueError):
    """Every fault of a configuration, one a line."""

    def __init__(self, faults: list[str], source: str = "configuration") -> None:
        self.faults = faults
        super().__init__(f"{source}: {len(faults)} fault(s)\n" + "\n".join(f"  - {fault}" for fault in faults))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the recordings are, how they are read, and what recorded activity models are offered.

    ``observed`` is ``past`` (the predicted neurons a lag of ``lag_s`` ago: forecasting) or ``others`` (a random share
    ``held_in`` of the neurons, drawn from ``held_in_seed``, which are then not predicted: co-smoothing) or ``masked``
    (the same neurons, which are predicted in training, too, where an objective masks them; scores are the same). Where
    the recording knows areas, those of ``from_areas`` may be read and those of ``to_areas`` predicted, by name or
    group; a side that is left out is every area not on the other, and ``held_in`` deals an area on both.
    """

    path: str | None = None
    reader: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    sessions: list[str] | None = None
    observed: Literal["past", "others", "masked"] | None = None
    lag_s: Positive | None = None
    held_in: Level = 0.5
    held_in_seed: Index = 0
    from_areas: list[str] | None = None
    to_areas: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How one configuration is trained, and how it is evaluated.

    Frames are those that a model reads: all bins of the recording, or every ``frame_stride``-th, whose responses it
    predicts. A crop of ``frames`` then spans (frames - 1) x stride + 1 bins, and ``bin_s``, memories and lags are those
    of the frames. Evaluation predicts every bin at any stride, and scores the same ones.

    ``cutmix`` is the probability that a step pastes a box of another clip of the batch into each clip and mixes
    responses by area, with ``cutmix_alpha`` of the Beta distribution of that area (``neuroint.data.cutmix``).
    ``evaluation_frames`` predicts clips in chunks, with the same numbers; ``evaluation_hop`` instead averages the
    predictions of windows of ``frames``, which begin so many frames apart (``neuroint.prediction``).
    """

    epochs: Count = 20
    frames: Count = 80
    batch_size: Count = 4
    steps_per_epoch: Count | None = None
    patience: Count = 5
    clip_norm: Positive | None = None
    ema: BelowOne | None = None
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    compile: bool = False
    neurons_per_step: Count | None = None
    loader_processes: Index = 0
    batch_statistics: Literal["synchronized", "frozen"] = "synchronized"
    evaluation_frames: Count | None = None
    evaluation_hop: Count | None = None
    frame_stride: Count = 1
    cutmix: Fraction = 0.0
    cutmix_alpha: Positive = 1.0


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
class ObservedConfig:
    """How a model reads recorded activity: how many frames back (None takes what the data advises), whose, and when.

    ``areas`` (or groups) and ``neurons``, a number that is drawn of them, leave a part of what is on offer; the same
    neurons are predicted. ``shuffled`` is a control: every clip is paired with what was recorded in another clip of the
    same tier.
    """

    lag_bins: Index | None = None
    areas: list[str] | None = None
    neurons: Count | None = None
    shuffled: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How many configurations are tried per arm, how they are proposed, and when they are given up."""

    reference_trials: Index = 0
    trials: Count = 8
    sampler: str = "tpe"
    asha: bool = True
    grace_epochs: Count = 3
    reduction_factor: AtLeastTwo = 3
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
    alpha: Level = 0.05


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
    "observed": ObservedConfig,
    "search": SearchConfig,
    "confirm": ConfirmConfig,
    "score": ScoreConfig,
    "resources": Resources,
}
ARM_SECTIONS = ("train", "init", "observed")
TOP_KEYS = ("name", "seed", "reference", "arms", *SPECS, *SECTIONS)


RUN_SECTIONS = ("data", "train", "init", "observed", "score", "resources")


@dataclass(frozen=True)
class Spec:
    """A component's name and the choices made for it, as plain data."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


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
    observed: ObservedConfig
    score: ScoreConfig
    resources: Resources

    def to_dict(self) -> dict[str, Any]:
        """Plain nested data, for YAML and JSON."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Settings by dotted path, for tracking."""
        named = {key: {"name": spec.name, **spec.options} for key, spec in self.specs.items()}
        sections = {key: asdict(getattr(self, key)) for key in RUN_SECTIONS}
        return dict(leaves({**named, **sections, "seed": self.seed}))

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> TrialConfig:
        """Rebuild from ``to_dict``, also after a detour through JSON."""
        specs = {key: Spec(**value) for key, value in found["specs"].items()}
        sections = {key: SECTIONS[key](**found.get(key, {})) for key in RUN_SECTIONS}
        named = {key: found[key] for key in ("key", "sweep", "arm", "phase", "seed")}
        return cls(**named, specs=specs, **sections)


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
        """Put a value in the place of every distribution.

        Raises:
            ValueError: a searched choice has no value, or a value is for a choice that is not searched.
        """
        searched = self.distributions
        if missing := [f"{path} ({one.kind})" for path, one in searched.items() if path not in values]:
            raise ValueError(f"arm '{self.name}' searches {', '.join(missing)}; no value was given for it")
        if unknown := [path for path in values if path not in searched]:
            known = ", ".join(searched) or "nothing"
            raise ValueError(f"arm '{self.name}' does not search {', '.join(unknown)}; it searches {known}")
        tree = copy.deepcopy(self.tree)
        for path in searched:
            set_leaf(tree, path, plain(values[path]))
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
        """Make the configuration of one training run of an arm.

        Raises:
            ConfigError: a value does not fit the choice it is for.
            ValueError: values are missing or are not searched by this arm.
        """
        tree = self.arms[arm].resolve(values)
        checked, faults = {}, []
        for name in tree:
            options, found = receiver(name, tree[name]).validate(_without_name(name, tree[name]))
            checked[name] = plain(options)
            faults += [f"{name}.{fault}" for fault in found]
        if faults:
            raise ConfigError(faults, f"arm '{arm}'")
        specs = {slot: Spec(tree[slot]["name"], checked[slot]) for slot in SPECS}
        sections = {name: SECTIONS[name](**checked[name]) for name in ARM_SECTIONS}
        shared = {name: getattr(self, name) for name in RUN_SECTIONS if name not in ARM_SECTIONS}
        return TrialConfig(key, self.name, arm, phase, seed, specs, **shared, **sections)


def receiver(key: str, options: Mapping[str, Any]) -> Component[Any]:
    """Find what receives the options under a key of an arm's tree: the component named there, or a section.

    Raises:
        UnknownNameError: there is no component of that name.
    """
    return SPECS[key][options["name"]] if key in SPECS else section(key)


def _without_name(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if not (key in SPECS and option == "name")}


@cache
def section(key: str) -> Component[Any]:
    """Treat a section's dataclass like a component: its fields are its choices."""
    _, choices = registry.split_signature("section", key, SECTIONS[key])
    return Component("section", key, SECTIONS[key], {}, choices)


def dump(config: TrialConfig | SweepConfig) -> str:
    """Write a configuration as YAML; a sweep's question stays in its first line."""
    asked = f"# {config.question}\n" if isinstance(config, SweepConfig) and config.question else ""
    data = config.raw if isinstance(config, SweepConfig) else config.to_dict()
    return asked + yaml.dump(data, Dumper=_Unlinked, sort_keys=False, allow_unicode=True)


class _Unlinked(yaml.SafeDumper):
    """Writes equal parts out in full instead of linking them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
