"""Tiers that respect stimuli: no stimulus may be trained on in one clip and scored in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal

import numpy as np
from jaxtyping import Int

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, DataError

Leakage = Literal["refuse", "report", "drop"]
MOST_PROTECTED_FIRST = (FINAL_TEST, DEV_TEST, VALIDATION, TRAIN)


def split_by_stimulus(
    stimulus_ids: Int[np.ndarray, " clips"], fractions: Mapping[str, float], seed: int
) -> tuple[str, ...]:
    """Give every clip a tier: a seeded share of the stimuli for each named tier, training for the rest.

    Stimuli are ordered by a hash of seed and id, so the split depends neither on the order of clips nor on other
    sessions, and sessions that saw the same set of stimuli are split alike. Every named tier with a fraction above 0
    gets at least one stimulus.

    Args:
        stimulus_ids: one per clip; repeats share theirs and stay together.
        fractions: share of the stimuli per tier.
        seed: of the split.

    Raises:
        DataError: too few stimuli, so that none would be left to train on.
    """
    stimuli = sorted({int(i) for i in stimulus_ids}, key=lambda i: blake2b(f"{seed} {i}".encode()).digest())
    counts = {tier: max(1, round(share * len(stimuli))) for tier, share in fractions.items() if share > 0}
    if sum(counts.values()) >= len(stimuli):
        wanted = ", ".join(f"{tier} {count}" for tier, count in counts.items())
        raise DataError(
            f"{len(stimuli)} different stimuli cannot be split into {wanted} and some for training; "
            "use smaller fractions or more stimuli"
        )
    names = [tier for tier, count in counts.items() for _ in range(count)]
    tier_of = dict(zip(stimuli, names, strict=False))
    return tuple(tier_of.get(int(i), TRAIN) for i in stimulus_ids)


def stimuli_in_several_tiers(
    tiers: Sequence[str], stimulus_ids: Int[np.ndarray, " clips"]
) -> list[dict[str, list[int]]]:
    """Find stimuli shown in more than one tier: for each, its clips per tier; unused clips do not count."""
    groups: dict[int, dict[str, list[int]]] = {}
    for clip, (tier, stimulus) in enumerate(zip(tiers, stimulus_ids, strict=True)):
        if tier != UNUSED:
            groups.setdefault(int(stimulus), {}).setdefault(tier, []).append(clip)
    return [group for group in groups.values() if len(group) > 1]


def describe_leakage(shared: list[dict[str, list[int]]]) -> str:
    """Name tiers and clips of up to three stimuli shown in several tiers."""
    shown = [
        " and ".join(f"{tier} (clips {', '.join(map(str, clips[:5]))})" for tier, clips in group.items())
        for group in shared[:3]
    ]
    more = f"; and {len(shared) - 3} more stimuli" if len(shared) > 3 else ""
    return f"the same stimulus was shown in {'; in '.join(shown)}{more}"


def settle_leakage(
    tiers: Sequence[str], stimulus_ids: Int[np.ndarray, " clips"], leakage: Leakage
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Apply a choice to stimuli shown in several tiers; return the tiers that follow and cautions.

    ``refuse`` raises; ``report`` keeps the tiers and returns a caution; ``drop`` leaves such a stimulus in its most
    protected tier (final test, dev-test, validation, training) and makes its other clips unused.

    Raises:
        DataError: the choice is ``refuse`` and a stimulus was shown in several tiers.
    """
    shared = stimuli_in_several_tiers(tiers, stimulus_ids)
    if not shared:
        return tuple(tiers), ()
    return _POLICIES[leakage](tuple(tiers), shared)


def _refuse(tiers: tuple[str, ...], shared: list[dict[str, list[int]]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    raise DataError(
        f"{describe_leakage(shared)}: a score there would count memory as prediction; set leakage to drop, which "
        "leaves the clips in the less protected tier out, or to report, which goes on with a caution"
    )


def _report(tiers: tuple[str, ...], shared: list[dict[str, list[int]]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tiers, (f"{describe_leakage(shared)}: scores there are too high",)


def _drop(tiers: tuple[str, ...], shared: list[dict[str, list[int]]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    kept = list(tiers)
    for group in shared:
        _, *others = [tier for tier in MOST_PROTECTED_FIRST if tier in group]
        for clip in (clip for tier in others for clip in group[tier]):
            kept[clip] = UNUSED
    return tuple(kept), ()


_POLICIES = {"refuse": _refuse, "report": _report, "drop": _drop}
