"""The only training loop: one configuration, on one worker or several, from the start or from a checkpoint.

Every random draw of an epoch follows from (seed, epoch, rank), so a checkpoint at the end of an epoch holds no state of
generators, and a resumed run repeats the uninterrupted one to the last bit on a CPU.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from neuroint.config import TrainConfig, TrialConfig
from neuroint.data.base import DEV_TEST, VALIDATION, Batch, Session
from neuroint.data.cutmix import cutmix
from neuroint.data.loader import ClipLoader
from neuroint.data.plan import TrainingPlan
from neuroint.evaluation import DivergedError, evaluate, pooled_mean, score
from neuroint.fit import Fit, load_finished, prepare
from neuroint.memory import measure_anew, peak_mb
from neuroint.model import PopulationModel
from neuroint.prediction import Predictor, Windows
from neuroint.results import write_outcome
from neuroint.runtime import Runtime
from neuroint.seeding import derive, generator

KEPT_ROWS = 200  # blocks of stimuli that intervals can be resampled from
DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


def train_trial(config: TrialConfig, sessions: list[Session], runtime: Runtime) -> dict[str, Any]:
    """Train one configuration and report every epoch; returns the last epoch's metrics.

    Each epoch ends with one full deterministic validation pass; training stops when it has not improved for
    ``train.patience`` epochs. The report of an epoch carries a checkpoint folder with everything needed to resume, the
    best weights so far and a validation score per neuron.

    Raises:
        DivergedError: the loss became infinite or NaN.
    """
    measure_anew(runtime.device)
    fit = prepare(config, sessions, runtime, DTYPES[config.train.precision])
    train = config.train
    plan = TrainingPlan(
        sessions,
        frames=train.frames,
        batch_size=train.batch_size,
        seed=config.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
        steps_per_epoch=train.steps_per_epoch,
        stride=train.frame_stride,
    )
    with ClipLoader(sessions, workers=train.loader_processes) as loader:
        return _train_epochs(fit, plan, loader, runtime)


def _train_epochs(fit: Fit, plan: TrainingPlan, loader: ClipLoader, runtime: Runtime) -> dict[str, Any]:
    metrics: dict[str, Any] = dict(fit.progress.last)
    while not fit.progress.finished:
        metrics = _one_epoch(fit, plan, loader, runtime)
        with tempfile.TemporaryDirectory(prefix="neuroint-") as folder:
            if runtime.rank == 0:
                fit.save(Path(folder))
                write_outcome(Path(folder), fit)
            runtime.report(metrics, Path(folder) if runtime.rank == 0 else None)
    return metrics


def _one_epoch(fit: Fit, plan: TrainingPlan, loader: ClipLoader, runtime: Runtime) -> dict[str, Any]:
    """Train and validate for an epoch, and bring the record of progress up to date."""
    began, epoch, train = time.perf_counter(), fit.progress.epoch, fit.config.train
    torch.manual_seed(derive(fit.config.seed, "epoch", epoch, runtime.rank))
    train_loss, clips, gradient_norm = _train(fit, plan, loader, runtime)
    trained = time.perf_counter() - began
    fit.evaluation_mode()
    moments = evaluate(
        fit.evaluated,
        loader,
        VALIDATION,
        runtime,
        **prediction_of(train),
        dtype=DTYPES[train.precision],
        rows=1,
    )
    scores = score(moments, fit.config.score.metric)
    fit.observe(pooled_mean(scores), scores)
    metrics = {
        "epoch": epoch + 1,
        "train_loss": train_loss,
        "validation_score": fit.progress.score,
        "best_validation_score": fit.progress.best,
        "gradient_norm": gradient_norm,
        "learning_rate": fit.optimizer.param_groups[0]["lr"],
        "seconds": time.perf_counter() - began,
        "clips_per_s": clips / trained,
        "peak_memory_mb": peak_mb(runtime.device),
        "finished": int(fit.progress.finished),
    }
    fit.progress.last = metrics
    return metrics


def _train(fit: Fit, plan: TrainingPlan, loader: ClipLoader, runtime: Runtime) -> tuple[float, int, float]:
    """Take every step of an epoch; returns mean loss, clips seen by all workers, and the last gradient norm."""
    fit.training_mode()
    losses, clips, norm = torch.zeros((), dtype=torch.float64, device=runtime.device), 0, 0.0
    epoch, steps = fit.progress.epoch, plan.steps_per_epoch
    for step, batches in enumerate(loader.training(plan, epoch)):
        fit.set_learning_rate(epoch + step / steps)
        loss, norm = training_step(fit, batches, runtime, step)
        losses += loss
        clips += sum(batch.responses.shape[0] for batch in batches) * runtime.world_size
    mean = float(_summed(losses, runtime)) / steps
    if not np.isfinite(mean):
        raise DivergedError(
            f"the training loss became {mean} in epoch {epoch + 1} (seed {fit.config.seed}); "
            "lower the learning rate or set train.clip_norm"
        )
    return mean, clips, float(norm)


def training_step(
    fit: Fit, batches: list[Batch], runtime: Runtime, step: int
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """Take one optimizer step on a batch of every session.

    The loss of a session is the mean over valid frames and neurons of the whole batch, over all workers; sessions weigh
    the same. Gradients are summed over sessions first and over workers once, before clipping.
    """
    train, device = fit.config.train, runtime.device
    fit.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for batch in batches:
        moved = _augmented(fit, batch.to(device, DTYPES[train.precision]), step, runtime.rank)
        neurons = _subset(fit, moved, step)
        generator = torch.Generator(device).manual_seed(
            derive(fit.config.seed, "objective", fit.progress.epoch, step, batch.session, runtime.rank)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            loss, count = fit.objective(fit.model, moved, generator, neurons)
        mean = loss / _summed(count.to(loss.dtype), runtime).clamp(min=1) / len(batches)
        mean = mean + fit.model.activity_penalty() / (runtime.world_size * len(batches))
        mean.backward()
        total += mean.detach()
    penalty = fit.model.penalty() / runtime.world_size
    if penalty.requires_grad:
        penalty.backward()
    norm = _apply_gradients(fit, runtime)
    return total + penalty.detach(), norm


def _apply_gradients(fit: Fit, runtime: Runtime) -> torch.Tensor | float:
    """Sum gradients over workers in one message, clip, and step."""
    parameters = fit.trained_parameters
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if runtime.world_size > 1:
        flat = nn.utils.parameters_to_vector(gradients)
        torch.distributed.all_reduce(flat)
        nn.utils.vector_to_parameters(flat, gradients)
    limit = fit.config.train.clip_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    fit.optimizer.step()
    if fit.ema is not None:
        fit.ema.update_parameters(fit.model)
    return norm


def _augmented(fit: Fit, batch: Batch, step: int, rank: int) -> Batch:
    """Mix the clips of a step where the configuration asks for it; every worker pairs its own."""
    train = fit.config.train
    if not train.cutmix:
        return batch
    random = generator(fit.config.seed, "cutmix", fit.progress.epoch, step, batch.session, rank)
    return cutmix(batch, train.cutmix, train.cutmix_alpha, random)


def prediction_of(train: TrainConfig) -> dict[str, Any]:
    """How clips are predicted in evaluation: what ``evaluate`` takes by these names."""
    return {
        "frames_at_once": train.batch_size * train.frames,
        "chunk_frames": train.evaluation_frames,
        "stride": train.frame_stride,
        "windows": None if train.evaluation_hop is None else Windows(train.frames, train.evaluation_hop),
    }


def _subset(fit: Fit, batch: Batch, step: int) -> torch.Tensor | None:
    """Draw the neurons of this step, the same on every worker; None means all."""
    wanted, present = fit.config.train.neurons_per_step, batch.responses.shape[2]
    if wanted is None or wanted >= present:
        return None
    seed = derive(fit.config.seed, "neurons", fit.progress.epoch, step, batch.session)
    drawn = np.random.default_rng(seed).choice(present, wanted, replace=False)
    return torch.as_tensor(np.sort(drawn), device=batch.responses.device)


def _summed(value: torch.Tensor, runtime: Runtime) -> torch.Tensor:
    if runtime.world_size > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


def score_weights(
    config: TrialConfig, sessions: list[Session], weights: Path, runtime: Runtime, tier: str = DEV_TEST
) -> dict[str, Any]:
    """Read a test tier with the best weights of a finished run; returns moments by session.

    Raises:
        ValueError: the weights are not those of this configuration on these sessions.
    """
    model, train = _finished(config, sessions, weights, runtime), config.train
    with ClipLoader(sessions, workers=train.loader_processes) as loader:
        return evaluate(
            model,
            loader,
            tier,
            runtime,
            **prediction_of(train),
            rows=KEPT_ROWS,
        )


def finished_predictor(config: TrialConfig, sessions: list[Session], weights: Path, runtime: Runtime) -> Predictor:
    """Predict with the best weights of a finished run as its own evaluation does.

    Raises:
        ValueError: the weights are not those of this configuration on these sessions.
    """
    how = {name: value for name, value in prediction_of(config.train).items() if name != "frames_at_once"}
    return Predictor(_finished(config, sessions, weights, runtime), **how)


def _finished(config: TrialConfig, sessions: list[Session], weights: Path, runtime: Runtime) -> PopulationModel:
    """Build the model of a configuration, ready for evaluation, with weights in place of what it started from."""
    fit = prepare(replace(config, init=replace(config.init, source=None)), sessions, runtime, DTYPES["float32"])
    load_finished(fit.evaluated, weights)
    fit.evaluation_mode()
    return fit.evaluated
