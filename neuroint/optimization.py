"""Optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from neuroint.registry import BelowOne, Count, Fraction, Index, NonNegative, Positive, optimizers, schedules

Groups = Iterable[dict[str, Any]]
FIRST_FACTOR = 1e-3  # of a warm-up, so that its first step is not lost


@optimizers.register("adamw")
def adamw(
    groups: Groups,
    *,
    learning_rate: Positive = 5e-3,
    weight_decay: NonNegative = 0.01,
    beta_1: BelowOne = 0.9,
    beta_2: BelowOne = 0.999,
) -> torch.optim.Optimizer:
    """Step along the gradient scaled by its running moments, with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, betas=(beta_1, beta_2))


@optimizers.register("sgd")
def sgd(
    groups: Groups, *, learning_rate: Positive = 0.1, momentum: BelowOne = 0.0, weight_decay: NonNegative = 0.0
) -> torch.optim.Optimizer:
    """Step along the gradient, with momentum."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)


@optimizers.register("schedule_free_adamw")
def schedule_free_adamw(
    groups: Groups,
    *,
    learning_rate: Positive = 5e-3,
    weight_decay: NonNegative = 0.01,
    beta_1: BelowOne = 0.9,
    warmup_steps: Index = 0,
) -> torch.optim.Optimizer:
    """Average the iterates of AdamW in place of a schedule (Defazio et al. 2024); validation sees the average.

    Use it with the schedule ``constant``: its average takes the place of an annealed learning rate.
    """
    import schedulefree

    return schedulefree.AdamWScheduleFree(
        groups, lr=learning_rate, weight_decay=weight_decay, betas=(beta_1, 0.999), warmup_steps=warmup_steps
    )


@dataclass(frozen=True)
class Plateau:
    """How learning rates shrink when the validation score stalls.

    Attributes:
        shrink: factor on every stall.
        patience: epochs without a new best score that make a stall.
        floor: smallest product of factors.
    """

    shrink: float
    patience: int
    floor: float


class Schedule:
    """Scale the learning rates of an optimizer: linear warm-up over epochs, then a factor of progress.

    Args:
        after_warmup: maps the share of epochs after warm-up (0 to 1) onto a factor.
        warmup_epochs: length of the linear warm-up from 0; it may be a part of an epoch.
        plateau: how to shrink when the validation score stalls; None for never.
    """

    def __init__(
        self, after_warmup: Callable[[float], float], warmup_epochs: float, plateau: Plateau | None = None
    ) -> None:
        self.after_warmup = after_warmup
        self.warmup_epochs = warmup_epochs
        self.plateau = plateau
        self.shrink, self.best, self.stalled = 1.0, -math.inf, 0

    def factor(self, epoch: float, epochs: int) -> float:
        """Factor on every learning rate at a (fractional) epoch, counted from 0, of ``epochs``."""
        if epoch < self.warmup_epochs:
            return self.shrink * max(epoch / self.warmup_epochs, FIRST_FACTOR)
        span = epochs - self.warmup_epochs
        return self.shrink * self.after_warmup(min((epoch - self.warmup_epochs) / span, 1.0) if span > 0 else 1.0)

    def observe(self, score: float) -> None:
        """Take note of a validation score (higher is better; NaN is no rise) at the end of an epoch."""
        self.stalled = 0 if score > self.best else self.stalled + 1
        self.best = score if score > self.best else self.best
        if self.plateau and self.stalled >= self.plateau.patience:
            self.shrink = max(self.shrink * self.plateau.shrink, self.plateau.floor)
            self.stalled = 0

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"shrink": self.shrink, "best": self.best, "stalled": self.stalled}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from ``state_dict``."""
        self.shrink, self.best, self.stalled = state["shrink"], state["best"], int(state["stalled"])


@schedules.register("constant")
def constant(*, warmup_epochs: NonNegative = 0.0) -> Schedule:
    """Hold the learning rate after a linear warm-up."""
    return Schedule(lambda share: 1.0, warmup_epochs)


@schedules.register("cosine")
def cosine(*, warmup_epochs: NonNegative = 1.0, floor: Fraction = 0.0) -> Schedule:
    """Lower the learning rate along half a cosine to ``floor`` of its value at the end of the last epoch."""
    return Schedule(lambda share: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)), warmup_epochs)


@schedules.register("plateau")
def plateau(
    *, warmup_epochs: NonNegative = 0.0, shrink: Fraction = 0.3, patience: Count = 2, floor: Fraction = 0.02
) -> Schedule:
    """Multiply the learning rate by ``shrink`` when the validation score has not risen for ``patience`` epochs.

    It acts only while training goes on: keep ``patience`` below ``train.patience``.
    """
    return Schedule(lambda share: 1.0, warmup_epochs, Plateau(shrink, patience, floor))
