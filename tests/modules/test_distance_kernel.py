"""Kernels of distance against the equation over all pairs in NumPy."""

import numpy as np
import pytest
import torch
from coupling_worlds import POSITIONS, N, context, cosines, design, drives, moved, rates

from neuroint.registry import MissingFactError, interactions

K, B, LATERAL, DEPTH = 6, 4, 250.0, 400.0
OPTIONS = {"neighbors": K, "distance_bases": B, "lateral_um": LATERAL, "depth_um": DEPTH}


def matrix(stage):
    w, v = stage.distance_weights.detach().numpy(), stage.similarity_weights.detach().numpy()
    apart = (POSITIONS[:, None].astype(float) - POSITIONS) / np.array([LATERAL, LATERAL, DEPTH])
    distance = np.sqrt((apart**2).sum(-1))
    alike, found = cosines(context().embedding), np.zeros((N, N))
    for i in range(N):
        for j in [j for j in np.argsort(distance[i]) if j != i][:K]:
            if distance[i, j] <= 1:
                bumps = np.exp(-((distance[i, j] - np.arange(B) / (B - 1)) ** 2) / (2 / (B - 1) ** 2))
                found[i, j] = (w + v * alike[i, j]) @ bumps / K
    bound = np.sqrt(np.abs(found).sum(0).max() * np.abs(found).sum(1).max())
    return stage.bound * found / max(1, bound)


@pytest.mark.parametrize("scale", [0.3, 30.0])  # below the cap, and above it
def test_the_coupling_is_the_equation(scale):
    stage = moved(design("distance_kernel", **OPTIONS), scale)
    np.testing.assert_allclose(stage.coupling(context()).detach(), matrix(stage), rtol=1e-4, atol=1e-6)


def test_a_frame_adds_the_weighed_last_rates_of_neighbors():
    stage = moved(design("distance_kernel", **OPTIONS), 2.0)
    coupling, expected, last = stage.coupling(context()).detach().numpy(), [], np.zeros((2, N))
    for t in range(drives().shape[1]):
        last = np.log1p(np.exp(drives()[:, t].numpy() + last @ coupling.T))
        expected.append(last)
    np.testing.assert_allclose(rates(stage, drives(), context()).detach(), np.stack(expected, 1), rtol=1e-10)


def test_nobody_couples_to_itself_or_beyond_the_range():
    stage = moved(design("distance_kernel", neighbors=N, lateral_um=120.0, depth_um=120.0), 2.0)
    coupling = stage.coupling(context()).detach().numpy()
    distance = np.linalg.norm(POSITIONS[:, None] - POSITIONS, axis=-1)
    assert not coupling.diagonal().any()
    assert ((coupling != 0) == ((distance <= 120) & (distance > 0))).all()


def test_depth_has_its_own_range():
    positions = np.array([[0, 0, 0], [50, 0, 0], [0, 0, 50]], np.float32)
    facts = {"n_neurons": 3, "positions_um": positions}
    stage = moved(design("distance_kernel", facts, lateral_um=100.0, depth_um=20.0, embedding="free"))
    coupling = stage.coupling(context()).detach()
    assert coupling[0, 1] != 0
    assert coupling[0, 2] == 0


def test_a_center_can_have_a_surround():
    stage = design("distance_kernel", neighbors=N, distance_bases=2)
    with torch.no_grad():
        stage.distance_weights.copy_(torch.tensor([3.0, -3.0]))
    coupling = stage.coupling(context()).detach()
    assert (coupling > 0).any()
    assert (coupling < 0).any()


def test_the_reach_is_the_distance_of_the_last_neighbor():
    line = np.array([[0, 0, 0], [100, 0, 0], [200, 0, 0], [300, 0, 0]], np.float32)
    stage = design("distance_kernel", {"n_neurons": 4, "positions_um": line}, neighbors=2, lateral_um=100.0)
    assert stage.reach == pytest.approx(1.5)  # second neighbors lie 2, 1, 1, 2 ranges away


def test_it_starts_as_no_interaction_while_gradients_flow():
    stage = design("distance_kernel")
    found = rates(stage, drives(), context(), link=lambda x: x)
    assert torch.equal(found, drives())
    found.square().sum().backward()
    assert stage.distance_weights.grad.all()
    assert stage.similarity_weights.grad.all()


def test_positions_are_needed():
    with pytest.raises(MissingFactError, match="interaction 'distance_kernel' needs positions_um"):
        interactions["distance_kernel"].build({}, {"n_neurons": 4, "embedding_channels": 2})
