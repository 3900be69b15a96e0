"""Two worlds whose rates are known: the Lorenz attractor, and a chaotic network of rate units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from neuroint.seeding import generator

BIN_S = 0.005
LORENZ_PER_BIN = 0.025  # units of the attractor's own time; one turn of a wing takes about .7 units, 140 ms
LORENZ_STEPS = 5
NETWORK_STEPS = 5  # of 1 ms
NETWORK_TAU_S = 0.025
NETWORK_GAIN = 1.8  # above 1 a large random network is chaotic
UNRECORDED = 0.5  # units that are never recorded, as a share of those that are


@dataclass(frozen=True)
class Drawn:
    """States of a world: what neurons read, ``trials time latents``, and two numbers that stand for a velocity."""

    log_gain: Float[np.ndarray, "trials time neurons"]
    velocity: Float[np.ndarray, "trials time 2"]


def lorenz(seed: int, conditions: Int[np.ndarray, " trials"], bins: int, neurons: int, variability: float) -> Drawn:
    r"""Let neurons read the three states of the Lorenz attractor by random weights.

    .. math:: \dot x = 10 (y - x), \quad \dot y = x (28 - z) - y, \quad \dot z = x y - 8 z / 3

    A condition is a place on the attractor to begin from; trials begin ``variability`` standard deviations from it.
    States are made of mean 0 and standard deviation 1. Source: Lorenz (1963), J. Atmos. Sci. 20, 130-141.
    """
    draw = generator(seed, "lorenz")
    begin = _lorenz_path(draw.normal(size=(conditions.max() + 1, 3)), 400)[:, -1]
    offset = variability * begin.std(axis=0) * draw.normal(size=(len(conditions), 3))
    path = _lorenz_path(begin[conditions] + offset, bins)
    states = (path - path.mean((0, 1))) / path.std((0, 1))
    weights = draw.normal(size=(3, neurons)) / np.sqrt(3)
    return Drawn(states @ weights, states[..., :2])


def _lorenz_path(state: Float[np.ndarray, "trials 3"], bins: int) -> Float[np.ndarray, "trials bins 3"]:
    step, path = LORENZ_PER_BIN / LORENZ_STEPS, []
    for _ in range(bins):
        for _ in range(LORENZ_STEPS):
            half = state + step / 2 * _lorenz_slope(state)
            state = state + step * _lorenz_slope(half)
        path.append(state)
    return np.stack(path, axis=1)


def _lorenz_slope(state: np.ndarray) -> np.ndarray:
    x, y, z = state.T
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 * z / 3], axis=1)


def chaotic(seed: int, conditions: Int[np.ndarray, " trials"], bins: int, neurons: int, variability: float) -> Drawn:
    r"""Let each neuron be a unit of a chaotic network, a third of which is never recorded.

    .. math:: \tau \dot u = -u + g W \tanh u, \quad W_{ij} \sim N(0, 1/n)

    with g = 1.8 and tau = 25 ms. A condition is an initial state; trials begin ``variability`` standard deviations away
    from it. Source: Sompolinsky, Crisanti and Sommers (1988), Phys. Rev. Lett. 61, 259-262.
    """
    draw = generator(seed, "chaotic")
    weights = _network_weights(draw, neurons)
    units = len(weights)
    begin = _network_path(draw.normal(size=(conditions.max() + 1, units)), weights, 100)[:, -1]
    offset = variability * begin.std() * draw.normal(size=(len(conditions), units))
    path = np.tanh(_network_path(begin[conditions] + offset, weights, bins))
    velocity = path @ draw.normal(size=(units, 2)) / np.sqrt(units)
    return Drawn(path[..., :neurons] / path.std(), velocity / velocity.std((0, 1)))


def network_coupling(seed: int, neurons: int) -> Float[np.ndarray, "units units"]:
    """Couplings W of the world :func:`chaotic` of a seed, [target, source]; the recorded units come first."""
    return _network_weights(generator(seed, "chaotic"), neurons)


def _network_weights(draw: np.random.Generator, neurons: int) -> Float[np.ndarray, "units units"]:
    units = neurons + round(UNRECORDED * neurons)
    return NETWORK_GAIN * draw.normal(size=(units, units)) / np.sqrt(units)


def _network_path(state: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
    share, path = BIN_S / NETWORK_STEPS / NETWORK_TAU_S, []
    for _ in range(bins):
        for _ in range(NETWORK_STEPS):
            state = state + share * (np.tanh(state) @ weights.T - state)
        path.append(state)
    return np.stack(path, axis=1)


WORLDS: Mapping[str, Callable[[int, np.ndarray, int, int, float], Drawn]] = {"lorenz": lorenz, "chaotic": chaotic}
