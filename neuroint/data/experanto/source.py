"""Read clips of an experanto session: what was shown, done and recorded at the times of bins, normalized, float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.base import Clip, DataError
from neuroint.data.experanto.devices import Sampling, Screen, Signals
from neuroint.data.experanto.files import Recording
from neuroint.data.sensorium_source import area_average

BEHAVIOR, PUPIL = "behavior", "pupil"


class Group(NamedTuple):
    """Some signals of a device, as a part of an input."""

    device: Signals
    columns: Int[np.ndarray, " signals"]


@dataclass(frozen=True)
class Table:
    """When clips began, and how many bins they have; ``trials`` is the screen's (first) trial of each."""

    trials: Int[np.ndarray, " clips"]
    onsets_s: Float[np.ndarray, " clips"]
    lengths: Int[np.ndarray, " clips"]

    def times_s(self, clip: int, bin_s: float, start: int = 0, bins: int | None = None) -> Float[np.ndarray, " time"]:
        """When bins of a clip begin."""
        count = int(self.lengths[clip]) - start if bins is None else bins
        return self.onsets_s[clip] + (start + np.arange(count)) * bin_s


@dataclass(frozen=True)
class Raw:
    """Reads a session at any times as it is stored, as float32; NaN is handed on.

    Attributes:
        recording: the session's devices.
        groups: of which signals each input is made.
        sampling: width of bins, and what stands between samples.
    """

    recording: Recording
    groups: Mapping[str, tuple[Group, ...]]
    sampling: Sampling

    def responses(self, times_s: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time neurons"]:
        """Read responses of all neurons.

        Raises:
            DataError: one is infinite.
        """
        device = self.recording.responses
        return self._finite(device.name, times_s, device.read(times_s, self.sampling))

    def stimulus(self, times_s: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time channel height width"]:
        """Read the frame that was on the screen at each time."""
        screen: Screen = self.recording.screen
        return screen.read(screen.frames_at(times_s))

    def group(self, group: Group, times_s: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time signals"]:
        """Read some signals of a device.

        Raises:
            DataError: one is infinite.
        """
        return self._finite(group.device.name, times_s, group.device.read(times_s, self.sampling, group.columns))

    def input(self, role: str, times_s: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time signals"]:
        """Read all signals of an input."""
        return np.concatenate([self.group(group, times_s) for group in self.groups[role]], axis=1)

    def _finite(self, device: str, times_s: np.ndarray, values: np.ndarray) -> np.ndarray:
        rows, _ = np.nonzero(np.isinf(values))
        if len(rows):
            raise DataError(
                f"session {self.recording.name}: {device} is infinite at {times_s[rows[0]]:g} s; NaN says that a value "
                "is missing"
            )
        return values


@dataclass(frozen=True)
class Normalization:
    """What turns raw values into normalized ones: ``(raw - shift) * scale``, per stimulus channel, neuron or signal.

    Attributes:
        shift: what is not centered is not in it.
        scale: multiplied then.
        fill: raw values that stand for missing ones of an input; NaN where missing ones are refused.
        mean_responses: mean over the training tier after normalization.
    """

    shift: Mapping[str, np.ndarray]
    scale: Mapping[str, np.ndarray]
    fill: Mapping[str, Float[np.ndarray, " signals"]]
    mean_responses: Float[np.ndarray, " neurons"]

    def apply(self, role: str, values: Float[np.ndarray, "time ..."]) -> Float[np.ndarray, "time ..."]:
        """Normalize float32 values in place; what float32 cannot hold becomes infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            if role in self.shift:
                values -= self.shift[role]
            values *= self.scale[role]
        return values


@dataclass(frozen=True)
class ExperantoSource:
    """Reads clips of one session; holds names, headers, times and statistics, and opens a file only while it reads.

    Attributes:
        raw: reads the session.
        table: of clips.
        normalization: statistics of the session.
        shrink: side in pixels of the blocks of the stimulus that are averaged.
    """

    raw: Raw
    table: Table
    normalization: Normalization
    shrink: int = 1

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read ``frames`` bins of a clip from bin ``start``, normalized; a missing response is NaN.

        Raises:
            ValueError: the bins do not all lie within the clip.
            DataError: a file is gone or unreadable, or a value is infinite (or missing, where it must not).
        """
        length = int(self.table.lengths[clip])
        if start < 0 or frames < 1 or start + frames > length:
            raise ValueError(
                f"session {self.raw.recording.name}: clip {clip} has {length} bins; bins {start} to {start + frames} "
                "were asked for"
            )
        times_s = self.table.times_s(clip, self.raw.sampling.bin_s, start, frames)
        return Clip(
            responses=self._normalized("responses", self.raw.responses(times_s)),
            stimulus=self._shrunk(self._normalized("stimulus", self.raw.stimulus(times_s))),
            behavior=self._input(BEHAVIOR, times_s),
            pupil=self._input(PUPIL, times_s),
        )

    def _input(self, role: str, times_s: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time signals"] | None:
        if role not in self.raw.groups:
            return None
        values = self.raw.input(role, times_s)
        values = np.where(np.isnan(values), self.normalization.fill[role], values)
        if np.isnan(values).any():
            raise DataError(
                f"session {self.raw.recording.name}: {role} is missing (NaN) between {times_s[0]:g} and "
                f"{times_s[-1]:g} s; an input must be known: set missing_inputs to mean, or leave the signal out"
            )
        return self._normalized(role, values)

    def _normalized(self, role: str, values: Float[np.ndarray, "time ..."]) -> Float[np.ndarray, "time ..."]:
        normalized = self.normalization.apply(role, values)
        if np.isinf(normalized).any():
            raise DataError(
                f"session {self.raw.recording.name}: {role} is too large in units of its standard deviation; compute "
                "the statistics again"
            )
        return normalized

    def _shrunk(
        self, stimulus: Float[np.ndarray, "time channel height width"]
    ) -> Float[np.ndarray, "time channel _ _"]:
        time, channels, height, width = stimulus.shape
        planes = area_average(stimulus.reshape(time * channels, height, width), self.shrink)
        return planes.reshape(time, channels, *planes.shape[1:])


def in_stretches(
    table: Table, clips: Int[np.ndarray, " some"], bin_s: float, most: int
) -> Iterator[Float[np.ndarray, " time"]]:
    """Go through the times of clips, at most ``most`` bins at a time."""
    for clip in clips:
        for start in range(0, int(table.lengths[clip]), most):
            yield table.times_s(int(clip), bin_s, start, min(most, int(table.lengths[clip]) - start))
