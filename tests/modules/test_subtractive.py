"""Subtraction of own past predictions: the equation in NumPy, its bound, and its match with the divisive design."""

import numpy as np
import pytest
import torch
from history_worlds import BIN_S, LINKS, facts, moved, normal, rates_of, slope_at_rest
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.normalization.own_history import OwnHistory
from neuroint.modules.normalization.subtractive import Subtractive

N = 7
PARENTS = ["power_law", "none"]


def subtractive(n=N, **options):
    return Subtractive(**facts(n), **options).double()


def written_out(stage, drive, parent):
    """The rates of a clip, frame by frame, without a logarithm."""
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    n = 1 + 3 / (1 + np.exp(-value["excitation.raw_exponent"]))
    sigma = np.exp(value["excitation.log_sigma"])
    gain = np.exp(value["excitation.log_gain"]) if parent == "power_law" else 1.0
    power = n if parent == "power_law" else 1.0
    least, most = n / (n + 1), np.exp(-BIN_S / 0.4)
    kept = least + (most - least) / (1 + np.exp(-value["memory.raw_tau"]))
    free, cap = np.log1p(np.exp(value["raw_beta"])), kept / (1 - kept)
    past, source, rates = sigma**n, 0.0, []
    for frame in drive.numpy().transpose(1, 0, 2):
        past = kept * past + (1 - kept) * source**n
        shifted = frame - cap * free / (cap + free) * (past ** (1 / n) - sigma)
        rate = gain * np.log1p(np.exp(shifted)) ** power
        source = (rate / gain) ** (1 / power)
        rates.append(rate)
    return torch.tensor(np.stack(rates, 1))


def sustaining(stage, parent):
    """The rate whose average is the state."""
    excitation = stage.excitation
    if parent == "none":
        return lambda state: (excitation.log_sigma + state / excitation.exponent).exp() - 1e-6
    return lambda state: (excitation.log_gain + excitation.exponent * excitation.log_sigma + state).exp() - 1e-6


def anywhere(n, size, seed, **options):
    """A stage somewhere in the space of parameters; one exponent and many neurons."""
    return moved(subtractive(n, per_neuron_tau=True, **options), size, seed).requires_grad_(False)


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("per_neuron_tau", [False, True])
def test_the_rate_behind_softplus_is_the_equation(parent, per_neuron_tau):
    stage, drive = moved(subtractive(parent=parent, per_neuron_tau=per_neuron_tau)), normal(2, 40, N)
    torch.testing.assert_close(rates_of(stage, drive), written_out(stage, drive, parent), rtol=1e-3, atol=1e-5)


def test_strength_zero_is_the_power_law():
    stage, drive = moved(subtractive()), normal(2, 20, N)
    stage.off()
    static = stage.excitation.log_gain.exp() * (functional.softplus(drive) + 1e-6) ** stage.excitation.exponent
    torch.testing.assert_close(rates_of(stage, drive), static, rtol=1e-12, atol=0)


def test_strength_zero_is_the_drive_where_no_parent_is_asked_for():
    stage, drive = moved(subtractive(parent="none")), normal(2, 20, N)
    assert not torch.allclose(rates_of(stage, drive, lambda x: x), drive)
    stage.off()
    torch.testing.assert_close(rates_of(stage, drive, lambda x: x), drive, rtol=1e-12, atol=0)


@pytest.mark.parametrize("parent", PARENTS)
def test_it_has_the_parameters_the_state_and_the_memory_of_the_divisive_design(parent):
    shapes = []
    for design in (Subtractive, OwnHistory):
        stage = design(**facts(N), parent=parent, per_neuron_tau=True)
        state = stage.initial_state(torch.zeros(2, N), Context())
        shapes.append((state, stage.memory_bins, {name: value.clone() for name, value in stage.named_parameters()}))
    torch.testing.assert_close(*shapes, rtol=0, atol=0)


@pytest.mark.parametrize("parent", PARENTS)
def test_a_neuron_that_stays_at_its_sigma_keeps_its_drive_at_the_start(parent):
    stage = subtractive(parent=parent)
    sigma = stage.excitation.log_sigma.exp().detach()
    drive = sigma.expm1().log().expand(1, 300, N)
    torch.testing.assert_close(rates_of(stage, drive)[:, -1], sigma[None], rtol=1e-4, atol=0)


def test_a_brief_change_of_drive_is_passed_on_in_full_and_not_scaled():
    stage = subtractive(parent="none", initial_strength=2.0).requires_grad_(False)
    for level in (2.0, 20.0):
        drive = torch.full((1, 200, N), level, dtype=torch.float64)
        drive[:, -1] += 1
        out = rates_of(stage, drive, lambda x: x)  # behind the identity the rate is what is left of the drive
        torch.testing.assert_close(out[:, -1] - out[:, -2], torch.ones(1, N, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("size", [0.5, 3.0, 10.0])
def test_around_its_fixed_point_a_deviation_shrinks_without_changing_sign(parent, size):
    for seed in range(4):
        stage, drive = anywhere(50, size, seed, parent=parent), normal(1, 50, scale=4, seed=seed).abs()
        _, slope = slope_at_rest(stage, drive, LINKS["softplus"], sustaining(stage, parent))
        assert (slope > -1e-6).all()
        assert (slope < 1).all()


@pytest.mark.parametrize(
    ("parent", "link"),
    [("power_law", LINKS["elu1"]), ("none", LINKS["elu1"]), ("none", torch.relu)],
    ids=["power-elu1", "none-elu1", "none-relu"],
)
def test_behind_other_links_it_stays_stable(parent, link):
    for seed in range(4):
        stage, drive = anywhere(50, 3.0, seed, parent=parent), normal(1, 50, scale=4, seed=seed)
        _, slope = slope_at_rest(stage, drive, link, sustaining(stage, parent))
        kept = stage.prepare(Context()).kept
        assert (slope > (-kept if parent == "power_law" else 0) - 1e-6).all()
        assert (slope < 1).all()


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("size", [0.5, 3.0, 10.0])
def test_a_step_to_any_drive_never_flips_from_frame_to_frame(parent, size):
    for seed in range(3):
        stage, level = anywhere(100, size, seed, parent=parent), normal(1, 1, 100, scale=2, seed=seed).exp() * 5
        drive = torch.cat([torch.full((1, 20, 100), -3.0, dtype=torch.float64), level.expand(1, 150, 100)], 1)
        rates = rates_of(stage, drive)[0, 20:]
        assert rates.isfinite().all()
        change = torch.diff(rates, dim=0) / rates[1:].clamp(min=1e-4)
        signs = change.sign() * (change.abs() > 1e-5)
        turns = [int((torch.diff(column[column != 0]) != 0).sum()) for column in signs.T]
        assert max(turns) <= 2


def test_without_the_cap_of_the_strength_it_would_flip():
    stage = subtractive(1, parent="none").requires_grad_(False)
    held, drive = stage.prepare(Context()), torch.full((1, 300, 1), 10.0, dtype=torch.float64)
    for beta, flips in ((40.0, True), (held.kept / (1 - held.kept), False)):
        strength = torch.zeros(1, dtype=torch.float64) + beta
        rates = rates_of(stage, drive, context=Context(prepared=held._replace(beta=strength)))[0, -2:, 0]
        assert ((rates[0] - rates[1]).abs() > 0.5 * rates.mean()) == flips


@pytest.mark.parametrize("size", [0.5, 10.0])
def test_the_past_raises_a_drive_by_no_more_than_strength_times_sigma(size):
    for seed in range(4):
        stage, drive = anywhere(50, size, seed, parent="none"), normal(2, 60, 50, scale=20, seed=seed)
        held = stage.prepare(Context())
        most = functional.softplus(drive + held.beta * held.log_sigma.exp())
        assert (held.beta < held.kept / (1 - held.kept) * (1 + 1e-12)).all()
        assert (rates_of(stage, drive) <= most * (1 + 1e-9)).all()
