"""Average the rates of several models, clip by clip, and reduce each average to per-neuron sufficient statistics.

Rates are averaged, neither parameters nor what goes into the link. Models may differ in all but the neurons that they
predict: one that consumes more frames, reads every second frame or averages windows still predicts the last frames of
a clip, and those that all of them predict are averaged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuroint.data.base import Inputs, Session
from neuroint.data.loader import ClipLoader
from neuroint.data.plan import evaluation_plan
from neuroint.evaluation import DivergedError, Tally
from neuroint.metrics.moments import Moments
from neuroint.prediction import Predictor


def mean_rates(
    predictors: Mapping[str, Predictor], inputs: Inputs, session: str
) -> Iterator[Float[Tensor, "batch predicted neurons"]]:
    """Average what the first, the first two, the first three, ... models predict of a clip.

    With rates r_k of model k, the n-th average is (1/n) sum_{k <= n} r_k, from the first frame on that all models
    predict. One sum and the rates of one model are in memory at a time.

    Args:
        predictors: by name, in their order.
        inputs: whole clips.
        session: whose neurons.

    Raises:
        DivergedError: a model predicts something that is not a number; names it.
    """
    lost, total = _lost_frames(predictors), None
    for n, (name, predictor) in enumerate(predictors.items(), 1):
        rates = predictor(inputs, session)[:, lost - predictor.lost_frames :]
        if not torch.isfinite(rates).all():
            raise DivergedError(f"rates of {name} for session '{session}' are infinite or NaN: no average with them is")
        total = rates if total is None else total + rates
        yield total / n


@torch.no_grad()
def evaluate_averages(
    predictors: Mapping[str, Predictor],
    loader: ClipLoader,
    tier: str,
    device: torch.device,
    *,
    sizes: Collection[int],
    frames_at_once: int,
    rows: int | None = None,
) -> dict[int, dict[str, Moments]]:
    """Predict a tier once with every model, and reduce the average of the first n to moments, for some n.

    Args:
        predictors: by name, in their order.
        loader: reads the sessions that are scored.
        tier: which clips.
        device: where the models are.
        sizes: how many models are averaged; each becomes a key of the result.
        frames_at_once: sets how many clips make a batch.
        rows: most rows of stimuli to keep apart; 1 where only totals are wanted.

    Raises:
        ValueError: a size is not a number of models, or a model consumes more frames than are left out of the score.
        DivergedError: a model predicts something that is not a number.
    """
    if strange := [size for size in sizes if not 1 <= size <= len(predictors)]:
        raise ValueError(f"got sizes {strange}; an average is of 1 to {len(predictors)} of the models that are given")
    for predictor in predictors.values():
        predictor.model.eval()
    found: dict[int, dict[str, Moments]] = {size: {} for size in sizes}
    for session in loader.sessions:
        tallies = {size: Tally(session, tier, rows) for size in sizes}
        _predict(predictors, loader, session, tier, device, tallies, frames_at_once)
        for size, tally in tallies.items():
            found[size][session.name] = tally.finish()
    return found


def _predict(
    predictors: Mapping[str, Predictor],
    loader: ClipLoader,
    session: Session,
    tier: str,
    device: torch.device,
    tallies: Mapping[int, Tally],
    frames_at_once: int,
) -> None:
    """Stream the clips of one session's tier into the tallies of all sizes."""
    clips = max(1, frames_at_once // session.facts.shortest_clip)
    plan = evaluation_plan([session], tier, batch_size=clips, lead=_lost_frames(predictors))
    for read in loader.evaluation(plan):
        piece = replace(read, batch=read.batch.to(device, torch.float32))
        for n, rates in enumerate(mean_rates(predictors, piece.batch.inputs, session.name), 1):
            if n in tallies:
                tallies[n].add(piece, rates)


def _lost_frames(predictors: Mapping[str, Predictor]) -> int:
    return max(predictor.lost_frames for predictor in predictors.values())
