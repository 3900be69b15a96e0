"""Simulated grid cells on a torus, with known connectivity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neuroint.data.simulators.ring import PresetName, Sizes
from neuroint.data.simulators.ring_parts import network as net
from neuroint.data.simulators.ring_parts.network import Nonlinearity, initial_state, run, torus_network, walks
from neuroint.data.simulators.ring_parts.writing import refuse_occupied, write_network
from neuroint.registry import Count, Index, NonNegative, simulators
from neuroint.seeding import generator

STEP_S = 0.02
SIDES: Mapping[str, int] = {"tiny": 10, "test": 16, "reference": 32}
PRESETS: Mapping[str, Sizes] = {
    "tiny": Sizes(SIDES["tiny"] ** 2, 12, 60, 200),
    "test": Sizes(SIDES["test"] ** 2, 25, 200, 300),
    "reference": Sizes(SIDES["reference"] ** 2, 25, 1000, 500),
}


@simulators.register("torus")
def simulate_torus(
    out: Path,
    *,
    preset: PresetName = "tiny",
    seed: Index = 0,
    trajectories: Count | None = None,
    frames: Count | None = None,
    nonlinearity: Nonlinearity = "rectified_tanh",
    noise: NonNegative = 0.1,
) -> Path:
    r"""Simulate a torus of grid cells that integrates a walk in an arena, and write it with its connectivity.

    .. math:: u \leftarrow u + \sigma e / \lVert e \rVert, \quad
        r = \phi(u W + 1 + \textstyle\sum_d v_d W^v_d u), \quad u \leftarrow .8 u + .2 r

    with the connectivity of ``ring_parts.network.torus_network``, whose bumps stand in a hexagonal lattice. Velocity
    (m/s, two channels) is of walks in a square of 2.2 m from its center, in steps of 20 ms. ``reference`` has 32 x 32
    units as published, and 25 trajectories; ``test`` has 16 x 16, ``tiny`` 10 x 10 with scaled constants.

    ``out/torus`` holds what ``simulate_ring`` writes; ``heading.npy`` is the place (trajectories time 2, m) and
    ``x0.npy`` (trajectories 2) where walks start. ``truth/Wv.npy`` has two dimensions. Reader ``ring`` reads it.

    Args:
        out: folder to write to; it must be empty or absent.
        preset: sizes that are not given below.
        seed: of walks, noise and the initial state.
        trajectories: independent ones.
        frames: stored steps of each.
        nonlinearity: phi, as in ``simulate_ring``; the attractor has been looked at with ``rectified_tanh`` alone.
        noise: length of the random vector added to the state in every step.

    Raises:
        ValueError: ``out`` is not an empty folder.

    Source: Burak & Fiete (2009), PLoS Comput Biol 5, e1000291 (difference of Gaussians on a torus).
    """
    refuse_occupied("torus", out)
    sizes = PRESETS[preset]
    sizes = sizes._replace(trajectories=trajectories or sizes.trajectories, frames=frames or sizes.frames)
    network = torus_network(SIDES[preset])
    velocity, places = walks(sizes.trajectories, sizes.frames, STEP_S, generator(seed, "torus", "walks"))
    rates = run(
        network,
        velocity,
        state=initial_state(sizes.units, generator(seed, "torus", "state")),
        noise=noise,
        settle=sizes.settle,
        nonlinearity=nonlinearity,
        random=generator(seed, "torus", "noise"),
    )
    arrays = {"rates": rates, "velocity": velocity, "heading": places, "x0": 0 * places[:, 0]}
    about = {"simulator": "torus", "bin_s": STEP_S, "nonlinearity": nonlinearity, "noise": noise, "seed": seed}
    about |= {"leak": network.leak, **sizes._asdict(), **net.TORUS_CONSTANTS}
    write_network(out / "torus", arrays, network, about)
    return out
