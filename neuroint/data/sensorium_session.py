"""Turn a folder of a Sensorium release into a session: lengths, tiers, withheld responses, repeats, facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, DataError, Facts, Session
from neuroint.data.hashing import stimulus_id
from neuroint.data.matches import whole_ids
from neuroint.data.npy import load_array
from neuroint.data.sensorium import (
    BEHAVIOR,
    MATCHES_FILE,
    POSITIONS_FILE,
    PUPIL,
    RESPONSES,
    TIERS_FILE,
    Layout,
    Recording,
    refuse,
    session_folders,
    survey,
)
from neuroint.data.sensorium_source import (
    InputNormalization,
    Normalization,
    ResponseNormalization,
    SensoriumSource,
    describe_gap,
    leading,
    load_normalization,
    shrunk,
    to_float32,
)
from neuroint.data.splits import (
    Leakage,
    describe_clashes,
    describe_leakage,
    settle_between,
    settle_leakage,
    split_by_stimulus,
    stimuli_between,
    stimuli_in_several_tiers,
)

LOOKED_AT = 256  # neurons; responses whose first 256 neurons are 0 in every valid frame count as withheld
LARGEST_NEGATIVE = 1e-3  # standard deviations; deconvolution leaves negatives of about 1e-9


@dataclass(frozen=True)
class Reading:
    """How a session is to be read.

    Attributes:
        response_normalization: see ``response_scale``.
        input_normalization: see ``load_normalization``.
        split_seed: of the tiers that replace withheld ones.
        withheld_fraction: share of the training stimuli that replaces each withheld or absent tier.
        leakage: what happens to stimuli shown in several tiers.
        shrink: side in pixels of the blocks of the stimulus that are averaged.
        bin_s: duration of a frame in seconds.
        scored_from: first frame that scores count, if the shortest clip in use is longer than that.
    """

    response_normalization: ResponseNormalization
    input_normalization: InputNormalization
    split_seed: int
    withheld_fraction: float
    leakage: Leakage
    shrink: int = 1
    bin_s: float | None = None
    scored_from: int = 0


@dataclass
class Contents:
    """What a look at the clips shows: tiers without withheld clips, valid frames, stimuli, and faults."""

    tiers: list[str]
    lengths: Int[np.ndarray, " clips"]
    stimulus_ids: Int[np.ndarray, " clips"]
    faults: list[str] = field(default_factory=list)


def read_sessions(path: Path, layout: Layout, reading: Reading) -> list[Session]:
    """Read every session of a release in a folder.

    Raises:
        DataError: there is none, or one cannot be used; all its faults that a look at the headers shows come at once.
    """
    sessions = [read_session(folder, layout, reading) for folder in session_folders(path, layout)]
    return settle_between(sessions, reading.leakage)


def read_session(folder: Path, layout: Layout, reading: Reading) -> Session:
    """Read one session's headers, statistics and stimuli; responses are left on disk."""
    recording, faults = survey(folder, layout)
    if recording is None:
        refuse(layout.name(folder), faults)
    normalization = load_normalization(recording, reading.response_normalization, reading.input_normalization)
    contents = look_through(recording, normalization.frames)
    if contents.faults:
        refuse(recording.name, contents.faults)
    try:
        tiers, cautions = settle_leakage(contents.tiers, contents.stimulus_ids, reading.leakage)
        tiers = replace_withheld(tiers, contents.stimulus_ids, reading.withheld_fraction, reading.split_seed)
        facts = _facts(recording, normalization, reading, _shortest(tiers, contents.lengths))
    except DataError as error:
        raise DataError(f"session {recording.name}: {error}") from error
    return Session(
        name=recording.name,
        animal=layout.animal(folder),
        facts=facts,
        tiers=tiers,
        lengths=contents.lengths,
        stimulus_ids=contents.stimulus_ids,
        source=SensoriumSource(
            recording, contents.lengths, reading.response_normalization, reading.shrink, reading.input_normalization
        ),
        scored_from=reading.scored_from if facts.shortest_clip > reading.scored_from else 0,
        cautions=cautions,
        fingerprint=recording.fingerprint,
    )


def look_through(recording: Recording, frames: int) -> Contents:
    """Look at the first row of every modality of every clip, and at some responses of the scored ones.

    Args:
        recording: the session.
        frames: leading frames at which the statistics are known; a clip is cut there.
    """
    tiers = [recording.layout.tiers[tier] for tier in recording.tiers]
    contents = Contents(tiers, np.zeros(len(tiers), np.int64), np.zeros(len(tiers), np.int64))
    set_withheld_aside(contents, partial(_is_silent, recording), f"give these clips the tier none in {TIERS_FILE}")
    for clip, tier in enumerate(tiers):
        rows = {modality: _first_row(recording, modality, clip) for modality in recording.headers}
        contents.lengths[clip] = min(leading(~np.isnan(row)) for row in rows.values())
        shown = leading(~np.isnan(rows[recording.layout.stimulus]))
        contents.stimulus_ids[clip] = stimulus_id(recording.clip(recording.layout.stimulus, clip)[..., :shown])
        if tier != UNUSED:
            contents.faults += [gap for name, row in rows.items() if (gap := _gap_in_row(name, clip, row))]
    contents.faults += _frames_faults(contents, frames)
    contents.lengths = np.minimum(contents.lengths, frames)
    return contents


def replace_withheld(
    tiers: Sequence[str], stimulus_ids: Int[np.ndarray, " clips"], fraction: float, seed: int
) -> tuple[str, ...]:
    """Give training clips to those of validation, dev-test and final test that have none, grouped by stimulus.

    A tier has none when the release has no clip of it, or withholds the responses. Statistics still include the clips
    that are taken from training.
    """
    missing = [tier for tier in (VALIDATION, DEV_TEST, FINAL_TEST) if tier not in tiers]
    if not missing or fraction == 0:
        return tuple(tiers)
    train = np.flatnonzero(np.asarray(tiers) == TRAIN)
    new = np.array(tiers, dtype=object)
    new[train] = split_by_stimulus(stimulus_ids[train], dict.fromkeys(missing, fraction), seed)
    return tuple(new)


def all_faults(path: Path, layout: Layout) -> list[str]:
    """Read everything in a folder of sessions and list every fault found, rather than raise the first."""
    try:
        folders = session_folders(path, layout)
    except DataError as error:
        return [str(error)]
    found, tables = [], {}
    for folder in folders:
        name = layout.name(folder)
        faults, contents = _faults(folder, layout)
        found += [f"session {name}: {fault}" for fault in faults]
        tables |= {name: (contents.tiers, contents.stimulus_ids)} if contents else {}
    clashes = stimuli_between(tables)
    return [*found, describe_clashes(clashes)] if clashes else found


def _faults(folder: Path, layout: Layout) -> tuple[list[str], Contents | None]:
    """Faults of one session, and what its clips are if they can be read."""
    try:
        recording, faults = survey(folder, layout)
        if recording is None:
            return faults, None
        normalization = load_normalization(recording, "official")
        contents = look_through(recording, normalization.frames)
        shared = stimuli_in_several_tiers(contents.tiers, contents.stimulus_ids)
        leaks = [describe_leakage(shared)] if shared else []
        clips = [clip for clip, tier in enumerate(contents.tiers) if tier != UNUSED]
        found = [fault for clip in clips for fault in _clip_faults(recording, clip, normalization)]
        return list(dict.fromkeys([*contents.faults, *leaks, *found, *_neuron_faults(recording)])), contents
    except DataError as error:  # statistics that no clip can be read with, or a file that went away
        return [str(error)], None


def _neuron_faults(recording: Recording) -> list[str]:
    faults = []
    for read in (_positions_um, _match_ids):
        try:
            read(recording)
        except DataError as error:
            faults.append(str(error))
    return faults


def _clip_faults(recording: Recording, clip: int, normalization: Normalization) -> list[str]:
    """Read a whole clip and list what is wrong with it."""
    faults, lengths = [], {}
    for modality in recording.headers:
        values = recording.clip(modality, clip)
        lengths[modality] = _recorded(values.reshape(-1, values.shape[-1])[0])
        valid = normalization.apply(modality, [values], 0, min(lengths[modality], normalization.frames))
        faults += [gap] if (gap := describe_gap(modality, clip, valid, 0)) else []
        if modality == RESPONSES:
            faults += _negative_responses(clip, valid[np.isfinite(valid)])
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{modality} {length}" for modality, length in lengths.items())
        faults.append(f"clip {clip} has different numbers of valid frames ({told}); the shortest counts")
    if min(lengths.values()) > normalization.frames:
        faults.append(f"clip {clip} is cut at frame {normalization.frames}, where the statistics end")
    return faults


def _negative_responses(clip: int, responses: np.ndarray) -> list[str]:
    lowest = responses.min(initial=0)
    if lowest >= -LARGEST_NEGATIVE:
        return []
    return [
        f"data/responses/{clip}.npy has a response of {lowest:.3g} standard deviations; negative responses are set to 0"
    ]


def _first_row(recording: Recording, modality: str, clip: int) -> Float[np.ndarray, " time"]:
    values = recording.clip(modality, clip)
    return values[(0,) * (values.ndim - 1)].astype(np.float64)


def _recorded(row: np.ndarray) -> int:
    """Frames up to the last that is not NaN."""
    known = np.flatnonzero(~np.isnan(row))
    return int(known[-1]) + 1 if len(known) else 0


def _gap_in_row(modality: str, clip: int, row: Float[np.ndarray, " time"]) -> str | None:
    return describe_gap(modality, clip, row[: _recorded(row)], 0)


def set_withheld_aside(contents: Contents, is_silent: Callable[[int], bool], remedy: str) -> None:
    """Make the clips of tiers without any response unused; responses withheld in part of a tier are a fault.

    Validation responses are never withheld by a release, so that there it is a fault, too.
    """
    for tier in (VALIDATION, DEV_TEST, FINAL_TEST):
        clips = [clip for clip, other in enumerate(contents.tiers) if other == tier]
        silent = [clip for clip in clips if is_silent(clip)]
        if silent and (tier == VALIDATION or len(silent) < len(clips)):
            contents.faults.append(
                f"the responses of clips {', '.join(map(str, silent[:5]))} ({len(silent)} of {len(clips)} of the tier "
                f"{tier}) are all zero and would be scored; {remedy}"
            )
        elif silent:
            for clip in silent:
                contents.tiers[clip] = UNUSED


def _is_silent(recording: Recording, clip: int) -> bool:
    responses = recording.clip(RESPONSES, clip)[:LOOKED_AT]
    return not ((responses != 0) & ~np.isnan(responses)).any()


def _frames_faults(contents: Contents, frames: int) -> list[str]:
    tiers, faults = np.asarray(contents.tiers), []
    empty = np.flatnonzero((tiers != UNUSED) & (contents.lengths == 0))
    if len(empty):
        faults.append(f"clip {empty[0]} has no valid frame (nor have {len(empty) - 1} others); its first frame is NaN")
    train = contents.lengths[tiers == TRAIN]
    if not len(train):
        faults.append(f"no clip has the tier train in {TIERS_FILE}; there is nothing to train on")
    elif train.min() > frames:
        faults.append(
            f"the statistics of the inputs end at frame {frames}, but all training clips have {train.min()} valid "
            "frames or more; compute mean and std over the valid frames of the training tier, keeping time"
        )
    return faults


def _shortest(tiers: Sequence[str], lengths: Int[np.ndarray, " clips"]) -> int:
    return int(lengths[np.asarray(tiers) != UNUSED].min())


def _facts(recording: Recording, normalization: Normalization, reading: Reading, shortest: int) -> Facts:
    height, width, _ = recording.shape(recording.layout.stimulus)
    return Facts(
        n_neurons=recording.shape(RESPONSES)[0],
        stimulus_shape=(1, *shrunk(height, width, reading.shrink)),
        mean_responses=normalization.mean_responses,
        shortest_clip=shortest,
        bin_s=reading.bin_s,
        behavior_channels=recording.shape(BEHAVIOR)[0] if recording.has(BEHAVIOR) else 0,
        pupil_channels=recording.shape(PUPIL)[0] if recording.has(PUPIL) else 0,
        positions_um=_positions_um(recording),
        match_ids=_match_ids(recording),
    )


def _positions_um(recording: Recording) -> Float[np.ndarray, "neurons 3"] | None:
    path = recording.folder / POSITIONS_FILE
    if not path.is_file():
        return None
    positions = to_float32(load_array(path))
    if not np.isfinite(positions).all():
        raise DataError(f"{POSITIONS_FILE} holds NaN or infinite positions; expected x, y, z in micrometers per neuron")
    return positions


def _match_ids(recording: Recording) -> Int[np.ndarray, " neurons"] | None:
    path = recording.folder / MATCHES_FILE
    return whole_ids(load_array(path), MATCHES_FILE) if path.is_file() else None
