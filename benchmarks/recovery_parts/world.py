"""Worlds whose truth is known, from the product's own simulator, and the two ways in which a model may see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from neuroint.data.base import Facts
from neuroint.data.simulators.v1_parts.circuit import BASELINE, EXPONENT, HISTORY_TAU_S, SEMI_SATURATION
from neuroint.data.simulators.v1_parts.session import Animal, Presented, draw_animal
from neuroint.data.simulators.v1_parts.settings import (
    FRAME_S,
    PRESETS,
    Behaving,
    Confounders,
    Mechanisms,
    Recording,
    World,
)

# What each truth switches on; everything else is off. Strengths are those at which a static model loses .05 or more.
TRUTHS: dict[str, dict[str, Any]] = {
    "none": {},
    "own_history": {"own_history": 3.0},
    "pool": {"pool": 4.0},
    "rate_coupling": {"coupling": 0.5},
    "spike_coupling": {"coupling": 0.5, "feeding": "spikes"},
    "latent": {"latent": 0.5},
    "neuropil": {"neuropil": 0.5},
}
RATES = {"high": 3.0, "low": 0.3}  # SNR level -> median counts per frame
NEURONS, TRAIN_CLIPS, STIMULI, REPEATS = 48, 12, 4, 2
UNIT = 10.0  # responses to a rate of 1, in every neuron: high enough for softplus to be a rectifier at rest
TIERS = {"train": ("train",), "validation": ("oracle",), "test": ("live_test_main", "final_test_main")}


class Clips(NamedTuple):
    """Clips of a tier; responses and rates are ``UNIT`` where the circuit's rate is 1, so that C keeps its norm.

    ``rates`` are what a response would be without noise: given the spikes of the frames before where those feed back,
    and without fluctuations that no stimulus tells.
    """

    drive: Float[np.ndarray, "clips time neurons"]
    video: Float[np.ndarray, "clips time height width"]
    responses: Float[np.ndarray, "clips time neurons"]
    rates: Float[np.ndarray, "clips time neurons"]


@dataclass(frozen=True)
class Known:
    """A simulated animal: what was recorded, and what is true.

    Attributes:
        truth: name in ``TRUTHS``.
        name: unique to truth, SNR and seed.
        facts: of a session whose stimulus is the drive of every neuron, a channel each.
        clips: by tier.
        tuning: cos and sin of twice the preferred direction, which is what pool and coupling depend on.
        positions_um: where cells lie.
        coupling: C.
        pool: W_hat.
        explained_variance: signal power over total variance per neuron.
    """

    truth: str
    name: str
    facts: Facts
    clips: dict[str, Clips]
    tuning: Float[np.ndarray, "neurons 2"]
    positions_um: Float[np.ndarray, "neurons 3"]
    coupling: Float[np.ndarray, "neurons neurons"]
    pool: Float[np.ndarray, "neurons neurons"]
    explained_variance: Float[np.ndarray, " neurons"]

    def constants(self) -> dict[str, float]:
        """What a fit may get back, by name."""
        settings = TRUTHS[self.truth]
        return {
            "exponent": EXPONENT,
            "history_ratio": settings.get("own_history", 0.0) / SEMI_SATURATION,
            "pool_ratio": settings.get("pool", 0.0) / SEMI_SATURATION,
            "tau_s": HISTORY_TAU_S,
            "baseline": BASELINE,
        }


@lru_cache(maxsize=2)
def make_world(truth: str, snr: str, seed: int, train_clips: int = TRAIN_CLIPS) -> Known:
    """Simulate one animal under one truth; the same seed gives the same cells and stimuli under every truth."""
    settings = {"pool": 0.0, **TRUTHS[truth]}
    confounders = Confounders(**{k: settings.pop(k) for k in ("latent", "neuropil") if k in settings})
    sizes = PRESETS["tiny"].resized(
        sessions=1, neurons=NEURONS, train_clips=train_clips, stimuli=STIMULI, repeats=REPEATS
    )
    recording = Recording(median_rate=RATES[snr])
    animal = draw_animal(World(sizes, Mechanisms(**settings), confounders, recording, Behaving(0.0, 0.0)), seed, 0)
    shown = list(animal.present())
    unit = UNIT / animal.recorder.scale
    clips = {tier: _clips(animal, [p for p in shown if p.clip.tier in names], unit) for tier, names in TIERS.items()}
    return _known(truth, f"{truth}-{snr}-{seed}", animal, clips)


def _known(truth: str, name: str, animal: Animal, clips: dict[str, Clips]) -> Known:
    cells = animal.cells
    facts = Facts(
        n_neurons=cells.count,
        stimulus_shape=(cells.count, 1, 1),
        mean_responses=clips["train"].responses.mean((0, 1)),
        shortest_clip=animal.world.preset.frames,
        bin_s=FRAME_S,
        positions_um=cells.positions_um.astype(np.float32),
    )
    angle = 2 * cells.direction_rad
    return Known(
        truth=truth,
        name=name,
        facts=facts,
        clips=clips,
        tuning=np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32),
        positions_um=cells.positions_um,
        coupling=animal.circuit.coupling.toarray(),
        pool=animal.circuit.pool.toarray(),
        explained_variance=animal.signal_power / (animal.signal_power + animal.noise_variance),
    )


def _clips(animal: Animal, shown: list[Presented], unit: np.ndarray) -> Clips:
    energy = [animal.energy(p.video) for p in shown]
    rates = [_noise_free(animal, p, e) for p, e in zip(shown, energy, strict=True)]
    parts = (
        np.sqrt(np.stack(energy)),
        (np.stack([p.video for p in shown]) - 128) / 60,
        np.stack([p.responses for p in shown]) * unit,
        np.stack(rates) * unit,
    )
    return Clips(*(part.astype(np.float32) for part in parts))


def _noise_free(animal: Animal, presented: Presented, energy: np.ndarray) -> np.ndarray:
    """Expected responses; where spikes feed back, given the spikes that were recorded."""
    if not animal.circuit.spiking:
        return presented.expected
    emitted = presented.responses / animal.recorder.scale
    rates = animal.circuit.unroll(energy, np.ones_like(energy), lambda t, _: emitted[t][None], replays=1)[0]
    return animal.recorder.expected(rates)
