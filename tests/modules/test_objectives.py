"""Objectives by hand, with lost frames, burn-in, subsets and responses that do not count."""

import math

import pytest
import torch

from neuroint.data.base import Batch, Inputs
from neuroint.modules.objective.mse import MeanSquaredError
from neuroint.modules.objective.poisson import Poisson
from neuroint.registry import objectives


class Model:
    """Predicts the rates it was given, for the last frames."""

    def __init__(self, rate, burn_in=0):
        self.rate, self.burn = rate, burn_in

    def __call__(self, inputs, session, neurons):
        assert session == "mouse"
        return self.rate if neurons is None else self.rate[..., neurons]

    def burn_in(self, session):
        return self.burn


def batch(responses, valid=None):
    responses = torch.as_tensor(responses, dtype=torch.float64)
    valid = torch.ones_like(responses, dtype=torch.bool) if valid is None else torch.as_tensor(valid)
    inputs = Inputs(stimulus=torch.zeros(*responses.shape[:2], 1, 2, 2, dtype=torch.float64))
    return Batch("mouse", inputs, responses, valid, torch.arange(len(responses)))


RATE = torch.tensor([[[1.0, 2.0], [0.5, 4.0]]], dtype=torch.float64)
RESPONSES = [[[9.0, 9.0], [0.0, 3.0], [2.0, 0.0]]]  # one frame more than is predicted


def test_poisson_compares_the_last_frames_with_the_rates():
    total, count = Poisson()(Model(RATE), batch(RESPONSES))
    expected = (1 - 0) + (2 - 3 * math.log(2)) + (0.5 - 2 * math.log(0.5)) + (4 - 0)
    assert total.item() == pytest.approx(expected, abs=1e-6)
    assert count.item() == 4


def test_mse_sums_squares():
    total, count = MeanSquaredError()(Model(RATE), batch(RESPONSES))
    assert total.item() == 1 + 1 + 1.5**2 + 16
    assert count.item() == 4


def test_burn_in_frames_do_not_count():
    total, count = MeanSquaredError()(Model(RATE, burn_in=1), batch(RESPONSES))
    assert total.item() == 1.5**2 + 16
    assert count.item() == 2


def test_a_subset_of_neurons_is_compared_with_its_own_responses():
    total, count = MeanSquaredError()(Model(RATE), batch(RESPONSES), None, torch.tensor([1]))
    assert total.item() == 1 + 16
    assert count.item() == 2


BY_RATES = [name for name in objectives.names() if name != "contrastive"]  # which asks for a core's embeddings


@pytest.mark.parametrize("name", BY_RATES)
def test_what_is_not_valid_has_no_part_even_where_the_rate_is_not_finite(name):
    rate = RATE.clone()
    rate[0, 0, 1] = torch.nan
    rate.requires_grad_()
    valid = [[[True, True], [True, False], [True, True]]]
    total, count = objectives[name].build({}, {})(Model(rate), batch(RESPONSES, valid))
    total.backward()
    assert total.isfinite()
    assert count.item() == 3
    assert rate.grad[0, 0, 1] == 0
    assert rate.grad.isfinite().all()


@pytest.mark.parametrize("name", BY_RATES)
def test_crops_shorter_than_the_burn_in_are_refused(name):
    with pytest.raises(
        ValueError, match=r"crops of 3 frames leave 2 predicted ones, all within the model's burn-in of 2"
    ):
        objectives[name].build({}, {})(Model(RATE, burn_in=2), batch(RESPONSES))


@pytest.mark.parametrize("name", BY_RATES)
def test_the_best_constant_rate_is_the_mean_response(name):
    objective, responses = objectives[name].build({}, {}), [[[1.0], [2.0], [6.0]]]

    def loss(rate):
        return objective(Model(torch.full((1, 3, 1), rate, dtype=torch.float64)), batch(responses))[0].item()

    assert loss(3.0) < min(loss(2.9), loss(3.1))


def test_a_rate_of_zero_keeps_the_poisson_loss_finite():
    total, _ = Poisson()(Model(torch.zeros(1, 3, 2)), batch(RESPONSES))
    assert total.isfinite()


def test_objectives_say_whether_they_need_positive_rates():
    assert Poisson.needs_positive_rate
    assert not MeanSquaredError.needs_positive_rate
