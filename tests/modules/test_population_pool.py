"""The population pool against the equation written out in NumPy."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.normalization.population_pool import PopulationPool
from neuroint.registry import MissingFactError, normalizations

N, K = 12, 5
POSITIONS = np.random.default_rng(0).uniform(0, 400, (N, 3)).astype(np.float32)
MEANS = np.random.default_rng(1).uniform(0.2, 2.0, N).astype(np.float32)
FACTS = {"n_neurons": N, "positions_um": POSITIONS, "mean_responses": MEANS}


def pool(**options):
    return PopulationPool(**FACTS, neighbors=K, **options).double()


def moved(stage):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return stage


def given(scale=1.0):
    generator = torch.Generator().manual_seed(3)
    drive = scale * torch.randn(2, 6, N, generator=generator, dtype=torch.float64)
    return drive, Context(embedding=torch.randn(N, 4, generator=generator, dtype=torch.float64))


def written_out(stage, drive, context):
    """The rate of science in plain loops: no logarithms, no shifts, every pair of cells."""
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    n = 1 + 3 / (1 + np.exp(-value["excitation.raw_exponent"]))
    sigma, gain = np.exp(value["excitation.log_sigma"]), np.exp(value["excitation.log_gain"])
    alpha, gamma = np.log1p(np.exp(value["raw_alpha"])), np.log1p(np.exp(value["raw_gamma"]))
    e = context.embedding.numpy()
    cosine = (e @ e.T) / np.outer(np.linalg.norm(e, axis=1), np.linalg.norm(e, axis=1))
    distance = np.linalg.norm(POSITIONS[:, None].astype(float) - POSITIONS[None], axis=-1)
    centers = np.array([0.0, 150.0, 300.0, 450.0])
    weights = np.zeros((N, N))
    for i in range(N):
        near = [j for j in np.argsort(distance[i]) if j != i][:K]
        for j in near:
            bumps = np.exp(-((distance[i, j] - centers) ** 2) / (2 * 150.0**2))
            weights[i, j] = np.exp(
                value["pool.distance_weights"] @ bumps + value["pool.similarity_weight"] * cosine[i, j]
            )
    weights /= weights.sum(1, keepdims=True)

    def pooled(excitation):
        return alpha * (excitation @ weights.T) + gamma * excitation.mean(-1, keepdims=True)

    excitation = (np.log1p(np.exp(drive.numpy())) + 1e-6) ** n
    resting = pooled((sigma**n)[None, None])
    return gain * excitation * (sigma**n + resting) / (sigma**n + pooled(excitation))


def test_the_softplus_of_the_output_is_the_equation():
    stage = moved(pool())
    drive, context = given()
    expected = torch.tensor(written_out(stage, drive, context))
    torch.testing.assert_close(functional.softplus(stage(drive, context)), expected, rtol=1e-6, atol=0)


def test_pool_weights_sum_to_one_and_leave_the_neuron_out():
    stage = moved(pool())
    weights = stage.pool_weights(given()[1])
    torch.testing.assert_close(weights.sum(1), torch.ones(N, dtype=torch.float64))
    assert (weights > 0).all()
    assert (stage.pool.neighbors != torch.arange(N)[:, None]).all()


def test_strength_zero_is_the_static_nonlinearity():
    stage = moved(pool())
    stage.off()
    drive, context = given()
    static = stage.excitation.log_gain.exp() * (functional.softplus(drive) + 1e-6) ** stage.excitation.exponent
    torch.testing.assert_close(functional.softplus(stage(drive, context)), static, rtol=1e-12, atol=0)


def test_strength_zero_is_the_drive_where_no_parent_is_asked_for():
    stage = moved(pool(parent="none"))
    drive, context = given()
    assert not torch.allclose(stage(drive, context), drive)
    stage.off()
    torch.testing.assert_close(stage(drive, context), drive, rtol=1e-12, atol=0)


def test_without_a_parent_the_pool_scales_the_rectified_drive():
    stage, other = moved(pool()), moved(pool(parent="none"))
    other.load_state_dict(stage.state_dict(), strict=False)
    drive, context = given()
    value = {name: parameter.detach() for name, parameter in stage.named_parameters()}
    excitation = (functional.softplus(drive) + 1e-6) ** stage.excitation.exponent
    gain = torch.tensor(written_out(stage, drive, context)) / (value["excitation.log_gain"].exp() * excitation)
    expected = functional.softplus(drive) * gain
    torch.testing.assert_close(functional.softplus(other(drive, context)), expected, rtol=1e-6, atol=0)


def test_it_starts_at_weak_pools_and_an_exponent_of_two():
    stage = pool()
    assert stage.excitation.exponent.item() == pytest.approx(2)
    torch.testing.assert_close(stage.alpha, torch.full((N,), 0.05, dtype=torch.float64), rtol=1e-6, atol=0)
    assert stage.gamma.item() == pytest.approx(0.05)
    torch.testing.assert_close(stage.excitation.log_sigma.exp().float(), torch.tensor(MEANS))


def test_at_the_start_a_population_at_its_sigma_keeps_its_drive():
    stage = pool()
    drive = torch.tensor(MEANS).double().expm1().log().expand(1, 1, N)  # its softplus is sigma
    torch.testing.assert_close(stage(drive, given()[1]), drive, rtol=1e-4, atol=1e-4)


def test_more_drive_to_the_neighbors_means_less_output():
    stage = pool()
    drive, context = given()
    louder = drive.clone()
    louder[..., stage.pool.neighbors[0, 0]] += 3
    assert (stage(louder, context)[..., 0] < stage(drive, context)[..., 0]).all()


def test_the_exponent_stays_between_one_and_four():
    stage = pool()
    for raw, bound in ((-50.0, 1.0), (50.0, 4.0)):
        torch.nn.init.constant_(stage.excitation.raw_exponent, raw)
        assert stage.excitation.exponent.item() == pytest.approx(bound)


def test_a_silent_neuron_has_a_sigma_that_is_not_zero():
    stage = PopulationPool(**(FACTS | {"mean_responses": np.zeros(N, np.float32)}))
    assert stage.excitation.log_sigma.isfinite().all()


def test_single_precision_follows_double_at_drives_from_silence_to_a_thousand():
    stage = moved(pool())
    drive, context = given(scale=300.0)
    exact = stage(drive, context)
    single = stage.float()(drive.float(), Context(embedding=context.embedding.float()))
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-3)


def test_nothing_of_size_neurons_times_neighbors_times_frames_is_held():
    stage, frames = pool(), 50
    drive = torch.randn(1, frames, N, dtype=torch.float64)
    largest = 0

    def look(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        stage(drive, given()[1])
    assert largest <= frames * N


def test_positions_are_needed():
    with pytest.raises(MissingFactError, match="normalization 'population_pool' needs positions_um"):
        normalizations["population_pool"].build({}, {key: FACTS[key] for key in FACTS if key != "positions_um"})


def test_an_embedding_is_needed():
    with pytest.raises(ValueError, match="needs an embedding; give Context"):
        pool()(given()[0], Context())
