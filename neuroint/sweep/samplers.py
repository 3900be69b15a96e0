"""How the next configuration of an arm is proposed, by name, and how many each arm gets."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from neuroint.config.settings import Distribution, SweepConfig
from neuroint.registry import Fact, Index, samplers
from neuroint.seeding import generator

REFERENCE, ARMS = "reference", "arm"  # the stages of a search, and the first words of their runs' keys


@samplers.register("tpe")
def tpe(*, seed: Fact[int], startup_trials: Index = 10) -> Any:
    """Propose where good configurations are denser than bad ones, after random ones (multivariate TPE)."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials)


@samplers.register("random")
def random(*, seed: Fact[int]) -> Any:
    """Propose configurations independently at random."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


@samplers.register("grid")
def grid(*, seed: Fact[int]) -> Any:
    """Propose every combination of the choices once, in random order.

    The combinations are enqueued when a study is opened: Optuna's own grid would count a given starting point as
    none of them and try it twice.
    """
    return random(seed=seed)


def labels(distribution: Distribution) -> list[str]:
    """Name the values of a choice; Optuna's storage takes plain values only, so that lists become strings."""
    return [json.dumps(value) for value in distribution.values]


def grid_size(space: Mapping[str, Distribution]) -> int:
    """Number of combinations of the choices."""
    return math.prod(len(found.values) for found in space.values())


def combinations(space: Mapping[str, Distribution], seed: int) -> list[dict[str, Any]]:
    """List every combination of the choices, in an order that follows from the seed."""
    found = [dict(zip(space, values, strict=True)) for values in itertools.product(*(d.values for d in space.values()))]
    return [found[index] for index in generator(seed, "grid").permutation(len(found))]


def is_grid(sweep: SweepConfig) -> bool:
    """Tell whether every combination is tried, so that there is nothing to start from or to learn on the way."""
    return sweep.search.sampler == "grid"


def budget(sweep: SweepConfig, arm: str, stage: str) -> int:
    """Count the trials of an arm in a stage of the search: the reference is searched first, then all arms alike."""
    if stage == REFERENCE:
        return 0 if is_grid(sweep) or arm != sweep.reference else sweep.search.reference_trials
    return grid_size(sweep.arms[arm].distributions) if is_grid(sweep) else sweep.search.trials


def runs_planned(sweep: SweepConfig, arm: str) -> int:
    """Count all runs of an arm: tuned in both stages, and confirmed."""
    tuned = [budget(sweep, arm, stage) for stage in (REFERENCE, ARMS)]
    return sum(tuned) + min(sweep.confirm.top, sum(tuned)) * sweep.confirm.seeds
