"""Links at values worked out by hand."""

import math

import torch

from neuroint.modules.link import Elu1, Exp, Identity, Softplus

DRIVE = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)


def test_elu1_is_linear_above_zero_and_exponential_below():
    torch.testing.assert_close(Elu1()(DRIVE), torch.tensor([math.exp(-2), 1.0, 4.0], dtype=torch.float64))


def test_softplus_bends_by_its_sharpness():
    expected = torch.tensor([math.log1p(math.exp(0.5 * d)) / 0.5 for d in DRIVE.tolist()], dtype=torch.float64)
    torch.testing.assert_close(Softplus(beta=0.5)(DRIVE), expected)
    assert Softplus(beta=0.07)(DRIVE)[1].item() == math.log(2) / 0.07


def test_exp_stops_growing_before_it_overflows():
    rate = Exp()(torch.tensor([1.0, 12.0, 500.0]))
    torch.testing.assert_close(rate, torch.tensor([math.e, math.exp(12), math.exp(12)]))


def test_identity_lets_negative_rates_through():
    assert torch.equal(Identity()(DRIVE), DRIVE)
    assert torch.equal(Identity().inverse(DRIVE), DRIVE)


def test_inverses_start_a_neuron_at_its_mean_response():
    assert Elu1().inverse(torch.tensor(3.0)) == 2.0
    torch.testing.assert_close(Elu1().inverse(torch.tensor(0.5)), torch.tensor(math.log(0.5)))
    torch.testing.assert_close(Softplus().inverse(torch.tensor(math.log(2.0))), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(Exp().inverse(torch.tensor(1.0)), torch.tensor(0.0))
