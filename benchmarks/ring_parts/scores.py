"""What a fitted network found: open-loop error, velocity modulation, shifters, and recovery of the connectivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from neuroint.analysis.ring import SHIFTER, Recovery, gain_signed_product, recovery, velocity_modulation
from neuroint.data.base import TRAIN, Inputs
from neuroint.model import PopulationModel
from ring_parts.fitting import World


@dataclass(frozen=True)
class Wiring:
    """The parts of a fitted W, and of the true connectivity, [from, to]."""

    recurrent: Float[np.ndarray, "units units"]
    shifting: Float[np.ndarray, "units units"] | None


def wiring(model: PopulationModel) -> Wiring:
    """Couplings among observed units, and the gain-signed product through hidden ones where there are any."""
    core: Any = model.core
    w, n = core.connectivity().detach().double().numpy(), core.observed
    if core.units == n:
        return Wiring(w, None)
    gain = np.zeros(core.units)
    gain[core.units - core.driven :] = core.input.weight.detach().double().numpy()[:, 0]
    return Wiring(w[:n, :n], gain_signed_product(w[:n, n:], gain[n:], w[n:, :n]))


@torch.no_grad()
def rollout(model: PopulationModel, world: World) -> Float[np.ndarray, "trajectories time units"]:
    """Rates of all units over whole trajectories, from the first recorded frame on, without that frame."""
    inputs = Inputs(behavior=torch.from_numpy(world.velocity), observed=torch.from_numpy(world.rates))
    core: Any = model.eval().core
    return core.activity(model.lagged(inputs))[:, 1:].numpy()


def scores(model: PopulationModel, world: World, losses: list[float], draws: int) -> dict[str, Any]:
    """Every figure of the tables; open-loop errors are over trajectories that were not trained on."""
    found, n = rollout(model, world), world.rates.shape[2]
    held_out = np.setdiff1d(np.arange(len(found)), world.session.clips(TRAIN))
    target = world.rates[held_out, 1:]
    turning = [array[:, 1:, 0] for array in (world.velocity, world.heading)]
    indices = velocity_modulation(found, *turning)
    parts = wiring(model)
    out: dict[str, Any] = {
        "mse_start": float(np.mean(losses[:1])),
        "mse_end": float(np.mean(losses[-200:])),
        "open_loop_mse": float(np.mean((found[held_out, :, :n] - target) ** 2)),
        "open_loop_mse_of_constant": float(np.mean((target - target.mean(axis=(0, 1))) ** 2)),
        "modulation_observed": float(np.nanmedian(np.abs(indices[:n]))),
        "modulation_true": float(np.nanmedian(np.abs(velocity_modulation(world.rates[:, 1:], *turning)))),
        "hidden": int(found.shape[2] - n),
        "shifters_plus": int((indices[n:] > SHIFTER).sum()),
        "shifters_minus": int((indices[n:] < -SHIFTER).sum()),
        "silent_hidden": int(np.isnan(indices[n:]).sum()),
        "recurrent": _told(recovery(parts.recurrent, world.recurrent, draws=draws)),
    }
    if parts.shifting is not None:
        out["shifting"] = _told(recovery(parts.shifting, world.shifting, draws=draws))
    return out


def _told(found: dict[str, Recovery]) -> dict[str, dict[str, float]]:
    return {name: {"score": one.score, "null_max": one.highest, "p": one.p} for name, one in found.items()}
