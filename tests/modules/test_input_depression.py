"""Depression against a fine numerical solution of its differential equation, and the scan it runs on."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from neuroint.modules.linear_scan import linear_scan
from neuroint.modules.normalization.input_depression import InputDepression
from neuroint.registry import MissingFactError, normalizations

SHAPE, BIN_S = (2, 1, 2), 1 / 30


def depression(**options):
    return InputDepression(feature_shape=SHAPE, bin_s=BIN_S, **options).double()


def moved(stage, seed=2, size=0.7):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return stage


def features(frames=20, size=2.0, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(1, frames, *SHAPE, generator=generator, dtype=torch.float64)


def run(stage, x):
    return stage.scan(x, stage.initial_state(x[:, 0]))


def test_the_output_follows_the_differential_equation():
    stage, f = moved(depression()), features()
    beta, tau = stage.beta.detach().numpy(), stage.tau_s.detach().numpy()
    x, steps, expected = np.ones(SHAPE), 20_000, np.zeros((20, *SHAPE))
    for t, frame in enumerate(f[0].numpy()):
        expected[t] = x * frame
        use = (beta / tau)[:, None, None] * np.maximum(frame, 0)
        for _ in range(steps // 20):  # Euler's steps of 33 microseconds
            x = x + BIN_S / (steps // 20) * ((1 - x) / tau[:, None, None] - use * x)
    torch.testing.assert_close(run(stage, f)[0][0], torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_a_constant_feature_settles_at_one_over_one_plus_beta_f():
    stage = moved(depression())
    out, _ = run(stage, torch.full((1, 200, *SHAPE), 3.0, dtype=torch.float64))
    steady = 3 / (1 + 3 * stage.beta[:, None, None]).expand(SHAPE)
    torch.testing.assert_close(out[0, -1], steady, rtol=1e-6, atol=0)
    assert (out[0, :-1] >= out[0, 1:]).all()


def test_a_frame_is_sent_on_with_what_the_frames_before_it_left():
    stage, f = moved(depression()), features()
    out, _ = run(stage, f)
    assert torch.equal(out[:, 0], f[:, 0]), "rested"
    last = f.clone()
    last[:, -1] *= 2
    torch.testing.assert_close(run(stage, last)[0][:, -1], 2 * out[:, -1])


def test_features_below_zero_use_nothing_up():
    stage, f = moved(depression()), -features().abs()
    torch.testing.assert_close(run(stage, f)[0], f, rtol=1e-12, atol=0)


def test_strength_zero_is_the_core_as_it_is():
    stage, f = moved(depression()), features()
    stage.off()
    torch.testing.assert_close(run(stage, f)[0], f, rtol=1e-12, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    raw=st.lists(st.floats(-30, 30), min_size=4, max_size=4),
    size=st.floats(-6, 6),
    bin_s=st.floats(1e-3, 2),
    seed=st.integers(0, 99),
)
def test_the_resource_stays_between_zero_and_one_for_any_parameter_and_input(raw, size, bin_s, seed):
    stage = InputDepression(feature_shape=SHAPE, bin_s=bin_s).double()
    with torch.no_grad():
        stage.raw_beta.copy_(torch.tensor(raw[:2]))
        stage.raw_tau.copy_(torch.tensor(raw[2:]))
    f = features(40, 10.0**size, seed)
    out, state = run(stage, f)
    assert (state > 0).all()
    assert (state <= 1 + 1e-12).all()
    assert (out.abs() <= f.abs() * (1 + 1e-12)).all()


def test_after_its_memory_five_percent_of_the_initial_state_are_left_at_most():
    stage = depression()
    assert stage.memory_bins == 36
    torch.nn.init.constant_(stage.raw_tau, 40.0)  # the longest tau, and silence: the worst case
    silence = torch.zeros(1, stage.memory_bins, *SHAPE, dtype=torch.float64)
    _, left = stage.scan(silence, torch.zeros(1, *SHAPE, dtype=torch.float64))
    assert (1 - left.detach()).max().item() == pytest.approx(0.05, rel=0.02)


def test_the_width_of_a_bin_is_needed():
    with pytest.raises(MissingFactError, match="normalization 'input_depression' needs bin_s, which the data does not"):
        normalizations["input_depression"].build({}, {"feature_shape": SHAPE})


def test_a_scan_is_the_recurrence_frame_by_frame_and_so_are_its_gradients():
    generator = torch.Generator().manual_seed(0)
    kept, added = (torch.rand(2, 7, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    start = torch.rand(2, 3, generator=generator, dtype=torch.float64).requires_grad_()

    def frame_by_frame(kept, added, start):
        found = [start]
        for t in range(7):
            found.append(kept[:, t] * found[-1] + added[:, t])
        return torch.stack(found[1:], 1)

    weights = torch.rand(2, 7, 3, generator=generator, dtype=torch.float64)
    given = (kept, added, start)
    torch.testing.assert_close(linear_scan(*given), frame_by_frame(*given))
    ours = torch.autograd.grad((linear_scan(*given) * weights).sum(), given)
    theirs = torch.autograd.grad((frame_by_frame(*given) * weights).sum(), given)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)
