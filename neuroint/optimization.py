"""Optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from neuroint.registry import Count, Fraction, Index, NonNegative, Positive, optimizers, schedules

Groups = Iterable[dict[str, Any]]


@optimizers.register("adamw")
def adamw(
    groups: Groups,
    *,
    learning_rate: Positive = 5e-3,
    weight_decay: NonNegative = 0.01,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.999,
) -> torch.optim.Optimizer:
    """Step along the gradient scaled by its running moments, with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, betas=(beta_1, beta_2))


@optimizers.register("sgd")
def sgd(
    groups: Groups, *, learning_rate: Positive = 0.1, momentum: Fraction = 0.0, weight_decay: NonNegative = 0.0
) -> torch.optim.Optimizer:
    """Step along the gradient, with momentum."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)


@optimizers.register("schedule_free_adamw")
def schedule_free_adamw(
    groups: Groups,
    *,
    learning_rate: Positive = 5e-3,
    weight_decay: NonNegative = 0.01,
    beta_1: Fraction = 0.9,
    warmup_steps: Index = 0,
) -> torch.optim.Optimizer:
    """Average the iterates of AdamW in place of a schedule (Defazio et al. 2024); validation sees the average."""
    import schedulefree

    return schedulefree.AdamWScheduleFree(
        groups, lr=learning_rate, weight_decay=weight_decay, betas=(beta_1, 0.999), warmup_steps=warmup_steps
    )


class Schedule:
    """Scale the learning rates of an optimizer: linear warm-up over epochs, then a factor of progress.

    Args:
        after_warmup: maps the share of epochs after warm-up (0 to 1) onto a factor.
        warmup_epochs: length of the linear warm-up from 0.
        plateau: how to shrink when the validation score stalls; None for never.
    """

    def __init__(
        self, after_warmup: Callable[[float], float], warmup_epochs: float, plateau: dict[str, float] | None = None
    ) -> None:
        self.after_warmup = after_warmup
        self.warmup_epochs = warmup_epochs
        self.plateau = plateau
        self.shrink, self.best, self.stalled = 1.0, -math.inf, 0

    def factor(self, epoch: float, epochs: int) -> float:
        """Factor on every learning rate at a (fractional) epoch."""
        if epoch < self.warmup_epochs:
            return self.shrink * max(epoch, 1e-3) / self.warmup_epochs
        span = max(epochs - self.warmup_epochs, 1e-9)
        return self.shrink * self.after_warmup(min((epoch - self.warmup_epochs) / span, 1.0))

    def observe(self, score: float) -> None:
        """Take note of a validation score (higher is better) at the end of an epoch."""
        self.stalled = 0 if score > self.best else self.stalled + 1
        self.best = max(self.best, score)
        if self.plateau and self.stalled > self.plateau["patience"]:
            self.shrink = max(self.shrink * self.plateau["shrink"], self.plateau["floor"])
            self.stalled = 0

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"shrink": self.shrink, "best": self.best, "stalled": self.stalled}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from ``state_dict``."""
        self.shrink, self.best, self.stalled = state["shrink"], state["best"], int(state["stalled"])


@schedules.register("constant")
def constant(*, warmup_epochs: NonNegative = 0.0) -> Schedule:
    """Hold the learning rate after a linear warm-up."""
    return Schedule(lambda share: 1.0, warmup_epochs)


@schedules.register("cosine")
def cosine(*, warmup_epochs: NonNegative = 1.0, floor: Fraction = 0.0) -> Schedule:
    """Lower the learning rate along half a cosine to ``floor`` of its value at the last epoch."""
    return Schedule(lambda share: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)), warmup_epochs)


@schedules.register("plateau")
def plateau(
    *, warmup_epochs: NonNegative = 0.0, shrink: Fraction = 0.3, patience: Count = 5, floor: Fraction = 0.02
) -> Schedule:
    """Multiply the learning rate by ``shrink`` when the validation score has not risen for ``patience`` epochs."""
    return Schedule(lambda share: 1.0, warmup_epochs, {"shrink": shrink, "patience": patience, "floor": floor})
