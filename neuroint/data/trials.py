"""Sessions of activity in trials of equal length: what decision tasks and reaching tasks are recorded as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Int, Num

from neuroint.data.base import TRAIN, Clip, DataError, Facts, Session


@dataclass(frozen=True)
class TrialSource:
    """Reads crops of ``clips time neurons``; float32 is made of the crop alone, and a memory map stays one."""

    responses: Num[np.ndarray, "clips time neurons"]
    behavior: Num[np.ndarray, "clips frames behavior"] | None = None

    def read(self, clip: int, start: int, frames: int) -> Clip:
        """Read a crop; NaN stands for what is not scored."""
        part = slice(start, start + frames)
        behavior = None if self.behavior is None else self.behavior[clip, part].astype(np.float32)
        return Clip(self.responses[clip, part].astype(np.float32), behavior=behavior)


def trial_session(
    name: str,
    animal: str,
    responses: Num[np.ndarray, "clips time neurons"],
    tiers: Sequence[str],
    stimulus_ids: Int[np.ndarray, " clips"],
    *,
    bin_s: float | None = None,
    behavior: Num[np.ndarray, "clips frames behavior"] | None = None,
    cautions: tuple[str, ...] = (),
    areas: tuple[str, ...] | None = None,
) -> Session:
    """Make a session of counts (or other activity) per trial of the experiment, which is a clip here.

    ``stimulus_ids`` are equal for trials of one condition, which count as repeats. Conditions occur in all tiers on
    purpose: what is held out are whole trials with their own variability. A model is handed neither the condition nor
    the number of the trial, so there is no key under which it could remember a response, and what it may learn of all
    trials alike, their time course, is a null of its own (core ``time_course``). ``mean_responses`` is over what is
    known of the training clips, in responses per bin.

    Raises:
        DataError: numbers of clips, frames or areas differ, nothing to train on, or a neuron of which nothing is known
            in the training tier.
    """
    frames, neurons = responses.shape[1:]
    _check_counts(name, responses, behavior, {"tiers": len(tiers), "stimulus_ids": len(stimulus_ids)})
    if areas is not None and len(areas) != neurons:
        raise DataError(f"session '{name}': {neurons} neurons and {len(areas)} areas; give one area per neuron")
    mean = _training_mean(name, responses, tiers)
    facts = Facts(
        n_neurons=neurons,
        stimulus_shape=None,
        mean_responses=mean,
        shortest_clip=frames,
        bin_s=bin_s,
        behavior_channels=0 if behavior is None else behavior.shape[2],
        areas=areas,
    )
    lengths, source = np.full(len(responses), frames), TrialSource(responses, behavior)
    told = _fingerprint(name, responses, tiers, mean)
    return Session(
        name,
        animal,
        facts,
        tuple(tiers),
        lengths,
        stimulus_ids,
        source,
        cautions=cautions,
        fingerprint=told,
        conditions=True,
    )


def _check_counts(name: str, responses: np.ndarray, behavior: np.ndarray | None, tables: dict[str, int]) -> None:
    clips = {"responses": len(responses), **tables, **({} if behavior is None else {"behavior": len(behavior)})}
    if len(set(clips.values())) > 1:
        raise DataError(f"session '{name}': numbers of clips differ: {clips}; give one of each per trial")
    if behavior is not None and behavior.shape[1] != responses.shape[1]:
        raise DataError(
            f"session '{name}': responses have {responses.shape[1]} frames and behavior {behavior.shape[1]}; give both "
            "in the same bins"
        )


def _training_mean(name: str, responses: np.ndarray, tiers: Sequence[str]) -> np.ndarray:
    training = np.flatnonzero(np.asarray(tiers) == TRAIN)
    if not len(training):
        raise DataError(f"session '{name}' has no training clips among {len(tiers)}; give other tiers smaller shares")
    total, known = np.zeros(responses.shape[2]), np.zeros(responses.shape[2])
    for clip in training:
        held = responses[clip].astype(np.float64)
        total += np.nansum(held, axis=0)
        known += (~np.isnan(held)).sum(axis=0)
    if not known.all():
        unknown = np.flatnonzero(known == 0)[:10].tolist()
        raise DataError(f"session '{name}': nothing is known of neurons {unknown} in the training tier; leave them out")
    return (total / known).astype(np.float32)


def _fingerprint(name: str, responses: np.ndarray, tiers: Sequence[str], mean: np.ndarray) -> str:
    content = f"{name} {responses.shape} {tuple(tiers)}".encode() + mean.tobytes()
    return blake2b(content, digest_size=16).hexdigest()
