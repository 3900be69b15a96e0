"""Turn folders of experanto sessions into sessions, and list what keeps one from being read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from neuroint.data.base import TRAIN, UNUSED, DataError, Facts, Session
from neuroint.data.experanto.devices import Interpolation
from neuroint.data.experanto.files import session_folders, survey
from neuroint.data.experanto.inputs import EyeSignals, missing_samples, raw_of
from neuroint.data.experanto.presented import Tier, joined, look_through, presentations
from neuroint.data.experanto.source import BEHAVIOR, PUPIL, ExperantoSource, Raw, Table
from neuroint.data.experanto.statistics import MissingInputs, normalization_of
from neuroint.data.sensorium import refuse
from neuroint.data.sensorium_session import Contents, replace_withheld
from neuroint.data.sensorium_source import InputNormalization, ResponseNormalization, shrunk
from neuroint.data.splits import (
    Leakage,
    describe_clashes,
    describe_leakage,
    settle_between,
    settle_leakage,
    stimuli_between,
    stimuli_in_several_tiers,
)

Clips = Literal["presentations", "runs"]


@dataclass(frozen=True)
class Reading:
    """How sessions are to be read; see :func:`neuroint.data.readers.experanto.read_experanto`."""

    rate_hz: float | None = None
    interpolation: Interpolation = "linear"
    clips: Clips = "presentations"
    shrink: int = 1
    eye: EyeSignals | None = None
    tiers: Mapping[str, Tier] | None = None
    response_normalization: ResponseNormalization = "official"
    input_normalization: InputNormalization = "official"
    missing_inputs: MissingInputs = "mean"
    burn_in_s: float = 0.0
    split_seed: int = 0
    withheld_fraction: float = 0.1
    leakage: Leakage = "refuse"


def read_sessions(path: Path, reading: Reading) -> list[Session]:
    """Read every session in a folder.

    Raises:
        DataError: there is none, or one cannot be used; all faults of its files come at once.
    """
    sessions = [_read_session(folder, reading) for folder in session_folders(path)]
    return [_finished(session, reading) for session in settle_between(sessions, reading.leakage)]


def all_faults(path: Path, reading: Reading) -> list[str]:
    """Read everything in a folder of sessions and list every fault found, rather than raise the first."""
    try:
        folders = session_folders(path)
    except DataError as error:
        return [str(error)]
    found, tables = [], {}
    for folder in folders:
        faults, contents = _faults(folder, reading)
        found += [f"session {folder.name}: {fault}" for fault in faults]
        tables |= {folder.name: (contents.tiers, contents.stimulus_ids)} if contents else {}
    clashes = stimuli_between(tables)
    return [*found, describe_clashes(clashes)] if clashes else found


def _read_session(folder: Path, reading: Reading) -> Session:
    """Read all that is to be known of a session; a clip is a presentation."""
    recording, faults = survey(folder)
    if recording is None:
        refuse(folder.name, faults)
    try:
        raw = raw_of(recording, reading.rate_hz, reading.interpolation, reading.eye)
        table, outside = presentations(raw)
        contents = look_through(raw, table, reading.tiers or {})
        tiers, leaks = _settled(contents, reading)
        remarks = (*recording.remarks, *outside, *leaks, *missing_samples(raw))
        return _session(raw, table, replace(contents, tiers=list(tiers)), reading, remarks)
    except DataError as error:
        raise DataError(f"session {recording.name}: {error}") from error


def _settled(contents: Contents, reading: Reading) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tiers as they are used, and cautions."""
    if contents.faults:
        raise DataError("; ".join(contents.faults[:3]))
    tiers, cautions = settle_leakage(contents.tiers, contents.stimulus_ids, reading.leakage)
    return replace_withheld(tiers, contents.stimulus_ids, reading.withheld_fraction, reading.split_seed), cautions


def _session(raw: Raw, table: Table, contents: Contents, reading: Reading, remarks: tuple[str, ...]) -> Session:
    recording = raw.recording
    source = _source(raw, table, contents, reading)
    channels, height, width = recording.screen.shape
    facts = Facts(
        n_neurons=recording.responses.n_signals,
        stimulus_shape=(channels, *shrunk(height, width, reading.shrink)),
        mean_responses=source.normalization.mean_responses,
        shortest_clip=int(table.lengths.min()),
        bin_s=raw.sampling.bin_s,
        behavior_channels=sum(len(group.columns) for group in raw.groups.get(BEHAVIOR, ())),
        pupil_channels=sum(len(group.columns) for group in raw.groups.get(PUPIL, ())),
        positions_um=recording.positions_um,
    )
    return Session(
        name=recording.name,
        animal=recording.animal,
        facts=facts,
        tiers=tuple(contents.tiers),
        lengths=table.lengths,
        stimulus_ids=contents.stimulus_ids,
        source=source,
        cautions=remarks,
        fingerprint=recording.fingerprint,
    )


def _source(raw: Raw, table: Table, contents: Contents, reading: Reading) -> ExperantoSource:
    train = np.flatnonzero(np.asarray(contents.tiers) == TRAIN)
    responses, inputs = reading.response_normalization, reading.input_normalization
    normalization = normalization_of(raw, table, train, responses, inputs, reading.missing_inputs)
    return ExperantoSource(raw, table, normalization, reading.shrink)


def _finished(session: Session, reading: Reading) -> Session:
    """Join presentations to runs where that is wanted, and settle from where on clips are scored."""
    session = joined(session) if reading.clips == "runs" else session
    shortest = int(session.lengths[np.asarray(session.tiers) != UNUSED].min())
    burn_in = round(reading.burn_in_s / (session.facts.bin_s or 1))
    facts = replace(session.facts, shortest_clip=shortest)
    return replace(session, facts=facts, scored_from=burn_in if shortest > burn_in else 0)


def _faults(folder: Path, reading: Reading) -> tuple[list[str], Contents | None]:
    """Faults of one session, and what its clips are if they can be read."""
    recording, faults = survey(folder)
    if recording is None:
        return faults, None
    try:
        raw = raw_of(recording, reading.rate_hz, reading.interpolation, reading.eye)
        table, _ = presentations(raw)
        contents = look_through(raw, table, reading.tiers or {})
    except DataError as error:
        return [str(error)], None
    shared = stimuli_in_several_tiers(contents.tiers, contents.stimulus_ids)
    leaks = [describe_leakage(shared)] if shared else []
    unreadable = [] if contents.faults else _unreadable(raw, table, contents, reading)
    return [*contents.faults, *leaks, *unreadable], contents


def _unreadable(raw: Raw, table: Table, contents: Contents, reading: Reading) -> list[str]:
    """Read every clip in use and list what keeps one from being read."""
    try:
        source = _source(raw, table, contents, reading)
    except DataError as error:
        return [str(error)]
    found = []
    for clip in (clip for clip, tier in enumerate(contents.tiers) if tier != UNUSED):
        try:
            source.read(clip, 0, int(table.lengths[clip]))
        except DataError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))
