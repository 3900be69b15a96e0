"""The saturation of a neuron by itself, against its equation in NumPy."""

import numpy as np
import pytest
import torch

from neuroint.modules.base import Context
from neuroint.modules.normalization.static_saturation import StaticSaturation

SIGMA = np.array([0.5, 2.0, 4.0])
Q = 0.75


def made(parent):
    return StaticSaturation(n_neurons=3, mean_responses=SIGMA, parent=parent, initial_strength=Q).double()


def rates(stage, drive):
    """The softplus of what comes out."""
    return torch.nn.functional.softplus(stage(torch.from_numpy(drive), Context())).detach().numpy()


@pytest.fixture
def drive():
    return np.random.default_rng(0).normal(1, 2, (2, 5, 3))


@pytest.mark.parametrize("parent", ["power_law", "none"])
def test_the_rate_is_the_parents_divided_by_the_neurons_own_excitation(parent, drive):
    softplus = np.log1p(np.exp(drive))
    excitation, semi = (softplus + 1e-6) ** 2, SIGMA**2
    parents = {"power_law": excitation / SIGMA, "none": softplus}  # the gain starts so that sigma answers sigma
    expected = parents[parent] * (semi + Q * semi) / (semi + Q * excitation)
    np.testing.assert_allclose(rates(made(parent), drive), expected, rtol=1e-5)


@pytest.mark.parametrize("parent", ["power_law", "none"])
def test_a_neuron_at_its_sigma_keeps_its_rate(parent):
    at_sigma = np.log(np.expm1(SIGMA))[None, None]
    np.testing.assert_allclose(rates(made(parent), at_sigma)[0, 0], SIGMA, rtol=1e-5)


def test_with_parent_none_and_no_strength_the_drive_goes_through(drive):
    stage = made("none")
    stage.off()
    np.testing.assert_allclose(stage(torch.from_numpy(drive), Context()).detach(), drive, rtol=1e-12)
