"""Tiers that respect stimuli: no stimulus may be trained on in one clip and scored in another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

import numpy as np
from jaxtyping import Int

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, DataError, Session

Leakage = Literal["refuse", "report", "drop"]
MOST_PROTECTED_FIRST = (FINAL_TEST, DEV_TEST, VALIDATION, TRAIN)


def split_by_stimulus(
    stimulus_ids: Int[np.ndarray, " clips"], fractions: Mapping[str, float], seed: int, unit: str = "different stimuli"
) -> tuple[str, ...]:
    """Give every clip a tier: a seeded share of the stimuli for each named tier, training for the rest.

    Stimuli are ordered by a hash of seed and id, so the split depends neither on the order of clips nor on other
    sessions, and sessions that saw the same set of stimuli are split alike. Every named tier with a fraction above 0
    gets at least one stimulus.

    Args:
        stimulus_ids: one per clip; repeats share theirs and stay together.
        fractions: share of the stimuli per tier.
        seed: of the split.
        unit: what is split, for the message.

    Raises:
        DataError: too few stimuli, so that none would be left to train on.
    """
    stimuli = sorted({int(i) for i in stimulus_ids}, key=lambda i: blake2b(f"{seed} {i}".encode()).digest())
    counts = {tier: max(1, round(share * len(stimuli))) for tier, share in fractions.items() if share > 0}
    if sum(counts.values()) >= len(stimuli):
        wanted = ", ".join(f"{tier} {count}" for tier, count in counts.items())
        raise DataError(
            f"{len(stimuli)} {unit} cannot be split into {wanted} and some for training; "
            f"use smaller fractions or more {unit.split()[-1]}"
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


@dataclass(frozen=True)
class Clash:
    """A stimulus that one session trains on, in these clips, and another scores."""

    trained: str
    clips: tuple[int, ...]
    scored: str
    tier: str

    def __str__(self) -> str:
        clips = ", ".join(map(str, self.clips[:5]))
        return (
            f"session '{self.trained}' trains on a stimulus (clip {clips}) that session '{self.scored}' scores in "
            f"{self.tier}"
        )


Table = tuple[Sequence[str], Int[np.ndarray, " clips"]]


def stimuli_between(tables: Mapping[str, Table]) -> list[Clash]:
    """Find stimuli that one session trains on and another scores; the same tier in both is no clash.

    Args:
        tables: tier and hash of the stimulus of every clip, by session.
    """
    trained: dict[int, dict[str, list[int]]] = {}
    for name, (tiers, ids) in tables.items():
        for clip in np.flatnonzero(np.asarray(tiers) == TRAIN):
            trained.setdefault(int(ids[clip]), {}).setdefault(name, []).append(int(clip))
    scored = {
        (int(stimulus), name, tier): None
        for name, (tiers, ids) in tables.items()
        for stimulus, tier in zip(ids, tiers, strict=True)
        if tier not in (TRAIN, UNUSED)
    }
    return [
        Clash(other, tuple(clips), name, tier)
        for stimulus, name, tier in scored
        for other, clips in trained.get(stimulus, {}).items()
        if other != name
    ]


def describe_clashes(clashes: Sequence[Clash]) -> str:
    """Name the first three."""
    more = f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""
    return "; ".join(map(str, clashes[:3])) + more


def settle_between(sessions: list[Session], leakage: Leakage) -> list[Session]:
    """Apply a choice to stimuli that one session trains on and another scores; sessions share what they learn.

    ``refuse`` raises; ``report`` adds a caution to the session that scores; ``drop`` leaves the clips out of training.

    Raises:
        DataError: the choice is ``refuse`` and there are such stimuli, or nothing is left to train on.
    """
    clashes = stimuli_between({session.name: (session.tiers, session.stimulus_ids) for session in sessions})
    if clashes and leakage == "refuse":
        raise DataError(
            f"{describe_clashes(clashes)}: sessions share what they learn, and a score there would count memory as "
            "prediction; set leakage to drop, which leaves these clips out of training, or to report, which goes on "
            "with a caution"
        )
    change = _without if leakage == "drop" else _cautioned
    return [change(session, clashes) for session in sessions]


def _cautioned(session: Session, clashes: Iterable[Clash]) -> Session:
    mine = [clash for clash in clashes if clash.scored == session.name]
    told = (f"{describe_clashes(mine)}: scores there are too high",) if mine else ()
    return replace(session, cautions=(*session.cautions, *told)) if told else session


def _without(session: Session, clashes: Iterable[Clash]) -> Session:
    out = {clip for clash in clashes if clash.trained == session.name for clip in clash.clips}
    tiers = tuple(UNUSED if clip in out else tier for clip, tier in enumerate(session.tiers))
    if TRAIN not in tiers:
        raise DataError(
            f"session '{session.name}' would have nothing left to train on: other sessions score all of its training "
            "stimuli; read it alone, or set leakage to report"
        )
    return replace(session, tiers=tiers) if out else session
