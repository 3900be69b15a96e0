"""Which clip shows which stimulus in which tier."""

from __future__ import annotations

from dataclasses import dataclass

from neuroint.data.simulators.v1_parts.settings import Preset
from neuroint.data.simulators.v1_parts.streams import stream

TRAIN_TIER = "train"
REPEATED_TIERS = ("oracle", "live_test_main", "final_test_main")
_ROOM = 1_000_000  # stream indices per tier, so that more training clips leave the held-out ones unchanged


@dataclass(frozen=True)
class PlannedClip:
    """One presentation.

    Attributes:
        file: the number its files carry.
        tier: name in ``tiers.npy``.
        stimulus: index of the stimulus' random stream; equal for repeats.
        presentation: index of the clip's own random streams.
    """

    file: int
    tier: str
    stimulus: int
    presentation: int


def plan_clips(preset: Preset, seed: int, session: int) -> list[PlannedClip]:
    """List all presentations of a session, those of one stimulus together; file numbers are in random order."""
    shown = [(TRAIN_TIER, i, i) for i in range(preset.train_clips)]
    for number, tier in enumerate(REPEATED_TIERS, start=1):
        for repeat in range(preset.stimuli * preset.repeats):
            shown.append((tier, number * _ROOM + repeat // preset.repeats, number * _ROOM + repeat))
    files = stream(seed, session, "order").permutation(len(shown))
    return [PlannedClip(int(file), *rest) for file, rest in zip(files, shown, strict=True)]
