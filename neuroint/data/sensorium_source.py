"""Read stretches of Sensorium clips: crop the memory map first, then normalize the crop, in float32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.base import Clip, DataError
from neuroint.data.sensorium import BEHAVIOR, PUPIL, RESPONSES, Recording, statistic_file

ResponseNormalization = Literal["official", "per_neuron", "none"]
InputNormalization = Literal["official", "per_channel"]
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
SMALLEST_STD = 0.01  # of the mean standard deviation; neurons below are scaled by this much instead


@dataclass(frozen=True)
class Normalization:
    """What turns raw crops into normalized ones, time first.

    Attributes:
        shift: subtracted first, per modality; modalities that are not centered are not in it.
        scale: multiplied then, per modality.
        frames: leading frames at which all statistics are finite; what lies behind cannot be normalized.
        mean_responses: mean over the training tier after normalization.
    """

    shift: dict[str, Float[np.ndarray, "time ..."]]
    scale: dict[str, Float[np.ndarray, "time ..."]]
    frames: int
    mean_responses: Float[np.ndarray, " neurons"]

    def apply(
        self, modality: str, blocks: Iterable[np.ndarray], start: int, stop: int
    ) -> Float[np.ndarray, "frames ..."]:
        """Normalize frames ``start`` to ``stop`` of a modality; every element becomes ``(raw - shift) * scale``.

        ``blocks`` are the raw clip, time last, cut along its first axis. Each is turned and cast while it is in the
        processor's cache; all that follows runs along memory.
        """
        crop = np.empty((stop - start, *self.scale[modality].shape[1:]), np.float32)
        first = 0
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by the reader
            for block in blocks:
                crop[:, first : first + len(block)] = np.moveaxis(block[..., start:stop], -1, 0)
                first += len(block)
            if modality in self.shift:
                crop -= self.shift[modality][start:stop]
            crop *= self.scale[modality][start:stop]
        return crop


def load_normalization(
    recording: Recording, how: ResponseNormalization, inputs: InputNormalization = "official"
) -> Normalization:
    """Build the normalization of a session from its statistics.

    Stimulus ``(x - mean) / std`` per pixel and frame; pupil ``(x - mean) / std``; behavior ``x / std``; responses as
    ``response_scale`` says. Where a standard deviation is 0 the input carries nothing and becomes 0. With
    ``per_channel`` inputs, mean and standard deviation are one number for the stimulus and one per behavior or pupil
    channel, over all training frames: a statistic per pixel and frame needs hundreds of clips.

    Raises:
        DataError: statistics of responses are unusable (not finite, zero everywhere, negative means).
    """
    stimulus = recording.layout.stimulus
    shift, scale, frames = {}, {}, recording.shape(RESPONSES)[-1]
    for modality in (m for m in (stimulus, BEHAVIOR, PUPIL) if recording.has(m)):
        mean, std = (recording.statistic(modality, name) for name in ("mean", "std"))
        frames = min(frames, leading(_finite(std) & _finite(mean) if modality != BEHAVIOR else _finite(std)))
        if inputs == "per_channel":
            mean, std = _pooled(mean, std, keep_first=modality != stimulus)
        if modality != BEHAVIOR:
            shift[modality] = _time_first(to_float32(mean))
        scale[modality] = _time_first(reciprocal(std))
    mean = _mean_responses(recording, frames)
    responses = response_scale(recording.statistic(RESPONSES, "std"), mean, how, recording.name)
    scale[RESPONSES] = _time_first(responses)
    mean_responses = to_float32((mean * responses[:, : mean.shape[1]]).mean(axis=1).clip(min=0))
    return Normalization(shift, scale, frames, mean_responses)


def response_scale(
    std: Float[np.ndarray, "neurons time"],
    mean: Float[np.ndarray, "neurons finite"],
    how: ResponseNormalization,
    name: str,
    file: str = statistic_file(RESPONSES, "std"),
) -> Float[np.ndarray, "neurons time"]:
    """Compute what responses are multiplied by.

    With ``s`` the standard deviation and ``smallest = .01 * nanmean(s)``, it is ``1 / s`` where ``s > smallest`` and
    ``1 / smallest`` elsewhere. For ``official``, ``s`` is the stored statistic, which has a value per neuron and frame.
    For ``per_neuron``, ``s`` is the standard deviation over all training frames of a neuron, from the variance within
    frames and between frames: ``sqrt(mean_t std^2 + var_t mean)``. For ``none`` the scale is 1.

    Raises:
        DataError: the standard deviation is 0 or undefined in all neurons.
    """
    if how == "none":
        return np.broadcast_to(np.float32(1), std.shape)
    if how == "per_neuron":
        known = np.where(_finite(std), std, np.nan)[:, : mean.shape[1]]
        std = np.broadcast_to(np.sqrt(np.square(known).mean(axis=1) + mean.var(axis=1))[:, None], std.shape)
    known = std[_finite(std)]
    smallest = SMALLEST_STD * known.mean() if known.size else 0.0
    if not 0 < smallest < np.inf:
        raise DataError(
            f"session {name}: {file} is zero or undefined in every neuron, expected the standard deviation over the "
            "training tier; are the training responses withheld?"
        )
    above = std > smallest
    return to_float32(1 / np.where(above, std, smallest))


class SensoriumSource:
    """Reads clips of one session; holds names and headers of files, and the statistics once they are needed.

    Files are opened for one read and dropped after it: none is open between reads. The statistics (float32, one array
    of ``neurons time``) are loaded in each process that reads and left behind when the source is pickled.
    """

    def __init__(
        self,
        recording: Recording,
        lengths: Int[np.ndarray, " clips"],
        response_normalization: ResponseNormalization = "official",
        shrink: int = 1,
        input_normalization: InputNormalization = "official",
    ) -> None:
        self.recording = recording
        self.lengths = lengths
        self.response_normalization: ResponseNormalization = response_normalization
        self.input_normalization: InputNormalization = input_normalization
        self.shrink = shrink

    @cached_property
    def normalization(self) -> Normalization:
        """Statistics of the session, loaded when first asked for."""
        return load_normalization(self.recording, self.response_normalization, self.input_normalization)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the statistics behind."""
        return {key: value for key, value in self.__dict__.items() if key != "normalization"}

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read ``frames`` frames of a clip from frame ``start``, normalized; negative responses become 0.

        Deconvolution leaves negatives of about 1e-9, which a rate cannot have.

        Raises:
            ValueError: the frames are not all within the valid frames of the clip.
            DataError: the file is gone or unreadable, or a value within the valid frames is NaN or infinite.
        """
        if start < 0 or frames < 1 or start + frames > self.lengths[clip]:
            raise ValueError(
                f"session {self.recording.name}: clip {clip} has {self.lengths[clip]} valid frames; "
                f"frames {start} to {start + frames} were asked for"
            )
        responses = self._read(RESPONSES, clip, start, frames)
        silence = np.zeros(responses.shape[1], np.float32)  # NumPy compares with a row faster than with one number
        stimulus = area_average(self._read(self.recording.layout.stimulus, clip, start, frames), self.shrink)
        return Clip(
            responses=np.maximum(responses, silence, out=responses),
            stimulus=stimulus[:, None],
            behavior=self._read(BEHAVIOR, clip, start, frames) if self.recording.has(BEHAVIOR) else None,
            pupil=self._read(PUPIL, clip, start, frames) if self.recording.has(PUPIL) else None,
        )

    def _read(self, modality: str, clip: int, start: int, frames: int) -> Float[np.ndarray, "time ..."]:
        blocks = self.recording.blocks(modality, clip)
        crop = self.normalization.apply(modality, blocks, start, start + frames)
        if not (np.isfinite(crop.min()) and np.isfinite(crop.max())):  # both are NaN when any value is
            _refuse_gaps(self.recording.name, modality, clip, crop, start)
        return crop


def side_of_blocks(scale: float) -> int:
    """Side in pixels of the blocks that are averaged to make a stimulus ``scale`` times as large.

    Raises:
        ValueError: the scale is not 1 / a whole number.
    """
    side = round(1 / scale) if scale > 0 else 0
    if side < 1 or abs(side * scale - 1) > 1e-6:
        raise ValueError(f"scale is {scale}, expected 1 / a whole number: 1, .5, .25, .125")
    return side


def shrunk(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width in blocks.

    Raises:
        DataError: blocks do not fit.
    """
    if height % side or width % side:
        raise DataError(
            f"images of {height} x {width} pixels cannot be averaged in blocks of {side} x {side}; choose a scale that "
            "divides both sides"
        )
    return height // side, width // side


def leading(known: np.ndarray) -> int:
    """Count the frames (last axis) before the first at which anything is not known."""
    unknown = np.flatnonzero(~known.reshape(-1, known.shape[-1]).all(axis=0))
    return int(unknown[0]) if len(unknown) else known.shape[-1]


def describe_gap(modality: str, clip: int, values: np.ndarray, start: int) -> str | None:
    """Say where in the valid frames (first axis) of a clip a value is NaN or infinite, if any is."""
    gaps = np.argwhere(~np.isfinite(values))
    if not len(gaps):
        return None
    frame = start + int(gaps[:, 0].min())
    return (
        f"data/{modality}/{clip}.npy has {len(gaps)} values that are NaN or infinite inside the clip, the first at "
        f"frame {frame}; only the padding behind the last frame may be NaN: repair it or give the clip the tier none"
    )


def _refuse_gaps(name: str, modality: str, clip: int, crop: np.ndarray, start: int) -> None:
    gap = describe_gap(modality, clip, crop, start)
    if gap:
        raise DataError(f"session {name}: {gap}")


def _pooled(mean: np.ndarray, std: np.ndarray, keep_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over pixels and frames, from those within them; NaN padding is left out."""
    axes = tuple(range(1 if keep_first else 0, mean.ndim))
    center = np.nanmean(mean, axis=axes, keepdims=True)
    spread = np.sqrt(np.nanmean(np.square(std) + np.square(mean - center), axis=axes, keepdims=True))
    return np.broadcast_to(center, mean.shape), np.broadcast_to(spread, std.shape)


def reciprocal(std: np.ndarray) -> Float[np.ndarray, "... time"]:
    """``1 / std``, and 0 where the standard deviation is unknown or (as good as) 0."""
    known = _finite(std) & (std > SMALLEST_NORMAL)
    return to_float32(np.where(known, 1 / np.where(known, std, 1), 0))


def _finite(values: np.ndarray) -> np.ndarray:
    """Whether each value is finite in float32."""
    return np.isfinite(to_float32(values))


def to_float32(values: np.ndarray) -> np.ndarray:
    """Cast to float32 without a warning for what does not fit."""
    with np.errstate(over="ignore"):  # becomes infinite, which is looked for wherever it matters
        return values.astype(np.float32)


def _mean_responses(recording: Recording, frames: int) -> Float[np.ndarray, "neurons finite"]:
    """Raw mean response per frame over the training tier, at the leading frames where it is known."""
    file = statistic_file(RESPONSES, "mean")
    mean = recording.statistic(RESPONSES, "mean")
    mean = mean[:, : min(frames, leading(_finite(mean)))]
    if mean.shape[1] == 0:
        raise DataError(
            f"session {recording.name}: {file} or the statistics of the inputs are NaN at the first frame; compute "
            "them over the valid frames of the training tier"
        )
    lowest = mean.mean(axis=1).min()
    if lowest < -1e-3 * np.abs(mean).mean():
        raise DataError(
            f"session {recording.name}: {file} has a mean response of {lowest:.3g}, expected responses that are not "
            "negative, such as deconvolved calcium or spike counts; convert them or use another reader"
        )
    return mean


def area_average(frames: Float[np.ndarray, "time height width"], shrink: int) -> Float[np.ndarray, "time rows columns"]:
    """Average blocks of ``shrink`` by ``shrink`` pixels."""
    if shrink == 1:
        return frames
    time, height, width = frames.shape
    return frames.reshape(time, height // shrink, shrink, width // shrink, shrink).mean(axis=(2, 4))


def _time_first(statistic: Float[np.ndarray, "... time"]) -> Float[np.ndarray, "time ..."]:
    return np.ascontiguousarray(np.moveaxis(statistic, -1, 0))
