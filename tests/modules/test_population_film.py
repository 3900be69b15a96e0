"""Gain and offset from a summary of records, against the equation in NumPy."""

import numpy as np
import torch
from coupling_worlds import N, context, design, drives, moved, recorded

from neuroint.modules.causal_filters import raised_cosines

OPTIONS = {"summaries": 3, "filter_bins": 4, "filter_bases": 2}


def test_the_output_is_the_equation():
    stage, observed = moved(design("population_film", **OPTIONS)), recorded(frames=20)
    p, q = stage.summary.projection.detach().numpy(), stage.summary.shape.detach().numpy()
    filters = q @ raised_cosines(2, 4).numpy().astype(float)
    e = context().embedding.numpy()
    e = e / np.sqrt((e**2).mean(1, keepdims=True))
    gain, offset = (e @ value.detach().numpy() for value in (stage.gain, stage.offset))
    expected = np.zeros(drives().shape)
    for t in range(12):
        past = [observed[:, 8 + t - lag].numpy() @ p * filters[:, lag] for lag in range(4)]
        g = np.tanh(np.sum(past, axis=0))
        expected[:, t] = drives()[:, t].numpy() * (1 + g @ gain.T) + g @ offset.T
    np.testing.assert_allclose(stage(drives(), context(observed)).detach(), expected, rtol=1e-6, atol=1e-9)


def test_a_population_without_activity_leaves_the_drive():
    stage = moved(design("population_film", **OPTIONS))
    assert torch.equal(stage(drives(), context(torch.zeros(2, 12, N).double())), drives())


def test_it_starts_as_no_interaction_while_gradients_flow():
    stage = design("population_film", **OPTIONS)
    found = stage(drives(), context(recorded()))
    assert torch.equal(found, drives())
    found.square().sum().backward()
    assert stage.gain.grad.all()
    assert stage.offset.grad.all()


def test_the_gain_is_bounded_however_loud_the_population():
    stage = moved(design("population_film", **OPTIONS))
    loud = stage(torch.ones_like(drives()), context(1e6 * recorded()))
    silent = stage(torch.zeros_like(drives()), context(1e6 * recorded()))
    held = stage.prepare(context())
    assert ((loud - silent - 1).abs() <= held.gain.abs().sum(1) + 1e-9).all()
