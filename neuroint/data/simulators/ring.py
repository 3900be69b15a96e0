"""Simulated head-direction ring of the fly, with known connectivity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from neuroint.data.simulators.ring_parts import network as net
from neuroint.data.simulators.ring_parts.network import Nonlinearity, head_turns, initial_state, ring_network, run
from neuroint.data.simulators.ring_parts.writing import refuse_occupied, write_network
from neuroint.registry import Count, Index, NonNegative, simulators
from neuroint.seeding import generator

STEP_S = 0.025
PresetName = Literal["tiny", "test", "reference"]


class Sizes(NamedTuple):
    """Units, trajectories, stored steps, and steps before them in which the bump settles."""

    units: int
    trajectories: int
    frames: int
    settle: int


PRESETS: Mapping[str, Sizes] = {
    "tiny": Sizes(20, 12, 60, 200),
    "test": Sizes(40, 25, 200, 300),
    "reference": Sizes(100, 125, 1000, 500),
}


@simulators.register("ring")
def simulate_ring(
    out: Path,
    *,
    preset: PresetName = "tiny",
    seed: Index = 0,
    trajectories: Count | None = None,
    frames: Count | None = None,
    nonlinearity: Nonlinearity = "rectified_tanh",
    noise: NonNegative = 0.1,
) -> Path:
    r"""Simulate a ring of head-direction cells that integrates turns of the head, and write it with its connectivity.

    .. math:: u \leftarrow u + \sigma e / \lVert e \rVert, \quad r = \phi(u W + v\, W^v u), \quad u \leftarrow r

    with the connectivity of ``ring_parts.network.ring_network``. All trajectories start on the same bump, which has
    settled without velocity; the heading starts at pi. Velocity is an autoregressive process of SD 2 radians per
    second, in steps of 25 ms. ``reference`` is the published network of 100 units: of its 125 trajectories of 1000
    steps the reader keeps 100 for training by default. ``test`` has 40 units, ``tiny`` 20; their constants are scaled
    so that the bump is as wide, as a share of the ring.

    ``out/ring`` holds ``rates.npy`` (trajectories time units), ``velocity.npy`` (trajectories time 1, radians per
    second), ``heading.npy`` (the same, radians), ``x0.npy`` (trajectories 1, heading before the first step), all
    float32, and ``ring.json``. ``out/ring/truth`` holds ``W.npy`` (row i leads from unit i), ``Wv.npy`` (1 units units;
    row m leads **to** unit m) and ``constants.json``. The same seed gives the same bytes.

    Nonlinearities: ``rectified_tanh`` max(0, tanh x), which the model assumes, too; with one of the others the model is
    mismatched: ``threshold_power`` .74 sqrt(max(0, x)), ``logistic`` 1 / (1 + exp(-6 (x - .4))), never silent.

    Args:
        out: folder to write to; it must be empty or absent.
        preset: sizes that are not given below.
        seed: of velocities, noise and the initial state.
        trajectories: independent ones.
        frames: stored steps of each.
        nonlinearity: phi.
        noise: length of the random vector added to the state in every step; its SD per unit is noise / sqrt(units).

    Raises:
        ValueError: ``out`` is not an empty folder.

    Source: Zhang (1996), J Neurosci 16, 2112-2126 (the network); Das & Fiete (2020), Nat Neurosci 23, 1286-1296 (why a
    mismatched nonlinearity matters).
    """
    refuse_occupied("ring", out)
    sizes = PRESETS[preset]
    sizes = sizes._replace(trajectories=trajectories or sizes.trajectories, frames=frames or sizes.frames)
    network = ring_network(sizes.units)
    velocity, heading = head_turns(sizes.trajectories, sizes.frames, STEP_S, generator(seed, "ring", "turns"))
    rates = run(
        network,
        velocity,
        state=initial_state(sizes.units, generator(seed, "ring", "state")),
        noise=noise,
        settle=sizes.settle,
        nonlinearity=nonlinearity,
        random=generator(seed, "ring", "noise"),
    )
    x0 = np.full((sizes.trajectories, 1), net.START)
    arrays = {"rates": rates, "velocity": velocity, "heading": heading, "x0": x0}
    about = {"simulator": "ring", "bin_s": STEP_S, "nonlinearity": nonlinearity, "noise": noise, "seed": seed}
    about |= {"leak": network.leak, **sizes._asdict(), **net.RING_CONSTANTS}
    write_network(out / "ring", arrays, network, about)
    return out
