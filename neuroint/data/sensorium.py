"""Folders of the Sensorium releases: where files lie, what shape they have, and every fault in that.

A session is a folder with one ``.npy`` file per clip and modality under ``data/``, the clips' tiers under
``meta/trials``, and statistics over the training tier under ``meta/statistics``. Dynamic sessions (2023) store time
last and pad with NaN; static sessions (2022) have no time axis and are read as clips of one frame. The formats are
those of Turishcheva et al. 2023 (arXiv:2305.19654) and Willeke et al. 2022 (arXiv:2206.08666).
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from neuroint.data.base import DataError
from neuroint.data.hashing import fingerprint
from neuroint.data.npy import Header, blocks_to_crop, load_array, load_text, map_array, read_header
from neuroint.registry import nearest

RESPONSES, BEHAVIOR, PUPIL = "responses", "behavior", "pupil_center"
TIERS_FILE = "meta/trials/tiers.npy"
POSITIONS_FILE = "meta/neurons/cell_motor_coordinates.npy"
MATCHES_FILE = "meta/neurons/multi_match_id.npy"  # cells found again in other sessions; not in the public releases
NEURON_FILES: dict[str, tuple[str | int, ...]] = {
    POSITIONS_FILE: ("neurons", 3),
    "meta/neurons/unit_ids.npy": ("neurons",),
    MATCHES_FILE: ("neurons",),
}
STATISTICS = {RESPONSES: ("mean", "std"), BEHAVIOR: ("std",), PUPIL: ("mean", "std")}


@dataclass(frozen=True)
class Layout:
    """What a session of one release looks like on disk.

    Attributes:
        title: how messages call it.
        prefix: what folder names begin with; the animal follows.
        stimulus: folder of the stimuli.
        axes: per modality, name or size of each axis of one clip's array.
        tiers: the release's tier names, and what they are here.
    """

    title: str
    prefix: str
    stimulus: str
    axes: Mapping[str, tuple[str | int, ...]]
    tiers: Mapping[str, str]

    @property
    def timeless(self) -> bool:
        """Whether clips are single images, stored without a time axis."""
        return "time" not in self.axes[RESPONSES]

    def name(self, folder: Path) -> str:
        """Short name: ``dynamic29515-10-12`` of ``dynamic29515-10-12-Video-9b4f...``, or else the folder's name."""
        match = re.match(rf"({self.prefix}[^-]+-[^-]+-[^-]+)-", folder.name)
        return match[1] if match else folder.name

    def animal(self, folder: Path) -> str:
        """Animal's id: ``29515`` of ``dynamic29515-10-12-Video-9b4f...``, or else the folder's name."""
        match = re.match(rf"{self.prefix}([^-]+)-[^-]+-[^-]+-", folder.name)
        return match[1] if match else folder.name

    def matches(self, folder: Path) -> bool:
        """Whether a folder is a session of this release, by its stimuli or else by its name.

        Experanto sessions may have the same names; they have a screen.
        """
        named = self.name(folder) != folder.name and not is_folder(folder / "screen")
        return is_folder(folder / "data" / self.stimulus) or named


@dataclass(frozen=True)
class Recording:
    """A session's folder whose files were all found to fit together; arrays are mapped when asked for."""

    folder: Path
    layout: Layout
    tiers: tuple[str, ...]
    headers: Mapping[str, tuple[Header, ...]]
    fingerprint: str

    @property
    def name(self) -> str:
        """Short name of the session."""
        return self.layout.name(self.folder)

    def has(self, modality: str) -> bool:
        """Whether a modality was recorded."""
        return modality in self.headers

    def shape(self, modality: str) -> tuple[int, ...]:
        """Shape of a clip of a modality as ``clip`` returns it."""
        return self.time_last(modality, np.broadcast_to(0, self.headers[modality][0].shape)).shape

    def clip(self, modality: str, clip: int) -> np.ndarray:
        """Map one clip of a modality, raw, time last: ``height width time``, ``neurons time``, ``channels time``."""
        return self.time_last(modality, map_array(self._path(modality, clip), self.headers[modality][clip]))

    def blocks(self, modality: str, clip: int) -> Iterator[np.ndarray]:
        """Go through one clip of a modality, as ``clip`` gives it, in blocks of its first axis.

        This is the fast way to cut frames out of a clip. A block holds until the next is asked for.
        """
        if self.layout.timeless:
            yield self.clip(modality, clip)
        else:
            yield from blocks_to_crop(self._path(modality, clip), self.headers[modality][clip])

    def statistic(self, modality: str, name: str) -> np.ndarray:
        """Load a statistic as float64, in the shape of a clip."""
        values = load_array(self.folder / statistic_file(modality, name)).astype(np.float64)
        return self.time_last(modality, np.broadcast_to(values, self.headers[modality][0].shape))

    def _path(self, modality: str, clip: int) -> Path:
        return self.folder.joinpath("data", modality, f"{clip}.npy")

    def time_last(self, modality: str, array: np.ndarray) -> np.ndarray:
        """Append the one frame of static clips, and take the channel axis off images."""
        if not self.layout.timeless:
            return array
        return array[0, ..., None] if modality == self.layout.stimulus else array[..., None]


def statistic_file(modality: str, name: str) -> str:
    """Where a statistic lies in a session's folder."""
    return f"meta/statistics/{modality}/all/{name}.npy"


def refuse(name: str, faults: Iterable[str]) -> NoReturn:
    """Raise one ``DataError`` that names the session and its first three faults, and counts the rest."""
    faults = list(faults)
    more = f"; and {len(faults) - 3} more, which `neuroint data inspect` lists" if len(faults) > 3 else ""
    raise DataError(f"session {name}: {'; '.join(faults[:3])}{more}")


def session_folders(path: Path, layout: Layout) -> list[Path]:
    """Find the sessions of a release: the folder itself, or those folders in it that are sessions.

    Raises:
        DataError: the path is missing, unreadable or a file, or holds no such session.
    """
    folders = candidates(path)
    found = folders[:1] if layout.matches(path) else [folder for folder in folders[1:] if layout.matches(folder)]
    if not found:
        raise DataError(
            f"{path} holds no session of {layout.title}; expected data/{layout.stimulus}/0.npy, data/responses/0.npy, "
            f"{TIERS_FILE} and meta/statistics in it, or in folders in it"
        )
    return found


def is_release(path: Path, layout: Layout) -> bool:
    """Whether a path looks like a session of a release, or a folder of sessions."""
    return is_folder(path) and any(layout.matches(folder) for folder in candidates(path))


def survey(folder: Path, layout: Layout) -> tuple[Recording | None, list[str]]:
    """Read all headers of a session and list what is wrong with them; the recording is there when nothing is."""
    inventory = _Inventory(folder, layout)
    inventory.take()
    if inventory.faults:
        return None, inventory.faults
    headers = {modality: tuple(headers) for modality, headers in inventory.headers.items()}
    return Recording(folder, layout, inventory.tiers, headers, fingerprint(inventory.marks)), []


class _Inventory:
    """Goes through a session's files, collecting headers, faults, and the marks its fingerprint is made of."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self.tiers: tuple[str, ...] = ()
        self.headers: dict[str, list[Header]] = {}
        self.faults: list[str] = []
        self.marks: list[bytes] = []
        self.sizes: dict[str, tuple[int, str]] = {}  # size of each named axis, and the file that said so

    def take(self) -> None:
        """Check labels, then clips, then statistics; later checks need what earlier ones found."""
        self._read_tiers()
        if self.faults:
            return
        for modality in (BEHAVIOR, PUPIL, RESPONSES, self.layout.stimulus):
            self._list_clips(modality)
        if self.faults:
            return
        for file, axes in NEURON_FILES.items():
            if is_there(self.folder / file):
                self._fit(file, axes)
        for modality in self.headers:
            self._fit_clips(modality)
        for modality in self.headers:
            self._fit_statistics(modality)

    def _read_tiers(self) -> None:
        try:
            self.tiers = tuple(load_text(self.folder / TIERS_FILE))
        except DataError as error:
            self.faults.append(str(error))
            return
        known = self.layout.tiers
        unknown = [tier for tier in dict.fromkeys(self.tiers) if tier not in known]
        self.faults += [
            f"{TIERS_FILE} has the tier {tier!r}, expected one of {', '.join(known)}.{nearest(tier, known)}"
            for tier in unknown
        ]
        self.marks.append(repr(self.tiers).encode())

    def _list_clips(self, modality: str) -> None:
        """Count the files of a modality; behavior and pupil may be absent as a whole."""
        folder = self.folder / "data" / modality
        if modality in (BEHAVIOR, PUPIL) and not is_there(folder):
            return
        found = {path.name for path in _children(folder)} if is_folder(folder) else set()
        wanted = [f"{clip}.npy" for clip in range(len(self.tiers))]
        extra = [name for name in found if re.fullmatch(r"\d+\.npy", name) and int(name[:-4]) >= len(wanted)]
        missing = [name for name in wanted if name not in found]
        if missing or extra:
            example = f"{missing[0]} is missing" if missing else f"{min(extra)} has no tier"
            self.faults.append(
                f"data/{modality} holds {len(wanted) - len(missing) + len(extra)} clips, but {TIERS_FILE} lists "
                f"{len(wanted)} ({example}); every modality needs one file per clip, numbered from 0"
            )
        self.headers[modality] = []

    def _fit_clips(self, modality: str) -> None:
        """Check every clip's header; faults of the same kind are told once, for the first clip."""
        faults = []
        for clip in range(len(self.tiers)):
            before = len(self.faults)
            header = self._fit(f"data/{modality}/{clip}.npy", self.layout.axes[modality])
            faults += self.faults[before:]
            del self.faults[before:]
            self.headers[modality] += [header] if header else []
        more = f" (and {len(faults) - 1} more clips of {modality})" if len(faults) > 1 else ""
        self.faults += [faults[0] + more] if faults else []

    def _fit_statistics(self, modality: str) -> None:
        for name in STATISTICS.get(modality, ("mean", "std")):
            file = statistic_file(modality, name)
            if not is_there(self.folder / file):
                self.faults.append(
                    f"{file} is missing; compute the {name} of {modality} over the clips of the training tier "
                    "(keeping time, if clips have it) and save it there"
                )
                continue
            axes = self.layout.axes[modality]
            header = self._fit(file, axes, one_number=self.layout.timeless and modality == self.layout.stimulus)
            if header:
                self.marks.append(fingerprint([load_array(self.folder / file).tobytes()]).encode())

    def _fit(self, file: str, axes: tuple[str | int, ...], one_number: bool = False) -> Header | None:
        """Read a header and check its shape against named axes, whose sizes are set by the first file that has them."""
        try:
            header, size = read_header(self.folder / file)
        except DataError as error:
            self.faults.append(str(error))
            return None
        self.marks.append(f"{file} {size}".encode())
        if one_number and math.prod(header.shape) == 1:
            return header
        fault = self._shape_fault(file, header.shape, axes)
        self.faults += [fault] if fault else []
        return None if fault else header

    def _shape_fault(self, file: str, shape: tuple[int, ...], axes: tuple[str | int, ...]) -> str | None:
        expected = [axis if isinstance(axis, int) else self.sizes.get(axis, (None, ""))[0] for axis in axes]
        wrong = [at for at, size in enumerate(expected) if at >= len(shape) or size not in (None, shape[at])]
        if len(shape) == len(axes) and not wrong:
            for axis, size in zip(axes, shape, strict=True):
                if isinstance(axis, str):
                    self.sizes.setdefault(axis, (size, file))
            return None
        swapped = len(shape) == len(axes) and any(expected[at] in shape for at in wrong)
        hint = "its axes seem to be in another order: transpose it" if swapped else "make the two agree"
        return f"{file} has shape {shape}, expected ({', '.join(map(str, axes))}){self._sources(axes, wrong)}; {hint}"

    def _sources(self, axes: tuple[str | int, ...], wrong: list[int]) -> str:
        """Say which file set the sizes that do not agree."""
        names = [axis for axis in (axes[at] for at in wrong) if isinstance(axis, str) and axis in self.sizes]
        told = [f"{name} = {self.sizes[name][0]} as in {self.sizes[name][1]}" for name in names]
        return f" with {' and '.join(told)}" if told else ""


def candidates(path: Path) -> list[Path]:
    """A folder and the folders in it, sorted."""
    if not is_there(path):
        raise DataError(f"{path} does not exist; give the folder of a session, or the folder that holds sessions")
    if not is_folder(path):
        raise DataError(f"{path} is a file; give the folder of a session (unpack archives first)")
    return [path, *(child for child in _children(path) if not child.name.startswith(".") and is_folder(child))]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(_not_readable(folder, error)) from error


def _mode(path: Path) -> int | None:
    """Kind of a file, None when it is not there; unlike ``Path.is_dir`` it tells a path that may not be read."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(_not_readable(path, error)) from error


def is_there(path: Path) -> bool:
    return _mode(path) is not None


def is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path) or 0)


def _not_readable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({(error.strerror or str(error)).lower()}); check that you may read it"
