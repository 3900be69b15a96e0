"""Write a simulated recording in the Sensorium 2023 layout, with the truth beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from neuroint.data.simulators.v1_parts.plan import TRAIN_TIER
from neuroint.data.simulators.v1_parts.session import Animal, Presented

MODALITIES = ("videos", "responses", "behavior", "pupil_center")
STATISTICS = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max, "median": np.median}
_FIRST_ANIMAL = 90001  # no real animal of the public recordings has a number like this
_BLOCK_BYTES = 64 * 2**20  # of one modality over all training clips, read at a time


def write_session(out: Path, animal: Animal) -> Path:
    """Write all files of one session, clip by clip, and return its folder."""
    folder = out / session_name(animal)
    tiers, stimuli, videos = {}, {}, {}
    for presented in animal.present():
        clip = presented.clip
        tiers[clip.file], stimuli[clip.file] = clip.tier, clip.stimulus
        _write_video(folder, presented, animal.world.preset.stored_frames, videos)
        _write_clip(folder, presented, animal.world.preset.stored_frames)
        if clip.tier != TRAIN_TIER or animal.world.preset.rates_of_training:
            _write_clip_truth(folder / "truth", presented)
    _write_meta(folder, animal, [tiers[i] for i in range(len(tiers))])
    write_statistics(folder, [i for i in range(len(tiers)) if tiers[i] == TRAIN_TIER])
    _write_truth(folder / "truth", animal)
    save(folder / "truth" / "stimulus_ids.npy", np.array([stimuli[i] for i in range(len(stimuli))]))
    return folder


def session_name(animal: Animal) -> str:
    """Name a session as the public recordings are named; the hash tells worlds apart."""
    digest = hashlib.blake2b(json.dumps(_settings(animal), sort_keys=True).encode(), digest_size=16).hexdigest()
    return f"dynamic{_FIRST_ANIMAL + animal.session}-1-1-Video-{digest}"


def write_statistics(folder: Path, train: list[int]) -> None:
    """Compute mean, std (ddof 0), min, max and median over training clips, keeping time; padding stays NaN."""
    for modality in MODALITIES:
        target = folder / "meta" / "statistics" / modality / "all"
        blocks = [
            [statistic(block, axis=0) for statistic in STATISTICS.values()]
            for block in _blocks(folder, modality, train)
        ]
        for name, parts in zip(STATISTICS, zip(*blocks, strict=True), strict=True):
            save(target / f"{name}.npy", np.concatenate(parts).astype(np.float32))


def _blocks(folder: Path, modality: str, train: list[int]) -> Iterator[Float[np.ndarray, "clips rows *shape"]]:
    """Yield a few rows of all training clips at a time, float64."""
    arrays = [np.load(folder / "data" / modality / f"{i}.npy", mmap_mode="r", allow_pickle=False) for i in train]
    rows = max(1, int(_BLOCK_BYTES / (8 * len(arrays) * arrays[0][0].size)))
    for first in range(0, len(arrays[0]), rows):
        yield np.stack([array[first : first + rows] for array in arrays]).astype(float)


def save(path: Path, array: np.ndarray) -> None:
    """Save an array, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=False)


def _write_clip(folder: Path, presented: Presented, stored_frames: int) -> None:
    behavior = presented.behavior
    arrays = {
        "responses": presented.responses.T,
        "behavior": np.stack([behavior.dilation, behavior.running]),
        "pupil_center": behavior.center_px.T,
    }
    for modality, array in arrays.items():
        save(folder / "data" / modality / f"{presented.clip.file}.npy", _padded(array, stored_frames))


def _write_video(folder: Path, presented: Presented, stored_frames: int, videos: dict[int, Path]) -> None:
    """Write the video of a clip; a repeat links to the first presentation, or copies it."""
    path = folder / "data" / "videos" / f"{presented.clip.file}.npy"
    first = videos.setdefault(presented.clip.stimulus, path)
    if first == path:
        save(path, _padded(np.moveaxis(presented.video, 0, -1), stored_frames))
        return
    try:
        os.link(first, path)
    except OSError:
        shutil.copyfile(first, path)


def _padded(array: Float[np.ndarray, "*shape time"], stored_frames: int) -> Float[np.ndarray, "*shape stored"]:
    """Fill up with NaN, float32."""
    padded = np.full((*array.shape[:-1], stored_frames), np.nan, np.float32)
    padded[..., : array.shape[-1]] = array
    return padded


def _write_clip_truth(truth: Path, presented: Presented) -> None:
    name = f"{presented.clip.file}.npy"
    save(truth / "rates" / name, presented.rates.T.astype(np.float32))
    save(truth / "expected" / name, presented.expected.T.astype(np.float32))
    state = np.stack([presented.behavior.state, presented.behavior.pupil])
    save(truth / "state" / name, state.astype(np.float32))


def _write_meta(folder: Path, animal: Animal, tiers: list[str]) -> None:
    (folder / "config.json").write_text(json.dumps({"links": {}}))
    neurons = folder / "meta" / "neurons"
    save(neurons / "cell_motor_coordinates.npy", animal.cells.positions_um.astype(np.int64))
    save(neurons / "unit_ids.npy", np.arange(1, animal.cells.count + 1))
    save(folder / "meta" / "trials" / "tiers.npy", np.array(tiers))


def _write_truth(truth: Path, animal: Animal) -> None:
    matrices = {"C": animal.circuit.coupling, "W_hat": animal.circuit.pool, "mixing": animal.recorder.mixing}
    for name, matrix in matrices.items():
        sparse.save_npz(truth / f"{name}.npz", matrix)
    for name, values in _neuron_truth(animal).items():
        save(truth / "neurons" / f"{name}.npy", values)
    described = {**_settings(animal), "equation": animal.circuit.constants()}
    (truth / "truth.json").write_text(json.dumps(described, indent=2, sort_keys=True))


def _settings(animal: Animal) -> dict[str, Any]:
    """Everything that this session depends on, so not the number of sessions."""
    settings = {"seed": animal.seed, "session": animal.session, **asdict(animal.world)}
    settings["preset"].pop("sessions")
    return settings


def _neuron_truth(animal: Animal) -> dict[str, np.ndarray]:
    measured = {
        "drive_rms": animal.drive_rms,
        "scale": animal.recorder.scale,
        "signal_power": animal.signal_power,
        "noise_variance": animal.noise_variance,
        "loadings": animal.loadings.T,
    }
    return {**animal.cells.arrays(), **measured}
