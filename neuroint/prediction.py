"""Predict clips in evaluation: whole, in chunks, over windows that overlap, and at every phase of a stride.

A model that reads every s-th frame predicts all frames of a clip by s passes, each of which begins one frame later.
What it predicts of a frame is the response at that frame, so that scores count the same frames at any stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.config import TrialConfig
from neuroint.data.base import Inputs
from neuroint.model import STAGES, PopulationModel, predict_in_chunks


@dataclass(frozen=True)
class Windows:
    """Stretches of a clip that are predicted one by one, each as if the clip began there.

    Attributes:
        frames: of a window.
        hop: frames from the beginning of one to that of the next; the last one ends with the clip.
    """

    frames: int
    hop: int

    def starts(self, total: int) -> list[int]:
        """First frames of the windows of a clip; one window, shorter than the others, where the clip is no longer."""
        last = max(0, total - self.frames)
        return [*range(0, last, self.hop), last]


@dataclass(frozen=True)
class Predictor:
    """Predicts every frame of a clip that a model can predict.

    Attributes:
        model: reads every ``stride``-th frame.
        stride: how many passes there are, each of which begins one frame later.
        windows: average the predictions of overlapping windows of a pass.
        chunk_frames: predict a longer pass in chunks of so many frames, with the same result in less memory.
    """

    model: PopulationModel
    stride: int = 1
    windows: Windows | None = None
    chunk_frames: int | None = None

    @property
    def lost_frames(self) -> int:
        """Frames of the recording at the start of a clip that no rate is predicted for."""
        return self.stride * self.model.lost_frames

    def __call__(self, inputs: Inputs, session: str) -> Float[Tensor, "batch predicted neurons"]:
        """Predict the rates of all frames from ``lost_frames`` on."""
        if self.stride == 1:
            return self._pass(inputs, session)
        predicted = inputs.n_frames - self.lost_frames
        phases = [
            self._pass(inputs.map(lambda x, phase=phase: x[:, phase :: self.stride]), session)
            for phase in range(max(1, min(self.stride, predicted)))  # later ones predict nothing of a short clip
        ]
        rates = phases[0].new_empty(len(phases[0]), predicted, phases[0].shape[2])
        for phase, found in enumerate(phases):
            rates[:, phase :: self.stride] = found
        return rates

    def _pass(self, inputs: Inputs, session: str) -> Float[Tensor, "batch predicted neurons"]:
        if self.windows is None:
            return predict_in_chunks(self.model, inputs, session, self.chunk_frames)
        return predict_in_windows(self.model, inputs, session, self.windows)


def predict_in_windows(
    model: PopulationModel, inputs: Inputs, session: str, windows: Windows
) -> Float[Tensor, "batch predicted neurons"]:
    """Average over windows what each of them predicts of a frame; in its first ``lost_frames`` one predicts nothing.

    A model without memory that reads a bounded past predicts the same in every window, and the average is its plain
    prediction. It differs where features depend on how much of the clip is seen: attention over frames, filters that
    are centered and padded.
    """
    found = _each_window(model, model.lagged(inputs), session, windows)
    first, like = next(found)
    predicted = inputs.n_frames - model.lost_frames
    sums, counts = like.new_zeros(len(like), predicted, like.shape[2]), like.new_zeros(predicted, 1)
    for start, rates in chain([(first, like)], found):
        part = slice(start, start + rates.shape[1])
        sums[:, part] += rates
        counts[part] += 1
    return sums / counts


def _each_window(
    model: PopulationModel, inputs: Inputs, session: str, windows: Windows
) -> Iterator[tuple[int, Float[Tensor, "batch predicted neurons"]]]:
    """Predict windows in turn; gives the first frame of each, and its rates."""
    for start in windows.starts(inputs.n_frames):
        stop = start + windows.frames
        window = inputs.map(lambda x, start=start, stop=stop: x[:, start:stop])
        known = None if inputs.observed is None else inputs.observed[:, :stop]
        yield start, model.advance(window, session, None, observed=known)[0]


def check_prediction(model: PopulationModel, config: TrialConfig) -> None:
    """Refuse a stride or windows that a model cannot be predicted with.

    Raises:
        ValueError: says what stands against it.
    """
    train, core = config.train, config.specs["core"].name
    if train.frame_stride > 1 and hasattr(model.core, "clip_frames"):
        raise ValueError(
            f"core '{core}' has a value for each frame of a clip, and train.frame_stride={train.frame_stride} would "
            "show it other frames in each pass; set train.frame_stride: 1"
        )
    if (hop := train.evaluation_hop) is None:
        return
    why = next(_against_windows(model, config, hop), None)
    if why is not None:
        raise ValueError(f"train.evaluation_hop={hop} averages windows of {train.frames} frames, but {why}")


def _against_windows(model: PopulationModel, config: TrialConfig, hop: int) -> Iterator[str]:
    """Say what stands against windows."""
    train, lost = config.train, model.lost_frames
    if train.evaluation_frames is not None:
        yield f"train.evaluation_frames={train.evaluation_frames} would cut clips into chunks; set one of the two"
    if hop > train.frames - lost:
        yield (
            f"each predicts {max(0, train.frames - lost)} frames (the core consumes {lost}), so that a larger hop "
            f"leaves gaps; set it to at most {max(0, train.frames - lost)}, or raise train.frames"
        )
    if _begins_with_the_clip(model.core):
        yield (
            f"core '{config.specs['core'].name}' reads clips from their beginning and would begin anew in every "
            "window; leave it out"
        )
    for slot in STAGES:
        if any(hasattr(stage, way) for stage in getattr(model, slot).values() for way in ("step", "scan")):
            yield (
                f"{slot} '{config.specs[slot].name}' remembers earlier frames and would begin anew in every window; "
                "leave it out, or choose a design without memory"
            )


def _begins_with_the_clip(core: nn.Module) -> bool:
    """Whether a core hands a state on from the first frame, or counts from there."""
    whole: Any = getattr(core, "whole_clips", False)
    return hasattr(core, "scan") or (whole and not getattr(core, "takes_windows", False))
