"""Write small folders in the layouts of Sensorium 2023 and 2022, for tests of their readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

DYNAMIC_NAME = "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"
STATIC_NAME = "static23964-4-22-GrayImageNet-94c6ff995dac583098847cfecd43e7b6"
DYNAMIC_TIERS = ("train", "oracle", "train", "live_test_main", "train", "final_test_main", "train", "oracle", "train")
DYNAMIC_TIERS += ("live_test_main", "train", "final_test_main", "none", "live_test_bonus", "final_test_bonus")
STATIC_TIERS = ("train",) * 8 + ("validation",) * 2 + ("test",) * 4 + ("final_test",) * 2


def write_dynamic(
    root: Path,
    *,
    name: str = DYNAMIC_NAME,
    tiers: Sequence[str] = DYNAMIC_TIERS,
    stimuli: Sequence[int] | None = None,
    frames: int | Sequence[int] = 60,
    padded: int = 64,
    neurons: int = 12,
    size: tuple[int, int] = (8, 12),
    dtype: type = np.float64,
    withheld: Sequence[str] = (),
    behavior: bool = True,
    seed: int = 0,
) -> Path:
    """Write one dynamic session, NaN-padded and time last, and return its folder.

    Args:
        root: folder the session's folder is made in.
        name: of the session's folder.
        tiers: one per clip.
        stimuli: which stimulus each clip showed; by default the clips of a tier other than train share one.
        frames: valid frames, of all clips or of each.
        padded: stored frames.
        neurons: number of neurons.
        size: height and width in pixels.
        dtype: stored type of all arrays.
        withheld: tiers whose responses are zeros without padding.
        behavior: whether behavior and pupil are stored.
        seed: of all values.
    """
    rng = np.random.default_rng(seed)
    lengths = [frames] * len(tiers) if isinstance(frames, int) else frames
    stimuli = default_stimuli(tiers) if stimuli is None else stimuli
    folder, data = root / name, {}
    shown = {s: np.round(rng.uniform(0, 255, (*size, padded))) for s in sorted(set(stimuli))}
    offset = rng.lognormal(1, 1, (neurons, 1))
    for clip, (tier, length) in enumerate(zip(tiers, lengths, strict=True)):
        responses = np.maximum(rng.gamma(0.5, 2 * offset, (neurons, padded)) - 0.1, -5e-9)
        arrays = {"videos": shown[stimuli[clip]].copy(), "responses": responses}
        if behavior:
            arrays["behavior"] = np.stack([53.6 + 14.8 * rng.normal(size=padded), rng.exponential(8.7, padded)])
            arrays["pupil_center"] = 119.9 + rng.normal(size=(2, padded)) * [[4.9], [6.9]]
        for modality, array in arrays.items():
            array[..., length:] = np.nan
            if tier in withheld and modality == "responses":
                array[:] = 0
            data.setdefault(modality, []).append(array.astype(dtype))
    _save(folder, data, tiers, neurons, rng)
    return folder


def write_static(
    root: Path,
    *,
    name: str = STATIC_NAME,
    tiers: Sequence[str] = STATIC_TIERS,
    stimuli: Sequence[int] | None = None,
    neurons: int = 10,
    size: tuple[int, int] = (16, 24),
    dtype: type = np.float32,
    withheld: Sequence[str] = (),
    behavior: bool = True,
    seed: int = 0,
) -> Path:
    """Write one static session and return its folder; arguments as for ``write_dynamic``."""
    rng = np.random.default_rng(seed)
    stimuli = default_stimuli(tiers) if stimuli is None else stimuli
    shown = {s: np.round(rng.uniform(0, 255, (1, *size))) for s in sorted(set(stimuli))}
    data: dict[str, list[np.ndarray]] = {}
    for clip, tier in enumerate(tiers):
        arrays = {"images": shown[stimuli[clip]], "responses": rng.gamma(0.5, 4, neurons)}
        if behavior:
            arrays["behavior"] = np.array([50.0, 0.0, 5.0]) + rng.normal(size=3)
            arrays["pupil_center"] = 119.9 + 5 * rng.normal(size=2)
        arrays["responses"] *= tier not in withheld
        for modality, array in arrays.items():
            data.setdefault(modality, []).append(array.astype(dtype))
    folder = root / name
    _save(folder, data, tiers, neurons, rng)
    return folder


def default_stimuli(tiers: Sequence[str]) -> list[int]:
    """A stimulus of its own for each training clip, one shared stimulus for each other tier."""
    others = sorted(set(tiers))
    return [1000 + others.index(tier) if tier != "train" else clip for clip, tier in enumerate(tiers)]


def statistics(clips: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
    """Mean and standard deviation over clips, keeping time; NaN at frames that no clip has."""
    stack = np.stack([clip.astype(np.float64) for clip in clips])
    known = ~np.isnan(stack)
    count = known.sum(axis=0)
    values = np.where(known, stack, 0)
    mean = np.where(count > 0, values.sum(axis=0) / np.maximum(count, 1), np.nan)
    square = (np.where(known, stack - mean, 0) ** 2).sum(axis=0) / np.maximum(count, 1)
    return {"mean": mean, "std": np.where(count > 0, np.sqrt(square), np.nan)}


def _save(
    folder: Path, data: Mapping[str, Sequence[np.ndarray]], tiers: Sequence[str], neurons: int, rng: np.random.Generator
) -> None:
    for modality, clips in data.items():
        (folder / "data" / modality).mkdir(parents=True)
        for clip, array in enumerate(clips):
            np.save(folder / "data" / modality / f"{clip}.npy", array)
        (folder / "meta/statistics" / modality / "all").mkdir(parents=True)
        train = [array for array, tier in zip(clips, tiers, strict=True) if tier == "train"]
        for name, values in statistics(train).items():
            np.save(folder / "meta/statistics" / modality / "all" / f"{name}.npy", values.astype(clips[0].dtype))
    (folder / "meta/neurons").mkdir(parents=True)
    (folder / "meta/trials").mkdir(parents=True)
    np.save(folder / "meta/trials/tiers.npy", np.array(tiers))
    np.save(folder / "meta/neurons/unit_ids.npy", np.arange(neurons))
    positions = np.stack([*rng.integers(-300, 300, (2, neurons)), rng.choice(np.arange(200, 450, 25), neurons)], axis=1)
    np.save(folder / "meta/neurons/cell_motor_coordinates.npy", positions)
    (folder / "config.json").write_text('{"links": {}}')
