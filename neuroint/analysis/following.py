"""Does what a model does follow what the animal did? Correlations over frames, with clips as the unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from neuroint.seeding import generator

Trace = Float[np.ndarray, "clips time"]
Traces = Mapping[str, Float[np.ndarray, "_ _"]]  # clips and time of every session
Given = Mapping[str, Int[np.ndarray, " _"]]


@dataclass(frozen=True)
class Following:
    """How a trace of a model goes with one of the animal, and how it would if clips were dealt at random.

    Attributes:
        correlation: mean over sessions.
        sessions: the correlation of every session.
        slope: mean over sessions of the regression of the model's trace on the animal's, in their units.
        null: the mean correlation of every draw.
        clips: of all sessions.
    """

    correlation: float
    sessions: Mapping[str, float]
    slope: float
    null: Float[np.ndarray, " draws"]
    clips: int

    @property
    def p(self) -> float:
        """Share of draws at least as far from 0 as what was found, itself counted: never below 1/(draws + 1)."""
        further = np.abs(self.null) >= abs(self.correlation) - 1e-12
        return float((1 + further.sum()) / (1 + len(self.null)))


@dataclass(frozen=True)
class Swap:
    """The four numbers of a test with swapped behavior: what a model was given, against what it is compared with.

    Behavior is an input, so a model's attention may go with behavior without having learned anything of the animal's
    brain: an untrained network's does. How to read the numbers, with C clips in a session:

    ``own`` is what a paper would print. ``mispaired`` is its floor: as the other clip is never the right one it lies at
    -own / (C - 1), not at 0, and anything else means that clips are not exchangeable. ``passed_on`` near ``own`` means
    that attention goes wherever the input tells it to; ``own`` above ``passed_on`` means that behavior counts for more
    where it fits the stimulus. ``left_over`` (floor -passed_on / (C - 1)) is what does not come through the input:
    above 0, stimuli drive both attention and behavior, as when pupils shrink in bright scenes.

    None of the four says that a model *needed* this. That takes the same numbers of models fitted where there was
    nothing to learn: to a twin of the data without the effect, or to behavior that was swapped in training, too
    (:func:`neuroint.data.swapped.swap_behavior`).

    Attributes:
        own: given the recorded behavior, compared with it.
        mispaired: given the recorded behavior, compared with that of another clip.
        passed_on: given the behavior of another clip, compared with that.
        left_over: given the behavior of another clip, compared with the recorded one.
    """

    own: Following
    mispaired: Following
    passed_on: Following
    left_over: Following


def follows(model: Traces, animal: Traces, *, draws: int = 1999, seed: int = 0) -> Following:
    r"""Correlate a trace of a model with one of the animal over all frames of a session, against clips dealt anew.

    .. math:: r = \frac{\sum_{ct} \tilde a_{ct} \tilde b_{ct}}{\sqrt{\sum_{ct} \tilde a_{ct}^2 \sum_{ct} \tilde
        b_{ct}^2}}, \quad \tilde a_{ct} = a_{ct} - \frac{1}{C} \sum_{c'} a_{c't}

    What all clips of a session share in time (edges of a causal map, habits at the onset of a clip) is taken off both.
    Frames are no independent draws: behavior wanders for seconds, and so do stimuli, so the p value of a plain
    correlation is far too small. The null ("session permutation") deals the behavior of whole clips to other clips of
    the same session at random, and so keeps how both wander within a clip; several sessions are dealt separately, and
    their correlations averaged. It is exact where behavior has no part in the model's trace and clips are exchangeable
    within a session: shown in random order, without a drift in *both*. Two clips allow p = 1/2 at best, five 1/60.

    Args:
        model: one time course per clip, by session; frames at which it is NaN in a clip are left out in all.
        animal: the same of the animal.
        draws: of the null.
        seed: of the draws.

    Raises:
        ValueError: sessions, clips or frames do not match, a session has one clip, or a trace does not vary.

    Source: Harris (2021), bioRxiv 2020.11.29.402719 (session permutation); Phipson & Smyth (2010), Stat. Appl. Genet.
    Mol. Biol. 9, 39 (the p value).
    """
    _check(model, animal)
    products = {name: _products(name, model[name], animal[name]) for name in model}
    found = {name: float(np.trace(matrix)) for name, (matrix, _) in products.items()}
    null = np.mean([_dealt(matrix, draws, generator(seed, "clips", name)) for name, (matrix, _) in products.items()], 0)
    return Following(
        correlation=float(np.mean(list(found.values()))),
        sessions=found,
        slope=float(np.mean([found[name] * ratio for name, (_, ratio) in products.items()])),
        null=null,
        clips=sum(len(trace) for trace in model.values()),
    )


def swap(
    recorded: Traces,
    swapped: Traces,
    animal: Traces,
    given: Given,
    *,
    draws: int = 1999,
    seed: int = 0,
) -> Swap:
    """Hold a model's traces with recorded and with swapped behavior against recorded and swapped behavior.

    Args:
        recorded: traces of the model when it was given each clip's own behavior.
        swapped: traces when it was given the behavior of another clip.
        animal: recorded behavior.
        given: which other clip, as :func:`neuroint.data.swapped.others` deals them, by session.
        draws: of each null.
        seed: of the draws.

    Raises:
        ValueError: as :func:`follows`; or a clip was given its own behavior, so that nothing was swapped.
    """
    own = [name for name, clips in given.items() if (clips == np.arange(len(clips))).any()]
    if own or given.keys() != animal.keys():
        raise ValueError(
            f"clips of {own or sorted(animal.keys() ^ given.keys())} were not given the behavior of another clip; deal "
            "them with others()"
        )
    other = {name: trace[given[name]] for name, trace in animal.items()}
    pairs = {
        "own": (recorded, animal),
        "mispaired": (recorded, other),
        "passed_on": (swapped, other),
        "left_over": (swapped, animal),
    }
    return Swap(**{name: follows(*pair, draws=draws, seed=seed) for name, pair in pairs.items()})


def _check(model: Traces, animal: Traces) -> None:
    shapes = [{name: trace.shape for name, trace in traces.items()} for traces in (model, animal)]
    if shapes[0] != shapes[1] or not model:
        raise ValueError(
            f"the model has (clips, frames) {shapes[0]}, the animal {shapes[1]}; give both for the same frames of the "
            "same clips of at least one session"
        )
    if single := [name for name, (clips, _) in shapes[0].items() if clips < 2]:
        raise ValueError(
            f"session {', '.join(single)} has a single clip, and the null deals behavior to other clips; take a tier "
            "with more clips, or cut a long recording into several"
        )


def _products(name: str, model: Trace, animal: Trace) -> tuple[Float[np.ndarray, "clips clips"], float]:
    """Part of the correlation that every pair of clips would add, model's by animal's; and the ratio of spreads."""
    kept = ~(np.isnan(model) | np.isnan(animal)).any(axis=0)
    a, b = (trace[:, kept].astype(np.float64) for trace in (model, animal))
    sizes = [1e-9 * float(np.linalg.norm(x)) for x in (a, b)]  # rounding is no variation
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = [float(np.linalg.norm(x)) for x in (a, b)]
    flat = [what for what, norm, size in zip(("model", "animal"), norms, sizes, strict=True) if norm <= size]
    if flat:
        raise ValueError(
            f"session {name}: the trace of the {' and that of the '.join(flat)} is the same in all {len(model)} clips "
            f"at the {int(kept.sum())} frames known; leave the session out, or see whether it was recorded"
        )
    return a @ b.T / (norms[0] * norms[1]), norms[0] / norms[1]


def _dealt(
    products: Float[np.ndarray, "clips clips"], draws: int, draw: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Correlations with behavior dealt to clips at random; the deal that was recorded may come up, as it must."""
    order = np.arange(len(products))
    return np.array([products[order, draw.permutation(order)].sum() for _ in range(draws)])
