"""Does attention of a fitted transformer go with what the animal did, and with what the model was told it did?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import nn

from neuroint.analysis.following import Swap, swap
from neuroint.analysis.video_attention import Attention, attention_of
from neuroint.data.base import Session
from neuroint.data.swapped import others

RUNNING = 1  # channel of behavior in the layout of Sensorium 2023, behind the dilation of the pupil


class Pair(NamedTuple):
    """A trace of attention and the trace of behavior that it is held against, in all clips of a session."""

    attention: Float[np.ndarray, "clips time"]
    behavior: Float[np.ndarray, "clips time"]


def behavior_in_attention(
    core: nn.Module,
    sessions: Sequence[Session],
    tier: str,
    *,
    later_frames: int | None = None,
    running_channel: int = RUNNING,
    draws: int = 1999,
    seed: int = 0,
    stride: int = 1,
) -> dict[str, Swap]:
    """Hold where a core looks against pupil and running, with recorded and with swapped behavior, in all sessions.

    ``x`` and ``y`` are the rollout's middle of mass against the pupil's position (rightward and downward), ``time`` is
    attention to a frame by later ones against running speed at that frame. :class:`neuroint.analysis.following.Swap`
    says how to read the numbers. What to expect: receptive fields that move with the eye show in ``x`` and ``y``, as
    attention is all that carries features to another place (unless the readout has a ``shifter``, or the move is
    smaller than a patch). A gain of running on all neurons needs no attention: it can be made token by token.

    Args:
        core: of a fitted model.
        sessions: that it was fitted to.
        tier: whose clips; at least two in each session.
        later_frames: see :func:`neuroint.analysis.video_attention.looked_back_at`.
        running_channel: of behavior.
        draws: of each null.
        seed: of swap and draws.
        stride: ``train.frame_stride`` of the run that fitted it.

    Raises:
        ValueError: the core has no maps, a session has neither pupil nor behavior or no such channel, it has one clip,
            or behavior never varies.
    """
    given = {session.name: others(len(session.clips(tier)), seed) for session in sessions}
    look = partial(attention_of, core, tier=tier, later_frames=later_frames, stride=stride)
    own = {session.name: look(session) for session in sessions}
    swapped = {session.name: look(session, given=given[session.name]) for session in sessions}
    recorded, exchanged = (
        _by_kind({name: pairs_of(name, one, running_channel) for name, one in side.items()}) for side in (own, swapped)
    )
    return {
        kind: swap(
            {name: pair.attention for name, pair in pairs.items()},
            {name: pair.attention for name, pair in exchanged[kind].items()},
            {name: pair.behavior for name, pair in pairs.items()},
            {name: given[name] for name in pairs},
            draws=draws,
            seed=seed,
        )
        for kind, pairs in recorded.items()
    }


def pairs_of(session: str, attention: Attention, running_channel: int = RUNNING) -> dict[str, Pair]:
    """Pair what was recorded in a session with what of attention it may go with; only what there is.

    Raises:
        ValueError: there is nothing to pair.
    """
    pairs = {}
    if attention.pupil is not None:
        pairs = {name: Pair(attention.center_px[..., k], attention.pupil[..., k]) for k, name in enumerate("xy")}
    if attention.behavior is not None and attention.temporal is not None:
        _check_channel(session, attention.behavior.shape[2], running_channel)
        pairs["time"] = Pair(attention.temporal, attention.behavior[..., running_channel])
    if not pairs:
        raise ValueError(
            f"session '{session}' has no pupil, and no behavior that attention over time could be held against; take "
            "sessions with behavior"
        )
    return pairs


def _check_channel(session: str, channels: int, running_channel: int) -> None:
    if not 0 <= running_channel < channels:
        raise ValueError(
            f"running_channel is {running_channel}, and behavior of session '{session}' has channels 0 to "
            f"{channels - 1}; say which of them is running speed"
        )


def _by_kind(pairs: Mapping[str, Mapping[str, Pair]]) -> dict[str, dict[str, Pair]]:
    """The same pairs, by kind and then by session."""
    kinds = dict.fromkeys(kind for one in pairs.values() for kind in one)
    return {kind: {name: one[kind] for name, one in pairs.items() if kind in one} for kind in kinds}
