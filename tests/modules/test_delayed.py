"""Division by a delayed drive: the equation in NumPy, and what it becomes at its limits."""

import numpy as np
import pytest
import torch
from history_worlds import BIN_S, facts, moved, normal
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.normalization.delayed import Delayed
from neuroint.modules.normalization.static_saturation import StaticSaturation

N = 7
PARENTS = ["power_law", "none"]


def delayed(n=N, **options):
    return Delayed(**facts(n), **options).double()


def out_of(stage, drive):
    return stage.scan(drive, stage.initial_state(drive[:, 0], Context()), Context())[0]


def written_out(stage, drive, parent):
    """The rates of a clip, frame by frame, without a logarithm."""
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    n = 1 + 3 / (1 + np.exp(-value["excitation.raw_exponent"]))
    sigma, beta = np.exp(value["excitation.log_sigma"]), np.log1p(np.exp(value["raw_beta"]))
    kept = np.exp(-BIN_S / 0.4) / (1 + np.exp(-value["memory.raw_tau"]))
    rectified = np.log1p(np.exp(drive.numpy())).transpose(1, 0, 2) + 1e-6
    average, rates = rectified[0], []
    for frame in rectified:
        average = kept * average + (1 - kept) * frame
        static = np.exp(value["excitation.log_gain"]) * frame**n if parent == "power_law" else frame - 1e-6
        rates.append(static * (sigma**n + beta * sigma**n) / (sigma**n + beta * average**n))
    return torch.tensor(np.stack(rates, 1))


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("per_neuron_tau", [False, True])
def test_the_rate_behind_softplus_is_the_equation(parent, per_neuron_tau):
    stage, drive = moved(delayed(parent=parent, per_neuron_tau=per_neuron_tau)), normal(2, 40, N, scale=2)
    rates = functional.softplus(out_of(stage, drive))
    torch.testing.assert_close(rates, written_out(stage, drive, parent), rtol=1e-9, atol=0)


def test_strength_zero_is_the_power_law():
    stage, drive = moved(delayed()), normal(2, 20, N)
    stage.off()
    static = stage.excitation.log_gain.exp() * (functional.softplus(drive) + 1e-6) ** stage.excitation.exponent
    torch.testing.assert_close(functional.softplus(out_of(stage, drive)), static, rtol=1e-12, atol=0)


def test_strength_zero_is_the_drive_where_no_parent_is_asked_for():
    stage, drive = moved(delayed(parent="none")), normal(2, 20, N)
    assert not torch.allclose(out_of(stage, drive), drive)
    stage.off()
    torch.testing.assert_close(out_of(stage, drive), drive, rtol=1e-12, atol=0)


@pytest.mark.parametrize("parent", PARENTS)
def test_without_delay_it_is_the_static_saturation(parent):
    stage, drive = moved(delayed(parent=parent)), normal(2, 20, N)
    torch.nn.init.constant_(stage.memory.raw_tau, -60.0)
    static = StaticSaturation(n_neurons=N, mean_responses=facts(N)["mean_responses"], parent=parent).double()
    static.excitation.load_state_dict(stage.excitation.state_dict())
    static.raw_saturation = stage.raw_beta
    torch.testing.assert_close(out_of(stage, drive), static(drive, Context()))


def test_a_step_is_answered_by_a_transient_and_a_plateau_that_is_the_static_saturation():
    stage = delayed(initial_strength=2.0)
    drive = torch.cat([torch.full((1, 40, N), level, dtype=torch.float64) for level in (0.0, 4.0)], 1)
    rates = functional.softplus(out_of(stage, drive))[0]
    static = StaticSaturation(n_neurons=N, mean_responses=facts(N)["mean_responses"], initial_strength=2.0).double()
    plateau = functional.softplus(static(drive, Context()))[0, -1]
    torch.testing.assert_close(rates[-1], plateau, rtol=1e-3, atol=0)
    assert (rates[40] > 1.3 * plateau).all()
    assert (torch.diff(rates[40:], dim=0) < 0).all()


def test_after_the_memory_a_twentieth_of_the_start_is_left_at_the_longest_time_constant():
    stage = delayed(1).requires_grad_(False)
    stage.memory.raw_tau.fill_(50.0)
    drive, states = torch.full((1, stage.memory_bins, 1), -50.0, dtype=torch.float64), []
    for start in (0.0, 1.0):
        states.append(stage.scan(drive, torch.full((1, 1), start, dtype=torch.float64), Context())[1])
    assert stage.memory_bins == 36
    assert 0.04 < (states[1] - states[0]).item() <= 0.05


def test_it_starts_with_a_hundred_milliseconds():
    assert delayed().prepare(Context()).kept.item() == pytest.approx(np.exp(-BIN_S / 0.1))


def test_in_bins_longer_than_the_memory_one_bin_is_discarded():
    assert Delayed(**(facts(1) | {"bin_s": 60.0})).memory_bins == 1


@pytest.mark.parametrize("size", [0.5, 10.0])
def test_the_gain_stays_below_one_plus_the_strength_whatever_the_parameters(size):
    for seed in range(4):
        stage, drive = moved(delayed(50, parent="none"), size, seed).requires_grad_(False), normal(2, 60, 50, scale=20)
        most = 1 + functional.softplus(stage.raw_beta)
        rates = functional.softplus(out_of(stage, drive))
        assert (rates <= most * functional.softplus(drive) * (1 + 1e-9)).all()


def test_a_drive_in_half_precision_is_divided_in_single_precision():
    stage, drive = delayed(initial_strength=2.0).float(), normal(1, 20, N, scale=3).bfloat16()
    out = out_of(stage, drive)
    assert out.dtype == torch.float32
    drive = drive.float()
    torch.testing.assert_close(out, out_of(stage, drive), rtol=0.02, atol=0.02)


def test_huge_drives_stay_finite_in_single_precision():
    stage, drive = delayed().float(), (normal(1, 20, N).abs() * 1e6).float().requires_grad_()
    out = out_of(stage, drive)
    out.sum().backward()
    assert out.isfinite().all()
    assert drive.grad.isfinite().all()


def test_a_time_constant_that_starts_beyond_its_longest_is_refused():
    with pytest.raises(ValueError, match=r"tau_s is 0.5 and max_tau_s 0.4; start below the longest: raise max_tau_s"):
        delayed(tau_s=0.5)
