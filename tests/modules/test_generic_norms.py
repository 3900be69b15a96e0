"""Normalizations over neurons at one frame, against NumPy and against torch's own layers."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroint.modules.base import Context
from neuroint.modules.normalization.batch import Batch
from neuroint.modules.normalization.group import Group, places, planes
from neuroint.modules.normalization.layer import Layer
from neuroint.modules.normalization.rms import RootMeanSquare
from neuroint.registry import MissingFactError, normalizations

N = 12
POSITIONS = np.random.default_rng(0).uniform(0, 400, (N, 3)).astype(np.float32)
MEAN_DRIVE = np.random.default_rng(1).normal(0.5, 1.0, N).astype(np.float32)
FACTS = {"mean_drive": MEAN_DRIVE}
PLACED = {**FACTS, "positions_um": POSITIONS}
STAGES = {
    "rms": lambda: RootMeanSquare(**FACTS),
    "layer": lambda: Layer(**FACTS),
    "group": lambda: Group(**PLACED, group_neurons=4),
    "batch": lambda: Batch(**FACTS),
}


def moved(stage):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return stage


def drive(clips=2, frames=6):
    generator = torch.Generator().manual_seed(3)
    return 1 + 2 * torch.randn(clips, frames, N, generator=generator, dtype=torch.float64)


def blended(stage, x, normal):
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    share = 1 / (1 + np.exp(-value["blend.raw_share"]))
    return (1 - share) * x + share * (value["blend.scale"] * normal + value["blend.offset"])


def sigma_of(stage):
    return np.exp(stage.log_sigma.item())


def test_rms_is_the_equation():
    stage, x = moved(STAGES["rms"]().double()), drive().numpy()
    normal = x / np.sqrt(sigma_of(stage) ** 2 + (x**2).mean(-1, keepdims=True))
    torch.testing.assert_close(stage(drive(), Context()), torch.tensor(blended(stage, x, normal)))


def test_layer_is_the_equation():
    stage, x = moved(STAGES["layer"]().double()), drive().numpy()
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(sigma_of(stage) ** 2 + x.var(-1, keepdims=True))
    torch.testing.assert_close(stage(drive(), Context()), torch.tensor(blended(stage, x, normal)))


def test_group_is_the_equation_group_by_group():
    stage, x = moved(STAGES["group"]().double()), drive().numpy()
    normal, groups = np.zeros_like(x), places(POSITIONS, 4)
    for members in groups:
        part = x[..., members]
        apart = part - part.mean(-1, keepdims=True)
        normal[..., members] = apart / np.sqrt(sigma_of(stage) ** 2 + part.var(-1, keepdims=True))
    assert len(groups) == 4
    torch.testing.assert_close(
        stage(drive(), Context()), torch.tensor(blended(stage, x, normal)), rtol=1e-6, atol=1e-6
    )  # shares in a mean are kept in single precision


def test_batch_is_torchs_own_layer_over_clips_and_frames():
    stage, theirs = moved(STAGES["batch"]().double()), nn.BatchNorm1d(N, affine=False).double()
    theirs.running_mean.copy_(torch.tensor(MEAN_DRIVE))
    for mode in (True, False):
        stage.train(mode)
        theirs.train(mode)
        normal = theirs(drive().flatten(0, 1)).unflatten(0, (2, 6)).numpy()
        expected = torch.tensor(blended(stage, drive().numpy(), normal))
        torch.testing.assert_close(stage(drive(), Context()), expected)


@pytest.mark.parametrize("name", STAGES)
def test_strength_zero_is_the_drive_to_the_last_bit(name):
    stage = moved(STAGES[name]().double())
    stage.off()
    assert torch.equal(stage(drive(), Context()), drive())


@pytest.mark.parametrize("name", STAGES)
def test_it_starts_near_the_drive(name):
    stage = STAGES[name]().double()
    assert stage.blend.share.item() == pytest.approx(0.05)
    x = drive()
    assert ((stage(x, Context()) - x).abs() < 0.06 * (x.abs() + 5)).all()


@pytest.mark.parametrize("name", ["rms", "layer", "batch"])
def test_a_population_at_its_mean_drives_keeps_them_at_the_start(name):
    stage = STAGES[name]().double().eval()
    x = torch.tensor(MEAN_DRIVE).double().expand(1, 3, N)
    torch.testing.assert_close(stage(x, Context()), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["rms", "layer", "group"])
def test_every_frame_is_normalized_by_itself(name):
    stage = moved(STAGES[name]().double())
    whole = stage(drive(), Context())
    for t in range(6):
        torch.testing.assert_close(stage(drive()[:, t : t + 1], Context()), whole[:, t : t + 1], rtol=0, atol=1e-14)


def test_places_are_compact_and_none_is_nearly_empty():
    positions = np.random.default_rng(5).uniform(0, (800, 800, 60), (1000, 3)).astype(np.float32)
    found = places(positions, 64)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(1000))
    assert {len(members) for members in found} <= set(range(32, 65))
    sides = np.array([np.ptp(positions[members], axis=0) for members in found])
    assert sides.max() < 400
    assert sides[:, 2].max() <= 60


def test_planes_are_cells_of_one_depth():
    positions = np.array([[0, 0, 10], [1, 0, 40.2], [2, 0, 10.1], [3, 0, 40]], np.float32)
    assert [members.tolist() for members in planes(positions, 3)] == [[0, 2], [1, 3]]


def test_a_plane_with_one_neuron_is_refused():
    with pytest.raises(ValueError, match=r"planes found 11 depths among 12 neurons.*set groups: places"):
        Group(**PLACED, groups="planes")


def test_groups_need_positions():
    with pytest.raises(MissingFactError, match="normalization 'group' needs positions_um"):
        normalizations["group"].build({}, FACTS)


def test_groups_of_two_are_refused_because_halves_of_them_are_single_neurons():
    with pytest.raises(ValueError, match="group_neurons: got 2: input should be greater than or equal to 3"):
        normalizations["group"].build({"group_neurons": 2}, PLACED)


def test_batch_keeps_statistics_of_the_neurons_present_only():
    stage, chosen = STAGES["batch"]().double().train(), torch.tensor([1, 7])
    before = stage.norm.running_mean.clone()
    stage(drive()[..., chosen], Context(neurons=chosen))
    expected = before.clone()
    expected[chosen] = 0.9 * before[chosen] + 0.1 * drive()[..., chosen].mean((0, 1))
    torch.testing.assert_close(stage.norm.running_mean, expected)
    assert stage.norm.running_var[0] == 1


def test_batch_in_evaluation_predicts_a_clip_alone_as_among_others():
    stage = moved(STAGES["batch"]().double()).train()
    stage(drive(), Context())
    stage.eval()
    torch.testing.assert_close(stage(drive()[:1], Context()), stage(drive(), Context())[:1], rtol=0, atol=1e-14)
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in stage.modules()) == 1


@pytest.mark.parametrize("name", ["rms", "layer", "group"])
def test_a_silent_population_stays_finite(name):
    stage = moved(STAGES[name]())
    x = torch.zeros(1, 3, N, requires_grad=True)
    out = stage(x, Context())
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
