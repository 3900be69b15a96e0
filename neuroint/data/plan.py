"""Decide which crops of which clips are read, without reading anything.

Plans hold no state that advances: what is read at a step of an epoch is computed from the seed, so that a resumed run
sees the batches it would have seen, and workers agree without talking.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from neuroint.data.base import TIERS, TRAIN, Session
from neuroint.seeding import generator

# Longer than a presentation (300 frames are common): stretches of a continuous recording. A number of frames and not of
# crops, or else tuning the crop length would at some length multiply the steps of an epoch.
CONTINUOUS_FRAMES = 400


@dataclass(frozen=True)
class Request:
    """Crops of equal length of one session that become one batch.

    Attributes:
        session: name of the session.
        clips: clip of every crop.
        starts: first frame of every crop.
        frames: frames of every crop.
        stride: from one frame of a crop to the next.
    """

    session: str
    clips: tuple[int, ...]
    starts: tuple[int, ...]
    frames: int
    stride: int = 1

    @property
    def span(self) -> int:
        """Frames of the recording from the first of a crop to its last."""
        return spanned(self.frames, self.stride)


@dataclass(frozen=True)
class Piece:
    """One step of a full pass over a tier; pieces of the same clips follow each other in time.

    Attributes:
        request: what is read; all crops begin at the same frame.
        stimuli: ``Session.stimulus_ids`` of the clips.
        skip: frames at the beginning that are read but not scored here: the lead, or the frames before ``scored_from``.
        continued: the last stimulus goes on in the next piece, in more frames or more repeats.
    """

    request: Request
    stimuli: tuple[int, ...]
    skip: int
    continued: bool

    @property
    def start(self) -> int:
        """First frame that is read; 0 means that these clips begin here."""
        return self.request.starts[0]


class TrainingPlan:
    """Draws a batch of random crops of every session for each step of an epoch.

    Item i of a session's epoch is drawn from ``(seed, session, epoch)`` alone; step k takes items k*B to (k+1)*B - 1
    and rank r of W every W-th of them from r on, so the crops of a step do not depend on the number of workers.

    The items of an epoch visit the session's training clips in random order, each once; a clip longer than
    ``CONTINUOUS_FRAMES`` is a continuous recording and is visited once for each of its L // frames windows. Every crop
    begins at a frame drawn uniformly from those at which it fits. When the items are used up they are drawn anew, so
    sessions with fewer clips are cycled, and the last batch of an epoch is full.

    Attributes:
        steps_per_epoch: as given, or the number of batches of the session with the most items.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        *,
        frames: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        steps_per_epoch: int | None = None,
        stride: int = 1,
    ) -> None:
        """Check that every training clip holds a crop and that the workers share a batch evenly.

        ``batch_size`` counts the clips of one session in one step over all workers. A crop is of ``frames`` frames,
        every ``stride``-th of the recording.

        Raises:
            ValueError: a clip is shorter than ``frames``, a session has no training clip, the batch does not divide
                by the number of workers, or a number is out of its range.
        """
        _check_counts(frames=frames, batch_size=batch_size, world_size=world_size, stride=stride)
        _check_rank(rank, world_size)
        if steps_per_epoch is not None:
            _check_counts(steps_per_epoch=steps_per_epoch)
        if batch_size % world_size:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared by {world_size} workers; give a multiple of {world_size}"
            )
        self.frames, self.stride, self.batch_size, self.seed = frames, stride, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._visits = {session.name: training_visits(session, frames, stride) for session in sessions}
        self._lengths = {session.name: session.lengths for session in sessions}
        self._drawn: dict[str, tuple[tuple[int, int], tuple[np.ndarray, np.ndarray]]] = {}
        longest = max(len(visits) for visits in self._visits.values())
        self.steps_per_epoch = steps_per_epoch or -(-longest // batch_size)

    def step(self, epoch: int, step: int) -> list[Request]:
        """List this worker's crops of a step, one request per session in the order given."""
        first = step * self.batch_size
        items = range(first, first + self.batch_size)[self.rank :: self.world_size]
        return [self._request(session, epoch, items) for session in self._visits]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Request]]:
        """List the steps of an epoch, from ``first_step`` on when a run is resumed inside it."""
        return (self.step(epoch, step) for step in range(first_step, self.steps_per_epoch))

    def _request(self, session: str, epoch: int, items: range) -> Request:
        size = len(self._visits[session])
        drawn = [(self._round(session, epoch, item // size), item % size) for item in items]
        clips = tuple(int(clips[k]) for (clips, _), k in drawn)
        starts = tuple(int(starts[k]) for (_, starts), k in drawn)
        return Request(session, clips, starts, self.frames, self.stride)

    def _round(self, session: str, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw clips and starts of one round through a session's items; the next step asks for the same one."""
        if session not in self._drawn or self._drawn[session][0] != (epoch, number):
            random = generator(self.seed, "crops", session, epoch, number)
            clips = random.permutation(self._visits[session])
            starts = random.integers(0, self._lengths[session][clips] - spanned(self.frames, self.stride) + 1)
            self._drawn[session] = (epoch, number), (clips, starts)
        return self._drawn[session][1]


def spanned(frames: int, stride: int) -> int:
    """Count the frames of the recording from the first to the last of ``frames``, every ``stride``-th one."""
    return (frames - 1) * stride + 1


def training_visits(session: Session, frames: int, stride: int = 1) -> Int[np.ndarray, " visits"]:
    """List the training clips of a session, each as often as an epoch visits it.

    A continuous recording is visited as often as crops have as many frames together as it has, at any stride.

    Raises:
        ValueError: there is no training clip, or one is shorter than a crop.
    """
    clips = session.clips(TRAIN)
    if not len(clips):
        raise ValueError(f"session '{session.name}' has no clip of tier '{TRAIN}'; leave it out or change its split")
    lengths = session.lengths[clips]
    if lengths.min() < (span := spanned(frames, stride)):
        clip, length = int(clips[lengths.argmin()]), int(lengths.min())
        every = f" ({frames}, every {stride} frames)" if stride > 1 else ""
        raise ValueError(
            f"training clip {clip} of session '{session.name}' has {length} valid frames, fewer than the {span} of a "
            f"crop{every}; set frames to at most {(length - 1) // stride + 1}, or leave the clip out of the training "
            "tier"
        )
    return np.repeat(clips, np.where(lengths > CONTINUOUS_FRAMES, lengths // frames, 1))


def evaluation_plan(
    sessions: Sequence[Session],
    tier: str,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    lead: int = 0,
    max_frames: int | None = None,
) -> list[Piece]:
    """List a full pass over a tier, in which the frames [scored_from, length) of every clip are scored exactly once.

    Repeats of a stimulus stay together: on one worker (rank r of W takes every W-th stimulus of a session from r on,
    and may get none), and in one batch where ``batch_size`` clips allow it, otherwise in consecutive ones. A batch is
    filled up with the next stimuli while their clips have the same length, which is what makes single-frame images
    fast. Repeats of different lengths are cut to the shortest, with a warning.

    Clips of more than ``max_frames`` frames are read in chunks, each of which begins ``lead`` frames before the last
    one ended. A model that predicts all but its first ``lead`` frames (``lost_frames`` of its core) then predicts every
    frame from ``lead`` on exactly once, and a recurrent model carries its state from piece to piece.

    Raises:
        ValueError: no session has a clip of the tier, a clip ends before ``scored_from``, scores would count frames
            that the model cannot predict, chunks are too short, or a number is out of its range.
    """
    if tier not in TIERS:
        raise ValueError(f"'{tier}' is not a tier; tiers are {', '.join(TIERS)}")
    _check_counts(batch_size=batch_size, world_size=world_size)
    _check_rank(rank, world_size)
    scored = [session for session in sessions if len(session.clips(tier))]
    if not scored:
        names = ", ".join(f"'{session.name}'" for session in sessions)
        raise ValueError(f"no clip of tier '{tier}' in {names}; evaluate another tier or change the split")
    for session in scored:
        _check_scored(session, tier, lead, max_frames)
    return [
        piece
        for session in scored
        for clips, length, continued in _packs(session, session.repeats(tier)[rank::world_size], batch_size)
        for piece in _chunks(session, clips, length, continued, lead, max_frames or length)
    ]


def _packs(
    session: Session, groups: Sequence[Int[np.ndarray, " _"]], batch_size: int
) -> Iterator[tuple[list[int], int, bool]]:
    """Fill batches with whole stimuli of equal length: clips, frames, and whether the last stimulus goes on."""
    pack: list[int] = []
    frames = 0
    for group in groups:
        length = _common_length(session, group)
        if pack and (length != frames or len(pack) + len(group) > batch_size):
            yield pack, frames, False
            pack = []
        clips, frames = group.tolist(), length
        while (
            len(pack) + len(clips) > batch_size
        ):  # only an empty pack meets a stimulus of more than batch_size repeats
            yield clips[:batch_size], frames, True
            clips = clips[batch_size:]
        pack += clips
    if pack:
        yield pack, frames, False


def _chunks(
    session: Session, clips: list[int], length: int, continued: bool, lead: int, max_frames: int
) -> Iterator[Piece]:
    """Cut the frames of a batch into overlapping chunks."""
    stimuli = tuple(int(session.stimulus_ids[clip]) for clip in clips)
    start, stop, skip = 0, 0, session.scored_from
    while stop < length:
        stop = min(start + max_frames, length)
        request = Request(session.name, tuple(clips), (start,) * len(clips), stop - start)
        yield Piece(request, stimuli, skip, continued or stop < length)
        start, skip = stop - lead, lead


def _common_length(session: Session, group: Int[np.ndarray, " repeats"]) -> int:
    lengths = session.lengths[group]
    shortest = int(lengths.min())
    if lengths.max() > shortest:
        warnings.warn(
            f"repeats of stimulus {int(session.stimulus_ids[group[0]])} of session '{session.name}' (clips "
            f"{', '.join(map(str, group))}) have {shortest} to {lengths.max()} valid frames; only the first {shortest} "
            f"are scored",
            stacklevel=2,
        )
    return shortest


def _check_scored(session: Session, tier: str, lead: int, max_frames: int | None) -> None:
    """Refuse what would leave frames unscored or score frames that no model predicts."""
    if lead > session.scored_from:
        raise ValueError(
            f"the model needs {lead} frames before its first prediction, but session '{session.name}' is scored from "
            f"frame {session.scored_from}; use a model that needs fewer, or raise scored_from for all models compared"
        )
    if max_frames is not None and max_frames <= session.scored_from:
        raise ValueError(
            f"max_frames {max_frames} is too short for session '{session.name}', which is scored from frame "
            f"{session.scored_from}; give at least {session.scored_from + 1}"
        )
    clips = session.clips(tier)
    short = clips[session.lengths[clips] <= session.scored_from]
    if len(short):
        raise ValueError(
            f"clip {short[0]} of session '{session.name}' has {session.lengths[short[0]]} valid frames, but is scored "
            f"from frame {session.scored_from}; lower scored_from or leave the clip out of tier '{tier}'"
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; give an integer of at least 1")


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of {world_size} workers; ranks run from 0 to {world_size - 1}")
