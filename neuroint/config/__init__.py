"""Configurations: read from YAML, checked against the signatures of the components, frozen."""

from neuroint.config.parse import parse_sweep
from neuroint.config.reading import load_sweep
from neuroint.config.settings import (
    Arm,
    ConfigError,
    DataConfig,
    Resources,
    Spec,
    SweepConfig,
    TrainConfig,
    TrialConfig,
    dump,
)
from neuroint.config.space import Distribution

__all__ = [
    "Arm",
    "ConfigError",
    "DataConfig",
    "Distribution",
    "Resources",
    "Spec",
    "SweepConfig",
    "TrainConfig",
    "TrialConfig",
    "dump",
    "load_sweep",
    "parse_sweep",
]
