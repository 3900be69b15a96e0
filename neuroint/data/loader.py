"""Read planned crops into batches, in this process or in worker processes that live as long as training does.

Which crops are read is decided in ``plan.py`` by the process that asks; workers only read, so they need no seeds and
the numbers are the same with any number of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuroint.data.base import Batch, Clip, Session, collate
from neuroint.data.plan import Piece, Request, TrainingPlan, evaluation_plan

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationBatch:
    """A piece of a full pass over a tier, read.

    Attributes:
        batch: crops of equal length that begin at the same frame.
        stimuli: ``Session.stimulus_ids`` of the clips; equal ones stand together.
        start: first frame of the crops; 0 where clips begin, otherwise the clips of the piece before go on.
        skip: frames at the beginning that are not scored here.
        continued: the last stimulus goes on in the next batch, so its statistics over repeats are not complete.
    """

    batch: Batch
    stimuli: tuple[int, ...]
    start: int
    skip: int
    continued: bool

    def scored(
        self, rates: Float[Tensor, "batch predicted neurons"]
    ) -> tuple[
        Float[Tensor, "batch scored neurons"],
        Float[Tensor, "batch scored neurons"],
        Bool[Tensor, "batch scored neurons"],
    ]:
        """Align predictions of the last frames with what was recorded: rates, responses, valid, all of scored frames.

        Raises:
            ValueError: there are fewer predictions than scored frames.
        """
        recorded = self.batch.from_frame(self.skip)
        frames, predicted = recorded.responses.shape[1], rates.shape[1]
        if predicted < frames:
            raise ValueError(
                f"{predicted} frames were predicted, but {frames} are scored from frame {self.start + self.skip} of "
                f"session '{self.batch.session}'; give the frames that the model loses at the beginning as lead"
            )
        return rates[:, predicted - frames :], recorded.responses, recorded.valid


class _Crops(Dataset[list[Batch]]):
    """The data set that workers hold: indexed by what to read.

    Clips of a batch are read by as many threads as torch has here, which wait for the batch anyway: reading is mostly
    copying, for which NumPy lets go of the interpreter. A worker process has one.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = {session.name: session for session in sessions}
        self._threads: ThreadPoolExecutor | None = None

    def __getitem__(self, requests: Sequence[Request]) -> list[Batch]:
        return [read_batch(self._sessions[request.session], request, self._read) for request in requests]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_threads": None}

    def _read(self, read: Callable[..., Clip], *places: Iterable[int]) -> Iterable[Clip]:
        if torch.get_num_threads() == 1:
            return map(read, *places)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads(), "clips")
        return self._threads.map(read, *places)


class _Order:
    """Hands the data loader whatever is to be read next, so that one loader and its workers serve every epoch."""

    def __init__(self) -> None:
        self.steps: Iterable[Sequence[Request]] = ()

    def __iter__(self) -> Iterator[Sequence[Request]]:
        return iter(self.steps)


class ClipLoader:
    """Reads training and evaluation batches of a list of sessions, ahead of time where there are worker processes.

    Workers are forked from a server process that was started clean and imported torch once: a fork of the training
    process would inherit the threads of Ray and a CUDA context, neither of which survives a fork, and spawned workers
    would import torch (2 to 3 s) each. They live until ``close``. Batches are in page-locked memory where there is a
    CUDA device. A script that uses workers needs the guard ``if __name__ == "__main__":``, because they import it.
    """

    def __init__(self, sessions: Sequence[Session], *, workers: int = 0) -> None:
        """Start nothing yet: ``workers`` processes start with the first batch that is asked for.

        Raises:
            ValueError: the number of workers is negative, or two sessions have one name.
        """
        if workers < 0:
            raise ValueError(f"workers is {workers}; give 0 to load in the training process, or a number of processes")
        names = [session.name for session in sessions]
        if len(set(names)) < len(names):
            raise ValueError(f"session names must differ, got {', '.join(names)}; rename the repeated one")
        self.sessions = list(sessions)
        self._turn = 0
        self._order = _Order()
        self._loader = DataLoader(
            _Crops(sessions),
            batch_size=None,
            sampler=self._order,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=_clean_processes() if workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or else every epoch would draw from torch's global one
        )

    def training(self, plan: TrainingPlan, epoch: int, first_step: int = 0) -> Iterator[list[Batch]]:
        """Read the steps of an epoch, one batch per session each; ``first_step`` resumes inside an epoch."""
        return self.read(plan.epoch(epoch, first_step))

    def evaluation(self, pieces: Sequence[Piece]) -> Iterator[EvaluationBatch]:
        """Read the pieces of an ``evaluation_plan`` in order."""
        read = self.read([piece.request] for piece in pieces)
        for piece, (batch,) in zip(pieces, read, strict=True):
            yield EvaluationBatch(batch, piece.stimuli, piece.start, piece.skip, piece.continued)

    def read(self, steps: Iterable[Sequence[Request]]) -> Iterator[list[Batch]]:
        """Read steps in order; a pass that is left unfinished is dropped when the next one begins.

        Raises:
            RuntimeError: a pass is asked for more after another one began, whose workers it would steal batches from.
            DataError: a clip cannot be used.
        """
        self._turn += 1
        turn, self._order.steps = self._turn, steps
        for batches in self._loader:
            yield batches
            if turn != self._turn:
                raise RuntimeError("another pass over this loader has begun; finish a pass first, or use two loaders")

    def close(self) -> None:
        """End the worker processes; a pass that begins later starts new ones."""
        self._turn += 1
        self._loader._iterator = None  # persistent workers end when their iterator is collected

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def training_batches(
    sessions: Sequence[Session],
    *,
    frames: int,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    first_step: int = 0,
) -> Iterator[list[Batch]]:
    """Read one epoch of random crops, one batch per session and step; see ``TrainingPlan`` for arguments and errors.

    A ``ClipLoader`` kept over the epochs does the same without starting its workers anew.
    """
    plan = TrainingPlan(sessions, frames=frames, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
    loader = ClipLoader(sessions, workers=workers)
    return _then_close(loader, loader.training(plan, epoch, first_step))


def evaluation_batches(
    sessions: Sequence[Session],
    tier: str,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    lead: int = 0,
    max_frames: int | None = None,
    workers: int = 0,
) -> Iterator[EvaluationBatch]:
    """Read every clip of a tier once, full length, in order; see ``evaluation_plan`` for arguments and errors."""
    pieces = evaluation_plan(
        sessions, tier, batch_size=batch_size, rank=rank, world_size=world_size, lead=lead, max_frames=max_frames
    )
    loader = ClipLoader(sessions, workers=workers)
    return _then_close(loader, loader.evaluation(pieces))


def read_batch(session: Session, request: Request, each: Callable[..., Iterable[Clip]] = map) -> Batch:
    """Read the crops of a request, with ``each`` in place of ``map``, and stack them."""
    parts = each(session.source.read, request.clips, request.starts, [request.span] * len(request.clips))
    if request.stride > 1:
        parts = (part.strided(request.stride) for part in parts)
    return collate(session.name, request.clips, list(parts))


def _then_close(loader: ClipLoader, batches: Iterator[T]) -> Iterator[T]:
    with loader:
        yield from batches


def _clean_processes() -> Any:
    """Choose how worker processes start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # a server that runs already ignores it: its workers import torch each
    return context


def _as_it_is(batches: list[Batch]) -> list[Batch]:
    return batches
