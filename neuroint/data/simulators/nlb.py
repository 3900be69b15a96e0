"""Populations with known rates in the layout of the Neural Latents Benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from neuroint.data.simulators.nlb_parts.dynamics import BIN_S, WORLDS, Drawn
from neuroint.registry import Index, NonNegative, Positive, simulators
from neuroint.seeding import generator

World = Literal["lorenz", "chaotic"]
Layout = Literal["mc_maze", "area2_bump"]
Phase = Literal["val", "test"]
Spread = Annotated[float, Field(ge=0, le=2)]
MASKS = {"mc_maze": 0, "area2_bump": 2}
COARSE = 4  # bins of 5 ms in one of 20 ms
PSTH_SD_BINS = 14  # 70 ms
VELOCITY_NOISE = 0.1  # standard deviations


@dataclass(frozen=True)
class Sizes:
    """Bins are of 5 ms and multiples of 4."""

    conditions: int
    train: int
    evaluated: int
    bins: int
    forward: int
    held_in: int
    held_out: int


PRESETS = {
    "tiny": Sizes(conditions=4, train=40, evaluated=16, bins=40, forward=8, held_in=12, held_out=4),
    "test": Sizes(conditions=12, train=240, evaluated=80, bins=80, forward=20, held_in=36, held_out=12),
    "bench": Sizes(conditions=27, train=1721, evaluated=574, bins=140, forward=40, held_in=137, held_out=45),
}


@simulators.register("nlb")
def simulate_nlb(
    out: Path,
    *,
    preset: Literal["tiny", "test", "bench"] = "tiny",
    seed: Index = 0,
    world: World = "chaotic",
    layout: Layout = "mc_maze",
    phase: Phase = "val",
    rate_hz: Positive = 12.0,
    modulation: NonNegative = 0.8,
    variability: Spread = 0.3,
) -> Path:
    r"""Simulate reaches of a population with known rates, and write them as files of the Neural Latents Benchmark.

    .. math:: n_{kti} \sim Poisson(r_{kti}), \quad r_{kti} = r_0 \Delta e^{m s_{kti} - m^2 / 2}

    with s of the Lorenz attractor or of a chaotic network, of standard deviation about 1. The folder holds
    ``train_input.h5``, ``eval_input.h5`` and ``target.h5`` (with PSTHs, lists of trials per condition, behavior of
    which one trial is NaN, forward counts), the same in 20 ms bins (``.._20``), and ``truth.h5``: the rates per bin, in
    the layout of a submission, so that scoring the truth gives the ceiling. Rates are independent over trials given the
    initial state, so a condition's average says less than a single trial does when ``variability`` is large. The same
    seed gives the same arrays.

    Args:
        out: folder to write to; it must be empty or absent.
        preset: tiny (40 + 16 trials of 200 ms, 12 + 4 neurons), test (240 + 80 of 400 ms, 36 + 12) or bench (the size
            of MC_Maze: 1721 + 574 of 700 ms, 137 + 45).
        seed: of everything.
        world: ``lorenz`` (three latents) or ``chaotic`` (every neuron a unit; as many latents as units).
        layout: ``area2_bump`` has two decode masks.
        phase: ``test`` leaves held-out evaluation counts out of the input file.
        rate_hz: mean rate.
        modulation: standard deviation of the log rate.
        variability: how far trials of a condition begin from one another, in standard deviations of the state.

    Raises:
        ValueError: ``out`` is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"simulator 'nlb': {out} is not empty; give a folder that is empty or does not exist")
    out.mkdir(parents=True, exist_ok=True)
    sizes = PRESETS[preset]
    draw = generator(seed, "nlb", "trials")
    conditions = draw.permutation(np.arange(sizes.train + sizes.evaluated) % sizes.conditions)
    neurons = sizes.held_in + sizes.held_out
    drawn = WORLDS[world](seed, conditions, sizes.bins + sizes.forward, neurons, variability)
    rates = rate_hz * BIN_S * np.exp(modulation * drawn.log_gain - modulation**2 / 2)
    counts = generator(seed, "nlb", "counts").poisson(rates).astype(np.int32)
    for coarse in (1, COARSE):
        _write(out, sizes, coarse, layout, phase, conditions, (rates, counts, drawn), seed)
    return out


def _write(
    out: Path,
    sizes: Sizes,
    coarse: int,
    layout: Layout,
    phase: Phase,
    conditions: np.ndarray,
    arrays: tuple[np.ndarray, np.ndarray, Drawn],
    seed: int,
) -> None:
    """Write all files in bins of ``coarse`` times 5 ms."""
    from neuroint.data.nlb.hdf5 import write_arrays  # which needs h5py
    from neuroint.data.nlb.names import group_name

    bin_ms = round(1000 * BIN_S * coarse)
    rates, counts = (x.reshape(*x.shape[:1], -1, coarse, x.shape[2]).sum(axis=2) for x in arrays[:2])
    window = sizes.bins // coarse
    cuts = {"train": slice(0, sizes.train), "eval": slice(sizes.train, None)}
    spikes, truth = _parts("spikes", counts, cuts, window, sizes), _parts("rates", rates, cuts, window, sizes)
    target = {name: x for name, x in spikes.items() if name.startswith("eval") and name != "eval_spikes_heldin"}
    target |= _behavior(arrays[2].velocity[:, coarse // 2 :: coarse][:, :window], cuts, seed)
    target |= _conditions(counts[:, :window], conditions, cuts, coarse) | _masks(MASKS[layout], conditions, cuts)
    shown = {"eval_spikes_heldin"} | ({"eval_spikes_heldout"} if phase == "val" else set())
    inputs = {
        "train_input": {name: x for name, x in spikes.items() if name.startswith("train")},
        "eval_input": {name: x for name, x in spikes.items() if name in shown},
    }
    for name, found in inputs.items():
        write_arrays(out / f"{group_name(name, bin_ms)}.h5", found)
    write_arrays(out / "target.h5", target, group_name(layout, bin_ms))
    write_arrays(out / "truth.h5", truth, group_name(layout, bin_ms))


def _parts(kind: str, array: np.ndarray, cuts: dict[str, slice], window: int, sizes: Sizes) -> dict[str, np.ndarray]:
    """Cut into splits, held-in and held-out neurons, the window and the bins after it."""
    neurons = {"heldin": slice(sizes.held_in), "heldout": slice(sizes.held_in, None)}
    frames = {"": slice(window), "_forward": slice(window, None)}
    return {
        f"{split}_{kind}_{part}{tail}": array[trials, bins, which]
        for split, trials in cuts.items()
        for part, which in neurons.items()
        for tail, bins in frames.items()
    }


def _behavior(velocity: np.ndarray, cuts: dict[str, slice], seed: int) -> dict[str, np.ndarray]:
    noisy = velocity + VELOCITY_NOISE * generator(seed, "nlb", "velocity", velocity.shape[1]).normal(
        size=velocity.shape
    )
    noisy[1] = np.nan  # an outlier trial, as in the recordings
    return {f"{split}_behavior": noisy[trials] for split, trials in cuts.items()}


def _conditions(
    counts: np.ndarray, conditions: np.ndarray, cuts: dict[str, slice], coarse: int
) -> dict[str, np.ndarray | list[np.ndarray]]:
    """Smoothed averages over all trials of a condition, and which trials of a split are of which."""
    smoothed = gaussian_filter1d(counts.astype(np.float64), PSTH_SD_BINS / coarse, axis=1)
    kinds = range(int(conditions.max()) + 1)
    found: dict[str, np.ndarray | list[np.ndarray]] = {
        f"{split}_cond_idx": [np.flatnonzero(conditions[trials] == kind) for kind in kinds]
        for split, trials in cuts.items()
    }
    return found | {"psth": np.stack([smoothed[conditions == kind].mean(axis=0) for kind in kinds])}


def _masks(count: int, conditions: np.ndarray, cuts: dict[str, slice]) -> dict[str, np.ndarray]:
    masks = conditions[:, None] % max(count, 1) == np.arange(count)
    return {f"{split}_decode_mask": masks[trials] for split, trials in cuts.items() if count}
