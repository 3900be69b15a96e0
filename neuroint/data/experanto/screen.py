"""Check what a session says it showed: trials, their frames, and when each frame appeared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from neuroint.data.base import DataError
from neuroint.data.experanto.devices import BLANK, IMAGE, VIDEO, Screen, Trial, pixels
from neuroint.data.experanto.meta import MEANS, SDS, Meta, read_mapping
from neuroint.data.npy import load_array, read_header
from neuroint.data.sensorium import is_folder, is_there
from neuroint.data.sensorium_source import to_float32

COMBINED = "combined_meta.json"
INVALID = "invalid"
KINDS = (VIDEO, IMAGE, BLANK, INVALID)
NUMBERED = re.compile(r"\d{5}\.yml")


def read_screen(folder: Path, meta: Meta) -> Screen:
    """Check a screen: every trial's description and pixels, and that all frames have a time.

    Raises:
        DataError: the first fault of the trials, and how many more there are; or times that do not fit them.
    """
    trials = _trials(folder, bool(meta.fields.get("image_names")))
    shape = _frame_shape(trials)
    timestamps_s = _timestamps_s(folder, trials[-1].first + trials[-1].frames)
    statistics = [_statistic(folder, file, shape) for file in (MEANS, SDS)]
    mean, sd = statistics if all(value is not None for value in statistics) else (None, None)
    return Screen(trials, timestamps_s, _ends_s(trials, timestamps_s), shape, mean, sd)


def _trials(folder: Path, by_name: bool) -> tuple[Trial, ...]:
    """Read trials in order of time; faults are told once, for the first of them."""
    found, faults, first = [], [], 0
    for key, meta in _trial_metas(folder).items():
        try:
            trial = _trial(folder, key, meta, first, by_name)
            found.append(trial)
            first = trial.first + trial.frames
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f" (and {len(faults) - 1} more trials have faults)" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    return tuple(found)


def _trial_metas(folder: Path) -> dict[str, Meta]:
    """Descriptions by trial: of ``combined_meta.json`` where it is, as the format's own code does, or of ``meta/``."""
    files = sorted(folder.joinpath("meta").iterdir()) if is_folder(folder / "meta") else []
    single = {file.stem: file for file in files if NUMBERED.fullmatch(file.name)}
    if is_there(folder / COMBINED):
        found: Mapping[str, Any] = read_mapping(folder / COMBINED, f"screen/{COMBINED}")
        if single and set(single) != set(found):
            differs = min(set(single) ^ set(found))
            raise DataError(
                f"screen/{COMBINED} describes {len(found)} trials, but screen/meta has {len(single)} (trial {differs} "
                "is in one of the two); it is out of date: delete it"
            )
    else:
        found = {key: read_mapping(file, f"screen/meta/{file.name}") for key, file in single.items()}
    if not found:
        raise DataError(f"the screen has no trials; expected screen/meta/00000.yml and so on, or screen/{COMBINED}")
    return {key: _fields(key, fields) for key, fields in found.items()}


def _fields(key: str, fields: Any) -> Meta:
    if not isinstance(fields, dict):
        raise DataError(f"screen trial {key} holds {type(fields).__name__}, expected fields with names")
    return Meta(f"screen trial {key}", fields)


def _trial(folder: Path, key: str, meta: Meta, first: int, by_name: bool) -> Trial:
    kind = meta.word("modality", KINDS)
    frames = meta.whole("num_frames", 1) if kind == VIDEO else 1
    if meta.whole("first_frame_idx") != first:
        raise DataError(
            f"{meta.where}: first_frame_idx is {meta.whole('first_frame_idx')}, but the trials before it have {first} "
            "frames; a trial is missing, or counted twice"
        )
    tier = meta.fields.get("tier")
    tier = None if tier is None else str(tier)
    if kind not in (VIDEO, IMAGE):
        value = meta.number("interleave_value") if meta.fields.get("interleave_value") is not None else np.nan
        return Trial(key, kind, tier, first, frames, value=value)
    name = str(meta.fields["image_name"]) if by_name and "image_name" in meta.fields else key
    return Trial(key, kind, tier, first, frames, *_pixels_of(folder / "data", name, meta, kind, frames))


def _pixels_of(folder: Path, name: str, meta: Meta, kind: str, frames: int) -> tuple[Any, ...]:
    if meta.fields.get("encoded"):
        ending = meta.fields.get("file_format", "a movie or picture")
        raise DataError(
            f"{meta.where} is encoded ({ending}), and only plain arrays are read; decode it to data/{name}.npy"
        )
    path = folder / f"{name}.npy"
    header, _ = read_header(path)
    held = pixels(kind, np.broadcast_to(0, header.shape)).shape[0]
    if held != frames:
        raise DataError(f"{path} holds {held} frames, but {meta.where} is a {kind} of {frames}; make the two agree")
    return path, header


def _frame_shape(trials: tuple[Trial, ...]) -> tuple[int, int, int]:
    """Channels, height and width that all frames share."""
    shapes = {trial.key: shape for trial in trials for shape in _shape(trial)}
    if not shapes:
        raise DataError("the screen showed neither a video nor an image; there is no stimulus")
    first, expected = next(iter(shapes.items()))
    other = next((key for key, shape in shapes.items() if shape != expected), None)
    if other is not None:
        raise DataError(
            f"frames of screen trial {other} have channels, height and width {shapes[other]}, those of trial {first} "
            f"have {expected}; make them equal"
        )
    return expected


def _shape(trial: Trial) -> Iterator[tuple[int, int, int]]:
    if trial.header is not None:
        _, channels, height, width = pixels(trial.kind, np.broadcast_to(0, trial.header.shape)).shape
        yield channels, height, width


def _timestamps_s(folder: Path, frames: int) -> Float[np.ndarray, " frames"]:
    """A time per frame, and perhaps one more, at which the last frame ended."""
    times = load_array(folder / "timestamps.npy").astype(np.float64).ravel()
    if len(times) not in (frames, frames + 1):
        raise DataError(
            f"screen/timestamps.npy has {len(times)} times, but the trials have {frames} frames; every frame needs one"
        )
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        raise DataError(
            f"screen/timestamps.npy is NaN or infinite at frame {wrong[0]}; every frame needs a time in seconds"
        )
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        at = int(back[0])
        raise DataError(
            f"screen/timestamps.npy goes back in time after frame {at}: from {times[at]:g} s to {times[at + 1]:g} s; "
            "frames must be in the order in which they were shown"
        )
    return times


def _ends_s(trials: tuple[Trial, ...], timestamps_s: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " trials"]:
    """When each trial ended: when the next began, or, if it is earlier, when a video's last frame had had its time."""
    after = [trial.first + trial.frames for trial in trials]
    ends = np.append(timestamps_s, np.nan)[after]
    for place, trial in enumerate(trials):
        shown = timestamps_s[trial.first : after[place]]
        if len(shown) > 1:
            ends[place] = np.fmin(ends[place], shown[-1] + np.median(np.diff(shown)))
    return ends


def _statistic(folder: Path, file: str, shape: tuple[int, int, int]) -> Float[np.ndarray, "_ _ _"] | None:
    """A stored mean or standard deviation of pixels: one number, one per channel, or one per pixel."""
    if not is_there(folder / file):
        return None
    values = load_array(folder / file).astype(np.float64)
    if not np.isfinite(to_float32(values)).all():
        raise DataError(f"screen/{file} has NaN or infinite values; compute it without them, or delete the file")
    if values.shape == shape[1:]:
        return values[None]
    if values.size in (1, shape[0]):
        return values.reshape(-1, 1, 1)
    raise DataError(
        f"screen/{file} has shape {values.shape}, expected one number, one per channel, or one for each of "
        f"{shape[1]} x {shape[2]} pixels"
    )
