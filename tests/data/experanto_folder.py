"""Write small folders in the layout of experanto, for tests of their reader."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuroint.data.base import Session
from neuroint.data.readers.experanto import read_experanto

SIZE = (8, 12)
FRAME_S = 1 / 30
NAME = "dynamic29513-3-5-Video-full"


@dataclass(frozen=True)
class Shown:
    """A trial of the screen: what it shows, under which tier, and how long a frame of it stays."""

    pixels: np.ndarray | None = None  # video (frames, height, width) or image (height, width); None is blank
    tier: str | None = "train"
    frame_s: float = FRAME_S
    kind: str | None = None
    value: float | None = 128.0

    @property
    def modality(self) -> str:
        """By the number of axes, where it is not said."""
        ndim = 0 if self.pixels is None else self.pixels.ndim
        return self.kind or {0: "blank", 2: "image"}.get(ndim, "video")

    @property
    def frames(self) -> int:
        """Frames, each of which has a time."""
        return len(self.pixels) if self.modality == "video" and self.pixels is not None else 1


def movie(seed: int, frames: int = 30, size: tuple[int, int] = SIZE, dtype: type = np.uint8) -> np.ndarray:
    """A video of whole numbers from 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, (frames, *size)).astype(dtype)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An image of whole numbers from 0 to 255."""
    return movie(seed, 1, size)[0]


BLANK = Shown(frame_s=0.5, tier="blank")


def numbered(frames: int = 30, tier: str | None = "train", offset: int = 0, **more) -> Shown:
    """A video whose frames all show their own number, counted from an offset."""
    numbers = np.arange(offset, offset + frames, dtype=np.float32)
    return Shown(np.broadcast_to(numbers[:, None, None], (frames, *SIZE)).copy(), tier, **more)


def images(tiers: Sequence[str], seconds: float = 0.5, between: Shown | None = None) -> list[Shown]:
    """Different images one after the other, with something between and after them."""
    shown = [Shown(picture(at), tier, frame_s=seconds) for at, tier in enumerate(tiers)]
    return [trial for image in shown for trial in ([image] if between is None else [image, between])]


def default_trials(frames: int = 30) -> list[Shown]:
    """Videos of a second with half a second of blank after each: eight for training, a repeated one per other tier."""
    wanted = [("train", seed) for seed in range(8)]
    wanted[2:2] = [("oracle", 100), ("test", 101)]
    wanted[6:6] = [("oracle", 100), ("final_test", 102)]
    wanted += [("test", 101), ("final_test", 102), ("train", 0)]
    blank = Shown(frame_s=0.5, tier="blank")
    return [trial for tier, seed in wanted for trial in (Shown(movie(seed, frames), tier), blank)]


def squares(samples: int = 40, neurons: int = 1) -> np.ndarray:
    """Responses that are the squares of the numbers of their samples."""
    return np.square(np.arange(samples, dtype=np.float64))[:, None] + np.zeros(neurons)


def responses(session: Session, clip: int = 0) -> np.ndarray:
    """All of a clip."""
    return session.source.read(clip, 0, int(session.lengths[clip])).responses


def write_experanto(
    root: Path,
    *,
    name: str = NAME,
    trials: Sequence[Shown] | None = None,
    first_s: float = 2.0,
    devices: Mapping[str, dict[str, Any]] | None = None,
    combined: bool = False,
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write one session and return its folder.

    Args:
        root: folder the session's folder is made in.
        name: of the session's folder.
        trials: what is shown, one after the other; the last frame's end is not recorded.
        first_s: when the first frame appears.
        devices: further or other arguments of ``write_signals`` by device; None leaves a device out.
        combined: whether trials are described in one file instead of one file each.
        meta: what ``meta.json`` holds; None writes none.
    """
    folder = root / name
    trials = default_trials() if trials is None else trials
    end_s = write_screen(folder / "screen", trials, first_s, combined)
    usual = {"responses": usual_responses(end_s), "treadmill": usual_treadmill(end_s), "eye_tracker": usual_eye(end_s)}
    for device, arguments in (usual | dict(devices or {})).items():
        if arguments is not None:
            write_signals(folder / device, **(usual.get(device, {}) | arguments))
    if meta is not None:
        (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def usual_responses(end_s: float, neurons: int = 5) -> dict[str, Any]:
    """Activity at 8 Hz from 0 s on, without phase shifts."""
    count = int(8 * (end_s + 2)) + 1
    return {"values": np.random.default_rng(1).gamma(0.5, 2.0, (count, neurons)), "rate_hz": 8.0}


def usual_treadmill(end_s: float) -> dict[str, Any]:
    """Running speed at 30 Hz."""
    count = int(30 * (end_s + 2)) + 1
    return {"values": np.random.default_rng(2).exponential(8.7, (count, 1)), "rate_hz": 30.0}


def usual_eye(end_s: float) -> dict[str, Any]:
    """Dilation, its derivative, x and y at 20 Hz."""
    count = int(20 * (end_s + 2)) + 1
    values = np.random.default_rng(3).normal(size=(count, 4)) * [14.8, 1, 4.9, 6.9] + [53.6, 0, 119.9, 119.9]
    return {"values": values, "rate_hz": 20.0}


def write_signals(
    folder: Path,
    *,
    values: np.ndarray,
    rate_hz: float,
    start_s: float = 0.0,
    end_s: float | None = None,
    shifts_s: np.ndarray | None = None,
    mapped: bool = False,
    stored: bool = True,
    dtype: type = np.float64,
    **fields: Any,
) -> None:
    """Write a device that samples signals.

    Args:
        folder: of the device.
        values: samples, signals.
        rate_hz: samples per second.
        start_s: time of the first sample.
        end_s: ``end_time``; by default that of the last sample.
        shifts_s: delay of each signal.
        mapped: whether the numbers are in ``data.mem`` instead of ``data.npy``.
        stored: whether means and standard deviations are stored; the latter have the shape (1, signals).
        dtype: of the numbers.
        fields: further or other fields of ``meta.yml``; None leaves one out.
    """
    (folder / "meta").mkdir(parents=True)
    values = values.astype(dtype)
    described = {
        "modality": "sequence",
        "sampling_rate": rate_hz,
        "start_time": start_s,
        "end_time": start_s + (len(values) - 1) / rate_hz if end_s is None else end_s,
        "n_signals": values.shape[1],
        "n_timestamps": len(values),
        "is_mem_mapped": mapped,
        "dtype": str(values.dtype),
        "phase_shift_per_signal": shifts_s is not None,
    }
    write_yaml(folder / "meta.yml", described | fields)
    if mapped:
        values.tofile(folder / "data.mem")
    else:
        np.save(folder / "data.npy", values)
    if shifts_s is not None:
        np.save(folder / "meta/phase_shifts.npy", shifts_s)
    if stored:
        np.save(folder / "meta/means.npy", np.nanmean(values, axis=0, keepdims=True))
        np.save(folder / "meta/stds.npy", np.nanstd(values, axis=0, keepdims=True))


def write_screen(folder: Path, trials: Sequence[Shown], first_s: float = 2.0, combined: bool = False) -> float:
    """Write a screen, without statistics, and return when its last trial ends."""
    (folder / "data").mkdir(parents=True)
    (folder / "meta").mkdir()
    write_yaml(folder / "meta.yml", {"modality": "screen"})
    times, now, described = [], first_s, {}
    for at, trial in enumerate(trials):
        key = f"{at:05d}"
        described[key] = _description(trial, len(times))
        if trial.pixels is not None:
            np.save(folder / "data" / f"{key}.npy", trial.pixels)
        times += [now + k * trial.frame_s for k in range(trial.frames)]
        now += trial.frames * trial.frame_s
    np.save(folder / "timestamps.npy", np.array(times))
    if combined:
        (folder / "combined_meta.json").write_text(json.dumps(described))
    else:
        for key, fields in described.items():
            write_yaml(folder / "meta" / f"{key}.yml", fields)
    return now


def write_spikes(folder: Path, spikes: Sequence[Sequence[float]], end_s: float, plain: bool = True) -> None:
    """Write spike times of neurons, without a NumPy header if plain."""
    folder.mkdir(parents=True)
    bounds = [0, *np.cumsum([len(times) for times in spikes]).tolist()]
    write_yaml(
        folder / "meta.yml", {"modality": "spikes", "spike_indices": bounds, "start_time": 0.0, "end_time": end_s}
    )
    flat = np.concatenate([np.asarray(times, np.float64) for times in spikes])
    if plain:
        flat.tofile(folder / "spikes.npy")
    else:
        np.save(folder / "spikes.npy", flat)


def read_everything(path: Path) -> None:
    """Read every clip, and see that inputs are finite and responses no more than missing."""
    for session in read_experanto(path):
        for clip, length in enumerate(session.lengths):
            read = session.source.read(clip, 0, int(length))
            assert not np.isinf(read.responses).any()
            inputs = (read.stimulus, read.behavior, read.pupil)
            assert all(np.isfinite(array).all() for array in inputs if array is not None)


def change(file: Path, **fields: Any) -> None:
    """Change fields of a YAML file; None takes one out."""
    write_yaml(file, yaml.safe_load(file.read_text()) | fields)


def write_yaml(file: Path, fields: Mapping[str, Any]) -> None:
    """Write the fields that are not None."""
    file.write_text(yaml.safe_dump({key: value for key, value in fields.items() if value is not None}))


def _description(trial: Shown, first: int) -> dict[str, Any]:
    height, width = SIZE if trial.pixels is None else trial.pixels.shape[trial.modality == "video" :][:2]
    fields = {"modality": trial.modality, "image_size": [height, width], "first_frame_idx": first, "tier": trial.tier}
    if trial.modality == "video":
        fields["num_frames"] = trial.frames
    if trial.modality in ("blank", "invalid"):
        fields["interleave_value"] = trial.value
    return {key: value for key, value in fields.items() if value is not None}
