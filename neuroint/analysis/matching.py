"""Control neurons that are like given ones in rate and reliability, drawn at random, and where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.base import TRAIN, Session
from neuroint.data.reliability import Reliability
from neuroint.seeding import generator

Measure = Literal["snr", "poisson_snr"]
FEWEST_REPEATS = 2


@dataclass(frozen=True)
class Traits:
    """What makes a neuron worth reading whatever the circuit: how much it fires, and how reliably.

    Attributes:
        rate: mean response per bin, of training clips.
        reliability: see ``measure``.
        measure: ``snr``, signal power over noise variance across repeats (of trials of a task: across those of a
            condition, so that what differs between them counts as noise), or, where nothing was repeated,
            ``poisson_snr``: variance over bins beyond the mean, over the mean, which is signal over noise if counts
            given the rate are Poisson.
    """

    rate: Float[np.ndarray, " neurons"]
    reliability: Float[np.ndarray, " neurons"]
    measure: Measure

    def table(self) -> Float[np.ndarray, "neurons 2"]:
        """Root of the rate (which evens out the noise of counts, and bears 0) and reliability, in SDs over neurons."""
        columns = np.stack([np.sqrt(np.maximum(self.rate, 0)), self.reliability], axis=1)
        spread = columns.std(axis=0)
        return (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)


def traits_of(session: Session) -> Traits:
    """Measure rate and reliability of the observed neurons over training clips.

    Raises:
        ValueError: the session offers no recorded activity, has no training clip, or a neuron has no reliability.
    """
    if not session.facts.observed_channels or not len(session.clips(TRAIN)):
        raise ValueError(
            f"session '{session.name}' offers records of {session.facts.observed_channels} neurons and has "
            f"{len(session.clips(TRAIN))} training clips; give a session with data.observed set"
        )
    repeats = session.repeats(TRAIN)
    counts = np.concatenate([_shown(session, int(clip)) for group in repeats for clip in group])
    rate = counts.mean(axis=0)
    repeated = any(len(group) >= FEWEST_REPEATS for group in repeats)
    reliability, measure = (_across(session, repeats), "snr") if repeated else (_poisson(counts), "poisson_snr")
    if (unknown := np.flatnonzero(~np.isfinite(reliability))).size:
        raise ValueError(
            f"{measure} of observed neurons {unknown[:5].tolist()} of session '{session.name}' is not defined (silent, "
            "or without noise); leave these neurons out"
        )
    return Traits(rate, reliability, measure)


def matched_draws(
    chosen: Int[np.ndarray, " chosen"],
    table: Float[np.ndarray, "neurons traits"],
    *,
    draws: int,
    nearest: int | None = 5,
    caliper: float | None = 1.0,
    from_all: bool = False,
    seed: int = 0,
) -> Int[np.ndarray, "draws chosen"]:
    """Draw for each chosen neuron a partner among those that are not chosen, near it in traits, none of them twice.

    In every draw the chosen neurons take turns in random order; each takes one of its ``nearest`` partners that are
    still free and within the ``caliper``, all alike, or where none is left, the nearest of all (:func:`unmatched` and
    :func:`imbalance` tell how bad that is).

    Args:
        chosen: whose controls.
        table: :meth:`Traits.table`.
        draws: sets of controls.
        nearest: how many partners are drawn from; None for all within the caliper.
        caliper: largest distance of partners, in SDs of traits; None for any. With None twice, controls are not
            matched at all.
        from_all: draw from all neurons, so that a chosen one may stand for itself or for another: what a null of
            exchanged neurons needs.
        seed: of the draws.

    Raises:
        ValueError: fewer neurons are left than were chosen, or a neuron was chosen twice or does not exist.
    """
    distance = _distances(chosen, table, np.array([], np.int64) if from_all else chosen)
    nearest = None if nearest is None else nearest + from_all  # itself
    order = [np.argsort(row, kind="stable")[: np.isfinite(row).sum()].tolist() for row in distance]
    within = (distance <= (np.finfo(float).max if caliper is None else caliper)).sum(axis=1).tolist()
    random = generator(seed, "controls", int(from_all))
    return np.array([_partners(order, within, nearest, random) for _ in range(draws)])


def unmatched(
    chosen: Int[np.ndarray, " chosen"], table: Float[np.ndarray, "neurons traits"], caliper: float | None = 1.0
) -> Int[np.ndarray, " unmatched"]:
    """Name the chosen neurons that nobody else is within the caliper of."""
    limit = np.inf if caliper is None else caliper
    return chosen[_distances(chosen, table, chosen).min(axis=1) > limit]


def imbalance(
    chosen: Int[np.ndarray, " chosen"],
    partners: Int[np.ndarray, "draws chosen"],
    table: Float[np.ndarray, "neurons traits"],
) -> Float[np.ndarray, " traits"]:
    """Subtract controls' mean traits, over all draws, from those of the chosen neurons: in SDs of all neurons."""
    return table[chosen].mean(axis=0) - table[partners].mean((0, 1))


def _across(session: Session, repeats: list[Int[np.ndarray, " _"]]) -> Float[np.ndarray, " neurons"]:
    found = Reliability(session.facts.observed_channels)
    for group in repeats:
        if len(group) >= FEWEST_REPEATS:
            shown = [_shown(session, int(clip)) for clip in group]
            frames = min(len(clip) for clip in shown)
            found.add(np.stack([clip[:frames] for clip in shown]))
    return found.snr()


def _poisson(counts: Float[np.ndarray, "bins neurons"]) -> Float[np.ndarray, " neurons"]:
    mean = counts.mean(axis=0)
    return (counts.var(axis=0, ddof=1) - mean) / np.where(mean > 0, mean, np.nan)


def _shown(session: Session, clip: int) -> Float[np.ndarray, "time neurons"]:
    """Recorded activity of a clip as far as models are shown it."""
    read = session.source.read(clip, 0, int(session.lengths[clip]))
    observed = np.zeros((0, session.facts.observed_channels)) if read.observed is None else read.observed
    return observed[: len(observed) - read.unseen].astype(np.float64)


def _distances(
    chosen: Int[np.ndarray, " chosen"], table: Float[np.ndarray, "neurons traits"], barred: Int[np.ndarray, " barred"]
) -> Float[np.ndarray, "chosen neurons"]:
    """Between chosen neurons and all; infinite to those that may not be drawn."""
    neurons = len(table)
    if not len(chosen) or len(set(chosen.tolist())) < len(chosen) or chosen.min() < 0 or chosen.max() >= neurons:
        raise ValueError(
            f"chosen neurons are {chosen.tolist()} of {neurons}; give some, each once, by their index from 0"
        )
    if neurons - len(chosen) < len(chosen):
        raise ValueError(
            f"{len(chosen)} chosen neurons of {neurons} leave {neurons - len(chosen)} to draw controls from, and as "
            "many as were chosen are needed; choose fewer"
        )
    distance = np.linalg.norm(table[chosen][:, None] - table, axis=2)
    distance[:, barred] = np.inf
    return distance


def _partners(order: list[list[int]], within: list[int], nearest: int | None, random: np.random.Generator) -> list[int]:
    """One set: of each chosen neuron's order of partners, the first ``within`` are inside the caliper."""
    found, taken = [0] * len(order), set[int]()
    for row in random.permutation(len(order)).tolist():
        near = [neuron for neuron in order[row][: within[row]] if neuron not in taken][:nearest]
        far = (neuron for neuron in order[row] if neuron not in taken)
        found[row] = near[int(random.integers(len(near)))] if near else next(far)
        taken.add(found[row])
    return found
