"""Sessions in memory whose every number says where it was read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroint.data.base import Clip, DataError, Facts, Session

CLIP = 100_000  # responses are CLIP * clip + 10 * frame + neuron, exact in float32 while clips are few


@dataclass(frozen=True)
class CountedSource:
    """Writes clip, frame and neuron into the responses, and clip and frame into a stimulus of 2x3 pixels."""

    neurons: int = 2
    broken: int = -1

    def read(self, clip: int, start: int, frames: int) -> Clip:
        if clip == self.broken:
            raise DataError(f"clip {clip} has NaN in frame 3; remove it")
        place = (CLIP * clip + 10 * np.arange(start, start + frames)).astype(np.float32)
        stimulus = np.broadcast_to(place[:, None, None, None], (frames, 1, 2, 3)).copy()
        responses = place[:, None] + np.arange(self.neurons, dtype=np.float32)
        return Clip(responses, stimulus, pupil=stimulus[:, 0, 0, :2])


def counted_session(
    tiers: dict[str, list[int]],
    *,
    name: str = "mouse",
    stimuli: list[int] | None = None,
    scored_from: int = 0,
    source: CountedSource | None = None,
) -> Session:
    """Make a session from the lengths of the clips of each tier, in this order."""
    lengths = np.array([length for clips in tiers.values() for length in clips])
    source = source or CountedSource()
    return Session(
        name=name,
        animal=name,
        facts=Facts(source.neurons, (1, 2, 3), np.ones(source.neurons, np.float32), int(lengths.min())),
        tiers=tuple(tier for tier, clips in tiers.items() for _ in clips),
        lengths=lengths,
        stimulus_ids=np.array(stimuli if stimuli is not None else range(len(lengths))),
        source=source,
        scored_from=scored_from,
    )
