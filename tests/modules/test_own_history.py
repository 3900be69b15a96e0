"""Division by own past predictions: the equation in NumPy, its bound over parameters, and where the bound ends."""

import numpy as np
import pytest
import torch
from history_worlds import BIN_S, LINKS, facts, moved, normal, rates_of, slope_at_rest
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.link import Softplus
from neuroint.modules.normalization.own_history import OwnHistory
from neuroint.registry import MissingFactError, normalizations

N = 7
PARENTS = ["power_law", "none"]


def history(n=N, **options):
    return OwnHistory(**facts(n), **options).double()


def written_out(stage, drive, parent):
    """The rates of a clip, frame by frame, without a logarithm."""
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    n = 1 + 3 / (1 + np.exp(-value["excitation.raw_exponent"]))
    sigma, beta = np.exp(value["excitation.log_sigma"]), np.log1p(np.exp(value["raw_beta"]))
    least, most = n / (n + 1), np.exp(-BIN_S / 0.4)
    kept = least + (most - least) / (1 + np.exp(-value["memory.raw_tau"]))
    past, rate, rates = sigma**n, 0.0, []
    for frame in np.log1p(np.exp(drive.numpy())).transpose(1, 0, 2) + (1e-6 if parent == "power_law" else 0):
        past = kept * past + (1 - kept) * rate**n
        static = np.exp(value["excitation.log_gain"]) * frame**n if parent == "power_law" else frame
        rate = static * sigma**n * (1 + beta) / (sigma**n + beta * past)
        rates.append(rate)
    return torch.tensor(np.stack(rates, 1))


def sustaining(stage):
    """The rate whose average is the state."""
    return lambda state: (stage.excitation.log_sigma + state / stage.excitation.exponent).exp() - 1e-6


def anywhere(n, size, seed, **options):
    """A stage somewhere in the space of parameters; one exponent and many neurons."""
    return moved(history(n, per_neuron_tau=True, **options), size, seed).requires_grad_(False)


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("per_neuron_tau", [False, True])
def test_the_rate_behind_softplus_is_the_equation(parent, per_neuron_tau):
    stage, drive = moved(history(parent=parent, per_neuron_tau=per_neuron_tau)), normal(2, 40, N, scale=2)
    torch.testing.assert_close(rates_of(stage, drive), written_out(stage, drive, parent), rtol=1e-5, atol=1e-9)


def test_strength_zero_is_the_power_law():
    stage, drive = moved(history()), normal(2, 20, N)
    stage.off()
    static = stage.excitation.log_gain.exp() * (functional.softplus(drive) + 1e-6) ** stage.excitation.exponent
    torch.testing.assert_close(rates_of(stage, drive), static, rtol=1e-12, atol=0)


def test_strength_zero_is_the_drive_where_no_parent_is_asked_for():
    stage, drive = moved(history(parent="none")), normal(2, 20, N)
    assert not torch.allclose(rates_of(stage, drive, lambda x: x), drive)
    stage.off()
    torch.testing.assert_close(rates_of(stage, drive, lambda x: x), drive, rtol=1e-12, atol=0)
    rates_of(stage, drive).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in stage.parameters())


def test_it_starts_weak_with_two_hundred_milliseconds_and_an_exponent_of_two():
    stage = history()
    held = stage.prepare(Context())
    assert held.exponent.item() == pytest.approx(2)
    assert held.kept.item() == pytest.approx(np.exp(-BIN_S / 0.2))
    torch.testing.assert_close(held.log_beta.exp(), torch.full((N,), 0.05, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("parent", PARENTS)
def test_a_neuron_that_stays_at_its_sigma_keeps_its_drive_at_the_start(parent):
    stage = history(parent=parent)
    sigma = stage.excitation.log_sigma.exp().detach()
    drive = sigma.expm1().log().expand(1, 300, N)
    torch.testing.assert_close(rates_of(stage, drive)[:, -1], sigma[None], rtol=1e-4, atol=0)


def test_a_step_is_answered_by_a_peak_and_then_less():
    drive = torch.cat([normal(1, 40, 1).expand(1, 40, N) * 0, torch.full((1, 40, N), 4.0, dtype=torch.float64)], 1)
    rates = rates_of(history(initial_strength=2.0), drive)[0]
    assert (rates[40] > 1.5 * rates[-1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("size", [0.5, 3.0, 10.0])
def test_around_its_fixed_point_a_deviation_shrinks_without_changing_sign(parent, size):
    for seed in range(4):
        stage, drive = anywhere(50, size, seed, parent=parent), normal(1, 50, scale=4, seed=seed).abs()
        state, slope = slope_at_rest(stage, drive, LINKS["softplus"], sustaining(stage))
        held = stage.prepare(Context())
        divided = torch.sigmoid(held.log_beta + state)
        seen = sustaining(stage)(state) > 1e-3  # where the 1e-6 in the logarithm of rates does not count
        expected = held.kept - (1 - held.kept) * held.exponent * divided
        torch.testing.assert_close(slope[0][seen[0]], expected[0][seen[0]], rtol=0, atol=5e-3)
        assert (slope > -1e-9).all()
        assert (slope < 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize(
    ("link", "least"),
    [(LINKS["elu1"], -0.31), (Softplus(beta=0.07), 0.0), (Softplus(beta=0.5), 0.0)],
    ids=["elu1", "softplus.07", "softplus.5"],
)
def test_behind_other_links_it_stays_stable(parent, link, least):
    for seed in range(4):
        stage, drive = anywhere(50, 3.0, seed, parent=parent), normal(1, 50, scale=4, seed=seed)
        _, slope = slope_at_rest(stage, drive, link, sustaining(stage))
        assert (slope > least - 1e-9).all()
        assert (slope < 1).all()


def turns(rates, share):
    """How often rates change direction, changes by less than a share of the rate aside."""
    change = torch.diff(rates, dim=0) / rates[1:]
    signs = change.sign() * (change.abs() > share)
    return [int((torch.diff(column[column != 0]) != 0).sum()) for column in signs.T]


@pytest.mark.slow
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize(("link", "most"), [("softplus", 2), ("elu1", 5)])
@pytest.mark.parametrize("size", [0.5, 3.0, 10.0])
def test_a_step_to_any_drive_never_flips_from_frame_to_frame(parent, link, most, size):
    for seed in range(3):
        stage, level = anywhere(100, size, seed, parent=parent), normal(1, 1, 100, scale=2, seed=seed).exp() * 5
        drive = torch.cat([torch.full((1, 20, 100), -3.0, dtype=torch.float64), level.expand(1, 150, 100)], 1)
        rates = rates_of(stage, drive, LINKS[link])[0, 20:]
        assert rates.isfinite().all()
        assert max(turns(rates, share=1e-6 if link == "softplus" else 1e-2)) <= most


@pytest.mark.parametrize("link", LINKS)
def test_a_step_to_a_drive_settles(link):
    stage, level = anywhere(100, 0.5, 0), normal(1, 1, 100).exp()
    rates = rates_of(stage, level.expand(1, 400, 100), LINKS[link])[0]
    torch.testing.assert_close(rates[-2], rates[-1], rtol=1e-7, atol=0)


def test_with_a_memory_below_the_bound_it_would_flip():
    stage = history(1, initial_strength=3.0).requires_grad_(False)
    held, drive = stage.prepare(Context()), torch.full((1, 400, 1), 20.0, dtype=torch.float64)
    for tau_s, flips in ((0.015, True), (0.2, False)):
        kept = torch.tensor([np.exp(-BIN_S / tau_s)], dtype=torch.float64)
        rates = rates_of(stage, drive, context=Context(prepared=held._replace(kept=kept)))[0, -2:, 0]
        assert ((rates[0] - rates[1]).abs() > 0.5 * rates.mean()) == flips


@pytest.mark.parametrize("size", [0.5, 30.0])
def test_rates_never_exceed_their_parents_by_more_than_the_strength(size):
    for seed in range(5):
        stage, drive = anywhere(50, size, seed), normal(2, 60, 50, scale=20, seed=seed)
        beta = stage.prepare(Context()).log_beta.exp()
        rates = rates_of(stage, drive)
        stage.off()
        assert (rates <= (1 + beta) * rates_of(stage, drive) * (1 + 1e-9)).all()


def test_a_finding_strong_pulses_far_apart_are_answered_strongly_and_weakly_in_turn():
    stage = history(1, initial_strength=2.0, parent="none").requires_grad_(False)
    sigma = stage.excitation.log_sigma.exp().item()
    for times_sigma, alternates in ((30.0, True), (2.0, False)):
        drive = torch.full((1, 960, 1), -8.0, dtype=torch.float64)
        drive[:, ::12] = np.log(np.expm1(times_sigma * sigma))  # one bin of every 400 ms, and nothing between
        pulses = rates_of(stage, drive)[0, ::12, 0][-10:]
        assert (pulses.max() > 2 * pulses.min()) == alternates


def test_at_the_longest_time_constant_a_twentieth_of_the_start_is_left_after_the_memory():
    stage = history(2, per_neuron_tau=True).requires_grad_(False)
    stage.memory.raw_tau.fill_(50.0)
    state = torch.full((1, 2), 3.0, dtype=torch.float64)
    for _ in range(stage.memory_bins):
        _, state = stage.step(torch.zeros(1, 2).double(), torch.zeros(1, 2).double(), state, Context())
    assert stage.memory_bins == 36
    assert (state.exp() < 0.05 * np.exp(3.0) + 1e-9).all()


def test_the_memory_keeps_its_least_share_at_every_exponent_and_in_coarse_bins():
    for bin_s in (1 / 120, 1 / 30, 0.5):
        stage = OwnHistory(**(facts(1) | {"bin_s": bin_s})).double().requires_grad_(False)
        for raw in (-50.0, 0.0, 50.0):
            stage.excitation.raw_exponent.fill_(raw)
            for tau in (-50.0, 50.0):
                stage.memory.raw_tau.fill_(tau)
                held = stage.prepare(Context())
                assert held.exponent / (held.exponent + 1) <= held.kept.item() < 1
    assert stage.memory_bins == 29  # .9^28 > .05 > .9^29


def test_a_drive_in_half_precision_is_divided_in_single_precision():
    stage, drive = history(initial_strength=2.0).float(), normal(1, 20, N, scale=3).bfloat16()
    out = rates_of(stage, drive, lambda x: x)
    assert out.dtype == torch.float32
    drive = drive.float()
    torch.testing.assert_close(out, rates_of(stage, drive, lambda x: x), rtol=0.02, atol=0.02)


def test_huge_drives_stay_finite_in_single_precision():
    stage = history().float()
    drive = (normal(1, 20, N).abs() * 1e6).float().requires_grad_()
    rates = rates_of(stage, drive)
    rates.sum().backward()
    assert rates.isfinite().all()
    assert drive.grad.isfinite().all()


def test_a_time_constant_that_starts_at_its_longest_is_refused():
    with pytest.raises(ValueError, match=r"tau_s is 0.4 and max_tau_s 0.4; start below the longest: raise max_tau_s"):
        history(tau_s=0.4)


def test_the_width_of_bins_is_needed():
    with pytest.raises(MissingFactError, match="normalization 'own_history' needs bin_s"):
        normalizations["own_history"].build({}, {"n_neurons": 1, "mean_responses": np.ones(1, np.float32)})
