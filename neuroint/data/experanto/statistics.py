"""Normalize an experanto session: by the statistics that are stored with it, or by those of the training tier."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.array_source import CHUNK_VALUES
from neuroint.data.base import DataError
from neuroint.data.experanto.devices import Statistics
from neuroint.data.experanto.meta import SDS
from neuroint.data.experanto.source import PUPIL, Group, Normalization, Raw, Table, in_stretches
from neuroint.data.running import RunningMoments
from neuroint.data.sensorium_source import (
    InputNormalization,
    ResponseNormalization,
    reciprocal,
    response_scale,
    to_float32,
)

MissingInputs = Literal["mean", "refuse"]


def normalization_of(
    raw: Raw,
    table: Table,
    train: Int[np.ndarray, " clips"],
    responses: ResponseNormalization,
    inputs: InputNormalization,
    missing: MissingInputs,
) -> Normalization:
    """Build the normalization of a session.

    Stimulus and pupil ``(x - mean) / sd``, behavior ``x / sd``, responses ``r / sd`` with small ones held up as in
    :func:`neuroint.data.sensorium_source.response_scale`. Where a standard deviation is 0 an input becomes 0.

    Args:
        raw: reads the session.
        table: of clips.
        train: clips of the training tier, over whose bins statistics are taken where none are stored or wanted.
        responses: ``official`` takes stored statistics where they are, ``per_neuron`` never, ``none`` divides by 1.
        inputs: ``official`` takes stored statistics where they are, ``per_channel`` never.
        missing: what stands for a missing value of an input.

    Raises:
        DataError: a signal or neuron has no value in the training tier, or no neuron varies.
    """
    measure = _Measure(raw, table, train)
    recorded = measure.responses(stored=responses != "per_neuron")
    how = "none" if responses == "none" else "official"
    file = f"{raw.recording.responses.name}/{SDS} (or the training tier)"
    scale = response_scale(recorded.sd[:, None], recorded.mean[:, None], how, raw.recording.name, file)[:, 0]
    mean, sd = measure.stimulus(stored=inputs == "official")
    shifts, scales, fill = {"stimulus": to_float32(mean)}, {"stimulus": reciprocal(sd), "responses": scale}, {}
    for role in raw.groups:
        found = measure.input(role, stored=inputs == "official")
        scales[role] = reciprocal(found.sd)
        fill[role] = np.full(len(found.mean), np.nan, np.float32) if missing == "refuse" else to_float32(found.mean)
        shifts |= {role: to_float32(found.mean)} if role == PUPIL else {}
    mean_responses = to_float32(recorded.mean * scale.astype(np.float64))
    if not np.isfinite(mean_responses).all():
        raise DataError(f"mean responses are too large in units of {file}; compute both again")
    return Normalization(shifts, scales, fill, mean_responses)


class _Measure:
    """Takes statistics over the bins of the training tier, where they are not stored or not wanted as stored."""

    def __init__(self, raw: Raw, table: Table, train: Int[np.ndarray, " clips"]) -> None:
        self.raw, self.table, self.train = raw, table, train

    def responses(self, stored: bool) -> Statistics:
        device = self.raw.recording.responses
        if stored and device.statistics is not None:
            return device.statistics
        return self._known(device.name, self._over(self.raw.responses, device.n_signals))

    def stimulus(self, stored: bool) -> tuple[np.ndarray, np.ndarray]:
        screen = self.raw.recording.screen
        if stored and screen.mean is not None and screen.sd is not None:
            return screen.mean, screen.sd
        found = self._over(self._pixels, screen.shape[0], math.prod(screen.shape))
        return found.mean[:, None, None], found.sd[:, None, None]

    def input(self, role: str, stored: bool) -> Statistics:
        parts = [self._group(group, stored) for group in self.raw.groups[role]]
        return Statistics(np.concatenate([part.mean for part in parts]), np.concatenate([part.sd for part in parts]))

    def _group(self, group: Group, stored: bool) -> Statistics:
        known = group.device.statistics
        if stored and known is not None:
            return Statistics(known.mean[group.columns], known.sd[group.columns])
        found = self._over(lambda times: self.raw.group(group, times), len(group.columns))
        return self._known(group.device.name, found)

    def _pixels(self, times_s: Float[np.ndarray, " time"]) -> Float[np.ndarray, "pixels channel"]:
        frames = self.raw.stimulus(times_s)
        return np.moveaxis(frames, 1, -1).reshape(-1, frames.shape[1])

    def _over(self, read: Callable[..., np.ndarray], columns: int, values: int | None = None) -> Statistics:
        moments = RunningMoments(columns)
        at_once = max(1, CHUNK_VALUES // (values or columns))
        for times_s in in_stretches(self.table, self.train, self.raw.sampling.bin_s, at_once):
            moments.add(read(times_s))
        mean = np.where(moments.count > 0, moments.mean, np.nan)
        return Statistics(mean, np.sqrt(moments.variance()))

    def _known(self, device: str, found: Statistics) -> Statistics:
        unknown = np.flatnonzero(np.isnan(found.mean))
        if len(unknown):
            raise DataError(
                f"signals {', '.join(map(str, unknown[:10]))} of {device} have nothing but NaN in the training tier; "
                "leave them out"
            )
        return found
