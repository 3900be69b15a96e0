"""Cores from one population to another, and their null, against equations, counts and what is known to be found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import make_config

from neuroint.analysis.leak import LeakError
from neuroint.data.base import TIERS, Facts, Inputs, collate
from neuroint.data.observed import observe_others, observe_past
from neuroint.data.trials import trial_session
from neuroint.fit import certify_model, start
from neuroint.model import build_model, facts_of
from neuroint.registry import MissingFactError, cores

CPU = torch.device("cpu")
MODEL = {"readout": "linear", "link": "softplus", "arms": {"none": {}}}


def built(name, channels=3, **options):
    torch.manual_seed(0)
    return cores[name].build(options, {"observed_channels": channels, "shortest_clip": 12}).double()


def records(batch=2, frames=9, channels=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Inputs(observed=torch.rand(batch, frames, channels, generator=draw, dtype=torch.float64))


def session_of(neurons=10, trials=20, frames=24, seed=0):
    counts = np.random.default_rng(seed).poisson(0.4, (trials, frames, neurons)).astype(np.float32)
    tiers = tuple(np.resize(TIERS, trials).tolist())
    return trial_session("one", "a", counts, tiers, np.arange(trials), bin_s=0.01)


def model_of(session, core, **changes):
    config = make_config(core=core, **MODEL, **changes)
    torch.manual_seed(0)
    return build_model(config.specs, facts_of([session]), config.observed.lag_bins), config


# --- seq2seq


@pytest.mark.parametrize(
    ("cell", "directions", "parameters"),
    [
        ("lstm", 1, 29_304),
        ("lstm", 2, 57_504),
        ("gru", 1, 3 * 15 * (453 + 15) + 6 * 15 + 69 * 16),
        ("tanh", 1, 15 * (453 + 15) + 2 * 15 + 69 * 16),
        ("tanh", 2, 2 * (15 * (453 + 15) + 2 * 15) + 69 * 16),
    ],
)
def test_a_model_from_453_through_15_to_69_has_the_published_number_of_parameters(cell, directions, parameters):
    facts = Facts(69, None, np.full(69, 0.05, np.float32), 250, 0.01, observed_channels=453)
    core = {"name": "seq2seq", "latents": 15, "cell": cell, "directions": directions}
    config = make_config(core=core, **MODEL)
    offered = replace(facts, recorded=observe_others(session_of(), 0.5, 0).facts.recorded)
    model = build_model(config.specs, {"one": offered})
    assert sum(p.numel() for p in model.parameters()) == parameters


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(y, core, suffix=""):
    """The equations, with gates in the order input, forget, cell, output."""
    w, u, b, c = (
        getattr(core.recurrent, f"{name}_l0{suffix}").detach().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    hidden = held = np.zeros(u.shape[1])
    states = []
    for frame in y:
        i, f, g, o = np.split(w @ frame + b + u @ hidden + c, 4)
        held = sigmoid(f) * held + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(held)
        states.append(hidden)
    return np.array(states)


def test_latents_are_the_states_of_an_lstm_and_the_mean_of_both_directions():
    given = records()
    y = given.observed[1].numpy()
    one, two = (built("seq2seq", latents=4, directions=directions) for directions in (1, 2))
    forward = lstm(y, one)
    np.testing.assert_allclose(one(given)[1, :, :, 0, 0].detach(), forward, atol=1e-12)
    back = lstm(y[::-1], two, "_reverse")[::-1]
    np.testing.assert_allclose(two(given)[1, :, :, 0, 0].detach(), (lstm(y, two) + back) / 2, atol=1e-12)


def test_latents_are_the_states_of_a_tanh_network():
    given, core = records(), built("seq2seq", latents=4, cell="tanh")
    w, u, b, c = (p.detach().numpy() for p in core.recurrent.parameters())
    hidden, states = np.zeros(4), []
    for frame in given.observed[0].numpy():
        hidden = np.tanh(w @ frame + b + u @ hidden + c)
        states.append(hidden)
    np.testing.assert_allclose(core(given)[0, :, :, 0, 0].detach(), np.array(states), atol=1e-12)


@pytest.mark.parametrize("core", ["seq2seq", "reduced_rank"])
def test_rates_start_at_the_mean_of_the_predicted_neurons_and_not_of_those_that_are_read(core):
    counts = np.random.default_rng(0).poisson(np.linspace(0.1, 2, 10), (40, 24, 10)).astype(np.float32)
    whole = trial_session("one", "a", counts, tuple(TIERS) * 10, np.arange(40), areas=("A",) * 6 + ("B",) * 4)
    session = observe_others(whole, 0.5, 0, ["A"], ["B"])
    model, _ = model_of(session, {"name": core, "latents": 2})
    with torch.no_grad():
        model.readouts["one"].weights.zero_()
        batch = collate("one", [0], [session.source.read(0, 0, 24)])
        rates = model(batch.inputs, "one")[0, 0].numpy()
    training = counts[whole.clips("train")]
    np.testing.assert_allclose(rates, training[:, :, 6:].mean((0, 1)), rtol=1e-5)


CAUSAL = {
    "forward": ({"name": "seq2seq"}, True),
    "both": ({"name": "seq2seq", "directions": 2}, False),
    "past": ({"name": "reduced_rank", "before": 3}, True),
    "around": ({"name": "reduced_rank", "before": 1, "after": 2}, False),
    "gru": ({"name": "seq2seq", "cell": "gru"}, True),
}


@pytest.mark.parametrize("case", CAUSAL)
def test_the_certificate_passes_for_records_of_others_and_tells_who_reads_the_future(case):
    core, causal = CAUSAL[case]
    session = observe_others(session_of(), 0.5, 0)
    model, _ = model_of(session, core)
    found = certify_model(model, session, CPU, torch.float32)
    assert (found.information, found.causal, found.passed) == ("recorded_others", causal, True)


@pytest.mark.parametrize("case", CAUSAL)
def test_the_certificate_refuses_the_future_of_the_predicted_neurons_themselves(case):
    core, causal = CAUSAL[case]
    session = observe_past(session_of(), 0.01)
    model, _ = model_of(session, core)
    if causal:
        assert certify_model(model, session, CPU, torch.float32).passed
        return
    with pytest.raises(LeakError, match=r"claims recorded_past, causal=False, but .* records it may not read by"):
        certify_model(model, session, CPU, torch.float32)


# --- reduced_rank


def test_latents_are_a_weighted_sum_over_the_bins_around_and_zeros_stand_beyond_the_ends():
    core, given = built("reduced_rank", latents=2, before=2, after=1), records()
    y, p = given.observed.numpy(), core.weights.detach().numpy()
    expected = np.zeros((2, 9, 2))
    for t in range(9):
        for lag in range(-1, 3):
            if 0 <= t - lag < 9:  # the weights run from the oldest bin to the newest
                expected[:, t] += y[:, t - lag] @ p[:, :, 2 - lag].T
    np.testing.assert_allclose(core(given)[..., 0, 0].detach(), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["seq2seq", "reduced_rank"])
def test_a_core_that_reads_records_is_refused_without_any(name):
    with pytest.raises(MissingFactError, match=f"'{name}' reads recorded activity, and the data offers 0 channels"):
        built(name, channels=0)
    with pytest.raises(ValueError, match=f"core '{name}' reads recorded activity, and the inputs hold none"):
        built(name)(Inputs(behavior=torch.zeros(1, 4, 2)))


# --- time_course


def test_every_stretch_of_bins_has_a_feature_of_its_own():
    features = built("time_course", hold=5)(records(frames=12))
    assert features.shape == (2, 12, 3, 1, 1)
    assert features[0, :, :, 0, 0].argmax(1).tolist() == [0] * 5 + [1] * 5 + [2] * 2
    assert (features.sum(2) == 1).all()


def test_the_best_time_course_is_the_mean_over_training_trials_in_every_bin():
    session = observe_others(session_of(neurons=6, trials=40, frames=6), 0.5, 0)
    model, _ = model_of(session, "time_course", train={"frames": 6})
    clips = session.clips("train")
    batch = collate("one", clips.tolist(), [session.source.read(int(clip), 0, 6) for clip in clips])
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=300, tolerance_change=1e-12)

    def loss():
        optimizer.zero_grad()
        rate = model(batch.inputs, "one")
        value = (rate - batch.responses * rate.log()).sum()
        value.backward()
        return value

    optimizer.step(loss)
    rates = model(batch.inputs, "one")[0].detach()
    torch.testing.assert_close(rates, batch.responses.mean(0), rtol=0.01, atol=0.005)


def test_longer_clips_than_it_knows_are_refused():
    with pytest.raises(ValueError, match="has rates for 12 frames, got clips of 13; it needs trials of one length"):
        built("time_course")(records(frames=13))


def test_sessions_whose_clips_differ_have_no_common_time_course():
    facts = {str(frames): replace(observe_others(session_of(frames=frames), 0.5, 0).facts) for frames in (20, 24)}
    with pytest.raises(MissingFactError, match="core 'time_course' needs shortest_clip"):
        build_model(make_config(core="time_course", **MODEL).specs, facts)


@pytest.mark.parametrize(
    ("core", "train", "match"),
    [
        (
            "time_course",
            {"frames": 20},
            "value for each of the 24 frames of a clip, and train.frames=20 would .*frames: 24",
        ),
        (
            "time_course",
            {"frames": 24, "evaluation_frames": 8},
            "train.evaluation_frames=8 would cut them; leave it out",
        ),
        ("seq2seq", {"evaluation_frames": 8}, "core 'seq2seq' reads clips from their beginning, and"),
        ("reduced_rank", {"evaluation_frames": 8}, "core 'reduced_rank' reads clips from their beginning, and"),
    ],
)
def test_clips_are_not_cut_for_cores_that_need_them_whole(core, train, match):
    session = observe_others(session_of(), 0.5, 0)
    model, config = model_of(session, core, train=train)
    with pytest.raises(ValueError, match=match):
        start(model, config)


def test_crops_for_training_may_be_shorter_than_clips_where_only_memory_is_lost():
    session = observe_others(session_of(), 0.5, 0)
    for core in ("seq2seq", "reduced_rank"):
        start(*model_of(session, core, train={"frames": 10}))
