"""Any user's ``.npz`` or folder of ``.npy`` files, with a mapping from array names to roles."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import PlainValidator

from neuroint.data.array_session import build_session
from neuroint.data.array_store import ArrayStore
from neuroint.data.base import DataError, Session
from neuroint.data.mapping import ARRAY_ROLES, ArrayMapping, parse_mapping
from neuroint.data.shown import Shown, shared_between
from neuroint.registry import readers

Mapped = Annotated[
    ArrayMapping | dict[str, Any] | str | None,
    PlainValidator(lambda given: None if given is None else parse_mapping(given)),
]


EVERY = "*.npz"


def looks_like(path: Path) -> bool:
    """Say whether a path is an ``.npz`` file, or a folder with ``.npy`` or ``.npz`` files directly in it."""
    if path.is_dir():
        return any(file.suffix in (".npy", ".npz") for file in path.iterdir())
    return path.suffix == ".npz"


@readers.register("arrays")
def read_arrays(path: Path, *, mapping: Mapped = None, files: str = EVERY) -> list[Session]:
    """Read arrays under any names: an .npz, a folder of .npy files, or a folder of .npz files (a session each).

    Where a folder of ``.npz`` files holds more than recordings, ``files`` is a pattern of those that are meant, such as
    ``2022-*.npz``.

    ``mapping`` says which array plays which role (``neuroint.data.mapping.ArrayMapping``), inline or as the path of a
    YAML file. Without it, a YAML file of the recording's name beside an ``.npz``, or ``mapping.yaml`` in the folder, is
    used; without that, arrays that are called like roles are taken.

    A continuous recording (``time``) becomes clips as ``neuroint.data.blocks.split_frames`` says; ``scored_from`` is
    then ``split.gap_frames``. A recording of single images (``stimulus``) becomes one clip of one frame per
    presentation: tiers are dealt out by image, equal images are repeats, and an absent repeat (all NaN) makes no clip.
    A response that is NaN for some neurons stays, and is not valid for them. Without video and images there is only
    activity.

    Opening scans the whole recording once (finite values, what was shown, statistics of the training tier), a few rows
    at a time. ``.npy`` files and uncompressed ``.npz`` members stay memory-mapped; a compressed member is held once per
    process in its stored dtype: save large recordings with ``numpy.savez`` or ``numpy.save``.

    Raises:
        DataError: every fault of names, axes and counts at once; then NaN in what was shown, neurons without responses,
            a scored tier whose responses are all zero, constant inputs that cannot be z-scored, the same video in two
            tiers of a recording, or trained on in one recording and scored in another, a recording too short to be
            split.
    """
    named = _recordings(path, files)
    found = [_read(file, mapping) for file in named]
    if len(named) > 1 and any(recording.mapping.animal is None for recording in found):
        raise DataError(
            f"'{path}' holds {len(named)} recordings, and the animal is the unit of inference: set 'animal' in the "
            "mapping to its name, to an array in each file that holds it, or to '{file}' if each is of another animal"
        )
    return _settled(found)


def faults(path: Path, *, mapping: Mapped = None, files: str = EVERY) -> list[str]:
    """List what keeps each recording under a path from being read; empty when all is well."""
    read, found = [], []
    for file in _recordings(path, files):
        try:
            read.append(_read(file, mapping))
        except DataError as error:
            found.append(str(error))
    return found + [clash for recording in read for clash in _clashes(recording, read)]


class _Recording(NamedTuple):
    session: Session
    shown: Shown | None
    mapping: ArrayMapping


def _settled(recordings: list[_Recording]) -> list[Session]:
    """Refuse what one recording scores and another trains on, or make it a caution of the one that scores."""
    sessions = []
    for recording in recordings:
        clashes = _clashes(recording, recordings)
        if clashes and recording.mapping.leakage == "refuse":
            raise DataError(
                f"{'; '.join(clashes)}: sessions share what they learn, and a score there would count memory as "
                "prediction; give the recordings the same split, leave one out, or set leakage: report to go on with "
                "a caution"
            )
        cautions = tuple(f"{clash}: scores there are too high" for clash in clashes)
        sessions.append(replace(recording.session, cautions=(*recording.session.cautions, *cautions)))
    return sessions


def _clashes(scored: _Recording, recordings: list[_Recording]) -> list[str]:
    return [
        f"session '{trained.session.name}' trains on what session '{scored.session.name}' scores: {found}"
        for trained in recordings
        if trained is not scored and trained.shown and scored.shown
        for found in shared_between(trained.shown, scored.shown)
    ]


def _recordings(path: Path, pattern: str) -> list[Path]:
    if not path.exists():
        raise DataError(f"'{path}' does not exist; expected an .npz file or a folder of .npy files")
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise DataError(f"'{path}' cannot be listed ({error.strerror}); check its permissions") from None
    packed = [file for file in inside if file.suffix == ".npz"]
    if not packed or any(file.suffix == ".npy" for file in inside):
        return [path]
    wanted = [file for file in packed if fnmatch(file.name, pattern)]
    if not wanted:
        raise DataError(
            f"no .npz file in '{path}' fits files '{pattern}'; there are: {', '.join(file.name for file in packed)}"
        )
    return wanted


def _read(path: Path, given: Mapped) -> _Recording:
    try:
        mapping = _mapping(path, given)
        return _Recording(*build_session(ArrayStore(path), mapping, _fingerprint(path, mapping)), mapping)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error


def _mapping(path: Path, given: Mapped) -> ArrayMapping:
    beside = [path / "mapping.yaml"] if path.is_dir() else [path.with_suffix(".yaml"), path.parent / "mapping.yaml"]
    chosen = given if given is not None else next((str(file) for file in beside if file.is_file()), None)
    return parse_mapping(_by_names(path) if chosen is None else chosen)


def _by_names(path: Path) -> dict[str, str]:
    names = ArrayStore(path).names()
    if "responses" not in names:
        raise DataError(
            "there is no array called 'responses' and no mapping; say which array is what, in a file mapping.yaml "
            f"beside it or under data.options.mapping, for example 'responses: NAME'. It has: "
            f"{', '.join(names) or 'none'}"
        )
    return {role: role for role in ARRAY_ROLES if role in names}


def _fingerprint(path: Path, mapping: ArrayMapping) -> str:
    """Hash file names, sizes and the mapping; statistics are added by the session."""
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    sizes = [f"{file.name} {file.stat().st_size}" for file in files if file.is_file()]
    return blake2b("\n".join([*sizes, mapping.model_dump_json()]).encode(), digest_size=16).hexdigest()
