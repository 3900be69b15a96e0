"""Recorded activity on offer: who is observed, how long ago, and that nobody reads what it predicts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from worlds import make_config, make_session

from neuroint.config import ConfigError, TrialConfig, dump
from neuroint.config.settings import DataConfig
from neuroint.data.base import TRAIN, DataError, Recorded, collate
from neuroint.data.loader import training_batches
from neuroint.data.observed import observe_others, observe_past
from neuroint.evaluation import evaluate
from neuroint.model import PopulationModel, build_model, facts_of, predict_in_chunks
from neuroint.modules.base import Reads
from neuroint.recordings import open_data
from neuroint.registry import MissingFactError

CORE = {"core": {"name": "constant"}, "readout": {"name": "linear"}, "arms": {"none": {}}}


def with_bin(session, bin_s):
    return replace(session, facts=replace(session.facts, bin_s=bin_s))


def clip_of(session, clip=0, frames=12):
    return session.source.read(clip, 3, frames)


# --- the past


@pytest.mark.parametrize(
    ("bin_s", "lag_s", "bins"),
    [
        (1 / 30, None, 18),  # 600 ms
        (0.6, None, 1),
        (0.601, None, 1),
        (0.59, None, 2),  # rounded up
        (0.01, 0.01, 1),
        (0.05, 0.12, 3),
        (2.0, None, 1),
        (None, None, 1),
    ],
)
def test_the_lag_is_600_ms_or_what_was_asked_for_rounded_up_to_bins(bin_s, lag_s, bins):
    offer = observe_past(with_bin(make_session(), bin_s), lag_s).facts.recorded
    assert offer == Recorded("recorded_past", lag_bins=bins, shortest_lag=1)


@pytest.mark.parametrize(("bin_s", "lag_s"), [(None, 0.5), (0.1, 0.0), (0.1, -1.0)])
def test_a_lag_without_a_bin_width_or_that_is_not_positive_is_refused(bin_s, lag_s):
    with pytest.raises(DataError, match=rf"data.lag_s is {lag_s} and bin_s .* is {bin_s}; give a positive lag and say"):
        observe_past(with_bin(make_session(), bin_s), lag_s)


def test_everybody_is_predicted_and_observed_and_nothing_else_of_a_clip_changes():
    plain = make_session()
    session = observe_past(plain)
    before, after = clip_of(plain), clip_of(session)
    np.testing.assert_array_equal(after.observed, before.responses)
    np.testing.assert_array_equal(after.responses, before.responses)
    np.testing.assert_array_equal(after.stimulus, before.stimulus)
    assert session.facts.observed_channels == 6
    assert session.facts.observed_neurons.tolist() == [0, 1, 2, 3, 4, 5]
    assert session.tiers == plain.tiers


class Unknown:
    """A source whose second neuron was not recorded."""

    def __init__(self, source):
        self.source = source

    def read(self, clip, start, frames):
        found = self.source.read(clip, start, frames)
        responses = found.responses.copy()
        responses[:, 1] = np.nan
        return replace(found, responses=responses)


def test_what_was_not_recorded_counts_as_zero_where_it_is_read_and_as_not_valid_where_it_is_scored():
    plain = make_session()
    session = observe_past(replace(plain, source=Unknown(plain.source)))
    batch = collate("one", [0], [clip_of(session)])
    assert (batch.inputs.observed[..., 1] == 0).all()
    assert not batch.valid[..., 1].any()
    assert batch.valid[..., 0].all()


# --- the others


def test_held_in_neurons_are_read_and_the_others_are_predicted():
    plain = make_session(neurons=7)
    session = observe_others(plain, 0.4, seed=1)
    facts, before, after = session.facts, clip_of(plain), clip_of(session)
    assert (facts.n_neurons, facts.observed_channels) == (4, 3)
    assert facts.recorded == Recorded("recorded_others", lag_bins=0, shortest_lag=0)
    assert facts.observed_neurons.tolist() == [-1, -1, -1], "no channel is a predicted neuron"
    columns = {tuple(column) for column in before.responses.T}
    assert {tuple(c) for c in after.observed.T} | {tuple(c) for c in after.responses.T} == columns
    targets = session.source.targets
    np.testing.assert_array_equal(facts.positions_um, plain.facts.positions_um[targets])
    matched = replace(plain, facts=replace(plain.facts, match_ids=np.arange(10, 17)))
    np.testing.assert_array_equal(observe_others(matched, 0.4, seed=1).facts.match_ids, targets + 10)
    np.testing.assert_array_equal(facts.mean_responses, plain.facts.mean_responses[targets])
    assert not set(targets) & set(session.source.channels)


def test_who_is_held_in_follows_from_seed_and_name_alone():
    def held(name, seed):
        return observe_others(make_session(name, neurons=20), 0.5, seed).source.channels.tolist()

    assert held("one", 1) == held("one", 1)
    assert held("one", 1) != held("one", 2)
    assert held("one", 1) != held("two", 1)


@pytest.mark.parametrize(("neurons", "share", "held"), [(6, 0.1, 1), (6, 0.9, 5), (3, 0.5, 2)])
def test_fewer_than_two_neurons_on_either_side_are_refused(neurons, share, held):
    match = rf"has {neurons} neurons; data.held_in={share} holds {held} in and leaves {neurons - held} .*at least 2 of"
    with pytest.raises(DataError, match=match):
        observe_others(make_session(neurons=neurons), share, 0)


# --- the model


class Echo(nn.Module):
    """Adds what was recorded of each neuron, lag and all, and what it was given before."""

    reads = Reads(information="recorded_past")
    memory_bins = 2

    def forward(self, drive, context):
        frames, padded = drive.shape[1], nn.functional.pad(context.observed, (0, 0, self.memory_bins, 0))
        end = padded.shape[1]
        return drive + sum(padded[:, end - frames - back : end - back] * 10.0**-back for back in range(3))


def echo(session, lag_bins=None):
    config = make_config(**CORE, link="identity", observed={"lag_bins": lag_bins})
    model = build_model(config.specs, facts_of([session]), config.observed.lag_bins)
    model.interaction["one"] = Echo()
    return model.eval()


def batch_of(session, frames=24):
    return collate("one", [0, 1], [session.source.read(clip, 0, frames) for clip in (0, 1)])


def test_at_every_bin_a_model_reads_what_was_recorded_a_lag_before():
    session = observe_past(make_session())
    model, batch = echo(session, 3), batch_of(session)
    records = batch.responses
    bias = model.readouts["one"].bias
    silent = model.readouts["one"](torch.ones(2, 24, 1, 1, 1))
    assert bias.shape == (6,)
    rates = model(batch.inputs, "one") - silent
    expected = sum(nn.functional.pad(records, (0, 0, 3 + back, 0))[:, :24] * 10.0**-back for back in range(3))
    torch.testing.assert_close(rates, expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_known_before_the_first_lag():
    session = observe_past(make_session())
    observed = echo(session, 5).lagged(batch_of(session).inputs).observed
    assert (observed[:, :5] == 0).all()
    torch.testing.assert_close(observed[:, 5:], batch_of(session).responses[:, :-5])


def test_clips_shorter_than_the_lag_hold_nothing():
    session = observe_past(make_session())
    inputs = echo(session, 9).lagged(batch_of(session, 4).inputs)
    assert inputs.observed.shape == (2, 4, 6)
    assert (inputs.observed == 0).all()


def test_inputs_are_not_changed_by_lagging():
    session = observe_past(make_session())
    inputs = batch_of(session).inputs
    before = inputs.observed.clone()
    echo(session, 2)(inputs, "one")
    assert torch.equal(inputs.observed, before)


def test_a_model_without_an_offer_is_not_handed_records():
    plain = make_session()
    inputs = replace(batch_of(plain).inputs, observed=torch.rand(2, 24, 6))
    assert echo(plain).lagged(inputs).observed is None


@pytest.mark.parametrize("frames", [1, 5, 7, 23])
def test_chunks_equal_the_whole_with_recorded_activity(frames):
    session = observe_past(make_session())
    model, batch = echo(session, 4), batch_of(session)
    with torch.no_grad():
        torch.testing.assert_close(predict_in_chunks(model, batch.inputs, "one", frames), model(batch.inputs, "one"))


@pytest.mark.parametrize("frames", [3, 8])
def test_chunks_equal_the_whole_behind_a_core_that_consumes_frames(frames):
    session = observe_past(make_session())
    config = make_config(interaction={"name": "coupled_glm", "history_bins": 4, "coupling_bins": 5}, arms={"none": {}})
    torch.manual_seed(0)
    model = build_model(config.specs, facts_of([session]), 2).double().eval()
    with torch.no_grad():
        for parameter in model.interaction.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype)
    inputs = batch_of(session, 30).to("cpu", torch.float64).inputs
    assert model.lost_frames > 0
    with torch.no_grad():
        chunks, whole = predict_in_chunks(model, inputs, "one", frames), model(inputs, "one")
    torch.testing.assert_close(chunks, whole, rtol=0, atol=1e-12)


def test_a_stage_fed_with_records_gets_those_and_one_fed_with_predictions_does_not():
    session = observe_past(make_session())
    rates = {}
    for fed in ("recorded", "predictions"):
        stage = {"name": "full_coupling", "fed": fed}
        config = make_config(**CORE, interaction=stage, link="identity")
        torch.manual_seed(0)
        model = build_model(config.specs, facts_of([session]), 1).eval()
        with torch.no_grad():
            model.interaction["one"].raw_coupling.copy_(torch.rand(6, 6) / 10)
        batch = batch_of(session)
        other = replace(batch.inputs, observed=batch.inputs.observed + 1)
        with torch.no_grad():
            rates[fed] = bool((model(batch.inputs, "one") != model(other, "one")).any())
        assert model.information == {"recorded": "recorded_past", "predictions": "own_predictions"}[fed]
    assert rates == {"recorded": True, "predictions": False}


def test_burn_in_is_the_stages_memory_and_the_lag_where_records_are_read():
    session = observe_past(make_session())
    assert echo(session, 4).burn_in("one") == 4 + 2
    config = make_config(**CORE, interaction="linear_autoregressive")
    deaf = build_model(config.specs, facts_of([session]), 4)
    assert deaf.burn_in("one") == deaf.interaction["one"].memory_bins, "a model that reads no records has no lag"


def test_the_information_class_is_what_the_data_offers():
    past, others = observe_past(make_session()), observe_others(make_session(), 0.5, 0)
    assert echo(past).information == "recorded_past"
    assert echo(others).information == "recorded_others"
    assert not PopulationModel.reads_recorded.fget(build_model(make_config(**CORE).specs, facts_of([past])))


# --- refusals


def test_a_lag_inside_which_a_neuron_would_read_its_present_is_refused():
    with pytest.raises(ValueError, match=r"observed.lag_bins is 0, but .*recorded_past may look back no less than 1"):
        echo(observe_past(make_session()), 0)


def test_others_may_be_read_at_the_same_bin_and_with_a_lag():
    session = observe_others(make_session(), 0.5, 0)
    assert echo(session, 0).recorded.lag_bins == 0
    assert echo(session, 2).recorded.lag_bins == 2


def test_a_design_that_reads_records_is_refused_where_none_are_offered():
    config = make_config(**CORE, interaction={"name": "full_coupling", "fed": "recorded"})
    with pytest.raises(MissingFactError, match=r"reads recorded activity, which the data does not offer; set"):
        build_model(config.specs, facts_of([make_session()]))


def test_a_design_fed_with_its_own_neurons_records_is_refused_where_others_are_offered():
    config = make_config(**CORE, interaction={"name": "full_coupling", "fed": "recorded"})
    with pytest.raises(ValueError, match=r"session 'one': a stage fed with .* the very neurons it predicts"):
        build_model(config.specs, facts_of([observe_others(make_session(), 0.5, 0)]))


def test_sessions_that_offer_different_things_are_refused():
    sessions = [observe_past(make_session("one")), make_session("two")]
    with pytest.raises(ValueError, match=r"sessions offer different recorded activity.*set data.observed for all"):
        build_model(make_config(**CORE).specs, facts_of(sessions))


def test_sessions_of_unequal_populations_share_a_core_that_does_not_count_them():
    sessions = [observe_past(make_session("one")), observe_past(make_session("two", neurons=3))]
    assert len({session.facts.observed_channels for session in sessions}) == 2
    assert build_model(make_config(**CORE).specs, facts_of(sessions)).lost_frames == 0


# --- configurations


def test_the_lag_can_be_searched_per_arm_and_reaches_the_trial():
    config = make_config("late", arms={"none": {}, "late": {"observed": {"lag_bins": 6}}})
    assert config.observed.lag_bins == 6
    assert make_config().observed.lag_bins is None
    assert config.flat()["observed.lag_bins"] == 6


def test_a_trial_written_before_there_was_recorded_activity_is_read():
    found = make_config().to_dict()
    del found["observed"]
    for key in ("observed", "lag_s", "held_in", "held_in_seed"):
        del found["data"][key]
    assert TrialConfig.from_dict(found) == make_config()


def test_a_dump_holds_what_is_observed():
    config = make_config(data={"path": "x", "observed": "others", "held_in": 0.25})
    assert "observed: others" in dump(config)
    assert TrialConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"observed": "future"}, "data.observed: got 'future'"),
        ({"held_in": 1.0}, "data.held_in: got 1.0"),
        ({"lag_s": 0}, "data.lag_s: got 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(data, match):
    with pytest.raises(ConfigError, match=match):
        make_config(data={"path": "x", **data})


# --- recordings


def recorded(folder, **more):
    rng = np.random.default_rng(0)
    np.savez(folder / "rec.npz", traces=rng.normal(size=(400, 5)).astype(np.float32), **more)
    split = {"block_frames": 20, "gap_frames": 5, "final_test_at": "end"}
    options = {"mapping": {"responses": "traces", "bin_s": 0.5, "split": split}}
    return DataConfig(path=str(folder / "rec.npz"), reader="arrays", options=options)


def test_responses_alone_are_refused_unless_they_are_observed(tmp_path):
    data = recorded(tmp_path)
    with pytest.raises(DataError, match=r"'rec' holds responses only.*set data.observed: past \(forecasting\) or oth"):
        open_data(data)
    (session,) = open_data(replace(data, observed="past"))
    assert session.facts.recorded.lag_bins == 2


def test_the_same_file_can_be_opened_with_different_offers(tmp_path):
    data = recorded(tmp_path)
    past, others = (open_data(replace(data, observed=kind))[0] for kind in ("past", "others"))
    assert (past.facts.n_neurons, others.facts.n_neurons) == (5, 3)


def test_batches_carry_records(tmp_path):
    session = observe_past(make_session())
    (batch,) = next(training_batches([session], frames=15, batch_size=4, seed=0, epoch=0))
    torch.testing.assert_close(batch.inputs.observed, batch.responses)
    assert batch.clips.tolist() == [c for c in batch.clips.tolist() if session.tiers[c] == TRAIN]
    assert batch.to("cpu", torch.float64).inputs.observed.dtype == torch.float64


def test_evaluation_in_chunks_scores_the_same(tmp_path):
    from neuroint.data.loader import ClipLoader
    from neuroint.runtime import LocalRuntime

    session = observe_past(make_session())
    model = echo(session, 2)
    with ClipLoader([session]) as loader:
        whole, parts = (
            evaluate(model, loader, "validation", LocalRuntime(), frames_at_once=80, chunk_frames=chunk)["one"]
            for chunk in (None, 7)
        )
    np.testing.assert_allclose(whole.values, parts.values, rtol=1e-5)
