"""Describe recordings before anything is trained: a card as plain data, and as text.

The final test is counted and never read: its responses stay unseen until the one logged unlock. Its stimuli are
compared with those of the other tiers, because a stimulus in two tiers is a fault that has to be known before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.base import DEV_TEST, TIERS, TRAIN, UNUSED, VALIDATION, DataError, Session
from neuroint.data.reliability import Reliability
from neuroint.data.running import RunningMoments
from neuroint.data.splits import describe_leakage, stimuli_in_several_tiers

READ_TIERS = (TRAIN, VALIDATION, DEV_TEST)
CHUNK_VALUES = 4_000_000  # responses held at once: 32 MB in float64
AXES = ("x", "y", "z")


@dataclass(frozen=True)
class TierCard:
    """How much there is of a tier; frames are those trained on or scored, repeats the fewest and most of a stimulus."""

    tier: str
    clips: int
    frames: int
    stimuli: int
    fewest_repeats: int
    most_repeats: int


@dataclass(frozen=True)
class ResponseCard:
    """Statistics of the responses that models see, over training, validation and dev-test.

    ``silent_neurons`` never gave anything but zero.
    """

    mean: float
    sd: float
    share_zero: float
    largest: float
    silent_neurons: int
    mean_per_neuron: tuple[float | None, ...]


@dataclass(frozen=True)
class SnrCard:
    """Distribution over neurons of the unbiased, signed signal-to-noise ratio (``neuroint.data.reliability``)."""

    stimuli: int
    tiers: tuple[str, ...]
    median: float
    lower_quartile: float
    upper_quartile: float
    share_not_positive: float
    undefined_neurons: int
    per_neuron: tuple[float | None, ...]


@dataclass(frozen=True)
class SessionCard:
    """What one session holds; ``extent_um`` is the smallest and largest position along x, y, z."""

    name: str
    animal: str
    neurons: int
    stimulus_shape: tuple[int, ...] | None
    bin_s: float | None
    behavior_channels: int
    pupil_channels: int
    scored_from: int
    tiers: tuple[TierCard, ...]
    unused_clips: int
    responses: ResponseCard | None
    snr: SnrCard | None
    extent_um: tuple[tuple[float, float], ...] | None
    cautions: tuple[str, ...]
    faults: tuple[str, ...]
    fingerprint: str
    neurons_by_area: dict[str, int] | None = None


@dataclass(frozen=True)
class Card:
    """All sessions, and faults that concern no single one of them."""

    sessions: tuple[SessionCard, ...]
    faults: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; undefined numbers are None, so that it is valid JSON."""
        return asdict(self)


class _Reading:
    """What a pass over the responses of a session gathers."""

    def __init__(self, n_neurons: int) -> None:
        self.moments = RunningMoments(n_neurons)
        self.zeros = np.zeros(n_neurons)
        self.largest = np.full(n_neurons, -np.inf)
        self.reliability = Reliability(n_neurons)
        self.repeated: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # values other than 0 per tier

    def add(self, tier: str, responses: Float[np.ndarray, "repeats time neurons"]) -> None:
        rows = responses.reshape(-1, responses.shape[2])
        self.moments.add(rows)
        self.zeros += (rows == 0).sum(axis=0)
        self.largest = np.fmax(self.largest, np.fmax.reduce(rows, axis=0))
        self.answered[tier] += int(np.count_nonzero(np.nan_to_num(rows)))
        if len(responses) > 1:
            self.reliability.add(responses)


def inspect(sessions: Sequence[Session], faults: Sequence[str] = ()) -> Card:
    """Read every response outside the final test once, and describe it.

    Args:
        sessions: as a reader hands them out.
        faults: found while opening (``neuroint.data.opening.find_faults``); they are passed on.
    """
    return Card(tuple(_session_card(session) for session in sessions), tuple(faults))


def _session_card(session: Session) -> SessionCard:
    facts, reading, faults = session.facts, _Reading(session.facts.n_neurons), []
    for tier in READ_TIERS:
        faults.extend(_read_tier(session, tier, reading))
    faults.extend(_silent_tiers(session, reading))
    shared = stimuli_in_several_tiers(session.tiers, session.stimulus_ids)
    if shared and not session.conditions:
        faults.append(describe_leakage(shared))
    if facts.positions_um is not None and len(facts.positions_um) > 1 and np.ptp(facts.positions_um, axis=0).max() == 0:
        faults.append("all neurons have the same position, expected one each; leave positions out of the recording")
    return SessionCard(
        name=session.name,
        animal=session.animal,
        neurons=facts.n_neurons,
        stimulus_shape=facts.stimulus_shape,
        bin_s=facts.bin_s,
        behavior_channels=facts.behavior_channels,
        pupil_channels=facts.pupil_channels,
        scored_from=session.scored_from,
        tiers=tuple(_tier_card(session, tier) for tier in TIERS if len(session.clips(tier))),
        unused_clips=len(session.clips(UNUSED)),
        responses=_response_card(reading),
        snr=_snr_card(reading),
        extent_um=_extent(facts.positions_um),
        cautions=session.cautions,
        faults=tuple(faults),
        fingerprint=session.fingerprint,
        neurons_by_area=None if facts.areas is None else dict(sorted(Counter(facts.areas).items())),
    )


def scored_from(session: Session, tier: str) -> int:
    """First frame that counts: leads are for scored tiers only."""
    return 0 if tier == TRAIN else session.scored_from


def _tier_card(session: Session, tier: str) -> TierCard:
    repeats = [len(group) for group in session.repeats(tier)]
    frames = session.lengths[session.clips(tier)] - scored_from(session, tier)
    return TierCard(tier, sum(repeats), int(np.maximum(frames, 0).sum()), len(repeats), min(repeats), max(repeats))


def _read_tier(session: Session, tier: str, reading: _Reading) -> Iterator[str]:
    """Take in the clips of a tier; a stimulus that cannot be read is a fault, and the next one is read."""
    for clips in session.repeats(tier):
        try:
            for responses in _stretches(session, clips, scored_from(session, tier)):
                reading.add(tier, responses)
        except DataError as error:
            yield str(error)
        else:
            reading.repeated[tier] += len(clips) > 1


def _stretches(
    session: Session, clips: Int[np.ndarray, " repeats"], start: int
) -> Iterator[Float[np.ndarray, "repeats time neurons"]]:
    """Responses to the repeats of a stimulus, cut to the shortest, a bounded number of frames at a time."""
    end = int(session.lengths[clips].min())
    step = max(1, CHUNK_VALUES // (len(clips) * session.facts.n_neurons))
    for first in range(start, end, step):
        frames = min(step, end - first)
        yield np.stack([session.source.read(int(clip), first, frames).responses for clip in clips])


def _silent_tiers(session: Session, reading: _Reading) -> Iterator[str]:
    for tier in READ_TIERS:
        if len(session.clips(tier)) and not reading.answered[tier]:
            yield f"the responses of {tier} are all zero, as if withheld; no score there means anything"


def _response_card(reading: _Reading) -> ResponseCard | None:
    moments = reading.moments
    values = moments.count.sum()
    if not values:
        return None
    share = moments.count / values
    mean = float((moments.mean * share).sum())
    power = np.nan_to_num(moments.variance()) + np.square(moments.mean - mean)
    return ResponseCard(
        mean=mean,
        sd=math.sqrt((power * share).sum()),
        share_zero=float(reading.zeros.sum() / values),
        largest=float(reading.largest.max()),
        silent_neurons=int((reading.zeros == moments.count).sum()),
        mean_per_neuron=_plain(np.where(moments.count > 0, moments.mean, np.nan)),
    )


def _snr_card(reading: _Reading) -> SnrCard | None:
    snr = reading.reliability.snr()
    defined = snr[np.isfinite(snr)]
    if not len(defined):
        return None
    lower, median, upper = np.quantile(defined, [0.25, 0.5, 0.75])
    return SnrCard(
        stimuli=reading.repeated.total(),
        tiers=tuple(tier for tier in READ_TIERS if reading.repeated[tier]),
        median=float(median),
        lower_quartile=float(lower),
        upper_quartile=float(upper),
        share_not_positive=float((defined <= 0).mean()),
        undefined_neurons=len(snr) - len(defined),
        per_neuron=_plain(snr),
    )


def _plain(values: Float[np.ndarray, " neurons"]) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values.tolist())


def _extent(positions: Float[np.ndarray, "neurons 3"] | None) -> tuple[tuple[float, float], ...] | None:
    if positions is None:
        return None
    return tuple((float(low), float(high)) for low, high in zip(positions.min(0), positions.max(0), strict=True))


def render(card: Card) -> str:
    """Lay a card out as text."""
    animals = len({session.animal for session in card.sessions})
    neurons = sum(session.neurons for session in card.sessions)
    lines = [f"{_count(len(card.sessions), 'session')} of {_count(animals, 'animal')}, {_count(neurons, 'neuron')}"]
    for session in card.sessions:
        lines += ["", f"{session.name} (animal {session.animal})", *(f"  {line}" for line in _session_lines(session))]
    listed = [*card.faults, *(f"{s.name}: {fault}" for s in card.sessions for fault in s.faults)]
    lines += ["", f"faults: {len(listed) or 'none found'}", *(f"  - {fault}" for fault in listed)]
    return "\n".join(lines)


def _session_lines(card: SessionCard) -> Iterator[str]:
    yield f"{'neurons':<11}{card.neurons}"
    if card.neurons_by_area is not None:
        yield f"{'areas':<11}{', '.join(f'{area} {count}' for area, count in card.neurons_by_area.items())}"
    yield f"{'inputs':<11}{', '.join(_inputs(card))}"
    yield f"{'bin':<11}{'not known' if card.bin_s is None else f'{1000 * card.bin_s:.4g} ms'}"
    yield f"{'tier':<11}{'clips':>7} {'frames':>9} {'stimuli':>8}  repeats"
    for tier in card.tiers:
        repeats = f"{tier.fewest_repeats}" + f"-{tier.most_repeats}" * (tier.most_repeats > tier.fewest_repeats)
        yield f"  {tier.tier:<11}{tier.clips:>5} {tier.frames:>9} {tier.stimuli:>8}  {repeats}"
    if card.unused_clips:
        yield f"  {UNUSED:<11}{card.unused_clips:>5}"
    yield f"{'frames':<11}of scored tiers are counted from frame {card.scored_from}; final_test is counted, not read"
    yield f"{'responses':<11}{_response_line(card.responses)}"
    yield f"{'SNR':<11}{_snr_line(card.snr)}"
    yield f"{'positions':<11}{_position_line(card.extent_um)}"
    yield from (f"{'caution':<11}{caution}" for caution in card.cautions)


def _inputs(card: SessionCard) -> Iterator[str]:
    shape = card.stimulus_shape
    yield (
        "no stimulus"
        if shape is None
        else f"stimulus {shape[1]} x {shape[2]} pixels (height x width), {_count(shape[0], 'channel')}"
    )
    for name, channels in (("behavior", card.behavior_channels), ("pupil", card.pupil_channels)):
        yield f"{name} {_count(channels, 'channel')}" if channels else f"no {name}"


def _response_line(card: ResponseCard | None) -> str:
    if card is None:
        return "none could be read"
    return (
        f"mean {card.mean:.3g}, sd {card.sd:.3g}, {card.share_zero:.1%} zeros, largest {card.largest:.4g}, "
        f"{_count(card.silent_neurons, 'silent neuron')}"
    )


def _snr_line(card: SnrCard | None) -> str:
    if card is None:
        return "not available: no stimulus was repeated outside the final test"
    undefined = f", undefined for {card.undefined_neurons}" if card.undefined_neurons else ""
    return (
        f"median {card.median:.3g} (quartiles {card.lower_quartile:.3g} to {card.upper_quartile:.3g}), "
        f"{card.share_not_positive:.1%} of neurons not above 0{undefined}; "
        f"from {_count(card.stimuli, 'repeated stimulus', 'repeated stimuli')} of {', '.join(card.tiers)}"
    )


def _position_line(extent: tuple[tuple[float, float], ...] | None) -> str:
    if extent is None:
        return "none"
    return ", ".join(f"{axis} {low:.4g} to {high:.4g} um" for axis, (low, high) in zip(AXES, extent, strict=True))


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
