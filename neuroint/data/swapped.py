"""Behavior of another clip in place of a clip's own: what is left of an effect when it cannot come from the animal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from neuroint.data.base import TIERS, Clip, DataError, Session, Source
from neuroint.seeding import generator


@dataclass(frozen=True)
class SwappedSource:
    """Reads clips with the behavior and pupil of another one."""

    source: Source
    given: Int[np.ndarray, " clips"]

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read a crop, and what the animal did at the same frames of the other clip."""
        other = self.source.read(int(self.given[clip]), start, frames)
        return replace(self.source.read(clip, start, frames), behavior=other.behavior, pupil=other.pupil)


def swap_behavior(session: Session, seed: int) -> Session:
    """Give every clip the behavior and pupil of another clip of its tier, the same one for the whole run.

    Stimuli, responses and how behavior wanders stay as they are; only that it happened at the same moment is undone. A
    model fitted to this is the null of one fitted to the recording: it had nothing to learn from behavior.

    Raises:
        DataError: neither was recorded, a tier has a single clip, or clips have different lengths.
    """
    facts = session.facts
    if not facts.behavior_channels + facts.pupil_channels:
        raise DataError(f"session '{session.name}' has no behavior and no pupil that could be swapped between clips")
    if len(set(session.lengths.tolist())) > 1:
        raise DataError(
            f"clips of session '{session.name}' have {session.lengths.min()} to {session.lengths.max()} frames; "
            "behavior can be swapped between clips of one length only: cut them first"
        )
    given = np.arange(len(session.tiers))
    for tier in TIERS:
        clips = session.clips(tier)
        if len(clips):
            given[clips] = clips[others(len(clips), seed)]
    return replace(session, source=SwappedSource(session.source, given))


def others(clips: int, seed: int = 0) -> Int[np.ndarray, " clips"]:
    """Name another clip for every clip, each once, at random: the next one on a random ring.

    Raises:
        DataError: there is no other clip.
    """
    if clips < 2:
        raise DataError(f"{clips} clip in a tier has no other one to swap behavior with; give the tier a larger share")
    ring = generator(seed, "swapped", clips).permutation(clips)
    given = np.empty(clips, np.int64)
    given[ring] = np.roll(ring, -1)
    return given
