"""Small sessions in memory, with known truth, for tests of the loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed.nn.functional  # its functions' defaults hold a group that is joined before it is imported

from neuroint.config import SweepConfig, TrialConfig, parse_sweep
from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION, Clip, Facts, Session
from neuroint.seeding import generator

HEIGHT, WIDTH, FRAMES = 8, 10, 40


@dataclass(frozen=True)
class Noise:
    """A source whose responses are Poisson counts of a filtered video."""

    seed: int
    neurons: int
    stimulus_of: tuple[int, ...]
    behavior: bool = True

    def read(self, clip: int, start: int, frames: int) -> Clip:
        draw = generator(self.seed, "stimulus", self.stimulus_of[clip])
        video = draw.normal(size=(FRAMES, 1, HEIGHT, WIDTH)).astype(np.float32)
        weights = generator(self.seed, "weights").normal(size=(HEIGHT * WIDTH, self.neurons)) / 4
        drive = video.reshape(FRAMES, -1) @ weights
        rate = np.log1p(np.exp(drive + np.roll(drive, 1, axis=0)))
        responses = generator(self.seed, "noise", clip).poisson(rate).astype(np.float32)
        crop = np.s_[start : start + frames]
        behavior = generator(self.seed, "behavior", clip).normal(size=(FRAMES, 2)).astype(np.float32)
        given = {"behavior": behavior[crop], "pupil": behavior[crop]} if self.behavior else {}
        return Clip(responses=responses[crop], stimulus=video[crop], **given)


def make_session(
    name: str = "one", *, neurons: int = 6, seed: int = 0, train: int = 6, behavior: bool = True
) -> Session:
    """Six training clips, and two stimuli shown twice in each of the other tiers."""
    tiers = (TRAIN,) * train + (VALIDATION,) * 4 + (DEV_TEST,) * 4 + (FINAL_TEST,) * 4
    stimuli = (*range(train), *(train + tier * 2 + s for tier in range(3) for s in (0, 1, 0, 1)))
    source = Noise(seed, neurons, tuple(stimuli), behavior)
    mean = np.concatenate([source.read(clip, 0, FRAMES).responses for clip in range(train)]).mean(axis=0)
    draw = generator(seed, "positions")
    facts = Facts(
        n_neurons=neurons,
        stimulus_shape=(1, HEIGHT, WIDTH),
        mean_responses=mean.astype(np.float32),
        shortest_clip=FRAMES,
        bin_s=1 / 30,
        behavior_channels=2 if behavior else 0,
        pupil_channels=2 if behavior else 0,
        positions_um=draw.uniform(0, 300, size=(neurons, 3)).astype(np.float32),
        match_ids=draw.permutation(neurons) - 1,
    )
    lengths = np.full(len(tiers), FRAMES)
    return Session(name, f"animal {name}", facts, tiers, lengths, np.asarray(stimuli), source, scored_from=10)


def make_sweep(**changes: object) -> SweepConfig:
    """One arm without interaction and one with own past; a small core; everything may be overridden by section."""
    raw: dict = {
        "name": "test",
        "seed": 3,
        "core": {
            "name": "factorized_conv3d",
            "channels": [3, 4],
            "spatial_kernels": [3, 3],
            "temporal_kernels": [3, 2],
        },
        "readout": {"name": "gaussian", "sampling": True},
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "train": {"epochs": 3, "frames": 20, "batch_size": 4, "patience": 9},
        "search": {"trials": 1},
        "reference": "none",
        "arms": {"none": {}, "own_past": {"interaction": "linear_autoregressive"}},
    }
    for key, value in changes.items():
        merge = isinstance(raw.get(key), dict) and isinstance(value, dict) and not {"arms", "name"} & {key, *value}
        raw[key] = {**raw[key], **value} if merge else value
    return parse_sweep(raw)


def make_config(arm: str = "none", seed: int = 5, **changes: object) -> TrialConfig:
    """A configuration of one arm of ``make_sweep``."""
    return make_sweep(**changes).trial(arm, {}, key="test", phase="tune", seed=seed)


def with_epochs(config: TrialConfig, epochs: int) -> TrialConfig:
    """The same configuration, stopped after so many epochs."""
    return replace(config, train=replace(config.train, epochs=epochs))


@contextmanager
def process_group(folder: str, rank: int, world_size: int = 2) -> Iterator[None]:
    """Join other processes over gloo, and leave: threads that outlive the group can abort a process when it ends."""
    meeting = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def thread_names() -> list[str]:
    """Names of the threads of this process, those of libraries too; none where the system has no /proc."""
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


@dataclass
class ProcessRuntime:
    """A worker of a torch process group, without Ray."""

    rank: int
    world_size: int
    kept: list[dict[str, object]] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def report(self, metrics, folder):
        """Keep an epoch's metrics."""
        self.kept.append(metrics)

    def checkpoint(self):
        """Nothing to resume."""
        return
