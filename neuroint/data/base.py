"""What every data set becomes: sessions of clips, facts about them, and batches of tensors.

Axes are ``batch time neurons`` (``batch time channel height width`` for video). A *clip* is one presentation of a
stimulus; clips with equal ``stimulus_id`` are *repeats*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TRAIN, VALIDATION, DEV_TEST, FINAL_TEST, UNUSED = "train", "validation", "dev_test", "final_test", "unused"
TIERS = (TRAIN, VALIDATION, DEV_TEST, FINAL_TEST)


class DataError(ValueError):
    """A recording that cannot be used as it is: what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Recorded:
    """Which recorded activity a data set offers to models, and from how long ago.

    Attributes:
        information: ``recorded_past`` (of the predicted neurons themselves) or ``recorded_others`` (of a fixed held-in
            set that is never predicted).
        lag_bins: at bin t a model reads what was recorded at t - lag.
        shortest_lag: below it a model would read what it predicts.
        reconstructs: the observed neurons are predicted as well, in training only, to learn from masked records. They
            are the first of the predicted ones, in the same order; elsewhere their responses are NaN, never scored.
    """

    information: Literal["recorded_past", "recorded_others"]
    lag_bins: int
    shortest_lag: int
    reconstructs: bool = False

    def strided(self, stride: int) -> Recorded:
        """Give lags in frames of a model that reads every ``stride``-th one, rounded up."""
        return replace(self, lag_bins=-(-self.lag_bins // stride), shortest_lag=-(-self.shortest_lag // stride))


@dataclass(frozen=True)
class Facts:
    """What the data supplies and no configuration may set.

    ``mean_responses`` is the mean over the training tier, in the units the model is trained in (after response
    normalization). ``stimulus_shape`` is ``(channel, height, width)``. ``observed_neurons`` says for every channel of
    recorded activity which predicted neuron it is, -1 for none of them. ``areas`` names the brain area of every neuron,
    ``observed_areas`` that of every channel of recorded activity. ``match_ids`` are equal for neurons, of this or of
    another session, that are taken for the same cell or type; negative where a neuron is matched with none.
    """

    n_neurons: int
    stimulus_shape: tuple[int, int, int] | None
    mean_responses: Float[np.ndarray, " neurons"]
    shortest_clip: int
    bin_s: float | None = None
    behavior_channels: int = 0
    pupil_channels: int = 0
    observed_channels: int = 0
    observed_neurons: Int[np.ndarray, " observed"] | None = None
    recorded: Recorded | None = None
    positions_um: Float[np.ndarray, "neurons 3"] | None = None
    areas: tuple[str, ...] | None = None
    observed_areas: tuple[str, ...] | None = None
    match_ids: Int[np.ndarray, " neurons"] | None = None

    def as_dict(self) -> dict[str, object]:
        """Facts by name, as components ask for them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def strided(self, stride: int) -> Facts:
        """Say what there is to know for a model that reads every ``stride``-th frame: a bin is as much longer.

        Lags are rounded up to frames that it reads, so that it never looks at anything more recent. Responses stay
        those of the frames that are read; nothing is summed over the frames between them.
        """
        if stride == 1:
            return self
        return replace(
            self,
            shortest_clip=max(1, self.shortest_clip // stride),
            bin_s=None if self.bin_s is None else self.bin_s * stride,
            recorded=self.recorded and self.recorded.strided(stride),
        )


@dataclass(frozen=True)
class Clip:
    """A stretch of one clip, normalized, float32, time first.

    ``unseen`` counts the last frames whose recorded activity no model is shown (0 stands there): forward prediction.
    """

    responses: Float[np.ndarray, "time neurons"]
    stimulus: Float[np.ndarray, "time channel height width"] | None = None
    behavior: Float[np.ndarray, "time behavior"] | None = None
    pupil: Float[np.ndarray, "time pupil"] | None = None
    observed: Float[np.ndarray, "time observed"] | None = None
    unseen: int = 0

    def strided(self, stride: int) -> Clip:
        """Keep every ``stride``-th frame, the first and the last among them: they lie a multiple of it apart."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "unseen"}
        kept = {name: None if array is None else array[::stride] for name, array in arrays.items()}
        return replace(self, **kept, unseen=-(-self.unseen // stride))


@runtime_checkable  # or else beartype cannot check Session in tests
class Source(Protocol):
    """Where clips are read from; it holds memory maps, is picklable, writes nothing, and may be read by threads."""

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read ``frames`` frames of a clip from frame ``start``: crop first, then normalize."""
        ...


@dataclass(frozen=True)
class Session:
    """One recording of one animal: a fixed set of neurons, and a table of clips.

    Attributes:
        name: unique among the sessions of a sweep.
        animal: the unit of inference; several sessions may share one.
        facts: what components may be built from.
        tiers: one of ``TIERS`` (or ``unused``) per clip.
        lengths: valid frames per clip; what lies behind them is padding.
        stimulus_ids: equal for clips that showed the same stimulus.
        source: reads clips.
        scored_from: first frame that scores count (a rule of the benchmark, the same for all models).
        cautions: sentences that later verdicts obey, such as "cells pooled over animals: no coupling".
        fingerprint: hash of what identifies the recording (file names, sizes, statistics), for provenance.
        conditions: ``stimulus_ids`` number conditions of an experiment, which occur in all tiers on purpose.
    """

    name: str
    animal: str
    facts: Facts
    tiers: tuple[str, ...]
    lengths: Int[np.ndarray, " clips"]
    stimulus_ids: Int[np.ndarray, " clips"]
    source: Source
    scored_from: int = 0
    cautions: tuple[str, ...] = ()
    fingerprint: str = ""
    conditions: bool = False

    def clips(self, tier: str) -> Int[np.ndarray, " clips"]:
        """Indices of the clips of a tier, in order."""
        return np.flatnonzero(np.asarray(self.tiers) == tier)

    def repeats(self, tier: str) -> list[Int[np.ndarray, " repeats"]]:
        """Clips of a tier grouped by stimulus, in order of first presentation."""
        clips = self.clips(tier)
        groups: dict[int, list[int]] = {}
        for clip in clips:
            groups.setdefault(int(self.stimulus_ids[clip]), []).append(int(clip))
        return [np.asarray(group) for group in groups.values()]


@dataclass(frozen=True)
class Inputs:
    """What a model may read. ``observed`` is recorded activity; only ``model.py`` hands it on, lagged or masked."""

    stimulus: Float[Tensor, "batch time channel height width"] | None = None
    behavior: Float[Tensor, "batch time behavior"] | None = None
    pupil: Float[Tensor, "batch time pupil"] | None = None
    observed: Float[Tensor, "batch time observed"] | None = None

    @property
    def n_batch(self) -> int:
        """Clips in the batch."""
        return self._any().shape[0]

    @property
    def n_frames(self) -> int:
        """Frames per clip."""
        return self._any().shape[1]

    def from_frame(self, start: int) -> Inputs:
        """Drop the first ``start`` frames of everything."""
        return self.map(lambda tensor: tensor[:, start:])

    def map(self, function) -> Inputs:
        """Apply a function to every tensor that is there."""
        return Inputs(**{f.name: None if (x := getattr(self, f.name)) is None else function(x) for f in fields(self)})

    def _any(self) -> Tensor:
        for f in fields(self):
            tensor = getattr(self, f.name)
            if tensor is not None:
                return tensor
        raise ValueError("inputs are empty; give at least one of stimulus, behavior, pupil, observed")


@dataclass(frozen=True)
class Batch:
    """Crops of one session's clips, with what was recorded and which of it counts.

    ``unseen`` is for every crop the number of its last frames whose recorded activity no model is shown; None for 0.
    """

    session: str
    inputs: Inputs
    responses: Float[Tensor, "batch time neurons"]
    valid: Bool[Tensor, "batch time neurons"]
    clips: Int[Tensor, " batch"]
    unseen: Int[Tensor, " batch"] | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Move to a device, and floating-point tensors to a dtype."""
        return replace(
            self,
            inputs=self.inputs.map(lambda x: x.to(device, dtype, non_blocking=True)),
            responses=self.responses.to(device, dtype, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, from which a CUDA device reads without waiting; the data loader calls this."""
        return replace(
            self,
            inputs=self.inputs.map(lambda x: x.pin_memory()),
            responses=self.responses.pin_memory(),
            valid=self.valid.pin_memory(),
        )

    def from_frame(self, start: int) -> Batch:
        """Drop the first frames of everything."""
        return replace(
            self,
            inputs=self.inputs.from_frame(start),
            responses=self.responses[:, start:],
            valid=self.valid[:, start:],
        )


def collate(session: str, clips: Iterable[int], parts: list[Clip]) -> Batch:
    """Stack crops of equal length into a batch; a response that is NaN is not valid and becomes 0.

    NumPy does the work: torch would split it over the threads that the model is using.
    """
    responses = _stack([part.responses for part in parts])
    valid = np.ones(responses.shape, np.bool_)
    if np.isnan(responses.min()):  # NaN when any number is; writing down which costs as much as reading them
        valid = ~np.isnan(responses)
        responses[~valid] = 0
    inputs = {
        name: None if getattr(parts[0], name) is None else torch.from_numpy(_stack([getattr(p, name) for p in parts]))
        for name in ("stimulus", "behavior", "pupil", "observed")
    }
    index = torch.tensor(list(clips), dtype=torch.int64)
    unseen = torch.tensor([part.unseen for part in parts]) if any(part.unseen for part in parts) else None
    return Batch(session, Inputs(**inputs), torch.from_numpy(responses), torch.from_numpy(valid), index, unseen)


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Stack into one contiguous array, which ``np.stack`` does not make of transposed ones unless it is told to."""
    return np.stack(arrays, out=np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype))
