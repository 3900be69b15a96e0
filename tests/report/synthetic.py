"""Sweep folders made of random responses and predictions of known quality, with a true journal."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from neuroint.data.base import Facts, Session
from neuroint.metrics.moments import MomentsBuilder
from neuroint.report import write_neurons
from neuroint.results import write_moments
from neuroint.tracking import Journal

START_S = 1_700_000_000.0
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nRuntimeError: out of memory\n'


@dataclass
class Sweep:
    """What is to be made; ``noise`` is the variance of each arm's prediction error, so less is better."""

    noise: dict[str, float] = field(default_factory=lambda: {"none": 0.5, "pool": 0.3})
    reference: str = "none"
    seeds: int = 3
    trials: int = 4
    animals: int = 3
    neurons: int = 40
    stimuli: int = 6
    repeats: int = 4
    frames: int = 20
    information: dict[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    tags: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    arm_params: dict = field(default_factory=dict)
    positions: bool = True
    areas: tuple[str, ...] | None = None  # of the neurons of every animal
    to_areas: tuple[str, ...] = ()
    score: dict = field(default_factory=dict)
    status: str | None = "finished"
    scored: bool = True
    tiers: tuple[str, ...] = ("dev_test",)
    name: str = "which_pool"
    random: int = 0


def make(folder: Path, sweep: Sweep) -> Path:
    """Write sweep.yaml, journal, neurons and moments."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"name": sweep.name, "reference": sweep.reference, "arms": {arm: {} for arm in sweep.noise}}
    asked |= {"score": sweep.score, "confirm": {"seeds": sweep.seeds}, "data": {"to_areas": list(sweep.to_areas)}}
    (folder / "sweep.yaml").write_text("# Does a population pool help?\n" + yaml.safe_dump(asked, sort_keys=False))
    journal, clock = Journal(folder / "journal.jsonl"), Clock()
    tags = {"git_commit": "abc123", "data_hash": "d1d2", "version.torch": "2.13", **sweep.tags}
    journal.append("sweep_started", sweep=sweep.name, tags=tags, params={"confirm.seeds": sweep.seeds}, time=clock())
    for arm in sweep.noise:
        _tune(journal, sweep, arm, clock)
    for arm in sweep.noise:
        if arm not in sweep.failed:
            _confirm(journal, sweep, arm, clock)
    if sweep.scored:
        _score(folder, journal, sweep, clock)
    if sweep.status:
        journal.append("sweep_finished", status=sweep.status, message=None, time=clock())
    write_neurons(folder, sessions(sweep))
    return folder


class Clock:
    """Counts a second per call."""

    def __init__(self):
        self.now = START_S

    def __call__(self):
        self.now += 1.0
        return self.now


def sessions(sweep: Sweep) -> list[Session]:
    """One session per animal."""
    rng = np.random.default_rng(5)
    made = []
    for k in range(sweep.animals):
        positions = rng.uniform(0, 600, (sweep.neurons, 3)) if sweep.positions else None
        facts = Facts(sweep.neurons, None, np.ones(sweep.neurons), 20, positions_um=positions, areas=sweep.areas)
        one = np.ones(1, dtype=np.int64)
        made.append(Session(f"s{k}", f"mouse{k}", facts, ("train",), one, one, source=Nowhere()))
    return made


class Nowhere:
    """A source that is never read."""

    def read(self, clip, start, frames):
        raise NotImplementedError


def _params(sweep, arm, rate):
    name = "none" if arm == sweep.reference else "population_pool"
    return {
        "normalization.name": name,
        "optimizer.learning_rate": rate,
        "core.name": "linear",
        "seed": 1,
        **sweep.params,
        **sweep.arm_params.get(arm, {}),
    }


def _start(journal, sweep, arm, key, phase, seed, clock, rate):
    tags = {"information": sweep.information.get(arm, "stimulus"), "causal": "True", "parameters": str(1000 + len(arm))}
    params = _params(sweep, arm, rate)
    journal.append("run_started", run=key, phase=phase, arm=arm, seed=seed, params=params, tags=tags, time=clock())


def _epochs(journal, key, level, clock, epochs=5):
    for epoch in range(1, epochs + 1):
        score = level * (1 - np.exp(-epoch / 2))
        metrics = {"train_loss": 2 - score, "validation_score": score, "seconds": 1.5, "peak_memory_mb": 300.0}
        journal.append("epoch", run=key, epoch=epoch, metrics=metrics, time=clock())


def _end(journal, key, level, clock, status="finished", message=None):
    metrics = {"best_validation_score": level, "epochs": 5} if status == "finished" else {}
    journal.append(
        "run_finished", run=key, status=status, metrics=metrics, folder=f"runs/{key}", message=message, time=clock()
    )


def _tune(journal, sweep, arm, clock):
    rng = np.random.default_rng(len(arm))
    for k in range(sweep.trials):
        key = f"arm-{arm}-{k:04d}"
        _start(journal, sweep, arm, key, "tune", 1, clock, 0.001 * (k + 1))
        if arm in sweep.failed:
            _end(journal, key, 0.0, clock, "failed", TRACEBACK)
            continue
        level = 0.6 - 0.3 * sweep.noise[arm] + 0.02 * rng.standard_normal()
        _epochs(journal, key, level, clock)
        _end(journal, key, level, clock)


def confirm_key(arm, seed_index):
    return f"confirm-{arm}-c0-s{seed_index}"


def _confirm(journal, sweep, arm, clock):
    for k in range(sweep.seeds):
        key, level = confirm_key(arm, k), 0.6 - 0.3 * sweep.noise[arm] + 0.001 * k
        _start(journal, sweep, arm, key, "confirm", 100 + k, clock, 0.002)
        _epochs(journal, key, level, clock)
        _end(journal, key, level, clock)


def _score(folder, journal, sweep, clock):
    for tier in sweep.tiers:
        for arm in (arm for arm in sweep.noise if arm not in sweep.failed):
            for k in range(sweep.seeds):
                key = confirm_key(arm, k)
                place = folder / "runs" / key
                place.mkdir(parents=True, exist_ok=True)
                found = {s.name: moments(sweep, arm, k, j, s.name, tier) for j, s in enumerate(sessions(sweep))}
                write_moments(place, tier, found)
                journal.append("test_read", run=key, tier=tier, reason="comparison of arms", time=clock())
                _end(journal, key, 0.6 - 0.3 * sweep.noise[arm] + 0.001 * k, clock)


def moments(sweep, arm, seed, animal, session, tier):
    """Responses are the same for all arms and seeds; prediction errors are drawn anew for every run."""
    shape = (sweep.stimuli, sweep.frames, sweep.neurons)
    data = np.random.default_rng([sweep.random, animal, len(tier)])
    signal = data.standard_normal(shape)
    noise_sd = np.linspace(0.5, 2.0, sweep.neurons)
    own = np.random.default_rng([sweep.random, 1 + seed, animal, sum(arm.encode())])
    prediction = signal + np.sqrt(sweep.noise[arm]) * own.standard_normal(shape)
    builder = MomentsBuilder(sweep.neurons, session, tier)
    for k in range(sweep.stimuli):
        responses = signal[k] + noise_sd * data.standard_normal((sweep.repeats, *shape[1:]))
        repeated = np.broadcast_to(prediction[k], responses.shape)
        builder.add(repeated + 5.0, responses + 5.0, np.ones(responses.shape, dtype=bool))
    return builder.finish()
