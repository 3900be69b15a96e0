"""Rehearse a training run in a process of its own: what a step costs, and the most memory that a trial will need.

A rehearsal goes through everything of an epoch that can be the peak: a step, the validation stimulus with the most
frames, a checkpoint, and another step, with the optimizer's state, averaged and best weights in memory. It runs in a
process that has imported what a trial's process has and trained nothing before, so that its peak is that of a trial:
a process that has trained keeps some of what it freed, and has touched more of the libraries.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuroint.config import TrialConfig
from neuroint.data.base import UNUSED, VALIDATION, Batch, Inputs, Session
from neuroint.data.loader import ClipLoader
from neuroint.data.plan import Piece, TrainingPlan, evaluation_plan
from neuroint.evaluation import DivergedError, moments_of
from neuroint.fit import Fit, prepare
from neuroint.memory import files_mb, measure_anew, peak_mb
from neuroint.prediction import Predictor, Windows
from neuroint.results import write_outcome
from neuroint.runtime import LocalRuntime, threads
from neuroint.sweep.flops import step_counter
from neuroint.sweep.matching import Size
from neuroint.train import DTYPES, prediction_of, training_step

CPU = torch.device("cpu")
# What a trial's process imports: Ray Tune (most of it), and what torch imports when the first optimizer is made.
IMPORTED = ("neuroint.sweep.trial", "torch._dynamo")
VALIDATED_S = 5.0  # most of it; a batch that is begun is finished


class RehearsalError(ValueError):
    """A configuration that cannot be built or stepped with this data."""


@dataclass(frozen=True)
class Rehearsed:
    """A configuration, and what it took.

    Attributes:
        config: what was rehearsed.
        information: what its model reads.
        size: of all workers together.
        seconds: of a step of one worker.
        steps: of an epoch.
        peak_memory_mb: the most that the process of one worker holds, in MiB, resident on a CPU.
    """

    config: TrialConfig
    information: str
    size: Size
    seconds: float
    steps: int
    peak_memory_mb: float


def rehearse_apart(config: TrialConfig, sessions: list[Session]) -> Rehearsed:
    """Rehearse in a new process; a script that calls this needs the guard ``if __name__ == "__main__":``.

    Raises:
        RehearsalError: the configuration cannot be built or stepped, or its process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=_clean_processes()) as apart:
        try:
            found = apart.submit(_answer, config, sessions).result()
        except BrokenProcessPool as error:
            raise RehearsalError(
                "the process that took a step was killed, most likely because memory ran out; lower train.batch_size "
                "or train.frames, or plan on a larger machine"
            ) from error
    if isinstance(found, str):
        raise RehearsalError(found)
    return found


def _clean_processes() -> Any:
    """Fork from a server that has imported what trials import: importing it takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, *IMPORTED])  # a server that runs already ignores it
    return context


def _answer(config: TrialConfig, sessions: list[Session]) -> Rehearsed | str:
    """Rehearse in this process, or say why that cannot be: not every error survives the way back.

    Pages of libraries that the server has touched belong to a trial's process, too, but not to a fork. Those that
    both touch are counted twice, some 20 MiB.
    """
    for module in IMPORTED:
        importlib.import_module(module)
    shared = files_mb(os.getppid()) - files_mb()
    measure_anew(CPU)
    try:
        with ThreadPoolExecutor(1) as apart:  # as a trial is trained: threads have heaps of their own
            found = apart.submit(rehearse, config, sessions).result()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return replace(found, peak_memory_mb=found.peak_memory_mb + max(0.0, shared))


def rehearse(config: TrialConfig, sessions: list[Session]) -> Rehearsed:
    """Count a step, validate, keep a checkpoint, and time another step, with the threads that a worker will have."""
    with threads(int(config.resources.cpus_per_worker)):
        fit, plan, batches, size = first_step(config, sessions)
        _validate(fit, sessions)
        _keep(fit, sessions)
        fit.training_mode()
        began = time.perf_counter()
        training_step(fit, batches, LocalRuntime(device=CPU), 1)
        seconds = time.perf_counter() - began
    return Rehearsed(config, fit.model.information, size, seconds, plan.steps_per_epoch, peak_mb(CPU))


def first_step(config: TrialConfig, sessions: list[Session]) -> tuple[Fit, TrainingPlan, list[Batch], Size]:
    """Prepare a run and take one worker's part of its first step, counted as that of all workers."""
    runtime, workers = LocalRuntime(device=CPU), config.resources.workers
    fit = prepare(config, sessions, runtime, DTYPES[config.train.precision])
    plan = training_plan(config, sessions)
    with ClipLoader(sessions) as loader:
        batches = next(loader.training(plan, 0))
    fit.training_mode()
    with step_counter() as counter:
        training_step(fit, batches, runtime, 0)
    parameters = sum(p.numel() for p in fit.model.parameters())
    return fit, plan, batches, Size(parameters, workers * counter.get_total_flops())


def training_plan(config: TrialConfig, sessions: list[Session]) -> TrainingPlan:
    """Plan the crops of the first worker."""
    train = config.train
    return TrainingPlan(
        sessions,
        frames=train.frames,
        batch_size=train.batch_size,
        seed=config.seed,
        world_size=config.resources.workers,
        steps_per_epoch=train.steps_per_epoch,
        stride=train.frame_stride,
    )


@dataclass(frozen=True)
class _InTime(Predictor):
    """Predicts until a time; then only what has more frames than all before, and makes rates up for the rest.

    Rates that are made up take as much memory, but leave it in one piece: predictions that lie between rates that are
    kept scatter it, by some tens of MiB.
    """

    until: float = 0.0
    done: list[tuple[int, Float[Tensor, "1 1 neurons"]]] = field(default_factory=list)

    def __call__(self, inputs: Inputs, session: str) -> Float[Tensor, "batch predicted neurons"]:
        """Predict the rates of all frames from ``lost_frames`` on, or make them up."""
        frames = inputs.n_batch * inputs.n_frames
        if time.perf_counter() < self.until or all(frames > before for before, _ in self.done):
            rates = super().__call__(inputs, session)
            self.done.append((frames, rates[:1, :1].clone()))
            return rates
        like = self.done[-1][1]
        return like.new_ones(inputs.n_batch, inputs.n_frames - self.lost_frames, like.shape[2])


def _predictor(fit: Fit, until: float) -> _InTime:
    """Predict as in evaluation, but in as few windows as cover a clip: they take as much memory as more of them."""
    how = prediction_of(fit.config.train)
    if how["windows"]:
        how["windows"] = Windows(fit.config.train.frames, fit.config.train.frames - fit.evaluated.lost_frames)
    return _InTime(fit.evaluated, how["stride"], how["windows"], how["chunk_frames"], until)


@torch.no_grad()
def _validate(fit: Fit, sessions: list[Session]) -> None:
    """Score, in every session, the validation stimuli that take the most memory."""
    fit.evaluation_mode()
    at_once, dtype = prediction_of(fit.config.train)["frames_at_once"], DTYPES[fit.config.train.precision]
    runtime, until = LocalRuntime(device=CPU), time.perf_counter() + VALIDATED_S
    for session in sessions:
        predictor = _predictor(fit, until)
        only = heaviest(session, at_once, predictor.lost_frames)
        with ClipLoader([only]) as loader, suppress(DivergedError):  # after two steps, of which rates are known to fit
            moments_of(predictor, loader, only, VALIDATION, runtime, at_once, dtype, 1)


def heaviest(session: Session, frames_at_once: int, lead: int = 0) -> Session:
    """Leave of the validation tier the largest batch, and the stimulus whose batches have the most frames together.

    Rates of all repeats of a stimulus are kept until the last of them is predicted.
    """
    batch = max(1, frames_at_once // session.facts.shortest_clip)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that repeats differ in length is told when the arms are checked
        plan = evaluation_plan([session], VALIDATION, batch_size=batch, lead=lead)
    chains = list(_chains(plan))
    largest = max(chains, key=lambda chain: max(map(_frames, chain)))
    longest = max(chains, key=lambda chain: sum(map(_frames, chain)))
    kept = {clip for piece in largest + longest for clip in piece.request.clips}
    tiers = [UNUSED if tier == VALIDATION and clip not in kept else tier for clip, tier in enumerate(session.tiers)]
    return replace(session, tiers=tuple(tiers))


def _chains(plan: list[Piece]) -> Iterator[list[Piece]]:
    """Group the pieces of a stimulus."""
    chain: list[Piece] = []
    for piece in plan:
        chain.append(piece)
        if not piece.continued:
            yield chain
            chain = []


def _frames(piece: Piece) -> int:
    return len(piece.request.clips) * piece.request.frames


def _keep(fit: Fit, sessions: list[Session]) -> None:
    """Keep weights as in an epoch that is better than the one before, and write a checkpoint."""
    scores = {session.name: np.zeros(session.facts.n_neurons, np.float32) for session in sessions}
    for better in (0.0, 1.0):
        fit.observe(better, scores)
    with tempfile.TemporaryDirectory(prefix="neuroint-") as folder:
        fit.save(Path(folder))
        write_outcome(Path(folder), fit)
