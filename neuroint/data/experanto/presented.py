"""List what an experanto session showed: presentations that were recorded, their tiers, repeats, and runs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Literal, cast

import numpy as np
from jaxtyping import Int

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, DataError, Session
from neuroint.data.experanto.devices import BLANK, IMAGE, VIDEO, Device, Screen, Trial
from neuroint.data.experanto.source import ExperantoSource, Raw, Table
from neuroint.data.hashing import stimulus_id
from neuroint.data.sensorium_session import LOOKED_AT, Contents, set_withheld_aside
from neuroint.registry import nearest

Tier = Literal["train", "validation", "dev_test", "final_test", "unused"]
TIERS: dict[str, str] = {
    "train": TRAIN,
    "validation": VALIDATION,
    "val": VALIDATION,
    "oracle": VALIDATION,
    "test": DEV_TEST,
    "live_test_main": DEV_TEST,
    "final_test": FINAL_TEST,
    "final_test_main": FINAL_TEST,
    "live_test_bonus": UNUSED,
    "final_test_bonus": UNUSED,
    "none": UNUSED,
}
SAME_TIME_S = 1e-6  # by which a bin may lie outside of what was recorded, for rounding


def presentations(raw: Raw) -> tuple[Table, tuple[str, ...]]:
    """List the videos and images that were shown while everything was recorded, and remark on those that were not.

    Bins begin at the onset of a presentation, and there are as many as its duration holds, rounded. A clip ends early
    where a device does; one that begins before a device is left out.

    Raises:
        DataError: there is none.
    """
    screen, bin_s = raw.recording.screen, raw.sampling.bin_s
    devices = _devices(raw)
    spans = [device.covered(raw.sampling) for device in devices]
    begin, end = max(first for first, _ in spans), min(last for _, last in spans)
    shown = np.array(list(_stimuli(screen)))
    onsets = screen.timestamps_s[[screen.trials[at].first for at in shown]]
    lengths = np.rint(np.nan_to_num(screen.ends_s[shown] - onsets) / bin_s)
    lengths = np.minimum(lengths, np.floor((end - onsets + SAME_TIME_S) / bin_s) + 1)
    kept = (lengths > 0) & (onsets >= begin - SAME_TIME_S)
    if not kept.any():
        raise DataError(
            f"no presentation lasts for a bin of {bin_s:g} s while {' and '.join(device.name for device in devices)} "
            f"are recorded (from {begin:g} to {end:g} s); the screen shows from {onsets[0]:g} to {onsets[-1]:g} s: is "
            "every clock in seconds, and the same?"
        )
    left = int((~kept).sum())
    told = f"{left} of {len(kept)} presentations lie outside of what was recorded, or are shorter than a bin: left out"
    return Table(shown[kept], onsets[kept], lengths[kept].astype(np.int64)), (told,) if left else ()


def look_through(raw: Raw, table: Table, names: Mapping[str, Tier]) -> Contents:
    """Find tiers and repeats of the presentations, and set aside tiers whose responses are withheld.

    Args:
        raw: reads the session.
        table: of presentations.
        names: of tiers, beside ``TIERS``.
    """
    screen = raw.recording.screen
    tiers, faults = _tiers(screen, TIERS | dict(names))
    ids = _stimulus_ids([screen.trials[at] for at in table.trials])
    contents = Contents([tiers[at] for at in table.trials.tolist()], table.lengths, ids, faults)
    if not faults:
        remedy = "name their tier under tiers, such as {test: unused}"
        set_withheld_aside(contents, lambda clip: _is_silent(raw, table, clip), remedy)
    if not faults and TRAIN not in contents.tiers:
        faults.append("no presentation that was recorded has the tier train; there is nothing to train on")
    return contents


def joined(session: Session) -> Session:
    """Join presentations of one tier that follow each other, with nothing but blank screens between, to one clip each.

    A run goes on through the blanks. Runs are repeats where they show the same in the same order.
    """
    source = cast(ExperantoSource, session.source)
    table, clips = source.table, range(len(session.tiers))
    first = np.array([clip for clip in clips if clip == 0 or _begins_run(session, clip)])
    last = np.append(first[1:], len(clips)) - 1
    spans = np.rint((table.onsets_s[last] - table.onsets_s[first]) / source.raw.sampling.bin_s).astype(np.int64)
    runs = Table(table.trials[first], table.onsets_s[first], spans + table.lengths[last])
    ids = [_hash_of(session.stimulus_ids[a : b + 1]) for a, b in zip(first, last, strict=True)]
    return replace(
        session,
        tiers=tuple(session.tiers[clip] for clip in first),
        lengths=runs.lengths,
        stimulus_ids=np.array(ids, np.int64),
        source=replace(source, table=runs),
    )


def _begins_run(session: Session, clip: int) -> bool:
    source = cast(ExperantoSource, session.source)
    before, here = source.table.trials[clip - 1 : clip + 1]
    between = source.raw.recording.screen.trials[before + 1 : here]
    alike = session.tiers[clip - 1] == session.tiers[clip] != UNUSED
    return not alike or any(trial.kind != BLANK for trial in between)


def _hash_of(ids: Int[np.ndarray, " presentations"]) -> int:
    return int.from_bytes(blake2b(ids.tobytes(), digest_size=8).digest(), "little", signed=True)


def _devices(raw: Raw) -> list[Device]:
    """Devices that are read, the screen left out."""
    groups = [group.device for parts in raw.groups.values() for group in parts]
    return [raw.recording.responses, *{group.name: group for group in groups}.values()]


def _stimuli(screen: Screen) -> dict[int, Trial]:
    return {at: trial for at, trial in enumerate(screen.trials) if trial.kind in (VIDEO, IMAGE)}


def _tiers(screen: Screen, known: Mapping[str, str]) -> tuple[dict[int, str], list[str]]:
    """Tiers by trial, and faults in them; where no trial has one, all are for training, and splits follow."""
    trials = _stimuli(screen)
    without = [trial.key for trial in trials.values() if trial.tier is None]
    if len(without) == len(trials):
        return dict.fromkeys(trials, TRAIN), []
    faults = [f"screen trial {key} has no tier, and others have; give it one, such as none" for key in without[:1]]
    given = dict.fromkeys(trial.tier for trial in trials.values() if trial.tier is not None)
    faults += [
        f"the screen has the tier {tier!r}, expected one of {', '.join(known)}.{nearest(tier, known)} Set tiers, such "
        f"as {{{tier}: dev_test}}, to say what it is"
        for tier in given
        if tier not in known
    ]
    return {at: known.get(trial.tier or "", UNUSED) for at, trial in trials.items()}, faults


def _stimulus_ids(trials: list[Trial]) -> Int[np.ndarray, " clips"]:
    """Equal numbers for equal pixels; a file that several trials name is read once."""
    files = {trial.path: trial for trial in trials}
    ids = {path: stimulus_id(trial.pixels().transpose(2, 3, 0, 1)) for path, trial in files.items()}
    return np.array([ids[trial.path] for trial in trials], np.int64)


def _is_silent(raw: Raw, table: Table, clip: int) -> bool:
    some = np.arange(min(LOOKED_AT, raw.recording.responses.n_signals))
    times_s = table.times_s(clip, raw.sampling.bin_s)
    responses = raw.recording.responses.read(times_s, raw.sampling, some)
    return not ((responses != 0) & ~np.isnan(responses)).any()
