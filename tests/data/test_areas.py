"""Who is read and who is predicted, by brain area; and recorded activity of another trial as a control."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import make_config, make_session, make_sweep

from neuroint.config import ConfigError, TrialConfig
from neuroint.config.settings import DataConfig
from neuroint.data.areas import GROUPS
from neuroint.data.base import TIERS, TRAIN, DataError
from neuroint.data.observed import choose_observed, observe_masked, observe_others, observe_past, shuffle_observed
from neuroint.data.trials import trial_session
from neuroint.recordings import open_data, open_for
from neuroint.sweep.planning import PlanError, summarize_arms

AREAS = ("MOs", "VISp", "MOs", "CA1", "root", "MOs", "VISl", "MOs", "DG", "root")
NEURONS = len(AREAS)
# What neuron n does in bin t of clip c is 100 c + 10 t + n, so that every number says where it comes from.
COUNTS = 100 * np.arange(8)[:, None, None] + 10 * np.arange(3)[None, :, None] + np.arange(NEURONS)
TRIALS = ("train", "train", "train", "validation", "validation", "dev_test", "dev_test", "final_test")


def session_of(areas=AREAS, tiers=TRIALS):
    return trial_session("one", "a", COUNTS, tiers, np.arange(8), bin_s=0.01, areas=areas)


def sides(session):
    """Neurons that are read and that are predicted, from the numbers of a clip."""
    clip = session.source.read(0, 0, 1)
    return clip.observed[0].astype(int).tolist(), clip.responses[0].astype(int).tolist()


@pytest.mark.parametrize(
    ("read", "predicted", "expected"),
    [
        (["VISp", "CA1"], ["MOs"], ([1, 3], [0, 2, 5, 7])),
        (None, ["MOs"], ([1, 3, 6, 8], [0, 2, 5, 7])),  # root is in no area: it may lie in the target
        (["MOs"], None, ([0, 2, 5, 7], [1, 3, 6, 8])),
        (["visual"], ["hippocampus"], ([1, 6], [3, 8])),
        (["root"], ["visual"], ([4, 9], [1, 6])),
        (["hippocampus", "VISp"], ["visual", "MOs"], ([1, 3, 8], None)),
    ],
)
def test_areas_and_groups_say_who_is_read_and_who_is_predicted(read, predicted, expected):
    session = observe_others(session_of(), 0.99, 0, read, predicted)
    found = sides(session)
    assert found[0] == expected[0]
    assert expected[1] is None or found[1] == expected[1]
    facts = session.facts
    assert facts.recorded.information == "recorded_others"
    assert (facts.observed_channels, facts.n_neurons) == tuple(map(len, found))
    assert facts.areas == tuple(AREAS[neuron] for neuron in found[1])


def test_an_area_on_both_sides_is_dealt_in_random_halves_by_the_seed():
    dealt = {seed: sides(observe_others(session_of(), 0.5, seed, ["MOs"], ["MOs"])) for seed in range(6)}
    for read, predicted in dealt.values():
        assert sorted(read + predicted) == [0, 2, 5, 7]
        assert len(read) == 2
    assert len({tuple(read) for read, _ in dealt.values()}) > 1
    assert dealt[3] == sides(observe_others(session_of(), 0.5, 3, ["MOs"], ["MOs"]))


def test_an_area_on_both_sides_among_others_is_the_only_one_that_is_dealt():
    read, predicted = sides(observe_others(session_of(), 0.25, 0, ["MOs", "visual"], ["MOs"]))
    assert {1, 6} <= set(read)
    assert len(predicted) == 3
    assert sorted(read + predicted) == [0, 1, 2, 5, 6, 7]


def test_no_area_is_in_two_groups_and_no_group_is_called_like_an_area():
    areas = [area for members in GROUPS.values() for area in members]
    assert len(set(areas)) == len(areas)
    assert not set(areas) & set(GROUPS)


@pytest.mark.parametrize(
    ("read", "predicted", "match"),
    [
        (None, ["MOp"], "data.to_areas: session 'one' has no neuron in 'MOp'. Did you mean 'MOs'"),
        (["mos"], None, r"data.from_areas: .* no neuron in 'mos'. Did you mean 'MOs'\? Neurons by area: CA1 1, DG 1, "),
        (["visul"], None, r"'visul'. Did you mean 'visual'\?.*groups: visual, hippocampus, other_cortex"),
        (["thalamus"], ["MOs"], "has no neuron in 'thalamus'"),
        ([], None, "data.from_areas is empty; name areas or groups"),
        (
            ["CA1"],
            ["MOs"],
            r"\['CA1'\] and data.to_areas=\['MOs'\] leave 1 neurons to read and 4 to predict, .*least 2",
        ),
        (["CA1"], ["CA1"], "leave 0 neurons to read and 1 to predict"),
    ],
)
def test_areas_that_leave_nothing_to_say_are_refused(read, predicted, match):
    with pytest.raises(DataError, match=match):
        observe_others(session_of(), 0.5, 0, read, predicted)


def test_areas_of_a_recording_without_them_are_refused():
    with pytest.raises(DataError, match=r"data.to_areas is \['MOs'\], but session 'one' does not say in which area"):
        observe_others(session_of(areas=None), 0.5, 0, None, ["MOs"])


def test_as_many_areas_as_neurons_are_expected():
    with pytest.raises(DataError, match="session 'one': 10 neurons and 9 areas; give one area per neuron"):
        session_of(areas=AREAS[:9])


@pytest.mark.parametrize("observed", ["past", None])
def test_areas_that_nothing_would_read_are_a_fault_of_the_configuration(observed):
    with pytest.raises(ConfigError, match=rf"data.to_areas: got \['MOs'\], but data.observed is {observed}; set it to"):
        make_sweep(data={"path": "x", "observed": observed, "to_areas": ["MOs"]})


def test_areas_and_shuffling_reach_the_trial_and_survive_json():
    data = {"path": "x", "observed": "others", "from_areas": ["visual"], "to_areas": ["MOs"]}
    config = make_config(data=data, observed={"shuffled": True}, arms={"none": {}})
    assert (config.data.from_areas, config.data.to_areas, config.observed.shuffled) == (["visual"], ["MOs"], True)
    assert TrialConfig.from_dict(config.to_dict()) == config


# --- arms that read a part of what is on offer


def offered():
    return observe_others(session_of(), 0.5, 0, ["visual", "hippocampus"], ["MOs"])  # neurons 1, 3, 6 and 8 are read


def test_an_arm_reads_the_neurons_of_its_areas_and_predicts_what_all_arms_do():
    chosen = choose_observed(offered(), ["visual"], None, 0)
    assert sides(chosen) == ([1, 6], [0, 2, 5, 7])
    assert (chosen.facts.observed_channels, chosen.facts.observed_areas) == (2, ("VISp", "VISl"))
    assert chosen.facts.observed_neurons.tolist() == [-1, -1], "neither is predicted"


def test_neurons_that_forecast_themselves_are_still_known_when_some_are_read():
    facts = choose_observed(observe_past(session_of()), ["MOs"], None, 0).facts
    assert facts.observed_neurons.tolist() == [0, 2, 5, 7]
    assert facts.n_neurons == NEURONS


def test_as_many_neurons_as_asked_for_are_drawn_by_the_seed():
    drawn = {seed: sides(choose_observed(offered(), None, 2, seed))[0] for seed in range(8)}
    assert all(len(read) == 2 and set(read) < {1, 3, 6, 8} for read in drawn.values())
    assert len({tuple(read) for read in drawn.values()}) > 1
    assert drawn[3] == sides(choose_observed(offered(), None, 2, 3))[0]
    assert sides(choose_observed(offered(), ["hippocampus"], 2, 0))[0] == [3, 8]


@pytest.mark.parametrize(
    ("session", "areas", "neurons", "match"),
    [
        (session_of, ["MOs"], None, "session 'one' offers no recorded activity; set data.observed: others"),
        (lambda: observe_masked(session_of(), 0.5, 0), None, 2, "offers activity that is predicted as well; set data"),
        (offered, ["MOs"], None, "observed.areas: session 'one' has no neuron in 'MOs'. .*Neurons by area: CA1 1, DG"),
        (offered, ["visual"], 3, r"observed.neurons is 3, but .* session 'one' offers 2 are in \['visual'\]; ask for"),
        (offered, None, 5, "observed.neurons is 5, but of the neurons that session 'one' offers 4 are in any area"),
    ],
    ids=["nothing", "masked", "area", "few", "few of all"],
)
def test_neurons_that_are_not_on_offer_cannot_be_read(session, areas, neurons, match):
    with pytest.raises(DataError, match=match):
        choose_observed(session(), areas, neurons, 0)


# --- trials of which something else was recorded


def test_every_clip_reads_what_was_recorded_in_another_one_of_its_tier_and_keeps_its_own_responses():
    plain = observe_others(session_of(tiers=(*TRIALS[:-1], "dev_test")), 0.5, 0, ["visual"], ["MOs"])
    shuffled = shuffle_observed(plain, 0)
    for tier in TIERS:
        clips, sources = shuffled.clips(tier), []
        for clip in clips:
            found, own = shuffled.source.read(int(clip), 1, 2), plain.source.read(int(clip), 1, 2)
            np.testing.assert_array_equal(found.responses, own.responses)
            sources.append(int(found.observed[0, 0]) // 100)
            np.testing.assert_array_equal(found.observed, plain.source.read(sources[-1], 1, 2).observed)
        assert sorted(sources) == clips.tolist(), "each clip of the tier is read once"
        assert all(source != clip for source, clip in zip(sources, clips, strict=True)), "none reads its own"


def test_the_pairs_follow_from_the_seed():
    plain = observe_others(session_of(tiers=(TRAIN,) * 8), 0.5, 0, ["visual"], ["MOs"])
    pairs = [shuffle_observed(plain, seed).source.partner.tolist() for seed in (1, 1, 2)]
    assert pairs[0] == pairs[1] != pairs[2]


@pytest.mark.parametrize(
    ("session", "match"),
    [
        (lambda: session_of(), "offers no recorded activity; set data.observed"),
        (lambda: observe_others(session_of(), 0.5, 0), "tier 'final_test' of session 'one' has one clip, which has no"),
        (
            lambda: observe_others(replace(session_of(), lengths=np.array([3] * 7 + [2])), 0.5, 0),
            "clips of session 'one' have 2 to 3 frames; only clips of one length",
        ),
    ],
    ids=["plain", "single", "lengths"],
)
def test_clips_that_cannot_be_exchanged_are_refused(session, match):
    with pytest.raises(DataError, match=match):
        shuffle_observed(session(), 0)


def test_an_arm_that_asks_for_it_and_no_other_is_given_shuffled_records(tmp_path):
    from steinmetz_files import trials_first

    np.savez(tmp_path / "s.npz", **trials_first())
    data = {"path": str(tmp_path), "reader": "steinmetz", "observed": "others", "to_areas": ["MOs"]}
    arms = {
        "plain": {},
        "control": {"observed": {"shuffled": True}},
        "some": {"observed": {"neurons": 2}},
        "some_control": {"observed": {"neurons": 2, "shuffled": True}},
    }
    sweep = make_sweep(data=data, core="constant", readout="linear", arms=arms, reference="plain")
    trials = {arm: sweep.trial(arm, {}, key="k", phase="tune", seed=0) for arm in arms}
    (before,) = open_data(DataConfig(**data))
    clips = {arm: open_for(trial)[0].source.read(0, 0, 8) for arm, trial in trials.items()}
    own = before.source.read(0, 0, 8)
    np.testing.assert_array_equal(clips["plain"].observed, own.observed)
    assert (clips["control"].observed != own.observed).any()
    for clip in clips.values():
        np.testing.assert_array_equal(clip.responses, own.responses)
    columns = [(column == own.observed.T).all(axis=1).argmax() for column in clips["some"].observed.T]
    assert len(columns) == 2
    np.testing.assert_array_equal(clips["some_control"].observed, clips["control"].observed[:, columns])


def test_a_session_keeps_its_areas_when_all_of_it_is_predicted():
    assert session_of().facts.areas == AREAS
    assert make_session().facts.areas is None


def test_an_arm_is_sized_and_refused_by_what_it_reads_before_anything_is_trained(tmp_path):
    from steinmetz_files import trials_first

    np.savez(tmp_path / "s.npz", **trials_first())
    data = {"path": str(tmp_path), "reader": "steinmetz", "observed": "others", "to_areas": ["MOs"]}
    core, train = {"name": "reduced_rank", "latents": 1}, {"frames": 8}
    arms = {"all": {}, "two": {"observed": {"neurons": 2}}, "none_such": {"observed": {"areas": ["MOs"]}}}
    made = {"data": data, "core": core, "readout": "linear", "train": train, "reference": "all"}
    sessions = open_data(DataConfig(**data))
    found = summarize_arms(make_sweep(**made, arms={name: arms[name] for name in ("all", "two")}), sessions)
    more = sessions[0].facts.observed_channels - 2
    assert found[0].parameters - found[1].parameters == more, "a weight per channel and latent"
    with pytest.raises(PlanError, match=r"arm 'none_such': observed.areas: session 's' has no neuron in 'MOs'"):
        summarize_arms(make_sweep(**made, arms=arms), sessions)
