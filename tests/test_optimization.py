"""Optimizers step as their papers say; schedules follow the curves worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from neuroint.optimization import Schedule
from neuroint.registry import optimizers, schedules


def optimizer_of(name: str, parameter: torch.Tensor, **options) -> torch.optim.Optimizer:
    coerced, faults = optimizers[name].validate(options)
    assert faults == []
    return optimizers[name].factory([{"params": [parameter]}], **coerced)


def schedule_of(name: str, **options) -> Schedule:
    coerced, faults = schedules[name].validate(options)
    assert faults == []
    return schedules[name].factory(**coerced)


def step(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, gradient: float) -> float:
    parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return float(parameter.detach()[0])


def test_the_first_step_of_adamw_is_the_learning_rate_and_the_decay():
    p = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    after = step(optimizer_of("adamw", p, learning_rate=0.1, weight_decay=0.5), p, 3.0)
    assert after == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_sgd_with_momentum_adds_up_gradients():
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    sgd = optimizer_of("sgd", p, learning_rate=0.1, momentum=0.5)
    assert step(sgd, p, 1.0) == pytest.approx(0.9)
    assert step(sgd, p, 1.0) == pytest.approx(0.9 - 0.1 * 1.5)


def test_schedule_free_evaluates_the_average_of_its_iterates():
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    free = optimizer_of("schedule_free_adamw", p, learning_rate=0.1, weight_decay=0.0)
    free.train()
    for _ in range(3):
        step(free, p, 1.0)
    free.eval()
    # Under a constant gradient z moves by the learning rate a step: .9, .8, .7; equal weights make their mean.
    assert float(p.detach()[0]) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "schedule_free_adamw"])
def test_groups_keep_their_own_entries_and_get_the_learning_rate(name):
    p = torch.nn.Parameter(torch.zeros(1))
    made = optimizers[name].factory([{"params": [p], "factor": 0.1}], learning_rate=0.25)
    assert made.param_groups[0]["lr"] == 0.25
    assert made.param_groups[0]["factor"] == 0.1


@pytest.mark.parametrize(
    ("name", "option"),
    [("adamw", "beta_1"), ("adamw", "beta_2"), ("sgd", "momentum"), ("schedule_free_adamw", "beta_1")],
)
def test_a_running_mean_that_never_moves_is_refused(name, option):
    assert "input should be less than 1" in optimizers[name].validate({option: 1})[1][0]


@pytest.mark.parametrize("name", ["adamw", "sgd", "schedule_free_adamw"])
@pytest.mark.parametrize("value", [0, -1e-3, float("inf"), float("nan"), True])
def test_a_learning_rate_that_is_no_positive_number_is_refused(name, value):
    assert len(optimizers[name].validate({"learning_rate": value})[1]) == 1


@pytest.mark.parametrize("name", schedules.names())
def test_warm_up_rises_in_a_line_and_meets_the_schedule(name):
    schedule = schedule_of(name, warmup_epochs=2)
    assert schedule.factor(0.0, 10) == pytest.approx(1e-3)
    assert schedule.factor(0.5, 10) == pytest.approx(0.25)
    assert schedule.factor(1.5, 10) == pytest.approx(0.75)
    assert schedule.factor(2.0, 10) == pytest.approx(1.0)


@pytest.mark.parametrize("name", schedules.names())
@pytest.mark.parametrize("warmup", [0.0, 1e-6, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_factor_is_never_above_one_or_below_zero(name, warmup, epochs):
    schedule = schedule_of(name, warmup_epochs=warmup)
    factors = [schedule.factor(epochs * k / 7, epochs) for k in range(8)]
    assert all(0 <= factor <= 1 for factor in factors)


def test_constant_holds():
    schedule = schedule_of("constant")
    assert [schedule.factor(epoch, 4) for epoch in (0, 1.5, 4)] == [1, 1, 1]


def test_cosine_is_at_one_half_and_floor_where_a_cosine_is():
    schedule = schedule_of("cosine", warmup_epochs=0, floor=0.2)
    assert schedule.factor(0, 8) == pytest.approx(1.0)
    assert schedule.factor(2, 8) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert schedule.factor(4, 8) == pytest.approx(0.6)
    assert schedule.factor(8, 8) == pytest.approx(0.2)


def test_plateau_shrinks_after_patience_epochs_without_a_rise():
    schedule = schedule_of("plateau", shrink=0.5, patience=2, floor=0.2)
    seen = []
    for score in (0.1, 0.1, 0.05, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1):
        schedule.observe(score)
        seen.append(schedule.factor(0, 20))
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_a_score_that_is_nan_counts_as_no_rise():
    schedule = schedule_of("plateau", shrink=0.5, patience=2)
    for score in (0.3, float("nan"), float("nan")):
        schedule.observe(score)
    assert schedule.factor(0, 20) == 0.5
    assert schedule.best == 0.3


def test_the_default_plateau_acts_before_early_stopping_does():
    from neuroint.config import TrainConfig

    assert schedules["plateau"].choices["patience"].default < TrainConfig.patience


def test_constant_does_not_listen_to_scores():
    schedule = schedule_of("constant")
    for _ in range(30):
        schedule.observe(0.0)
    assert schedule.factor(29, 30) == 1


def test_a_restored_schedule_goes_on_as_if_uninterrupted():
    whole, first, second = (schedule_of("plateau", shrink=0.5, patience=2) for _ in range(3))
    scores = [0.1, 0.1, 0.05, 0.2, 0.2, 0.1]
    for score in scores:
        whole.observe(score)
    for score in scores[:3]:
        first.observe(score)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for score in scores[3:]:
        second.observe(score)
    assert second.state_dict() == whole.state_dict()
    assert second.factor(1, 9) == whole.factor(1, 9) == 0.25
