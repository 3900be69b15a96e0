"""Configurations: read from YAML, checked against the signatures of the components, frozen."""

from neuroint.config.parse import load_sweep, parse_sweep
from neuroint.config.settings import (
    Arm,
    ConfigError,
    DataConfig,
    Distribution,
    Resources,
    Spec,
    SweepConfig,
    TrainConfig,
    TrialConfig,
    dump,
)

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
