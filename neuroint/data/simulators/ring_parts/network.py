"""Attractor networks whose bump of activity is moved by a velocity: their connectivity, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

Nonlinearity = Literal["rectified_tanh", "threshold_power", "logistic"]
Leak = Annotated[float, Field(gt=0, le=1)]

AMPLITUDE, WAVENUMBER, OFFSET = (
    0.1,
    0.06,
    -0.03,
)  # the wave is not a whole one around 100 units
VELOCITY_GAIN = 0.02
RING_CONSTANTS = {"c": AMPLITUDE, "k": WAVENUMBER, "h": OFFSET, "a": VELOCITY_GAIN}
TORUS_AMPLITUDE, TORUS_BETA, TORUS_ABAR = 5.0, 3 / 13**2, 1.05
TORUS_CONSTANTS = {"A": TORUS_AMPLITUDE, "beta": TORUS_BETA, "abar": TORUS_ABAR, "bias": 1.0}
HALF_ARENA_M = 1.1
START = np.pi  # heading before the first step
POWER_GAIN, POWER = 0.74, 0.5  # a concave power keeps activity bounded; the gain sets its peak at .9
LOGISTIC_SLOPE, LOGISTIC_MIDPOINT = 6.0, 0.4


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-LOGISTIC_SLOPE * (x - LOGISTIC_MIDPOINT)))


NONLINEARITIES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "rectified_tanh": lambda x: np.maximum(np.tanh(x), 0),
    "threshold_power": lambda x: POWER_GAIN * np.maximum(x, 0) ** POWER,
    "logistic": _logistic,
}


@dataclass(frozen=True)
class Network:
    """Connectivity of an attractor network.

    Attributes:
        recurrent: ``W[i, j]`` leads from unit i to unit j.
        shifting: ``Wv[d, m, n]`` leads from unit n to unit m, times velocity along dimension d.
        leak: share of the state that is new in every step.
        bias: of every unit.
    """

    recurrent: Float[np.ndarray, "units units"]
    shifting: Float[np.ndarray, "dimensions units units"]
    leak: float = 1.0
    bias: float = 0.0


def ring_network(units: int) -> Network:
    r"""Connect a ring: a cosine of distance, and an approximate derivative of it that velocity multiplies.

    .. math:: W_{ij} = c \cos(k D_{ij}) + h, \quad W^v_{ij} = -a\, c\, k \sin(k D_{ij})\, \Delta_{ij}

    with distance :math:`D` and signed distance :math:`\Delta` on the ring, in units. The factor is :math:`\Delta`, not
    its sign, so that :math:`W^v` is not the exact derivative of W: the published network has it so. c and a are for 100
    units; they shrink in proportion to the number of units, and the wave stretches with it, so that the bump stays.
    """
    x = np.linspace(-units / 2, units / 2 - 1, units)
    scale = 100 / units
    signed = ((x[:, None] - x[None, :] + units / 2) % units - units / 2) * scale
    apart = np.abs(x[:, None] - x[None, :]) % units
    distance = np.minimum(apart, units - apart) * scale
    recurrent = scale * (AMPLITUDE * np.cos(WAVENUMBER * distance) + OFFSET)
    slope = -scale * AMPLITUDE * WAVENUMBER * np.sin(WAVENUMBER * distance)
    return Network(recurrent, VELOCITY_GAIN * (slope * signed)[None])


def torus_network(side: int) -> Network:
    r"""Connect a torus of side x side units: a difference of Gaussians of distance, and its two derivatives.

    .. math:: W = A (e^{-\bar a \beta D^2} - e^{-\beta D^2}), \quad
        W^v_d = -2 \Delta_d A (\bar a \beta e^{-\bar a \beta D^2} - \beta e^{-\beta D^2})

    with A = 5, beta = 3 / 13^2 and abar = 1.05, distances in units of a torus of 32 x 32. On a smaller one distances
    and weights are scaled so that as many bumps of the same activity fit.
    """
    x = np.linspace(-side / 2, side / 2 - 1, side)
    places = np.stack(np.meshgrid(x, x, indexing="xy"), axis=-1).reshape(-1, 2)
    apart = places[:, None] - places[None, :]
    signed = ((apart + side / 2) % side - side / 2) * (32 / side)
    squared = (signed**2).sum(axis=-1)
    wide, narrow = np.exp(-TORUS_BETA * squared), np.exp(-TORUS_ABAR * TORUS_BETA * squared)
    scale = TORUS_AMPLITUDE * (32 / side) ** 2
    slope = -2 * scale * TORUS_BETA * (TORUS_ABAR * narrow - wide)
    return Network(scale * (narrow - wide), np.moveaxis(signed, -1, 0) * slope, leak=0.2, bias=1.0)


def initial_state(units: int, random: np.random.Generator) -> Float[np.ndarray, " units"]:
    """Draw a state of mean zero: from a positive one the inhibition silences every unit for ever."""
    return random.normal(0, 1 / np.sqrt(units), units)


def run(
    network: Network,
    velocity: Float[np.ndarray, "trajectories time dimensions"],
    *,
    state: Float[np.ndarray, " units"],
    noise: float,
    settle: int,
    nonlinearity: Nonlinearity,
    random: np.random.Generator,
) -> Float[np.ndarray, "trajectories time units"]:
    r"""Let all trajectories settle from one state without velocity, then follow their velocities.

    .. math:: u \leftarrow u + \sigma e / \lVert e \rVert, \quad
        r = \phi(u W + b + \textstyle\sum_d v_d W^v_d u), \quad u \leftarrow (1 - \alpha) u + \alpha r

    with :math:`e` standard normal. Rates are without unit.
    """
    trajectories, frames, _ = velocity.shape
    respond = NONLINEARITIES[nonlinearity]
    u = np.tile(state, (trajectories, 1))
    rates = np.empty((trajectories, frames, len(state)), np.float32)
    for t in range(-settle, frames):
        kick = random.normal(size=u.shape)
        u = u + noise * kick / np.linalg.norm(kick, axis=1, keepdims=True)
        drive = u @ network.recurrent + network.bias
        if t >= 0:
            drive = drive + sum(velocity[:, t, d, None] * (u @ wv.T) for d, wv in enumerate(network.shifting))
        r = respond(drive)
        u = (1 - network.leak) * u + network.leak * r
        if t >= 0:
            rates[:, t] = r
    return rates


def head_turns(
    trajectories: int, frames: int, step_s: float, random: np.random.Generator
) -> tuple[Float[np.ndarray, "trajectories time 1"], Float[np.ndarray, "trajectories time 1"]]:
    """Draw velocity (radians per second, an autoregressive process of SD 2) and the heading that it leads to."""
    velocity = np.zeros((trajectories, frames, 1))
    last = np.zeros((trajectories, 1))
    for t in range(frames):
        last = 1.2 * random.normal(size=last.shape) + 0.8 * last
        velocity[:, t] = last
    heading = (START + np.cumsum(velocity * step_s, axis=1)) % (2 * np.pi)
    return velocity, heading


def walks(
    trajectories: int, frames: int, step_s: float, random: np.random.Generator
) -> tuple[Float[np.ndarray, "trajectories time 2"], Float[np.ndarray, "trajectories time 2"]]:
    """Draw walks in a square arena of 2.2 m: velocity in m/s, and the place (m) that it leads to, from the center.

    Speed is drawn from a Rayleigh distribution of mode .2 m/s, turns are normal with an SD of 3 radians per second;
    within 3 cm of a wall ahead the animal turns by 36 degrees a step, and a step through the wall is not taken.
    """
    place, heading = np.zeros((trajectories, 2)), np.zeros(trajectories)
    velocity, places = (np.zeros((trajectories, frames, 2)) for _ in range(2))
    for t in range(frames):
        speed, turn = random.rayleigh(0.2, trajectories), random.normal(0, 3, trajectories)
        heading = heading + step_s * turn + np.pi / 5 * (_ahead(place, heading) < 0.03)
        wanted = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        inside = np.all(np.abs(place + step_s * wanted) < HALF_ARENA_M, axis=1)
        velocity[:, t] = np.where(inside[..., None], wanted, 0)
        place = place + step_s * velocity[:, t]
        places[:, t] = place
    return velocity, places


def _ahead(place: np.ndarray, heading: np.ndarray) -> Float[np.ndarray, " trajectories"]:
    """Distance in meters to the wall that the animal looks at."""
    way = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    return ((HALF_ARENA_M * np.sign(way) - place) / way).min(axis=1)
