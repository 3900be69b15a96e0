"""Settle the bins of a session and which signals are behavior and which the position of the pupil."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroint.data.base import DataError
from neuroint.data.experanto.devices import Interpolation, Sampling, Signals
from neuroint.data.experanto.files import Recording
from neuroint.data.experanto.source import BEHAVIOR, PUPIL, Group, Raw
from neuroint.data.npy import map_array
from neuroint.registry import Index


@dataclass(frozen=True)
class EyeSignals:
    """Which signals of the eye tracker are behavior (dilation), and which the position of the pupil, counted from 0."""

    behavior: tuple[Index, ...] = ()
    position: tuple[Index, ...] = ()


EYE_SIGNALS = {  # by number of signals
    2: EyeSignals((), (0, 1)),  # x, y
    4: EyeSignals((0, 1), (2, 3)),  # dilation, its derivative, x, y: the order in the recordings of mice
}


def raw_of(recording: Recording, rate_hz: float | None, interpolation: Interpolation, eye: EyeSignals | None) -> Raw:
    """Read a session in bins: behavior is what ``eye`` says and then the treadmill; inputs without signals are absent.

    Raises:
        DataError: spikes without a rate, or an eye tracker whose signals are not known.
    """
    rate_hz = rate_hz or getattr(recording.responses, "rate_hz", None)
    if rate_hz is None:
        raise DataError("responses are spikes, which have no sampling rate of their own; set rate_hz, bins per second")
    groups: dict[str, list[Group]] = {BEHAVIOR: [], PUPIL: []}
    if recording.eye_tracker is not None:
        wanted = _eye_signals(recording.eye_tracker, eye)
        for role, signals in ((BEHAVIOR, wanted.behavior), (PUPIL, wanted.position)):
            groups[role] += [Group(recording.eye_tracker, np.array(signals))] if signals else []
    if recording.treadmill is not None:
        groups[BEHAVIOR].append(Group(recording.treadmill, np.arange(recording.treadmill.n_signals)))
    made = {role: tuple(parts) for role, parts in groups.items() if parts}
    return Raw(recording, made, Sampling(1 / rate_hz, interpolation))


def missing_samples(raw: Raw) -> list[str]:
    """Say how many samples of the inputs are missing."""
    remarks = []
    for group in (group for parts in raw.groups.values() for group in parts):
        values = map_array(group.device.path, group.device.header)[:, group.columns]
        share = float(np.isnan(values).mean()) if values.dtype.kind == "f" else 0.0
        told = f"{group.device.name}: {100 * share:.2g} % of the samples are missing and read as the mean"
        remarks += [told] if share else []
    return list(dict.fromkeys(remarks))


def _eye_signals(device: Signals, wanted: EyeSignals | None) -> EyeSignals:
    wanted = EYE_SIGNALS.get(device.n_signals) if wanted is None else wanted
    if wanted is None:
        raise DataError(
            f"eye_tracker has {device.n_signals} signals, and which is what is not stored: set eye, such as "
            "{behavior: [0, 1], position: [2, 3]}, or {} to leave them out"
        )
    beyond = [at for at in (*wanted.behavior, *wanted.position) if at >= device.n_signals]
    if beyond:
        raise DataError(f"eye names signal {beyond[0]}, but eye_tracker has {device.n_signals}, counted from 0")
    return wanted
