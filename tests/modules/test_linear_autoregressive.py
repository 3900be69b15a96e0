"""Autoregression on own predictions, by hand."""

import pytest
import torch
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.interaction.linear_autoregressive import LinearAutoregressive


def run(stage, drive, link, rate_0=None):
    state, rate, rates = stage.initial_state(drive[:, 0], Context()), torch.zeros_like(drive[:, 0]), []
    for t in range(drive.shape[1]):
        now, state = stage.step(drive[:, t], rate, state, Context())
        rate = link(now)
        rates.append(rate)
    return torch.stack(rates, 1)


def with_coefficients(values, **options):
    stage = LinearAutoregressive(n_neurons=len(values), lags=len(values[0]), bound=0.9, **options).double()
    wanted = torch.tensor(values, dtype=torch.float64) / 0.9
    with torch.no_grad():
        stage.raw_coefficients.copy_(wanted / (1 - wanted.abs().sum(1, keepdim=True)))
    return stage


def test_an_impulse_rings_as_the_recurrence_says():
    stage = with_coefficients([[0.5, -0.2]])
    torch.testing.assert_close(stage.coefficients(), torch.tensor([[0.5, -0.2]], dtype=torch.float64))
    drive = torch.tensor([[[1.0], [0.0], [0.0], [0.0]]], dtype=torch.float64)
    # 1; .5; .5*.5 - .2; .5*.05 - .2*.5
    torch.testing.assert_close(
        run(stage, drive, lambda x: x)[0, :, 0], torch.tensor([1.0, 0.5, 0.05, -0.075], dtype=torch.float64)
    )


def test_it_starts_as_no_interaction_while_gradients_flow():
    stage = LinearAutoregressive(n_neurons=3)
    drive = torch.rand(2, 5, 3)
    out = run(stage, drive, lambda x: x)
    assert torch.equal(out, drive)
    out.sum().backward()
    assert (stage.raw_coefficients.grad > 0).all()


def test_neurons_have_their_own_coefficients_or_share_one_set():
    apart = with_coefficients([[0.5], [0.1]])
    drive = torch.ones(1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(run(apart, drive, lambda x: x)[0, 1], torch.tensor([1.5, 1.1], dtype=torch.float64))
    shared = LinearAutoregressive(n_neurons=2, lags=1, per_neuron=False)
    assert shared.raw_coefficients.shape == (1, 1)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0, 1e6])
def test_the_sum_of_absolute_coefficients_stays_below_the_bound(scale):
    stage = LinearAutoregressive(n_neurons=50, lags=4, bound=0.8).double()
    torch.nn.init.normal_(stage.raw_coefficients, std=scale)
    assert stage.coefficients().abs().sum(1).max() <= 0.8


@pytest.mark.parametrize("link", [functional.softplus, lambda x: functional.elu(x) + 1, lambda x: x])
def test_after_its_memory_at_most_a_twentieth_of_the_start_is_left(link):
    stage = LinearAutoregressive(n_neurons=200, lags=3, bound=0.7).double()
    torch.nn.init.normal_(stage.raw_coefficients, std=1e6)
    with torch.no_grad():
        stage.raw_coefficients[:100].abs_()  # the slowest to forget
    drive = torch.randn(1, stage.memory_bins + 1, 200, dtype=torch.float64)
    ends = []
    for start in (0.0, 1.0):
        state = torch.full((1, 200, 2), start, dtype=torch.float64)
        rate = torch.full((1, 200), start, dtype=torch.float64)
        for t in range(drive.shape[1]):
            now, state = stage.step(drive[:, t], rate, state, Context())
            rate = link(now)
        ends.append(rate)
    assert (ends[1] - ends[0]).abs().max() <= 0.05


def test_the_memory_follows_from_lags_and_bound():
    assert LinearAutoregressive(n_neurons=1, lags=3, bound=0.7).memory_bins == 27  # .7^8 > .05 > .7^9
    assert LinearAutoregressive(n_neurons=1, lags=1, bound=0.01).memory_bins == 1


def test_it_is_declared_to_read_own_predictions():
    assert LinearAutoregressive(n_neurons=1).reads.information == "own_predictions"
    assert not LinearAutoregressive(n_neurons=1).reads.population
