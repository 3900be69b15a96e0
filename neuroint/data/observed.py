"""Offer recorded activity to models: the neurons' own past, or other neurons that are never scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from neuroint.data.areas import assigned, in_areas
from neuroint.data.base import TIERS, TRAIN, Clip, DataError, Facts, Recorded, Session, Source
from neuroint.seeding import generator

# Calcium traces are smoothed and interpolated in time: nearer than this, "the past" holds the present. (White noise at
# 8 Hz, interpolated to 30 Hz, predicts itself for 5 frames; smoothed spike inference reaches 500 to 600 ms.)
CALCIUM_LAG_S = 0.6
AT_ONCE = Recorded("recorded_others", lag_bins=0, shortest_lag=0)
FEWEST = 2  # held-in and held-out neurons without which co-smoothing says nothing


@dataclass(frozen=True)
class ObservedSource:
    """Reads what another source reads, with some neurons as targets and some as recorded activity (NaN becomes 0)."""

    source: Source
    targets: Int[np.ndarray, " targets"]
    channels: Int[np.ndarray, " observed"]

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read a crop and deal its responses out."""
        found = self.source.read(clip, start, frames)
        observed = np.nan_to_num(found.responses[:, self.channels], nan=0.0)
        return replace(found, responses=found.responses[:, self.targets], observed=observed)


@dataclass(frozen=True)
class ShuffledSource:
    """Reads clips with the recorded activity of another one."""

    source: Source
    partner: Int[np.ndarray, " clips"]

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read a crop, and what is observed from the same frames of the other clip."""
        other = self.source.read(int(self.partner[clip]), start, frames)
        return replace(self.source.read(clip, start, frames), observed=other.observed)


@dataclass(frozen=True)
class ChosenSource:
    """Reads clips with some of the recorded activity on offer."""

    source: Source
    channels: Int[np.ndarray, " chosen"]

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read a crop, and keep the chosen channels."""
        found = self.source.read(clip, start, frames)
        return replace(found, observed=None if found.observed is None else found.observed[:, self.channels])


@dataclass(frozen=True)
class MaskedSource:
    """Reads held-in neurons as recorded activity and predicts them too: held-in first, then held-out.

    Outside training, held-in responses are NaN, and so is every response of the last ``forward_bins`` of a clip: what
    is scored is co-smoothing alone. Recorded activity is 0 in those bins, in every tier.
    """

    source: Source
    order: Int[np.ndarray, " neurons"]
    held_in: int
    trained: Bool[np.ndarray, " clips"]
    lengths: Int[np.ndarray, " clips"]
    forward_bins: int = 0

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read a crop, and hide from models what they predict without seeing it."""
        found = self.source.read(clip, start, frames)
        responses = found.responses[:, self.order]
        observed = np.nan_to_num(responses[:, : self.held_in], nan=0.0)
        unseen = min(frames, max(0, start + frames - (int(self.lengths[clip]) - self.forward_bins)))
        observed[frames - unseen :] = 0
        if not self.trained[clip]:
            responses[:, : self.held_in] = np.nan
            responses[frames - unseen :] = np.nan
        return replace(found, responses=responses, observed=observed, unseen=unseen)


def observe_past(session: Session, lag_s: float | None = None) -> Session:
    """Let models read what all predicted neurons did a lag ago: forecasting.

    The lag is ``lag_s``, by default 600 ms, rounded up to bins and at least one bin; without a known bin width it is
    one bin. Spike trains need one bin, deconvolved calcium traces the default.

    Raises:
        DataError: the lag is not positive, or is given in seconds where the bin width is not known.
    """
    everyone = np.arange(session.facts.n_neurons)
    offer = Recorded("recorded_past", lag_bins=_lag_bins(session, lag_s), shortest_lag=1)
    return _dealt(session, everyone, everyone, offer)


def observe_others(
    session: Session,
    held_in: float,
    seed: int,
    from_areas: Sequence[str] | None = None,
    to_areas: Sequence[str] | None = None,
) -> Session:
    """Let models read a fixed part of the neurons at the same bin and predict the others: co-smoothing.

    The part is random, or that of ``from_areas``, from which ``to_areas`` is predicted; areas are named singly or by
    group. A side that is not given is all areas that are not on the other one; neurons in no area are on neither.
    Neurons of an area that is on both sides are dealt at random, a share of ``held_in`` to be read. Which neurons
    these are follows from the seed and the session's name alone.

    Raises:
        DataError: fewer than two neurons would be held in or out, or an area is not in the recording.
    """
    others, chosen = _drawn(session, held_in, seed, from_areas, to_areas)
    return _dealt(session, others, chosen, AT_ONCE)


def observe_masked(
    session: Session,
    held_in: float,
    seed: int,
    from_areas: Sequence[str] | None = None,
    to_areas: Sequence[str] | None = None,
) -> Session:
    """Let models read the neurons of :func:`observe_others`, and train them to predict these, too, where masked.

    All neurons are predicted, held-in ones first; scores are of held-out ones alone (:class:`MaskedSource`).

    Raises:
        DataError: as for :func:`observe_others`.
    """
    others, chosen = _drawn(session, held_in, seed, from_areas, to_areas)
    return reconstructed(session, chosen, others)


def reconstructed(
    session: Session,
    held_in: Int[np.ndarray, " held_in"],
    held_out: Int[np.ndarray, " held_out"],
    forward_bins: int = 0,
) -> Session:
    """Offer the records of some neurons, all of which are predicted in training; the last bins of clips stay unseen."""
    order = np.concatenate([held_in, held_out])
    trained = np.asarray(session.tiers) == TRAIN
    facts = replace(
        _of_neurons(session.facts, order),
        observed_channels=len(held_in),
        observed_neurons=np.arange(len(held_in)),
        observed_areas=_areas_of(session.facts, held_in),
        recorded=Recorded("recorded_others", lag_bins=0, shortest_lag=0, reconstructs=True),
    )
    source = MaskedSource(session.source, order, len(held_in), trained, session.lengths, forward_bins)
    return replace(session, facts=facts, source=source)


def _drawn(
    session: Session, held_in: float, seed: int, from_areas: Sequence[str] | None, to_areas: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Find held-out and held-in neurons."""
    if from_areas is not None or to_areas is not None:
        return _of_areas(session, held_in, seed, from_areas, to_areas)
    count = session.facts.n_neurons
    chosen = round(held_in * count)
    if min(chosen, count - chosen) < FEWEST:
        raise DataError(
            f"session '{session.name}' has {count} neurons; data.held_in={held_in} holds {chosen} in and leaves "
            f"{count - chosen} to predict, expected at least {FEWEST} of each; change data.held_in"
        )
    order = generator(seed, "held_in", session.name).permutation(count)
    return np.sort(order[chosen:]), np.sort(order[:chosen])


def _of_areas(
    session: Session, held_in: float, seed: int, from_areas: Sequence[str] | None, to_areas: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    source, target = _sides(session, from_areas, to_areas)
    shared = np.flatnonzero(source & target)
    order = generator(seed, "held_in", session.name).permutation(shared)
    read = order[: round(held_in * len(shared))]
    channels = np.union1d(np.flatnonzero(source & ~target), read)
    targets = np.setdiff1d(np.flatnonzero(target), read)
    if min(len(channels), len(targets)) < FEWEST:
        raise DataError(
            f"session '{session.name}': data.from_areas={from_areas} and data.to_areas={to_areas} leave "
            f"{len(channels)} neurons to read and {len(targets)} to predict, expected at least {FEWEST} of each; name "
            f"more areas, or change data.held_in={held_in}, the share that is read of an area on both sides"
        )
    return targets, channels


def _sides(
    session: Session, from_areas: Sequence[str] | None, to_areas: Sequence[str] | None
) -> tuple[Bool[np.ndarray, " neurons"], Bool[np.ndarray, " neurons"]]:
    """Mark the neurons of areas that are read and of those that are predicted."""
    areas = session.facts.areas
    source = None if from_areas is None else in_areas(areas, from_areas, session.name, "data.from_areas")
    target = None if to_areas is None else in_areas(areas, to_areas, session.name, "data.to_areas")
    everyone = assigned(areas or ())
    nobody = np.zeros_like(everyone)
    rest = everyone & ~(nobody if source is None else source) & ~(nobody if target is None else target)
    return rest if source is None else source, rest if target is None else target


def choose_observed(session: Session, areas: Sequence[str] | None, neurons: int | None, seed: int) -> Session:
    """Let models read some of the neurons on offer: those of areas or groups, or as many of them as asked for.

    What is predicted stays the same, so arms that read different areas are scored on the same neurons. Which neurons
    are drawn follows from the seed, the session's name and the areas.

    Raises:
        DataError: no recorded activity is on offer or it is also predicted, areas are unknown, or neurons too few.
    """
    facts = session.facts
    if facts.recorded is None or facts.recorded.reconstructs:
        offered = "no recorded activity" if facts.recorded is None else "activity that is predicted as well"
        raise DataError(
            f"observed.areas and observed.neurons choose among recorded neurons, but session '{session.name}' offers "
            f"{offered}; set data.observed: others"
        )
    chosen = _some(session, areas, neurons, seed)
    known = facts.observed_areas
    offer = replace(
        facts,
        observed_channels=len(chosen),
        observed_neurons=None if facts.observed_neurons is None else facts.observed_neurons[chosen],
        observed_areas=None if known is None else tuple(known[channel] for channel in chosen),
    )
    return replace(session, facts=offer, source=ChosenSource(session.source, chosen))


def _some(session: Session, areas: Sequence[str] | None, neurons: int | None, seed: int) -> Int[np.ndarray, " chosen"]:
    """Find the channels of areas, or draw as many of them as asked for."""
    facts = session.facts
    everyone = np.ones(facts.observed_channels, dtype=bool)
    inside = everyone if areas is None else in_areas(facts.observed_areas, areas, session.name, "observed.areas")
    chosen = np.flatnonzero(inside)
    if neurons is None:
        return chosen
    if len(chosen) < neurons:
        raise DataError(
            f"observed.neurons is {neurons}, but of the neurons that session '{session.name}' offers {len(chosen)} are "
            f"in {'any area' if areas is None else list(areas)}; ask for fewer, or offer more of them (data.held_in, "
            "data.from_areas)"
        )
    order = generator(seed, "observed", session.name, *sorted(areas or ())).permutation(chosen)
    return np.sort(order[:neurons])


def shuffle_observed(session: Session, seed: int) -> Session:
    """Pair every clip with what was recorded in another clip of its tier: a control that leaves nothing but time.

    Counts, time course and latents of what is read stay as they are; only that it was recorded at the same moment is
    undone. Clips of a tier are put into a random order, and each reads the next one; the pairs stay for the whole run.

    Raises:
        DataError: no recorded activity is on offer, a tier has a single clip, or clips have different lengths.
    """
    facts = session.facts
    if facts.recorded is None:
        raise DataError(
            f"observed.shuffled is true, but session '{session.name}' offers no recorded activity; set data.observed"
        )
    if len(set(session.lengths.tolist())) > 1:
        raise DataError(
            f"observed.shuffled is true, but clips of session '{session.name}' have {session.lengths.min()} to "
            f"{session.lengths.max()} frames; only clips of one length can be exchanged"
        )
    partner = np.arange(len(session.tiers))
    for tier in TIERS:
        clips = session.clips(tier)
        if len(clips) == 1:
            raise DataError(
                f"observed.shuffled is true, but tier '{tier}' of session '{session.name}' has one clip, which has no "
                "other to be exchanged with; give the tier a larger share"
            )
        order = generator(seed, "shuffled", session.name, tier).permutation(clips)
        partner[order] = np.roll(order, 1)
    return replace(session, source=ShuffledSource(session.source, partner))


def _lag_bins(session: Session, lag_s: float | None) -> int:
    bin_s = session.facts.bin_s
    if lag_s is not None and (bin_s is None or lag_s <= 0):
        raise DataError(
            f"data.lag_s is {lag_s} and bin_s of session '{session.name}' is {bin_s}; give a positive lag and say bin_s"
        )
    if bin_s is None:
        return 1
    wanted = CALCIUM_LAG_S if lag_s is None else lag_s
    return max(1, math.ceil(round(wanted / bin_s, 6)))


def _dealt(session: Session, targets: np.ndarray, channels: np.ndarray, offer: Recorded) -> Session:
    place = {int(neuron): index for index, neuron in enumerate(targets)}
    facts = replace(
        _of_neurons(session.facts, targets),
        observed_channels=len(channels),
        observed_neurons=np.array([place.get(int(neuron), -1) for neuron in channels]),
        observed_areas=_areas_of(session.facts, channels),
        recorded=offer,
    )
    return replace(session, facts=facts, source=ObservedSource(session.source, targets, channels))


def _of_neurons(facts: Facts, targets: np.ndarray) -> Facts:
    positions = facts.positions_um
    return replace(
        facts,
        n_neurons=len(targets),
        mean_responses=facts.mean_responses[targets],
        positions_um=None if positions is None else positions[targets],
        areas=_areas_of(facts, targets),
        match_ids=None if facts.match_ids is None else facts.match_ids[targets],
    )


def _areas_of(facts: Facts, neurons: Int[np.ndarray, " some"]) -> tuple[str, ...] | None:
    return None if facts.areas is None else tuple(facts.areas[neuron] for neuron in neurons)
