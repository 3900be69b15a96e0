"""A small valid sweep, and what is said of sweeps that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neuroint.config import ConfigError, SweepConfig, TrialConfig, parse_sweep

LEARNING = "optimizer.learning_rate"


def minimal(**changes: Any) -> dict[str, Any]:
    """A valid sweep of two arms, with changes at the top."""
    return {
        "name": "small",
        "core": "constant",
        "readout": "linear",
        "optimizer": {"name": "adamw", "learning_rate": {"loguniform": [1e-4, 1e-1]}},
        "reference": "warm",
        "arms": {"warm": {}, "cosine": {"schedule": "cosine"}},
    } | changes


def faults_of(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_sweep(raw)
    return caught.value.faults


def only_fault(raw: dict[str, Any]) -> str:
    faults = faults_of(raw)
    assert len(faults) == 1, faults
    return faults[0]


def trial_of(sweep: SweepConfig, arm: str = "warm", **values: Any) -> TrialConfig:
    values = values or {LEARNING: 0.01}
    return sweep.trial(arm, values, key="tune-0", phase="tune", seed=3)


def written(folder: Path, text: str) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(text, encoding="utf-8")
    return file
