"""How the next configuration of an arm is proposed, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from neuroint.config.settings import Distribution
from neuroint.registry import Fact, Index, samplers


@samplers.register("tpe")
def tpe(*, seed: Fact[int], space: Fact[dict], startup_trials: Index = 10) -> Any:
    """Propose where good configurations are denser than bad ones, after random ones (multivariate TPE)."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials, multivariate=True)


@samplers.register("random")
def random(*, seed: Fact[int], space: Fact[dict]) -> Any:
    """Propose configurations independently at random."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


@samplers.register("grid")
def grid(*, seed: Fact[int], space: Fact[dict]) -> Any:
    """Propose every combination of the choices once, in random order."""
    import optuna

    return optuna.samplers.GridSampler({path: labels(found) for path, found in space.items()}, seed=seed)


def labels(distribution: Distribution) -> list[str]:
    """Name the values of a choice; Optuna's storage takes plain values only, so that lists become strings."""
    import json

    return [json.dumps(value) for value in distribution.values]


def grid_size(space: Mapping[str, Distribution]) -> int:
    """Number of combinations of the choices."""
    return math.prod(len(found.values) for found in space.values())
