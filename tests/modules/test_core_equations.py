"""Cores against independent formulations, and what they refuse."""

import pytest
import torch
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.core.constant import Constant
from neuroint.modules.core.conv2d import Conv2d
from neuroint.modules.core.conv3d import Conv3d
from neuroint.modules.core.factorized_conv3d import FactorizedConv3d
from neuroint.modules.core.linear import Linear
from neuroint.modules.penalties import spatial_roughness, temporal_roughness, weighed_sum

SMALL = {"channels": (4, 3), "spatial_kernels": (4, 3), "temporal_kernels": (3, 2)}


def video(batch=2, frames=9, height=9, width=11, behavior=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(batch, frames, *shape, generator=generator, dtype=dtype)

    return Inputs(stimulus=draw(1, height, width), behavior=draw(behavior) if behavior else None)


def planes(inputs):
    constant = inputs.behavior[..., None, None].expand(-1, -1, -1, *inputs.stimulus.shape[-2:])
    return torch.cat([inputs.stimulus, constant], 2).transpose(1, 2)


def as_conv3d(core, x):
    """The plain formulation: 1 x k x k, then k x 1 x 1, batch normalization by hand, ELU."""
    for layer in core.layers:
        x = functional.conv3d(x, layer.spatial.weight[:, :, None], layer.spatial.bias)
        x = functional.conv3d(x, layer.temporal.weight[..., None], layer.temporal.bias)
        mean = x.mean((0, 2, 3, 4), keepdim=True)
        variance = x.var((0, 2, 3, 4), keepdim=True, unbiased=False)
        scale, shift = (p.view(1, -1, 1, 1, 1) for p in (layer.norm.weight, layer.norm.bias))
        x = functional.elu((x - mean) / torch.sqrt(variance + 1e-5) * scale + shift)
    return x.transpose(1, 2)


def test_the_defaults_are_the_sensorium_2023_baseline():
    core = FactorizedConv3d(stimulus_shape=(1, 36, 64), behavior_channels=2)
    assert sum(parameter.numel() for parameter in core.parameters()) == 382_176
    assert core.feature_shape == (128, 18, 46)
    assert core.lost_frames == 18
    assert all(layer.norm.momentum == 0.7 for layer in core.layers)


def test_factorized_conv3d_equals_conv3d_in_outputs_and_gradients():
    core = FactorizedConv3d(stimulus_shape=(1, 9, 11), behavior_channels=2, **SMALL).double()
    inputs = video()
    ours, theirs = core(inputs), as_conv3d(core, planes(inputs))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    weights = torch.randn(ours.shape, dtype=torch.float64)
    grads = [torch.autograd.grad((out * weights).sum(), list(core.parameters())) for out in (ours, theirs)]
    for (name, _), one, other in zip(core.named_parameters(), *grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_factorized_features_are_laid_out_channels_last():
    core = FactorizedConv3d(stimulus_shape=(1, 9, 11), behavior_channels=2, **SMALL).double()
    assert core(video()).permute(0, 1, 3, 4, 2).is_contiguous(), "the readout would copy them"


def test_weights_start_by_xavier_and_biases_at_zero():
    core = FactorizedConv3d(stimulus_shape=(1, 36, 64), behavior_channels=2)
    first = core.layers[0].spatial
    assert torch.count_nonzero(first.bias) == 0
    assert first.weight.std().item() == pytest.approx((2 / (3 * 121 + 32 * 121)) ** 0.5, rel=0.05)


def test_behavior_reaches_every_pixel_of_its_own_frame():
    core = Conv2d(stimulus_shape=(1, 9, 11), behavior_channels=2, channels=(3,), spatial_kernels=(3,)).double().eval()
    inputs = video()
    moved = Inputs(stimulus=inputs.stimulus, behavior=inputs.behavior.clone())
    moved.behavior[0, 4, 1] += 1
    change = (core(moved) - core(inputs)).abs()
    assert (change[0, 4] > 0).all()
    change[0, 4] = 0
    assert change.max() == 0


@pytest.mark.parametrize("kind", [FactorizedConv3d, Conv3d, Conv2d])
def test_behavior_can_be_left_out(kind):
    options = SMALL if kind is not Conv2d else {key: SMALL[key] for key in ("channels", "spatial_kernels")}
    core = kind(stimulus_shape=(1, 9, 11), behavior_channels=2, behavior=False, **options).double()
    assert core(video(behavior=0)).isfinite().all()


def test_missing_behavior_is_refused():
    core = Conv2d(stimulus_shape=(1, 9, 11), behavior_channels=2, channels=(3,), spatial_kernels=(3,)).double()
    with pytest.raises(ValueError, match="built with behavior channels, and the inputs have none; set behavior: false"):
        core(video(behavior=0))


def test_a_missing_stimulus_is_refused():
    with pytest.raises(ValueError, match="inputs have none; use core 'constant'"):
        Linear(stimulus_shape=(1, 9, 11))(Inputs(behavior=torch.zeros(1, 20, 2)))


@pytest.mark.parametrize("kind", [FactorizedConv3d, Conv3d])
def test_static_images_are_refused_where_kernels_span_time(kind):
    core = kind(stimulus_shape=(1, 36, 64), behavior_channels=2)
    with pytest.raises(
        ValueError, match=r"consumes 18 frames and needs at least 19, got clips of 1.*'conv2d' for static"
    ):
        core(video(frames=1, height=36, width=64, dtype=torch.float32))


def test_static_images_go_through_conv2d_and_a_linear_core_of_one_lag():
    image = video(frames=1)
    for core in (
        Conv2d(stimulus_shape=(1, 9, 11), behavior_channels=2, channels=(3,), spatial_kernels=(3,)),
        Linear(stimulus_shape=(1, 9, 11), behavior_channels=2, lags=1),
    ):
        assert core.double()(image).shape == (2, 1, *core.feature_shape)


def test_kernels_larger_than_the_frame_are_refused():
    with pytest.raises(ValueError, match=r"\(11, 5, 5\) need at least 19 x 19 pixels, the stimulus has 18 x 32"):
        FactorizedConv3d(stimulus_shape=(1, 18, 32))


def test_unequal_lists_of_layers_are_refused():
    with pytest.raises(
        ValueError, match=r"got 2 channels \(4, 4\) and 3 spatial_kernels \(11, 5, 5\); give one of each"
    ):
        FactorizedConv3d(stimulus_shape=(1, 36, 64), channels=(4, 4))


def test_conv3d_equals_a_convolution_written_out():
    core = (
        Conv3d(stimulus_shape=(1, 5, 6), channels=(2,), spatial_kernels=(3,), temporal_kernels=(2,), momentum=0.1)
        .double()
        .eval()
    )
    x = video(frames=4, height=5, width=6, behavior=0)
    kernel, bias = core.layers[0].weight, core.layers[0].bias
    patch = x.stimulus[1, 2:4, 0, 1:4, 2:5]  # what frame 3 at row 1, column 2 of the features is made of
    summed = (kernel[1, 0] * patch).sum() + bias[1]
    expected = functional.elu(summed / (1 + 1e-5) ** 0.5)  # running statistics are still 0 and 1
    torch.testing.assert_close(core(x)[1, 2, 1, 1, 2], expected)


def test_linear_core_stacks_lags_then_behavior():
    core = Linear(stimulus_shape=(1, 9, 11), behavior_channels=2, lags=3)
    x = video()
    out = core(x)
    assert core.feature_shape == (5, 9, 11)
    for lag in range(3):
        assert torch.equal(out[:, :, lag], x.stimulus[:, 2 - lag : 9 - lag, 0])
    assert torch.equal(out[:, :, 3:, 4, 7], x.behavior[:, 2:])


def test_linear_core_averages_squares_of_pixels():
    core = Linear(stimulus_shape=(1, 9, 11), lags=2, downsample=4)
    x = video(behavior=0)
    assert core.feature_shape == (2, 2, 2)
    torch.testing.assert_close(core(x)[0, 0, 0, 1, 0], x.stimulus[0, 1, 0, 4:8, 0:4].mean())


def test_linear_core_refuses_squares_larger_than_the_frame():
    with pytest.raises(ValueError, match=r"cannot average squares of 10 pixels in frames of 9 x 11"):
        Linear(stimulus_shape=(1, 9, 11), downsample=10)


def test_constant_core_sees_nothing():
    x = video()
    assert torch.equal(Constant()(x), torch.ones(2, 9, 1, 1, 1, dtype=torch.float64))
    assert torch.equal(Constant()(Inputs(pupil=torch.randn(3, 4, 2))), torch.ones(3, 4, 1, 1, 1))


def test_roughness_of_one_pixel_is_that_of_the_laplacian():
    point = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    point[1, 0, 2, 2] = -3
    assert spatial_roughness(point) == 16 + 4  # center 4 squared, four neighbors of 1
    corner = torch.zeros(1, 1, 5, 5)
    corner[0, 0, 0, 0] = 2
    assert spatial_roughness(corner) == 16 + 2
    pulse = torch.zeros(1, 1, 5, 1)
    pulse[0, 0, 2] = 7
    assert temporal_roughness(pulse) == 16 + 1 + 1


def test_roughness_is_smaller_for_smooth_filters_and_blind_to_scale():
    ramp = torch.linspace(0, torch.pi, 11, dtype=torch.float64).sin()
    smooth, noise = torch.outer(ramp, ramp), torch.randn(11, 11, dtype=torch.float64)
    assert spatial_roughness(smooth) < 0.1 * spatial_roughness(noise)
    torch.testing.assert_close(spatial_roughness(5 * noise), spatial_roughness(noise))


def test_the_penalty_weighs_the_first_layer_and_skips_strengths_of_zero():
    core = FactorizedConv3d(
        stimulus_shape=(1, 9, 11), spatial_smoothness=2.0, temporal_smoothness=3.0, **SMALL
    ).double()
    first = core.layers[0]
    expected = 2 * spatial_roughness(first.spatial.weight) + 3 * temporal_roughness(first.temporal.weight)
    torch.testing.assert_close(core.penalty(), expected)
    core.penalty().backward()
    assert first.spatial.weight.grad.abs().sum() > 0
    assert core.layers[1].spatial.weight.grad is None
    assert weighed_sum((0.0, torch.sum, torch.full((2,), torch.nan))) == 0
