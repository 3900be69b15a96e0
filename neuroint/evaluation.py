"""Score a model on a tier: one full deterministic pass, streamed into per-neuron sufficient statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuroint import registry
from neuroint.data.base import Session
from neuroint.data.loader import ClipLoader, EvaluationBatch
from neuroint.data.plan import evaluation_plan
from neuroint.metrics.moments import Moments, MomentsBuilder, concatenate
from neuroint.model import PopulationModel
from neuroint.prediction import Predictor, Windows
from neuroint.runtime import Runtime

Scores = dict[str, Float[np.ndarray, " neurons"]]


class DivergedError(ArithmeticError):
    """Loss or predictions are no longer numbers: an outcome of a configuration, not a fault of the program."""


@torch.no_grad()
def evaluate(
    model: PopulationModel,
    loader: ClipLoader,
    tier: str,
    runtime: Runtime,
    *,
    frames_at_once: int,
    chunk_frames: int | None = None,
    stride: int = 1,
    windows: Windows | None = None,
    dtype: torch.dtype = torch.float32,
    rows: int | None = None,
) -> dict[str, Moments]:
    """Predict every clip of a tier and reduce it to moments; every worker ends up with all of them.

    Frames before ``session.scored_from`` are predicted but not scored.

    Args:
        model: its core and stages are used as they are in evaluation.
        loader: reads the sessions that are scored.
        tier: which clips.
        runtime: workers share the stimuli among them.
        frames_at_once: sets how many clips make a batch.
        chunk_frames: predict longer clips in chunks of so many frames, with the same result in less memory.
        stride: the model reads every ``stride``-th frame; the others are predicted by further passes.
        windows: average predictions over overlapping windows.
        dtype: of the model.
        rows: most rows of stimuli to keep apart; 1 where only totals are wanted.

    Raises:
        ValueError: the model consumes more frames than are left out of the score.
        DivergedError: the model predicts something that is not a number.
    """
    model.eval()
    predictor, settings = Predictor(model, stride, windows, chunk_frames), (frames_at_once, dtype, rows)
    return {s.name: _gather(_found(predictor, loader, s, tier, runtime, *settings), runtime) for s in loader.sessions}


def _found(*arguments: Any) -> Moments | DivergedError | None:
    """This worker's moments, or why it has none: the other workers wait for its answer."""
    try:
        return moments_of(*arguments)
    except DivergedError as error:
        return error


def moments_of(
    predictor: Predictor,
    loader: ClipLoader,
    session: Session,
    tier: str,
    runtime: Runtime,
    frames_at_once: int,
    dtype: torch.dtype,
    rows: int | None,
) -> Moments | None:
    """Stream this worker's stimuli of one session; repeats split over batches are put together again."""
    plan = evaluation_plan(
        [session],
        tier,
        batch_size=max(1, frames_at_once // session.facts.shortest_clip),
        rank=runtime.rank,
        world_size=runtime.world_size,
        lead=predictor.lost_frames,
    )
    if not plan:
        return None
    tally = Tally(session, tier, rows)
    for read in loader.evaluation(plan):
        piece = replace(read, batch=read.batch.to(runtime.device, dtype))
        tally.add(piece, predictor(piece.batch.inputs, session.name))
    return tally.finish()


class Tally:
    """Reduces predictions to moments batch by batch; repeats that were split over batches are put together again.

    Args:
        session: whose tier is predicted.
        tier: which clips.
        rows: most rows of stimuli to keep apart.
    """

    def __init__(self, session: Session, tier: str, rows: int | None = None) -> None:
        self._builder = MomentsBuilder(session.facts.n_neurons, session.name, tier, rows)
        self._waiting: list[tuple[np.ndarray, ...]] = []

    def add(self, piece: EvaluationBatch, rates: Float[Tensor, "batch predicted neurons"]) -> None:
        """Count in what was predicted of the last frames of a batch.

        Raises:
            DivergedError: it is not a number.
        """
        if not torch.isfinite(rates).all():
            session = piece.batch.session
            raise DivergedError(f"rates of session '{session}' are infinite or NaN; lower the learning rate")
        parts = [x.cpu().numpy() for x in piece.scored(rates)]
        for stimulus, clips in _stimuli(piece):
            self._waiting.append(tuple(part[clips] for part in parts))
            if not (piece.continued and stimulus == piece.stimuli[-1]):
                self._builder.add(*(np.concatenate(part) for part in zip(*self._waiting, strict=True)))
                self._waiting = []

    def finish(self) -> Moments:
        """Hand over the moments of all stimuli that were added."""
        return self._builder.finish()


def _stimuli(piece: EvaluationBatch) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of a batch by stimulus, in order."""
    stimuli = np.asarray(piece.stimuli)
    for stimulus in dict.fromkeys(piece.stimuli):
        yield stimulus, np.flatnonzero(stimuli == stimulus)


def score(moments: Mapping[str, Moments], metric: str) -> Scores:
    """Compute a metric per neuron of every session."""
    return {name: registry.metrics[metric].factory(m) for name, m in moments.items()}


def pooled_mean(scores: Scores) -> float:
    """Mean over all neurons of all sessions pooled (Sensorium's rule); undefined neurons are left out."""
    values = np.concatenate(list(scores.values()))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _gather(moments: Moments | DivergedError | None, runtime: Runtime) -> Moments:
    """Put the workers' stimuli together; a worker may have had none, and if one diverged, all have."""
    parts: list[Moments | DivergedError | None] = [moments]
    if runtime.world_size > 1:
        parts = [None] * runtime.world_size
        torch.distributed.all_gather_object(parts, moments)
    for part in parts:
        if isinstance(part, DivergedError):
            raise part
    return concatenate([part for part in parts if isinstance(part, Moments)])
