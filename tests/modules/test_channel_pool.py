"""The pool among channels against the equation in plain loops."""

import numpy as np
import pytest
import torch

from neuroint.modules.normalization.channel_pool import ChannelPool
from neuroint.registry import normalizations

SHAPE = (3, 6, 7)


def pool(**options):
    return ChannelPool(feature_shape=SHAPE, **options).double()


def moved(stage):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return stage


def features(frames=2):
    generator = torch.Generator().manual_seed(3)
    return 2 * torch.randn(1, frames, *SHAPE, generator=generator, dtype=torch.float64)


def written_out(stage, f, *, size=5, side=1, dilation=1, specific=True):
    """Loops over pixels; the average is over the pixels that exist, the surround counts missing ones as 0."""
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    n = 0.5 + 3.5 / (1 + np.exp(-value["raw_exponent"]))
    eta = np.exp(value["log_eta"])
    p = np.abs(value["pool_weights"]) if specific else np.abs(value["pool_weights"]).repeat(SHAPE[0], 1) / SHAPE[0]
    u = np.ones((SHAPE[0], 1, 1))
    if side > 1:
        u = np.exp(value["raw_surround"])
        u = (u / u.sum(1, keepdims=True)).reshape(-1, side, side)
    out = np.zeros_like(f)
    for t in range(f.shape[1]):
        power = (np.maximum(f[0, t], 0) + 1e-6) ** n[:, None, None]
        average, spread = np.zeros(SHAPE), np.zeros(SHAPE)
        h, w, r = SHAPE[1], SHAPE[2], size // 2
        for y in range(h):
            for x in range(w):
                average[:, y, x] = power[:, max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].mean((1, 2))
        for y in range(h):
            for x in range(w):
                for a in range(side):
                    for b in range(side):
                        at = y + dilation * (a - side // 2), x + dilation * (b - side // 2)
                        if 0 <= at[0] < h and 0 <= at[1] < w:
                            spread[:, y, x] += u[:, a, b] * average[:, at[0], at[1]]
        out[0, t] = power / (eta[:, None, None] ** n[:, None, None] + np.einsum("lk,kyx->lyx", p, spread))
    return out


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, {}),
        ({"pool_px": 3}, {"size": 3}),
        ({"surround_px": 3, "dilation": 2}, {"side": 3, "dilation": 2}),
        ({"specific": False}, {"specific": False}),
    ],
)
def test_the_output_is_the_equation(options, written):
    stage = moved(pool(**options))
    expected = torch.tensor(written_out(stage, features().numpy(), **written))
    torch.testing.assert_close(stage(features()), expected, rtol=1e-9, atol=1e-12)


def test_with_the_core_as_parent_the_output_is_the_feature_times_the_gain_of_the_pool():
    stage = moved(pool(parent="none"))
    power_law = pool()
    power_law.load_state_dict(stage.state_dict())
    static = pool()
    static.load_state_dict(stage.state_dict())
    static.off()
    gain = power_law(features()) / static(features())
    torch.testing.assert_close(stage(features()), features() * gain, rtol=1e-9, atol=0)
    assert (gain < 1).all()


def test_strength_zero_is_a_power_of_the_rectified_feature_or_the_core_as_it_is():
    stage = moved(pool())
    stage.off()
    eta = stage.log_eta.exp()[:, None, None]
    static = ((features().clamp(min=0) + 1e-6) / eta) ** stage.exponent[:, None, None]
    torch.testing.assert_close(stage(features()), static, rtol=1e-12, atol=0)
    stage = moved(pool(parent="none"))
    stage.off()
    assert torch.equal(stage(features()), features())


def test_it_starts_as_a_rectifier_with_hardly_any_pool():
    stage = pool()
    torch.testing.assert_close(stage.exponent, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(stage(features()), features().clamp(min=0), rtol=0.02, atol=1e-5)


def test_behind_an_elu_it_does_what_it_does_behind_a_relu():
    stage = moved(pool())
    assert torch.equal(stage(torch.nn.functional.elu(features())), stage(features().clamp(min=0)))


def test_a_pool_reaches_two_pixels_and_other_channels_and_divides():
    stage = moved(pool())
    louder = features()
    louder[0, 0, 2, 3, 3] = 9.0
    change = stage(louder) - stage(features())
    near = change[0, 0, 0, 1:6, 1:6]
    assert (near <= 0).all()
    assert (near < 0).any()
    assert (change[0, 0, 0, 0] == 0).all(), "three pixels away"
    assert (change[0, 1] == 0).all(), "another frame"


def test_the_penalty_is_the_sum_of_all_weights():
    stage = pool(sparsity=0.5)
    assert stage.penalty().item() == pytest.approx(0.5 * 9 * 1e-3)
    assert pool(sparsity=0.0).penalty().item() == 0


def test_a_single_pixel_is_enough():
    stage = ChannelPool(feature_shape=(2, 1, 1))
    assert stage(torch.ones(1, 1, 2, 1, 1)).isfinite().all()


@pytest.mark.parametrize("option", ["pool_px", "surround_px"])
def test_squares_without_a_middle_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}: got 4: expected an odd number of pixels.*got 4"):
        normalizations["channel_pool"].build({option: 4}, {"feature_shape": SHAPE})
