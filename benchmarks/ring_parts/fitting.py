"""Identify a simulated ring: windows of 50 steps from all training trajectories, Adam, a checkpoint now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from neuroint.config.settings import Spec
from neuroint.data.base import TRAIN, Inputs, Session
from neuroint.data.observed import observe_past
from neuroint.data.opening import open_sessions
from neuroint.data.simulators.ring import STEP_S, simulate_ring
from neuroint.data.simulators.ring_parts.network import Nonlinearity
from neuroint.model import PopulationModel, build_model, facts_of
from neuroint.seeding import derive, generator

WINDOW, LEARNING_RATE, KEEP_EVERY = 50, 1e-4, 500


@dataclass(frozen=True)
class Condition:
    """A network that identifies, and the nonlinearity of the one that is identified."""

    separated: bool
    nonlinearity: Nonlinearity = "rectified_tanh"

    def core(self, units: int) -> dict[str, Any]:
        """Choices of the core: as many hidden units as observed ones, or none."""
        return {"hidden": units} if self.separated else {"hidden": 0, "separated": False}


CONDITIONS: Mapping[str, Condition] = {
    "separated": Condition(separated=True),
    "unseparated": Condition(separated=False),
    "mismatched_power": Condition(separated=True, nonlinearity="threshold_power"),
    "mismatched_logistic": Condition(separated=True, nonlinearity="logistic"),
}


class World(NamedTuple):
    """A simulated ring: its session, its arrays, and its connectivity."""

    session: Session
    rates: Float[np.ndarray, "trajectories time units"]
    velocity: Float[np.ndarray, "trajectories time 1"]
    heading: Float[np.ndarray, "trajectories time 1"]
    recurrent: Float[np.ndarray, "units units"]
    shifting: Float[np.ndarray, "units units"]


def world_of(condition: Condition, seed: int, preset: Any, folder: Path) -> World:
    """Simulate a ring, or open the one that was simulated before."""
    out = folder / f"{preset}_{condition.nonlinearity}_{seed}"
    if not (out / "ring" / "ring.json").is_file():  # the last file that is written
        simulate_ring(out, preset=preset, seed=seed, nonlinearity=condition.nonlinearity)
    (session,) = open_sessions(out, "ring")
    arrays = [np.load(out / "ring" / f"{name}.npy") for name in ("rates", "velocity", "heading")]
    truth = [np.load(out / "ring" / "truth" / f"{name}.npy") for name in ("W", "Wv")]
    offered = observe_past(session, STEP_S)
    return World(offered, arrays[0], arrays[1], arrays[2], truth[0], truth[1][0].T)


def model_of(condition: Condition, world: World, seed: int) -> PopulationModel:
    """Build the network of a condition, its weights drawn from the seed."""
    return model_with(condition.core(world.rates.shape[2]), world.session, seed)


def model_with(core: dict[str, Any], session: Session, seed: int) -> PopulationModel:
    """Build a network of these choices for a session."""
    torch.manual_seed(derive(seed, "ring", "init"))
    names = {"readout": "observed_units", "link": "identity", "normalization": "none", "interaction": "none"}
    specs = {slot: Spec(name) for slot, name in names.items()} | {"core": Spec("input_separated_rnn", core)}
    return build_model(specs, facts_of([session]))


def fit(condition: Condition, world: World, seed: int, updates: int, kept: Path) -> dict[str, Any]:
    """Train, from the last checkpoint on where there is one; returns losses and seconds, writes the weights."""
    model = model_of(condition, world, seed)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    state = _restored(model, optimizer, kept.with_suffix(".pt"))
    clips = world.session.clips(TRAIN)
    arrays = [torch.from_numpy(array[clips]) for array in (world.rates, world.velocity)]
    while state["update"] < updates:
        began, cpu = time.perf_counter(), time.process_time()
        losses = [_update(model, optimizer, arrays, seed, state["update"] + k) for k in range(KEEP_EVERY)]
        state["update"] += KEEP_EVERY
        state["losses"] += losses
        state["seconds"] += time.perf_counter() - began
        state["cpu_seconds"] += time.process_time() - cpu
        _keep(model, optimizer, state, kept.with_suffix(".pt"))
        print(f"{time.strftime('%H:%M:%S')} {kept.name} {state['update']} {np.mean(losses[-200:]):.5f}", flush=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(kept.with_suffix(".safetensors")))
    return state


def _update(
    model: PopulationModel, optimizer: torch.optim.Optimizer, arrays: list[Tensor], seed: int, number: int
) -> float:
    rates, velocity = windows(arrays, generator(seed, "ring", "windows", number))
    optimizer.zero_grad(set_to_none=True)
    found = model(Inputs(behavior=velocity, observed=rates), "ring")
    loss = functional.mse_loss(found[:, 1:], rates[:, 1:])
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def windows(arrays: list[Tensor], random: np.random.Generator) -> list[Tensor]:
    """Cut a window out of every trajectory, each at a place of its own."""
    trajectories, frames = arrays[0].shape[:2]
    starts = random.integers(0, frames - WINDOW + 1, trajectories).tolist()
    return [torch.stack([array[i, s : s + WINDOW] for i, s in enumerate(starts)]) for array in arrays]


def _restored(model: PopulationModel, optimizer: torch.optim.Optimizer, file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {"update": 0, "losses": [], "seconds": 0.0, "cpu_seconds": 0.0}
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def _keep(model: PopulationModel, optimizer: torch.optim.Optimizer, state: dict[str, Any], file: Path) -> None:
    """Write a checkpoint beside the last one, then put it in its place."""
    new = file.with_suffix(".new")
    torch.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, new)
    new.replace(file)
