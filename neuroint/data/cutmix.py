"""Paste a box of one clip into another, and mix what was recorded by area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuroint.data.base import Batch, Session


@dataclass(frozen=True)
class Box:
    """Pixels [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> int:
        """How many there are."""
        return (self.bottom - self.top) * (self.right - self.left)


def draw_box(height: int, width: int, share: float, random: np.random.Generator) -> Box:
    """Draw where a box of a share of the picture is cut, centered on any pixel; what lies outside is cut off.

    Its sides are the square root of the share of those of the picture, rounded to pixels.
    """
    (top, bottom), (left, right) = (_side(size, share**0.5, random) for size in (height, width))
    return Box(top, bottom, left, right)


def _side(size: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    length = round(size * share)
    first = int(random.integers(size)) - length // 2
    return max(first, 0), min(first + length, size)


def pasted(batch: Batch, partner: Int[np.ndarray, " batch"], box: Box) -> Batch:
    r"""Show every clip the partner's stimulus inside a box, in all frames, and mix the rest by area.

    .. math:: y \leftarrow \lambda y + (1 - \lambda) y', \quad \lambda = 1 - |box| / |picture|

    for responses, behavior and pupil; a response is valid where both are. Behavior and pupil are vectors here: pasted
    as planes of the picture, as the winner of Sensorium 2023 had them, their mean over pixels would be this mixture.
    Recorded activity stays that of the clip, so models must not read it (:func:`check_cutmix`).
    """
    stimulus = _stimulus(batch)
    index = torch.as_tensor(partner, device=stimulus.device)
    kept = 1 - box.pixels / (stimulus.shape[-2] * stimulus.shape[-1])
    inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    shown = stimulus.clone()
    shown[inside] = stimulus[inside][index]
    inputs = batch.inputs
    return replace(
        batch,
        inputs=replace(
            inputs,
            stimulus=shown,
            behavior=_mixed(inputs.behavior, index, kept),
            pupil=_mixed(inputs.pupil, index, kept),
        ),
        responses=torch.lerp(batch.responses[index], batch.responses, kept),
        valid=batch.valid & batch.valid[index],
    )


def cutmix(batch: Batch, probability: float, alpha: float, random: np.random.Generator) -> Batch:
    r"""With a probability, paste a box of another clip of the batch into every clip, and mix what was recorded.

    The clips form one ring in random order, in which everyone's partner is the next. One :math:`\lambda` is drawn from
    Beta(alpha, alpha) for the batch, and one box of the share :math:`1 - \lambda` of the picture; the :math:`\lambda`
    that mixes is that of the box as it was cut (:func:`pasted`). The null is a probability of 0.

    Args:
        batch: crops of one session; it is not changed.
        probability: of doing this at all.
        alpha: 1 draws every share as often; a small one mostly little or nearly everything.
        random: everything is drawn from it, in an order that does not depend on the device.

    Raises:
        ValueError: there is no stimulus, or no other clip.

    Source: Yun et al. (2019), ICCV, arXiv:1905.04899; with alpha 1 and probability .5 in the winner of Sensorium 2023.
    """
    if random.random() >= probability:
        return batch
    stimulus, clips = _stimulus(batch), batch.responses.shape[0]
    if clips < 2:
        raise ValueError(_alone(probability, clips))
    box = draw_box(stimulus.shape[-2], stimulus.shape[-1], 1 - random.beta(alpha, alpha), random)
    order = random.permutation(clips)
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -1)
    return pasted(batch, partner, box) if box.pixels else batch


def check_cutmix(
    probability: float, sessions: Sequence[Session], clips: int, information: str, reads_recorded: bool
) -> None:
    """Refuse to mix where it makes no sense, before anything is trained.

    Args:
        probability: of mixing; at 0 everything is allowed.
        sessions: what is trained on.
        clips: of a session in a step of one worker.
        information: class of the model.
        reads_recorded: whether the model reads recorded activity, which would stay that of one clip.

    Raises:
        ValueError: says what stands against it.
    """
    if not probability:
        return
    for session in sessions:
        if session.facts.stimulus_shape is None:
            raise ValueError(_blank(session.name))
    if clips < 2:
        raise ValueError(_alone(probability, clips))
    if reads_recorded:
        raise ValueError(
            f"train.cutmix={probability:g} mixes the responses of two clips, but this model reads recorded activity "
            f"({information}), which would stay that of one; set train.cutmix: 0, or choose a design that reads none"
        )


def _stimulus(batch: Batch) -> Float[Tensor, "batch time channel height width"]:
    if batch.inputs.stimulus is None:
        raise ValueError(_blank(batch.session))
    return batch.inputs.stimulus


def _blank(session: str) -> str:
    return f"train.cutmix pastes pixels, but session '{session}' has no stimulus; set train.cutmix: 0"


def _alone(probability: float, clips: int) -> str:
    return (
        f"train.cutmix={probability:g} pairs the clips that one worker has of a session in a step, and there is "
        f"{clips}; raise train.batch_size to at least 2 per worker, or set train.cutmix: 0"
    )


def _mixed(values: Tensor | None, partner: Tensor, kept: float) -> Tensor | None:
    return None if values is None else torch.lerp(values[partner], values, kept)
