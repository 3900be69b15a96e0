"""Neuromatch files of Steinmetz et al. (2019) become plain arrays: the only place where anything is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroint.data.array_store import UNREADABLE
from neuroint.data.base import DataError

NEEDED = ("spks", "brain_area", "contrast_left", "contrast_right", "bin_size", "stim_onset", "mouse_name", "date_exp")
MANIFEST = "converted.json"
_BINS = "bins of bin_size s, the first stim_onset s before the stimulus"
_FROM_START = "s from the start of the trial, the stimulus at stim_onset"
MEANS = {  # axes (n neurons, K active trials, P passive ones), units and time base as they were published
    "spks": f"n, K, time: counts per bin; {_BINS}",
    "wheel": f"1, K, time: wheel ticks per bin; {_BINS}",
    "pupil": f"3 (area, x, y), K, time; {_BINS}",
    "face": f"1, K, time: motion energy of the face; {_BINS}",
    "licks": f"1, K, time: 0 or 1; {_BINS}",
    "response": "K: -1 right, 0 none, 1 left",
    "response_time": f"K, 1: {_FROM_START}",
    "gocue": f"K, 1: {_FROM_START}",
    "feedback_time": f"K, 1: {_FROM_START}",
    "feedback_type": "K: 1 reward, -1 none",
    "prev_reward": "K, 1: feedback of the trial before",
    "reaction_time": "K, 2: time of the first movement, its direction (0 none)",
    "contrast_left": "K: 0 to 1",
    "contrast_right": "K: 0 to 1; the side opposite the recording",
    "active_trials": "K + P: true where the animal could answer",
    "brain_area": "n: acronym of the Allen atlas, root where unassigned",
    "ccf": "n, 3: place in the Allen atlas along ccf_axes",
    "trough_to_peak": "n: samples; 10 or fewer in fast-spiking cells",
    "bin_size": "s",
    "stim_onset": "s after the first bin begins",
}


def convert_steinmetz(parts: Sequence[Path], out: Path) -> list[Path]:
    """Write every session of ``steinmetz_part*.npz`` into a folder of plain ``.npy`` arrays, and say what they are.

    Each part holds ``dat``, an array of one dict per session; sessions are numbered from 0 over the parts in the order
    given, and their folders are called by number, mouse and date. Every key is written as it is: shapes, types, units
    and time base do not change, and ``converted.json`` repeats what they mean. What is ragged becomes two arrays,
    ``key.values`` (end to end) and ``key.lengths``; what is None is named in the manifest. ``out`` appears only when
    all of it is written.

    Unpickling runs whatever code a file holds: convert files whose source you trust.

    Args:
        parts: the files, in their order.
        out: a folder that does not exist.

    Returns:
        the folders of the sessions.

    Raises:
        DataError: ``out`` exists, a part is missing, truncated or of another layout, or a value is neither numbers nor
            text.

    Source: Steinmetz et al. (2019), Nature 576, 266-273; files of the Neuromatch Academy.
    """
    if out.exists():
        raise DataError(f"'{out}' exists, and nothing is written over it; give a new folder, or remove that one first")
    out.parent.mkdir(parents=True, exist_ok=True)
    waiting = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        names = [_write(waiting, index, part.name, held) for index, (part, held) in enumerate(_sessions(parts))]
        waiting.chmod(0o755)
        os.replace(waiting, out)
    except BaseException:
        shutil.rmtree(waiting)
        raise
    return [out / name for name in names]


CONVERTERS: Mapping[str, Callable[[Sequence[Path], Path], list[Path]]] = {"steinmetz": convert_steinmetz}


def _sessions(parts: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for part in parts:
        for place, held in enumerate(_unpickled(part)):
            if not isinstance(held, dict):
                raise DataError(f"'{part.name}': entry {place} of 'dat' is a {type(held).__name__}, expected a dict")
            if missing := [key for key in NEEDED if key not in held]:
                raise DataError(
                    f"'{part.name}': session {place} lacks {', '.join(missing)}; expected the keys of the Neuromatch "
                    "files, unchanged"
                )
            yield part, held


def _unpickled(part: Path) -> np.ndarray:
    try:
        with part.open("rb") as file, np.load(file, allow_pickle=True) as archive:
            found = archive["dat"]
    except (*UNREADABLE, pickle.UnpicklingError, AttributeError, ImportError) as error:
        raise DataError(
            f"'{part}' cannot be read ({error}); expected a whole steinmetz_part*.npz with the array 'dat'; "
            "download it again"
        ) from error
    if found.dtype != object or found.ndim != 1:
        raise DataError(
            f"'{part.name}': 'dat' has type {found.dtype} and shape {found.shape}; expected a row of dicts, one per "
            "session"
        )
    return found


def _write(folder: Path, index: int, source: str, held: Mapping[str, Any]) -> str:
    name = f"{index:02d}_" + re.sub(r"[^A-Za-z0-9_-]+", "-", f"{held['mouse_name']}_{held['date_exp']}")
    inside = folder / name
    inside.mkdir()
    arrays, none = {}, []
    for key, value in held.items():
        if not re.fullmatch(r"\w+", str(key)):
            raise DataError(f"'{source}': session {index} has a key {key!r}, which cannot name a file")
        if value is None:
            none.append(key)
        else:
            arrays |= _plain(f"'{source}': session {index}: {key}", key, value)
    for key, array in arrays.items():
        np.save(inside / f"{key}.npy", array, allow_pickle=False)
    about = {
        "source": source,
        "index": index,
        "arrays": {key: {"shape": list(array.shape), "dtype": str(array.dtype)} for key, array in arrays.items()},
        "means": {key: text for key, text in _means().items() if key in held},
        "none": none,
    }
    (inside / MANIFEST).write_text(json.dumps(about, indent=1), encoding="utf-8")
    return name


def _means() -> dict[str, str]:
    """Passive arrays mean what active ones do, of the passive trials."""
    passive = {f"{key}_passive": text.replace("K", "P", 1) for key, text in MEANS.items()}
    return MEANS | passive


def _plain(where: str, key: str, value: Any) -> dict[str, np.ndarray]:
    """One array without objects, or values and lengths of a ragged list."""
    try:
        array = np.asarray(value)
    except ValueError:  # NumPy does not stack what is ragged
        return _ragged(where, key, list(value))
    if array.dtype != object:
        return {key: array}
    if array.ndim == 0:
        raise DataError(f"{where} is a {type(value).__name__}, expected numbers, text, or lists of these")
    entries = array.ravel().tolist()
    if all(isinstance(entry, str) for entry in entries):
        return {key: np.array(entries, dtype=str).reshape(array.shape)}
    if all(entry is None or np.isscalar(entry) for entry in entries):
        return {key: _numbers(where, entries).reshape(array.shape)}
    shapes = {np.shape(entry) for entry in entries}
    if len(shapes) == 1 and array.ndim == 1:
        return {key: np.stack([_numbers(where, entry) for entry in entries])}
    return _ragged(where, key, entries)


def _ragged(where: str, key: str, entries: list[Any]) -> dict[str, np.ndarray]:
    rows = [np.zeros(0) if entry is None else _numbers(where, entry).ravel() for entry in entries]
    values = np.concatenate(rows) if rows else np.zeros(0)
    return {f"{key}.values": values, f"{key}.lengths": np.array([len(row) for row in rows])}


def _numbers(where: str, entry: Any) -> np.ndarray:
    """An array of numbers; None becomes NaN."""
    try:
        array = np.asarray(entry)
        return array if array.dtype != object else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds something that is no number ({error}); expected numbers or text") from error
