"""The recurrent network of ring attractors: its equation, its fused pass, what it reads, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from neuroint.config.settings import Spec
from neuroint.data.base import TRAIN, Inputs, collate
from neuroint.data.observed import observe_past
from neuroint.data.trials import trial_session
from neuroint.fit import certify_model
from neuroint.model import build_model, facts_of, predict_in_chunks
from neuroint.modules.core.input_separated_rnn import InputSeparatedRnn
from neuroint.modules.rectified_scan import rectified_scan

OBSERVED, BATCH, FRAMES = 4, 3, 12


def given(channels=OBSERVED, dtype=torch.float64, frames=FRAMES):
    draw = torch.Generator().manual_seed(3)
    behavior = torch.randn(BATCH, frames, 2, generator=draw, dtype=dtype)
    return Inputs(behavior=behavior, observed=torch.rand(BATCH, frames, channels, generator=draw, dtype=dtype))


def core_of(**choices):
    torch.manual_seed(0)
    core = InputSeparatedRnn(observed_channels=OBSERVED, behavior_channels=2, **{"hidden": 5, "driven": 3} | choices)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return core.double()


def plainly(core, inputs):
    """The equation, unit by unit as it is written down, in autograd's own operations."""
    units, w = core.units, core.connectivity()
    u = functional.pad(inputs.observed[:, 1], (0, units - OBSERVED))
    rates = [torch.zeros(BATCH, units, dtype=u.dtype)]
    for t in range(1, inputs.n_frames):
        d = functional.pad(core.input(inputs.behavior[:, t]), (units - core.driven, 0))
        r = torch.relu(torch.tanh(u @ w + core.bias + d))
        u = (1 - core.alpha) * u + core.alpha * r
        rates.append(r)
    return torch.stack(rates, dim=1)


CHOICES = [{}, {"driven": None, "separated": False}, {"rank": 2}, {"alpha": 1.0}, {"hidden": 0, "separated": False}]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_rates_and_gradients_equal_those_of_the_plain_equation(choices):
    core, inputs = core_of(**choices), given()
    probe = torch.randn(BATCH, FRAMES, OBSERVED, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = {}
    runs = {"fused": core(inputs)[..., 0, 0], "all": core.activity(inputs), "plain": plainly(core, inputs)}
    for name, rates in runs.items():
        core.zero_grad()
        (rates[..., :OBSERVED] * probe).sum().backward()
        found[name] = [rates[..., :OBSERVED].detach(), *(p.grad.clone() for p in core.parameters())]
    assert any(float(grad.abs().max()) > 0.1 for grad in found["plain"][1:])
    torch.testing.assert_close(runs["all"], runs["plain"], rtol=1e-10, atol=1e-12)
    for name in ("fused", "all"):
        for fused, plain in zip(found[name], found["plain"], strict=True):
            torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-12)


def test_in_single_precision_gradients_agree_to_a_millionth():
    torch.manual_seed(0)
    core = InputSeparatedRnn(observed_channels=40, behavior_channels=2, hidden=40)
    inputs = given(channels=40, dtype=torch.float32, frames=50)
    gradients = []
    for run in (lambda: core.activity(inputs), lambda: plain_single(core, inputs)):
        core.zero_grad()
        run()[:, 1:, :40].sub(inputs.observed[:, 1:]).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in core.parameters()]))
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-6


def plain_single(core, inputs):
    u = functional.pad(inputs.observed[:, 1], (0, 40))
    rates = [torch.zeros_like(u)]
    for t in range(1, inputs.n_frames):
        d = functional.pad(core.input(inputs.behavior[:, t]), (40, 0))
        rates.append(torch.relu(torch.tanh(u @ core.connectivity() + core.bias + d)))
        u = torch.lerp(u, rates[-1], core.alpha)
    return torch.stack(rates, dim=1)


def test_gradients_of_the_scan_equal_finite_differences():
    draw = torch.Generator().manual_seed(5)
    shapes = ((2, 6, 2), (2, 5), (5, 5), (5,))
    tensors = [torch.randn(*s, generator=draw, dtype=torch.float64).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(lambda *x: rectified_scan(*x, 0.3, 3)[:2], tensors)


def test_only_the_first_known_record_is_read():
    core, inputs = core_of(), given()
    other = inputs.observed.clone()
    other[:, 0], other[:, 2:] = 7.0, 9.0  # the model shifts records, so that bin 1 holds what was recorded at 0
    assert torch.equal(core(inputs), core(replace(inputs, observed=other)))
    other[:, 1] += 1
    assert not torch.allclose(core(inputs), core(replace(inputs, observed=other)))


def test_the_input_does_not_reach_observed_units_in_its_own_frame():
    core, inputs = core_of(), given()
    moved = inputs.behavior.clone()
    moved[:, 3] += 1
    before, after = (core.activity(x) for x in (inputs, replace(inputs, behavior=moved)))
    undriven = core.units - core.driven
    assert torch.equal(before[:, 3, :undriven], after[:, 3, :undriven])
    assert not torch.allclose(before[:, 3, undriven:], after[:, 3, undriven:])


@pytest.mark.parametrize("lag", [1, 4])
def test_frames_before_the_first_known_record_are_zero(lag):
    rates = core_of(observed_lag_bins=lag)(given())
    assert torch.equal(rates[:, :lag], torch.zeros_like(rates[:, :lag]))
    assert (rates[:, lag:] != 0).any()


@pytest.mark.parametrize("choices", [{"hidden": 0}, {"driven": 6}])
def test_an_observed_unit_is_not_driven_unless_it_is_allowed(choices):
    with pytest.raises(ValueError, match=r"expected 1 to the \d hidden units \(driven and observed units are sep"):
        InputSeparatedRnn(observed_channels=OBSERVED, behavior_channels=2, **{"hidden": 5} | choices)


def test_more_driven_units_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"10 driven units, expected 1 to the 9 units"):
        InputSeparatedRnn(observed_channels=OBSERVED, behavior_channels=2, hidden=5, driven=10, separated=False)


def test_a_recording_without_behavior_is_refused():
    with pytest.raises(ValueError, match="4 recorded and 0 behavior channels; it needs both"):
        InputSeparatedRnn(observed_channels=OBSERVED, behavior_channels=0)


@pytest.mark.parametrize("missing", ["behavior", "observed"])
def test_inputs_without_what_it_reads_are_refused(missing):
    with pytest.raises(ValueError, match=r"the inputs have no (behavior|recorded activity)"):
        core_of()(replace(given(), **{missing: None}))


def test_weights_are_penalized_by_their_mean():
    core = core_of(weight_l1=2.0, weight_l2=3.0)
    w = core.connectivity()
    torch.testing.assert_close(core.penalty(), 2 * w.abs().mean() + 3 * w.square().mean())


def test_rates_are_penalized_by_their_mean_once_and_in_training_only():
    core = core_of(rate_l1=2.0, rate_l2=3.0)
    rates = core.activity(given())[:, 1:]  # the frame before the first known record is no activity
    core.train()(given())
    torch.testing.assert_close(core.activity_penalty(), 2 * rates.mean() + 3 * rates.square().mean())
    assert core.activity_penalty() == 0
    core.eval()(given())
    assert core.activity_penalty() == 0


def test_factors_of_low_rank_start_with_the_variance_of_full_weights():
    torch.manual_seed(0)
    full, low = (
        InputSeparatedRnn(observed_channels=100, behavior_channels=1, hidden=100, rank=rank).connectivity().detach()
        for rank in (None, 20)
    )
    assert torch.linalg.matrix_rank(low) == 20
    assert float(full.var() * 200) == pytest.approx(1, rel=0.05)
    assert float(low.var() * 200) == pytest.approx(1, rel=0.15)


def session_of(frames=30):
    draw = np.random.default_rng(0)
    rates, velocity = draw.uniform(size=(6, frames, OBSERVED)), draw.normal(size=(6, frames, 2))
    tiers = ("train",) * 3 + ("validation", "dev_test", "final_test")
    made = trial_session("one", "one", rates, tiers, np.arange(6), bin_s=0.025, behavior=velocity)
    return observe_past(replace(made, scored_from=1), lag_s=0.025)


def model_of(session, core=None):
    chosen = {"core": "input_separated_rnn", "readout": "observed_units", "link": "identity"}
    chosen |= {"normalization": "none", "interaction": "none"}
    specs = {slot: Spec(name) for slot, name in chosen.items()}
    specs["core"] = Spec("input_separated_rnn", core or {"hidden": 5})
    return build_model(specs, facts_of([session])).double().eval()


@pytest.mark.parametrize("frames", [1, 7, 29])
def test_a_model_is_certified_and_the_same_in_chunks(frames):
    session = session_of()
    model = model_of(session)
    certificate = certify_model(model, session, torch.device("cpu"), torch.float64)
    assert (certificate.information, certificate.causal, certificate.passed) == ("recorded_past", True, True)
    clips = session.clips(TRAIN).tolist()
    batch = collate("one", clips, [session.source.read(c, 0, 30) for c in clips]).to("cpu", torch.float64)
    whole = model(batch.inputs, "one")
    torch.testing.assert_close(predict_in_chunks(model, batch.inputs, "one", frames), whole, rtol=0, atol=1e-12)


def test_the_loss_leaves_out_the_frame_that_a_rollout_starts_from():
    assert model_of(session_of()).burn_in("one") == 1


def test_observed_units_refuses_features_that_are_not_the_neurons():
    session = session_of()
    specs = {slot: Spec("none") for slot in ("normalization", "interaction")}
    specs |= {"core": Spec("constant"), "readout": Spec("observed_units"), "link": Spec("identity")}
    with pytest.raises(ValueError, match=r"features of shape \(1, 1, 1\) for 4 neurons, expected \(4, 1, 1\)"):
        build_model(specs, facts_of([session]))
