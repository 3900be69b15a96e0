"""The leak certificate passes honest models and refuses every planted leak, quickly, and is kept with the run."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from worlds import make_config, make_session

from neuroint.analysis.leak import Claim, LeakError, certify
from neuroint.data.base import Inputs, Recorded
from neuroint.data.observed import observe_others, observe_past
from neuroint.fit import certify_model, claim_of
from neuroint.model import build_model, facts_of
from neuroint.registry import interactions, normalizations
from neuroint.runtime import LocalRuntime
from neuroint.train import train_trial

NEURONS, FRAMES, LAG = 6, 20, 3
PAST = Recorded("recorded_past", lag_bins=LAG, shortest_lag=1)
OTHERS = Recorded("recorded_others", lag_bins=0, shortest_lag=0)
EVERYONE = torch.arange(NEURONS)


def given(neurons=NEURONS, frames=FRAMES):
    draw = torch.Generator().manual_seed(1)
    behavior = torch.randn(2, frames, neurons, generator=draw)
    return Inputs(behavior=behavior, observed=torch.rand(2, frames, neurons, generator=draw))


def delayed(x, bins):
    return nn.functional.pad(x, (0, 0, bins, 0))[:, : x.shape[1]]


def without_self(neurons=NEURONS):
    """Attention whose diagonal is masked."""
    scores = torch.randn(neurons, neurons, generator=torch.Generator().manual_seed(2))
    return scores.masked_fill(torch.eye(neurons, dtype=torch.bool), -torch.inf).softmax(-1)


def refused(predict, claim, match):
    with pytest.raises(LeakError, match=match):
        certify(predict, given(), claim)


# --- honest models


def test_a_model_of_the_stimulus_passes():
    found = certify(lambda x: x.behavior + delayed(x.behavior, 1), given(), Claim("stimulus", causal=True))
    assert found.passed
    assert (found.information, found.causal, found.own_record, found.lag_bins) == ("stimulus", True, False, None)
    assert (found.neurons, found.frames) == (NEURONS, FRAMES)


def test_a_model_of_the_recorded_past_passes_and_says_that_it_reads_own_records():
    claim = Claim("recorded_past", causal=True, recorded=PAST, own_channels=EVERYONE)
    found = certify(lambda x: x.behavior + delayed(x.observed, LAG) @ without_self().T, given(), claim)
    assert found.passed
    assert (found.own_record, found.lag_bins) == (True, LAG)


def test_a_model_of_other_neurons_passes_with_their_present():
    claim = Claim("recorded_others", causal=True, recorded=OTHERS, own_channels=torch.full((NEURONS,), -1))
    found = certify(lambda x: x.behavior + x.observed @ without_self().T, given(), claim)
    assert found.passed
    assert not found.own_record


def test_one_layer_with_a_masked_diagonal_passes_where_targets_are_among_the_records():
    claim = Claim("recorded_others", causal=True, recorded=OTHERS, own_channels=EVERYONE)
    assert certify(lambda x: x.behavior + x.observed @ without_self().T, given(), claim).passed


def test_a_model_that_says_it_is_not_causal_may_read_the_future():
    assert certify(lambda x: x.behavior.flip(1), given(), Claim("stimulus", causal=False)).passed


def test_the_certificate_looks_at_64_neurons_at_most():
    assert certify(lambda x: x.behavior, given(80), Claim("stimulus", causal=True)).neurons == 64


# --- planted leaks


def test_a_module_that_reads_the_future_is_refused():
    refused(lambda x: x.behavior.roll(-1, 1), Claim("stimulus", causal=True), "inputs after t change the prediction")


def test_statistics_over_time_are_refused():
    def z_scored(x):
        return (x.behavior - x.behavior.mean(1, keepdim=True)) / x.behavior.std(1, keepdim=True)

    refused(z_scored, Claim("stimulus", causal=True), "inputs after t change the prediction")


def test_a_leak_whose_sum_over_frames_is_zero_has_a_jacobian():
    weights = torch.tensor([1.0, -1.0]).repeat(FRAMES // 2)[:, None]

    def cancels(x):
        return weights * (x.behavior + x.behavior[:, -1:])

    with pytest.raises(LeakError) as caught:
        certify(cancels, given(), Claim("stimulus", causal=True))
    assert "(Jacobian 0)" not in str(caught.value)


def test_own_records_through_two_layers_with_masked_diagonals_are_refused():
    """One layer hides i from itself; i -> j -> i does not."""
    claim = Claim("recorded_others", causal=True, recorded=OTHERS, own_channels=EVERYONE)
    attention = without_self()
    refused(lambda x: x.behavior + x.observed @ attention.T @ attention.T, claim, r"a neuron's own record by (?!0,)")


def test_reading_records_while_claiming_the_stimulus_is_refused():
    refused(lambda x: x.behavior + delayed(x.observed, 9), Claim("stimulus", causal=True), "records it may not read by")


def test_reading_records_while_claiming_own_predictions_is_refused():
    claim = Claim("own_predictions", causal=True)
    refused(lambda x: x.behavior + delayed(x.observed, 9), claim, "it claims own_predictions.*records it may not read")


@pytest.mark.parametrize("offer", [PAST, replace(OTHERS, lag_bins=LAG)])
def test_reading_inside_the_lag_is_refused(offer):
    claim = Claim(offer.information, causal=True, recorded=offer, own_channels=torch.full((NEURONS,), -1))
    refused(lambda x: x.behavior + delayed(x.observed, LAG - 1), claim, r"records it may not read by (?!0,)")


def test_the_present_is_inside_every_lag_of_the_recorded_past_for_models_that_are_not_causal_too():
    claim = Claim("recorded_past", causal=False, recorded=PAST, own_channels=EVERYONE)
    refused(lambda x: x.behavior + x.observed, claim, r"records it may not read by (?!0,)")


def test_clips_that_mix_are_refused():
    refused(lambda x: x.behavior - x.behavior.mean(0, keepdim=True), Claim("stimulus", causal=True), "other clips")


def test_the_message_says_what_was_expected_and_what_to_do():
    match = "expected 0. Correct what the component reads, or what it declares in `reads`"
    refused(lambda x: x.behavior.roll(-1, 1), Claim("stimulus", causal=True), match)


# --- built models


def config_of(interaction, normalization="none", **changes):
    core = {"core": {"name": "constant"}, "readout": {"name": "linear"}, "normalization": normalization}
    return make_config(**core, interaction=interaction, arms={"none": {}}, **changes)


def built(session, interaction="none", normalization="none"):
    config = config_of(interaction, normalization)
    return build_model(config.specs, facts_of([session]), config.observed.lag_bins)


def certified(model, session):
    return certify_model(model, session, torch.device("cpu"), torch.float32)


NAMES = [("interaction", name) for name in interactions.names()] + [
    ("normalization", name)
    for name in normalizations.names()
    if not getattr(normalizations[name].factory, "on_features", False)
]


@pytest.mark.parametrize(("slot", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_stage_is_certified_at_64_neurons(slot, name):
    session = observe_past(make_session(neurons=64), 0.1)
    found = certified(built(session, **{slot: name}), session)
    assert found.passed
    assert found.neurons == 64


class HiddenLeak(nn.Module):
    """Looks one frame ahead behind a gate that starts at zero."""

    reads = interactions["none"].factory.reads

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, drive, context):
        return drive + self.gate * drive.roll(-1, 1)


def test_a_leak_behind_a_gate_that_starts_at_zero_is_refused_and_the_model_is_left_alone():
    session = make_session()
    config = make_config()
    model = build_model(config.specs, facts_of([session]))
    gate = HiddenLeak()
    model.interaction["one"] = gate
    with pytest.raises(LeakError, match="inputs after t change the prediction"):
        certified(model, session)
    assert gate.gate == 0


class ReadsRecords(nn.Module):
    """Adds recorded activity to the drive, and says nothing of it."""

    reads = interactions["none"].factory.reads

    def forward(self, drive, context):
        return drive + context.observed


def test_a_stage_that_reads_records_and_does_not_say_so_is_refused():
    session = observe_past(make_session(), 0.1)
    model = built(session)
    model.interaction["one"] = ReadsRecords()
    assert model.information == "stimulus"
    with pytest.raises(LeakError, match=r"it claims stimulus.*records it may not read by (?!0,)"):
        certified(model, session)


def test_a_core_that_reads_records_and_does_not_say_so_is_refused():
    session = observe_past(make_session(), 0.1)
    model = built(session)

    class Core(nn.Module):
        reads = model.core.reads
        feature_shape, lost_frames = (1, 1, 1), 0

        def forward(self, inputs):
            return inputs.observed.mean(-1)[..., None, None, None]

    model.core = Core()
    with pytest.raises(LeakError, match=r"records it may not read by (?!0,)"):
        certified(model, session)


def test_a_claim_names_each_neurons_own_channel_and_none_for_held_in_neurons():
    session = observe_past(make_session(), 0.1)
    claim = claim_of(built(session), session.facts)
    assert claim.recorded is None, "a model that reads no records may read none"
    assert claim.own_channels.tolist() == list(range(6))
    held = observe_others(make_session(), 0.5, 0)
    assert claim_of(built(held), held.facts).own_channels.tolist() == [-1, -1, -1]


def test_the_certificate_is_kept_with_the_run(tmp_path):
    session = observe_past(make_session(), 0.1)
    config = config_of({"name": "full_coupling", "fed": "recorded"}, link="softplus", observed={"lag_bins": 4})
    kept = []

    def on_report(metrics, folder):
        kept.append(json.loads((folder / "leak_certificate.json").read_text()))

    train_trial(replace(config, train=replace(config.train, epochs=1)), [session], LocalRuntime(on_report=on_report))
    (found,) = kept
    assert found["passed"]
    assert (found["information"], found["own_record"], found["lag_bins"]) == ("recorded_past", True, 4)
    zeros = ("future_difference", "future_jacobian", "recorded_difference", "own_difference", "clip_mixing")
    assert [found[name] for name in zeros] == [0.0] * 5
