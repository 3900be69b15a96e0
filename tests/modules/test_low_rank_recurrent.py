"""Low-rank couplings against the full matrix in NumPy."""

import numpy as np
import pytest
import torch
from coupling_worlds import N, context, design, drives, moved, rates

from neuroint.registry import MissingFactError, interactions


def matrix(stage):
    """C from the equation: normalized embeddings, factors, and the largest singular value."""
    if hasattr(stage.factors, "embedding"):
        e = context().embedding.numpy()
        e = e / np.sqrt((e**2).mean(1, keepdims=True))
        left, right = (e @ value.detach().numpy() for value in (stage.factors.left, stage.factors.right))
    else:
        left, right = stage.factors.left.detach().numpy(), stage.factors.right.detach().numpy()
    w = left @ right.T / N
    return stage.bound * w / max(1, np.linalg.norm(w, 2))


@pytest.mark.parametrize("factors", ["readout", "free"])
@pytest.mark.parametrize("scale", [0.1, 5.0])  # below the cap, and above it
def test_the_coupling_is_the_equation(factors, scale):
    stage = moved(design("low_rank_recurrent", rank=2, factors=factors), scale)
    np.testing.assert_allclose(stage.coupling(context()).detach(), matrix(stage), rtol=1e-6, atol=1e-9)


def test_a_frame_adds_the_last_rates_of_all():
    stage = moved(design("low_rank_recurrent", rank=3))
    expected, last = [], np.zeros((2, N))
    for t in range(drives().shape[1]):
        last = np.log1p(np.exp(drives()[:, t].numpy() + last @ matrix(stage).T))
        expected.append(last)
    np.testing.assert_allclose(rates(stage, drives(), context()).detach(), np.stack(expected, 1), rtol=1e-7)


@pytest.mark.parametrize("rank", [1, 4, 30])
def test_any_rank_works_also_above_the_number_of_channels(rank):
    stage = moved(design("low_rank_recurrent", rank=rank), 3.0)
    found = rates(stage, drives(), context())
    found.sum().backward()
    assert found.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in stage.parameters())


def test_it_starts_as_no_interaction_while_gradients_flow():
    stage = design("low_rank_recurrent")
    found = rates(stage, drives(), context(), link=lambda x: x)
    assert torch.equal(found, drives())
    found.square().sum().backward()
    assert stage.factors.left.grad.all()


def test_factors_of_the_readout_need_one():
    with pytest.raises(MissingFactError, match="needs embedding_channels, which no readout gave; choose free"):
        interactions["low_rank_recurrent"].build({}, {"n_neurons": 5})
