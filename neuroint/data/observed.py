"""Offer recorded activity to models: the neurons' own past, or other neurons that are never predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from neuroint.data.base import Clip, DataError, Facts, Recorded, Session, Source
from neuroint.seeding import generator

# Calcium traces are smoothed and interpolated in time: nearer than this, "the past" holds the present. (White noise at
# 8 Hz, interpolated to 30 Hz, predicts itself for 5 frames; smoothed spike inference reaches 500 to 600 ms.)
CALCIUM_LAG_S = 0.6
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


def observe_others(session: Session, held_in: float, seed: int) -> Session:
    """Let models read a fixed random part of the neurons at the same bin and predict the others: co-smoothing.

    Which neurons are held in follows from the seed and the session's name alone.

    Raises:
        DataError: fewer than two neurons would be held in or out.
    """
    count = session.facts.n_neurons
    chosen = round(held_in * count)
    if min(chosen, count - chosen) < FEWEST:
        raise DataError(
            f"session '{session.name}' has {count} neurons; data.held_in={held_in} holds {chosen} in and leaves "
            f"{count - chosen} to predict, expected at least {FEWEST} of each; change data.held_in"
        )
    order = generator(seed, "held_in", session.name).permutation(count)
    offer = Recorded("recorded_others", lag_bins=0, shortest_lag=0)
    return _dealt(session, np.sort(order[chosen:]), np.sort(order[:chosen]), offer)


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
    )
