"""Write a folder in the layout of Sensorium 2023 that is as large as a real one and made of noise, quickly.

It is for measuring speed and memory. Recordings with something to find in them are made by ``neuroint data simulate``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, FRAMES, STORED = 36, 64, 300, 324  # pixels; frames shown and frames stored, NaN behind
SHAPES = {"videos": (HEIGHT, WIDTH), "behavior": (2,), "pupil_center": (2,)}


def write_session(
    folder: Path, neurons: int, clips: int, seed: int = 0, dtype: str = "float32", repeated: bool = False
) -> Path:
    """Write one session: ``clips`` training clips and 6 of the oracle tier, with statistics over training.

    Those of the oracle tier show six videos, or, ``repeated``, one.

    Magnitudes are those of mouse A of the release. The release is likely float64: it takes 20.5 MB a clip.
    """
    session = folder / f"dynamic{seed}-1-{neurons}-Video-{clips:032x}"
    random = np.random.default_rng([seed, neurons, clips])
    tiers = np.array(["train"] * clips + ["oracle"] * 6)
    shapes = SHAPES | {"responses": (neurons,)}
    noise = {name: _noise(name, shape, random).astype(dtype) for name, shape in shapes.items()}
    for name in shapes:
        (session / "data" / name).mkdir(parents=True)
        _write_clips(session, name, noise[name], tiers, random)
    for clip in range(clips + 1, len(tiers) if repeated else 0):
        shutil.copyfile(session / f"data/videos/{clips}.npy", session / f"data/videos/{clip}.npy")
    _save(session / "meta/trials/tiers.npy", tiers)
    _save(session / "meta/neurons/unit_ids.npy", np.arange(neurons))
    _save(session / "meta/neurons/cell_motor_coordinates.npy", random.integers(0, 615, (neurons, 3)))
    return session


def _noise(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Twice as many frames as a clip needs, from which clips are cut: drawing every clip anew would take minutes."""
    size = (*shape, 2 * STORED)
    draw = {
        "videos": lambda: 80 + 57 * random.standard_normal(size, np.float32),
        "responses": lambda: np.maximum(random.standard_gamma(0.1, size, np.float32) * 20 - 0.01, -5e-9),
        "behavior": lambda: np.array([[54.0], [5.5]]) + np.array([[15.0], [8.7]]) * random.standard_normal(size),
        "pupil_center": lambda: 120 + 5 * random.standard_normal(size),
    }
    return draw[name]()


def _write_clips(session: Path, name: str, noise: np.ndarray, tiers: np.ndarray, random: np.random.Generator) -> None:
    """Write a modality's clips, each another cut of the noise at another gain, and the statistics over training."""
    training = int((tiers == "train").sum())
    total, squares = np.zeros((2, *noise.shape[:-1], STORED))
    for clip, first in enumerate(random.integers(0, STORED, len(tiers))):
        values = noise[..., first : first + STORED] * random.uniform(0.9, 1.1)
        values[..., FRAMES:] = np.nan
        np.save(session / "data" / name / f"{clip}.npy", values)
        if clip < training:
            total += values
            squares += np.square(values)
    mean = total / training
    _save(session / f"meta/statistics/{name}/all/mean.npy", mean.astype(noise.dtype))
    _save(session / f"meta/statistics/{name}/all/std.npy", np.sqrt(squares / training - mean**2).astype(noise.dtype))


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
