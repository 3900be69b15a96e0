"""The recurrent circuit of normalization: its steady state, its equations at fine steps, and its stability."""

import numpy as np
import pytest
import torch
from history_worlds import BIN_S, facts, moved, normal
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.normalization.organics import Organics
from neuroint.modules.normalization.population_pool import PopulationPool

N, K = 8, 3
POSITIONS = np.random.default_rng(0).uniform(0, 400, (N, 3)).astype(np.float32)
CONTEXT = Context(embedding=normal(N, 4, seed=7))
PARENTS = ["power_law", "none"]


def circuit(**options):
    given = facts(N) | {"positions_um": POSITIONS, "neighbors": K, "initial_strength": 0.5} | options
    return Organics(**given).double()


def out_of(stage, drive):
    return stage.scan(drive, stage.initial_state(drive[:, 0], CONTEXT), CONTEXT)[0]


def constants(stage):
    """Exponent, sigma and the matrix W = alpha w / sigma^n over the nearest cells and the cell itself, in NumPy."""
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    n = 1 + 3 / (1 + np.exp(-value["excitation.raw_exponent"]))
    sigma, alpha = np.exp(value["excitation.log_sigma"]), np.log1p(np.exp(value["raw_alpha"]))
    e, weights = CONTEXT.embedding.numpy(), np.zeros((N, N))
    cosine = (e @ e.T) / np.outer(np.linalg.norm(e, axis=1), np.linalg.norm(e, axis=1))
    distance = np.linalg.norm(POSITIONS[:, None].astype(float) - POSITIONS[None], axis=-1)
    for i in range(N):
        for j in np.argsort(distance[i])[: K + 1]:  # the first is the cell itself
            bumps = np.exp(-((distance[i, j] - np.array([0.0, 150.0, 300.0, 450.0])) ** 2) / (2 * 150.0**2))
            likeness = value["pool.similarity_weight"] * cosine[i, j]
            weights[i, j] = np.exp(value["pool.distance_weights"] @ bumps + likeness)
    weights *= (alpha / sigma**n / weights.sum(1))[:, None]
    return n, sigma, weights


def finely(stage, drive, y, a, steps=2000):
    """Solve the two differential equations by small Euler steps within every frame: y and a at the frames' ends."""
    n, _, weights = constants(stage)
    tau_y, tau_a = stage.tau_y_s.item(), -BIN_S / np.log(stage.memory.kept(CONTEXT).item())
    step, found = BIN_S / steps, []
    for frame in drive.numpy():
        z = (np.log1p(np.exp(frame)) + 1e-6) ** (n / 2)
        for _ in range(steps):
            dy = (-y + z + (1 - np.sqrt(a)) * y) / tau_y
            da = (-a + 1 + weights @ (a * y**2)) / tau_a
            y, a = y + step * dy, a + step * da
        found.append((y, a))
    return np.array(found)


@pytest.mark.parametrize("parent", PARENTS)
def test_a_standing_drive_ends_in_division_by_the_pool(parent):
    stage = moved(circuit(parent=parent))
    n, sigma, weights = constants(stage)
    drive = torch.cat([normal(1, 1, N, seed=1), normal(1, 1, N).expand(1, 600, N)], 1)
    out, (y, a) = stage.scan(drive, stage.initial_state(drive[:, 0], CONTEXT), CONTEXT)
    rectified = np.log1p(np.exp(drive[0, -1].numpy())) + 1e-6
    steady = 1 + weights @ rectified**n  # a = sigma^2 b0^2 + W (b1 z)^2, in units of sigma^n
    np.testing.assert_allclose(a[0].detach(), steady, rtol=1e-6)
    np.testing.assert_allclose(y[0].detach(), rectified ** (n / 2) / np.sqrt(steady), rtol=1e-6)
    gain = np.exp(stage.excitation.log_gain.detach().numpy()) if parent == "power_law" else 1.0
    static = gain * rectified**n if parent == "power_law" else rectified - 1e-6
    expected = static * (1 + weights @ sigma**n) / steady
    np.testing.assert_allclose(functional.softplus(out[0, -1]).detach(), expected, rtol=1e-5)


def test_its_steps_follow_the_differential_equations_the_closer_the_finer():
    stage = moved(circuit(max_tau_s=1.0), 0.3).requires_grad_(False)
    stage.raw_tau_y.fill_(-1.4)  # tau_y near 100 ms, so that the membrane lags too
    drive = torch.cat([normal(1, N, seed=1), normal(1, N, seed=2).expand(6, N), normal(1, N, seed=5).expand(6, N)])
    held, begin = stage.prepare(CONTEXT), stage.initial_state(drive[:1], CONTEXT)
    exact = finely(stage, drive, *(x[0].numpy() for x in begin))
    errors = {}
    for parts in (1, 4):
        finer, (y, a), found = held._replace(kept=held.kept ** (1 / parts), half_step=held.half_step / parts), begin, []
        for z in torch.exp(stage.excitation.log_excitation(drive) / 2):
            for _ in range(parts):
                y, a = stage.advance(z[None], y, a, finer)
            found.append(torch.cat([y, a]).numpy())
        errors[parts] = np.abs(np.array(found) - exact).max() / np.abs(np.diff(exact, axis=0)).max()
    assert errors[1] < 0.2
    assert errors[4] < errors[1] / 3  # of first order: 4 times smaller


@pytest.mark.parametrize("parent", PARENTS)
def test_without_a_membrane_and_with_a_fast_pool_it_is_the_population_pool_with_the_neuron_in_it(parent):
    stage, drive = moved(circuit(parent=parent)).requires_grad_(False), normal(2, 20, N)
    stage.raw_tau_y.fill_(-40.0)
    stage.memory.raw_tau.fill_(-40.0)
    pool = PopulationPool(
        n_neurons=N, positions_um=POSITIONS, mean_responses=facts(N)["mean_responses"], parent=parent, neighbors=K + 1
    ).double()
    pool.pool = stage.pool
    pool.excitation.load_state_dict(stage.excitation.state_dict())
    with torch.no_grad():
        pool.raw_alpha.copy_(stage.raw_alpha)
        pool.raw_gamma.fill_(-800.0)
    torch.testing.assert_close(out_of(stage, drive), pool(drive, CONTEXT), rtol=1e-6, atol=1e-6)


def test_strength_zero_is_the_power_law():
    stage, drive = moved(circuit()), normal(2, 20, N)
    stage.off()
    static = stage.excitation.log_gain.exp() * (functional.softplus(drive) + 1e-6) ** stage.excitation.exponent
    torch.testing.assert_close(functional.softplus(out_of(stage, drive)), static, rtol=1e-12, atol=0)


def test_strength_zero_is_the_drive_where_no_parent_is_asked_for():
    stage, drive = moved(circuit(parent="none")), normal(2, 20, N)
    assert not torch.allclose(out_of(stage, drive), drive)
    stage.off()
    torch.testing.assert_close(out_of(stage, drive), drive, rtol=1e-12, atol=0)


def test_it_starts_near_its_parent_with_a_fast_membrane():
    stage = circuit(initial_strength=0.05)
    assert stage.tau_y_s.item() == pytest.approx(0.01)
    assert stage.prepare(CONTEXT).kept.item() == pytest.approx(np.exp(-BIN_S / 0.1))
    drive = normal(1, 200, N)
    near = functional.softplus(out_of(stage, drive))
    stage.off()
    parent = functional.softplus(out_of(stage, drive))
    assert (near - parent).square().mean().sqrt() < 0.2 * parent.std()


@pytest.mark.parametrize("size", [0.5, 3.0, 10.0])
def test_the_steady_state_is_locally_stable_for_any_parameters_and_bin_width(size):
    for seed in range(12):
        bin_s = (1 / 1000, 1 / 30, 1.0)[seed % 3]
        stage = moved(circuit(bin_s=bin_s), size, seed).requires_grad_(False)
        held, drive = stage.prepare(CONTEXT), normal(1, N, scale=4, seed=seed)
        z = torch.exp(stage.excitation.log_excitation(drive) / 2)
        y, a = stage.initial_state(drive, CONTEXT)
        shift = torch.cat([y, a]).log()  # in logarithms, where numbers of any size are alike

        def onward(logs, z=z, held=held, stage=stage):
            return torch.cat(stage.advance(z, *logs.exp().split(1), held)).log()

        torch.testing.assert_close(onward(shift), shift, rtol=1e-9, atol=1e-9)
        turned = torch.autograd.functional.jacobian(onward, shift).reshape(2 * N, 2 * N)
        assert torch.linalg.eigvals(turned).abs().max() < 1 + 1e-9


@pytest.mark.parametrize("size", [0.5, 3.0, 10.0])
def test_membranes_and_gain_stay_within_their_bounds_for_any_parameters_and_inputs(size):
    for seed in range(6):
        stage = moved(circuit(), size, seed).requires_grad_(False)
        held, drive = stage.prepare(CONTEXT), normal(60, 1, N, scale=10, seed=seed)
        z = torch.exp(stage.excitation.log_excitation(drive) / 2)
        y, a = z[0] * torch.rand(1, N, dtype=torch.float64), 1 + 10 * torch.rand(1, N, dtype=torch.float64)
        largest, row, first = z.max(), held.weights.sum(1), a
        passed = (1 + 2 * stage.tau_y_s / (np.e * BIN_S)) ** 2 * largest.square()
        for now in z:
            y, a = stage.advance(now, y, a, held)
            assert (y <= largest * (1 + 1e-9)).all()
            assert (a >= 1 - 1e-9).all()
            assert (a <= torch.maximum(first, 1 + row * passed) * (1 + 1e-9)).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.5, 3.0])
def test_it_comes_to_rest_from_any_state(size):
    for seed in range(4):
        stage = moved(circuit(), size, seed).requires_grad_(False)
        held, drive = stage.prepare(CONTEXT), normal(1, N, scale=2, seed=seed)
        z = torch.exp(stage.excitation.log_excitation(drive) / 2)
        y, a = (1 + 20 * normal(1, N, seed=seed + 9).abs() for _ in range(2))
        for _ in range(500):
            y, a = stage.advance(z, y, a, held)
        for now, steady in zip((y, a), stage.initial_state(drive, CONTEXT), strict=True):
            torch.testing.assert_close(now, steady, rtol=1e-6, atol=1e-9)


def test_the_memory_holds_for_the_slowest_membrane_and_the_slowest_pool():
    stage = circuit(initial_strength=3.0).requires_grad_(False)
    stage.memory.raw_tau.fill_(50.0)
    stage.raw_tau_y.fill_(50.0)
    assert stage.memory_bins == 36
    drive = torch.full((1, 36, N), -6.0, dtype=torch.float64)  # near silence, where both forget most slowly
    y, a = stage.initial_state(drive[:, 0], CONTEXT)
    found, _ = stage.scan(drive, (y + 1e-4, a), CONTEXT)[1]
    assert ((found - y).abs() < 0.05 * 1e-4).all()
    _, found = stage.scan(drive, (y, a + 1), CONTEXT)[1]
    assert ((found - a).abs() < 0.05).all()


def test_huge_drives_stay_finite_in_single_precision():
    stage, drive = circuit().float(), (normal(1, 20, N).abs() * 1e6).float().requires_grad_()
    around = Context(embedding=CONTEXT.embedding.float())
    out, _ = stage.scan(drive, stage.initial_state(drive[:, 0], around), around)
    out.sum().backward()
    assert out.isfinite().all()
    assert drive.grad.isfinite().all()


def test_two_neurons_are_needed():
    with pytest.raises(ValueError, match="neighbors need at least 2 neurons, got 1"):
        Organics(**facts(1), positions_um=POSITIONS[:1])


def test_an_embedding_is_needed():
    with pytest.raises(ValueError, match=r"a pool needs an embedding; give Context\(embedding="):
        circuit().prepare(Context())
