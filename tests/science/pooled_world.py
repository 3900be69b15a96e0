"""Three animals whose neurons are divided by a pool, or are not, and two arms fitted to them.

    python tests/science/pooled_world.py ALPHA

prints the verdict as JSON. Three seeds paired across arms, and the product's own loop, scores and inference. The
stimulus holds each neuron's excitatory drive as a pixel, so that what is tested is the normalization and not what a
core can learn. It is a program because fits are four times as slow under the tests' checks of shapes.
"""

import functools
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from worlds import make_sweep

from neuroint import registry
from neuroint.analysis.inference import compare, difference_per_animal
from neuroint.data.base import DEV_TEST, TRAIN, VALIDATION, Clip, Facts, Session
from neuroint.data.loader import ClipLoader
from neuroint.evaluation import evaluate
from neuroint.fit import prepare
from neuroint.runtime import LocalRuntime
from neuroint.seeding import generator
from neuroint.train import train_trial

NEURONS, FRAMES, CLIPS = 16, 150, 24
SIGMA_SQUARED, RATE = 0.5, 3.0
ARMS = {
    "static": {"normalization": "static_saturation"},
    "pool": {"normalization": {"name": "population_pool", "initial_strength": 0.5}},
}
CPU = LocalRuntime(device=torch.device("cpu"))


@dataclass(frozen=True)
class PooledWorld:
    """Poisson counts of r_i = A E_i / (sigma^2 + alpha sum_j w_ij E_j), contrast changing every second or so."""

    animal: int
    alpha: float
    stimulus_of: tuple[int, ...]

    def positions(self):
        return generator(7, "positions", self.animal).uniform(0, 400, (NEURONS, 3)) * (1, 1, 0)

    def weights(self):
        distance = np.linalg.norm(self.positions()[:, None] - self.positions()[None], axis=-1)
        weights = np.exp(-(distance**2) / (2 * 100**2)) * (1 - np.eye(NEURONS))
        return weights / weights.sum(axis=1, keepdims=True)

    def drive(self, clip):
        draw = generator(7, "drive", self.animal, self.stimulus_of[clip])
        contrast = np.repeat(draw.lognormal(0, 0.5, FRAMES // 30), 30)[:, None]
        return contrast * np.abs(draw.normal(size=(FRAMES, NEURONS)))

    def rates(self, clip):
        energy = self.drive(clip) ** 2
        pooled = SIGMA_SQUARED + self.alpha * energy @ self.weights().T
        return RATE * (SIGMA_SQUARED + self.alpha) * energy / pooled

    def read(self, clip: int, start: int, frames: int) -> Clip:
        counts, pixels = _whole(self, clip)
        crop = np.s_[start : start + frames]
        return Clip(responses=counts[crop].copy(), stimulus=pixels[crop].copy())


@functools.cache
def _whole(world: PooledWorld, clip: int) -> tuple[np.ndarray, np.ndarray]:
    counts = generator(7, "noise", world.animal, clip).poisson(np.minimum(world.rates(clip), 300))
    return counts.astype(np.float32), world.drive(clip)[:, None, None, :].astype(np.float32)


def animal(number: int, alpha: float) -> Session:
    tiers = (TRAIN,) * CLIPS + (VALIDATION,) * 6 + (DEV_TEST,) * 8
    stimuli = (*range(CLIPS), *(CLIPS + i // 2 for i in range(14)))
    world = PooledWorld(number, alpha, stimuli)
    mean = np.mean([world.read(clip, 0, FRAMES).responses.mean(axis=0) for clip in range(CLIPS)], axis=0)
    facts = Facts(
        n_neurons=NEURONS,
        stimulus_shape=(1, 1, NEURONS),
        mean_responses=mean.astype(np.float32),
        shortest_clip=FRAMES,
        positions_um=world.positions().astype(np.float32),
    )
    lengths = np.full(len(tiers), FRAMES)
    return Session(f"session{number}", f"animal{number}", facts, tiers, lengths, np.asarray(stimuli), world)


def fitted_scores(arm: str, seed: int, sessions: list[Session], folder) -> dict[str, np.ndarray]:
    """Train with the loop and score the best weights per neuron on dev-test."""
    sweep = make_sweep(
        core={"name": "linear", "lags": 1},
        readout={"name": "linear"},
        link="softplus",
        optimizer={"name": "adamw", "learning_rate": 0.05, "weight_decay": 0.0},
        schedule="cosine",
        train={"epochs": 12, "frames": 150, "batch_size": 4, "steps_per_epoch": 12},
        reference="static",
        arms=ARMS,
    )
    config = sweep.trial(arm, {}, key=f"{arm}-{seed}", phase="confirm", seed=seed)

    def keep(metrics, checkpoint):
        (folder / "best.safetensors").write_bytes((checkpoint / "best.safetensors").read_bytes())

    train_trial(config, sessions, replace(CPU, on_report=keep))
    fit = prepare(replace(config, init=replace(config.init, source=str(folder))), sessions, CPU, torch.float32)
    with ClipLoader(sessions) as loader:
        moments = evaluate(fit.model, loader, DEV_TEST, CPU, frames_at_once=1200)
    score = registry.metrics["single_trial_correlation"].factory
    return {name: score(m) for name, m in moments.items()}


def comparison(alpha: float, folder: Path):
    """Fit both arms with three seeds to three animals, and compare them as the report does."""
    sessions = [animal(number, alpha) for number in range(3)]
    found = {arm: [fitted_scores(arm, seed, sessions, folder) for seed in range(3)] for arm in ARMS}
    stacked = {arm: {s.name: np.stack([run[s.name] for run in runs]) for s in sessions} for arm, runs in found.items()}
    animals = {s.name: s.animal for s in sessions}
    return compare(difference_per_animal(stacked["pool"], stacked["static"], animals), smallest_effect=0.01)


if __name__ == "__main__":
    torch.set_num_threads(1)  # steps of a millisecond are slower on several
    with tempfile.TemporaryDirectory() as scratch:
        found = comparison(float(sys.argv[1]), Path(scratch))
    print(json.dumps({"verdict": found.verdict, "difference": found.difference, "sentence": found.sentence}))
