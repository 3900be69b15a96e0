"""Find the sessions of an experanto data set and check that their files fit together; nothing is written.

A session is a folder with a folder per device: ``screen``, ``responses`` (or ``spikes``), and perhaps ``treadmill`` and
``eye_tracker``; others are left alone. The layout is that of the code of https://github.com/sensorium-competition/experanto
where its documents say something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.array_roles import Faults
from neuroint.data.base import DataError
from neuroint.data.experanto.devices import Device, Screen, Signals, Spikes
from neuroint.data.experanto.meta import Meta, read_device_meta, read_mapping, read_statistics
from neuroint.data.experanto.screen import read_screen
from neuroint.data.hashing import fingerprint
from neuroint.data.npy import NUMBERS, Header, load_array, read_header
from neuroint.data.sensorium import candidates, is_folder, is_there
from neuroint.data.sensorium_source import to_float32

SCREEN, RESPONSES, SPIKES, TREADMILL, EYE = "screen", "responses", "spikes", "treadmill", "eye_tracker"
SEQUENCE = "sequence"
MARKS = ("meta.yml", "timestamps.npy", "combined_meta.json")  # of the screen, by any of which a session is recognized
POSITIONS = "cell_motor_coordinates"
SIGNATURE = b"\x93NUMPY"
SPIKE_TYPE = np.dtype("<f8")  # of files without a header
TOLERATED_SAMPLES, TOLERATED_SHARE = 1.5, 0.01  # by which duration and number of samples may disagree


@dataclass(frozen=True)
class Recording:
    """A session whose files were all found to fit together."""

    name: str
    animal: str
    screen: Screen
    responses: Device
    treadmill: Signals | None
    eye_tracker: Signals | None
    fingerprint: str
    positions_um: Float[np.ndarray, "neurons 3"] | None = None
    remarks: tuple[str, ...] = ()


class Identity(NamedTuple):
    """Name of a session, and its animal."""

    name: str
    animal: str


def session_folders(path: Path) -> list[Path]:
    """The folder itself if it is a session, or else the folders in it that are.

    Raises:
        DataError: the path is missing, a file, or holds no session.
    """
    first, *inner = candidates(path)
    found = [first] if is_session(first) else [folder for folder in inner if is_session(folder)]
    if not found:
        raise DataError(
            f"{path} holds no experanto session; expected screen/meta.yml, screen/timestamps.npy and "
            "responses/meta.yml in it, or in folders in it"
        )
    return found


def is_session(folder: Path) -> bool:
    """Whether a folder has what a screen is recognized by."""
    return any(is_there(folder / SCREEN / mark) for mark in MARKS)


def survey(folder: Path) -> tuple[Recording | None, list[str]]:
    """Read all that describes a session and list what is wrong with it; the recording is there when nothing is."""
    faults = Faults()
    name = faults.attempt(identify, folder)
    screen = faults.attempt(_device, folder, SCREEN, {SCREEN: read_screen})
    responses = faults.attempt(_responses, folder)
    treadmill, eye_tracker = (faults.attempt(_optional, folder, device) for device in (TREADMILL, EYE))
    placed = None if responses is None else faults.attempt(_positions_um, folder / responses.name, responses.n_signals)
    positions, remarks = placed or (None, ())
    if faults.found or responses is None:
        return None, faults.found
    devices = [device for device in (screen, responses, treadmill, eye_tracker) if device is not None]
    digest = fingerprint(mark for device in devices for mark in _marks(device))
    return Recording(name.name, name.animal, screen, responses, treadmill, eye_tracker, digest, positions, remarks), []


def identify(folder: Path) -> Identity:
    """Name and animal: of ``meta.json`` where it has ``data_key`` or ``scan_key``, or else of the folder's name.

    The animal is ``29513`` of ``29513-3-5`` or ``dynamic29513-3-5-Video-full``; of another name it is all of it.
    """
    found: dict[str, Any] = {}
    if is_there(folder / "meta.json"):
        found = dict(read_mapping(folder / "meta.json", "meta.json"))
    key = found.get("scan_key")
    if isinstance(key, dict):
        found = {"data_key": "-".join(str(key.get(part)) for part in ("animal_id", "session", "scan_idx"))} | found
    name = str(found.get("data_key", folder.name))
    match = re.match(r"(?:dynamic|static)?(\d+)-\d+-\d+(?:-|$)", name)
    return Identity(name, match[1] if match else name)


def _device(folder: Path, name: str, modalities: dict[str, Callable[[Path, Meta], Any]]) -> Any:
    meta = read_device_meta(folder / name)
    return modalities[meta.word("modality", modalities)](folder / name, meta)


def _responses(folder: Path) -> Device:
    for name in (RESPONSES, SPIKES):
        if is_folder(folder / name):
            return _device(folder, name, {SEQUENCE: read_signals, SPIKES: read_spikes})
    raise DataError("there is neither a folder responses nor a folder spikes; nothing was recorded")


def _optional(folder: Path, name: str) -> Signals | None:
    return _device(folder, name, {SEQUENCE: read_signals}) if is_folder(folder / name) else None


def read_signals(folder: Path, meta: Meta) -> Signals:
    """Check a device that samples signals at a fixed rate.

    Raises:
        DataError: a field is missing or wrong, the file is truncated or of another size, or numbers do not agree.
    """
    rate_hz, n_signals = meta.number("sampling_rate"), meta.whole("n_signals", 1)
    if rate_hz <= 0:
        raise DataError(f"{meta.where}: sampling_rate is {rate_hz:g}, expected samples per second above 0")
    mapped = meta.fields.get("is_mem_mapped", not is_there(folder / "data.npy"))
    path = folder / ("data.mem" if mapped else "data.npy")
    header = _raw_header(path, meta, n_signals) if mapped else _saved_header(path, meta, n_signals)
    start_s, end_s = meta.number("start_time"), meta.number("end_time")
    _check_span(meta, header.shape[0], rate_hz, end_s - start_s)
    shifts_s = _shifts_s(folder, n_signals) if meta.fields.get("phase_shift_per_signal") else None
    statistics = read_statistics(folder, n_signals)
    return Signals(folder.name, path, header, rate_hz, start_s, end_s, shifts_s, statistics)


def read_spikes(folder: Path, meta: Meta) -> Spikes:
    """Check a device of spike times: ``spikes.npy``, with or without a NumPy header, or ``spikes.mem``.

    Raises:
        DataError: a field is missing or wrong, or the file does not hold as many times as ``spike_indices`` says.
    """
    bounds = _bounds(meta)
    path = folder / ("spikes.mem" if meta.fields.get("is_mem_mapped", False) else "spikes.npy")
    header = _spike_header(path, meta, int(bounds[-1]))
    return Spikes(folder.name, path, header, bounds, meta.number("start_time"), meta.number("end_time"))


def _bounds(meta: Meta) -> Int[np.ndarray, " bounds"]:
    given: Any = meta.fields.get("spike_indices")
    whole = isinstance(given, list) and len(given) > 1 and all(isinstance(at, int) and 0 <= at < 2**62 for at in given)
    if not whole or given[0] != 0 or (np.diff(given) < 0).any():
        raise DataError(
            f"{meta.where}: spike_indices are to be whole numbers that begin at 0 and never fall, one more than neurons"
        )
    return np.array(given, np.int64)


def _spike_header(path: Path, meta: Meta, count: int) -> Header:
    size = _size(path)
    saved = read_header(path)[0] if _is_saved(path) else Header(SPIKE_TYPE, (size // SPIKE_TYPE.itemsize,), False, 0)
    header = Header(saved.dtype, (count,), False, saved.offset)
    if saved.end != header.end or size < header.end:
        raise DataError(
            f"{path.parent.name}/{path.name} has {size} bytes, but the last of spike_indices in {meta.where} is "
            f"{count}, which takes {header.end}; the two are not of one recording"
        )
    return header


def _raw_header(path: Path, meta: Meta, n_signals: int) -> Header:
    """Type and shape of ``data.mem``, which has no header: they are in ``meta.yml``."""
    try:
        dtype = np.dtype(str(meta.fields.get("dtype")))
    except (TypeError, ValueError, SyntaxError):
        dtype = np.dtype(object)
    if dtype.kind not in NUMBERS:
        raise DataError(
            f"{meta.where}: dtype is {meta.fields.get('dtype')!r}, expected that of data.mem, such as float32"
        )
    header = Header(dtype, (meta.whole("n_timestamps", 1), n_signals), False, 0)
    size = _size(path)
    if size != header.end:
        shape = f"{header.shape[0]} samples of {n_signals} signals in {dtype}"
        told = "is truncated" if size < header.end else "holds more than meta.yml says"
        raise DataError(
            f"{path.parent.name}/data.mem {told}: {size} bytes, but {shape} take {header.end}; copy the file again, or "
            "correct n_timestamps, n_signals and dtype"
        )
    return header


def _saved_header(path: Path, meta: Meta, n_signals: int) -> Header:
    header, _ = read_header(path)
    samples, *signals = header.shape or (0,)
    if len(signals) > 1 or (signals or [1]) != [n_signals]:
        raise DataError(
            f"{path.parent.name}/data.npy has shape {header.shape}, but {meta.where} says n_signals {n_signals}; "
            "expected samples first, then a column per signal"
        )
    if "n_timestamps" in meta.fields and meta.whole("n_timestamps") != samples:
        raise DataError(
            f"{path.parent.name}/data.npy has {samples} samples, but {meta.where} says n_timestamps "
            f"{meta.whole('n_timestamps')}; they are not of one recording"
        )
    return Header(header.dtype, (samples, n_signals), header.fortran, header.offset)


def _check_span(meta: Meta, samples: int, rate_hz: float, span_s: float) -> None:
    if abs(samples / rate_hz - span_s) > TOLERATED_SAMPLES / rate_hz + TOLERATED_SHARE * max(span_s, 0):
        raise DataError(
            f"{meta.where}: {samples} samples at a sampling_rate of {rate_hz:g} Hz take {samples / rate_hz:g} s, but "
            f"from start_time to end_time it is {span_s:g} s; times are in seconds, rates in samples per second"
        )


def _shifts_s(folder: Path, n_signals: int) -> Float[np.ndarray, " signals"]:
    shifts = load_array(folder / "meta/phase_shifts.npy").astype(np.float64)
    if shifts.shape != (n_signals,) or not np.isfinite(shifts).all():
        raise DataError(
            f"{folder.name}/meta/phase_shifts.npy has shape {shifts.shape}, expected a finite number of seconds for "
            f"each of {n_signals} signals"
        )
    return shifts


def _positions_um(folder: Path, n_neurons: int) -> tuple[Float[np.ndarray, "neurons 3"] | None, tuple[str, ...]]:
    """Positions of neurons, and a remark where they are not in space."""
    named = read_device_meta(folder).fields.get("neuron_properties")
    file = str((named if isinstance(named, dict) else {}).get(POSITIONS, f"meta/{POSITIONS}.npy"))
    if not is_there(folder / file):
        return None, ()
    positions = to_float32(load_array(folder / file))
    where = f"{folder.name}/{file}"
    if positions.shape == (n_neurons, 2):
        return None, (f"{where} has two coordinates per neuron, and three are needed: positions are left out",)
    if positions.shape != (n_neurons, 3) or not np.isfinite(positions).all():
        raise DataError(
            f"{where} has shape {positions.shape}, expected finite x, y, z in micrometers for each of {n_neurons} "
            "neurons"
        )
    return positions, ()


def _is_saved(path: Path) -> bool:
    """Whether a file that can be read has a NumPy header."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path.parent.name}/{path.name} cannot be read ({reason}); check that it exists") from error


def _marks(device: Any) -> list[bytes]:
    """What identifies a device: sizes, times, statistics, and no place on this machine."""
    return [repr(value).encode() if not isinstance(value, np.ndarray) else value.tobytes() for value in _facts(device)]


def _facts(value: Any) -> list[Any]:
    if isinstance(value, Path):
        return [value.name]
    if isinstance(value, tuple):
        return [fact for part in value for fact in _facts(part)]
    if hasattr(value, "__dataclass_fields__"):
        return [fact for name in value.__dataclass_fields__ for fact in _facts(getattr(value, name))]
    return [value]
