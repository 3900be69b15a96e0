"""Latents from recorded neurons, against the equation in NumPy."""

import numpy as np
import pytest
import torch
from coupling_worlds import CHANNELS, N, context, design, drives, moved, recorded

from neuroint.modules.causal_filters import raised_cosines

OPTIONS = {"latents": 3, "filter_bins": 4, "filter_bases": 2}
OTHERS = {"observed_channels": 6, "observed_neurons": np.full(6, -1)}


@pytest.mark.parametrize("loadings", ["free", "readout"])
def test_the_output_is_the_equation(loadings):
    stage = moved(design("latent", OTHERS, loadings=loadings, **OPTIONS))
    observed = recorded(frames=20, channels=6)
    p, q = stage.summary.projection.detach().numpy(), stage.summary.shape.detach().numpy()
    filters = q @ raised_cosines(2, 4).numpy().astype(float)
    w = stage.loadings.weights.detach().numpy()
    if loadings == "readout":
        e = context().embedding.numpy()
        w = e / np.sqrt((e**2).mean(1, keepdims=True)) @ w
    expected = drives().numpy().copy()
    for t in range(12):
        expected[:, t] += sum(observed[:, 8 + t - lag].numpy() @ p * filters[:, lag] for lag in range(4)) @ w.T
    np.testing.assert_allclose(stage(drives(), context(observed)).detach(), expected, rtol=1e-6, atol=1e-9)


def test_it_starts_as_no_interaction_while_gradients_flow():
    stage = design("latent", OTHERS, **OPTIONS)
    found = stage(drives(), context(recorded(channels=6)))
    assert torch.equal(found, drives())
    found.square().sum().backward()
    assert stage.loadings.weights.grad.all()


def test_the_penalty_is_the_mean_square_of_projection_and_loadings():
    stage = design("latent", OTHERS, l2=0.5, **OPTIONS)
    torch.nn.init.constant_(stage.summary.projection, 2.0)
    torch.nn.init.constant_(stage.loadings.weights, 3.0)
    assert stage.penalty().item() == pytest.approx(0.5 * (4 + 9))


def test_loadings_are_as_wide_as_asked_for():
    assert design("latent", OTHERS, **OPTIONS).loadings.weights.shape == (N, 3)
    assert design("latent", OTHERS, loadings="readout", **OPTIONS).loadings.weights.shape == (CHANNELS, 3)


def test_it_says_that_it_reads_other_neurons():
    assert design("latent", OTHERS).reads.information == "recorded_others"
    assert design("latent", OTHERS).memory_bins == 10


def test_records_are_needed():
    with pytest.raises(ValueError, match="'latent' reads recorded activity and the context holds none"):
        design("latent", OTHERS)(drives(), context())
