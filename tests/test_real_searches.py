"""The searches on real recordings hold back what they promise, and can learn; ``make smoke`` runs them all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuroint.config import load_sweep
from neuroint.data.areas import members_of
from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION
from neuroint.model import build_model, facts_of
from neuroint.recordings import open_data
from neuroint.runtime import LocalRuntime
from neuroint.sweep.planning import summarize_arms
from neuroint.train import train_trial

pytestmark = pytest.mark.recordings

ROOT = Path(__file__).resolve().parents[1]
FILES = {"retina": "retina_liu2017/retina.npz", "v4": "v4_cowley2026/v4_210325.npz"}

WITHOUT_STIMULUS = {
    "worm": "worm_dag2023",
    "worm_others": "worm_dag2023",
    "zebrafish": "zebrafish_tectum_triplett2018/zf_20170215_f3.npz",
    "head_direction": "head_direction_peyrache2015/head_direction.npz",
    "s1": "s1_reaching_kording/s1.npz",
    "s1_others": "s1_reaching_kording/s1.npz",
    "cross_area": "steinmetz2019",
    "motor_cortex": "steinmetz2019",
    "seq2seq_networks": "steinmetz2019",
    "within_area": "steinmetz2019",
    "s1_masked": "s1_reaching_kording/s1.npz",
    "head_direction_masked": "head_direction_peyrache2015/head_direction.npz",
}
NULLS = ("none", "constant", "time_course")  # arms that read nothing


@pytest.fixture
def asked(recordings):
    def read(name, *overrides):
        sweep = load_sweep(ROOT / f"search_spaces/{name}.yaml", overrides, str(recordings / FILES[name]))
        (session,) = open_data(sweep.data)
        return sweep, session

    return read


def scored_rows(session, tier):
    source, skip = session.source, session.scored_from
    clips = session.clips(tier)
    return np.concatenate([np.arange(source.rows[c] + skip, source.rows[c] + source.lengths[c]) for c in clips])


def test_the_retinas_final_test_is_the_last_fifth_of_all_frames(asked):
    _, session = asked("retina")
    assert sorted(scored_rows(session, FINAL_TEST)) == list(range(24000, 30000))
    assert session.facts.n_neurons == 177


def test_no_scored_frame_of_the_retina_is_near_one_that_is_trained_on(asked):
    _, session = asked("retina")
    trained = np.concatenate(
        [
            np.arange(session.source.rows[c], session.source.rows[c] + session.source.lengths[c])
            for c in session.clips(TRAIN)
        ]
    )
    for tier in (VALIDATION, DEV_TEST, FINAL_TEST):
        scored = scored_rows(session, tier)
        behind = [np.min(s - trained[trained <= s], initial=10**6) for s in scored[::50]]
        assert min(behind) > 39  # 10 frames of the core and 27 of the cells' own past


def test_the_retina_forbids_conclusions_on_coupling(asked):
    _, session = asked("retina")
    assert any(caution.endswith("no coupling between cells") for caution in session.cautions)


def test_a_fifth_of_the_v4_images_is_held_back_with_all_their_repeats(asked):
    _, session = asked("v4")
    images = {tier: set(session.source.rows[session.clips(tier)]) for tier in (TRAIN, VALIDATION, DEV_TEST, FINAL_TEST)}
    assert {tier: len(found) for tier, found in images.items()} == {
        TRAIN: 384,
        VALIDATION: 64,
        DEV_TEST: 64,
        FINAL_TEST: 128,
    }
    assert len(set.union(*images.values())) == 640


def test_the_held_back_v4_images_are_the_committed_ones(asked):
    _, session = asked("v4")
    assert sorted(set(session.source.rows[session.clips(FINAL_TEST)]))[:12] == [
        0,
        8,
        11,
        12,
        14,
        16,
        18,
        28,
        37,
        41,
        46,
        52,
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_linear_floor_is_among_the_arms_and_all_can_be_built(asked, name):
    sweep, session = asked(name)
    built = {arm.name: arm for arm in summarize_arms(sweep, [session])}
    assert "linear" in built
    assert {arm.information for arm in built.values()} <= {"stimulus", "own_predictions"}


@pytest.fixture
def observed(recordings):
    def read(name):
        path = recordings / WITHOUT_STIMULUS[name]
        sweep = load_sweep(ROOT / f"search_spaces/{name}.yaml", (), str(path))
        return sweep, open_data(sweep.data)

    return read


@pytest.mark.parametrize("name", WITHOUT_STIMULUS)
def test_every_arm_of_a_search_without_stimulus_can_be_built_and_reads_what_is_on_offer(observed, name):
    sweep, sessions = observed(name)
    offer = sessions[0].facts.recorded.information
    read = {arm.name: arm.information for arm in summarize_arms(sweep, sessions)}
    assert {read.pop(name) for name in NULLS if name in read} <= {"stimulus"}
    assert set(read.values()) == {offer}


@pytest.mark.parametrize("name", WITHOUT_STIMULUS)
def test_what_is_scored_without_stimulus_is_farther_from_training_than_any_arm_looks_back(observed, name):
    sweep, sessions = observed(name)
    for arm in sweep.arms:
        flat = {path: max(leaf.corners()) for path, leaf in sweep.arms[arm].distributions.items()}
        config = sweep.trial(arm, flat, key="k", phase="plan", seed=0)
        model = build_model(config.specs, facts_of(sessions), config.observed.lag_bins)
        for session in sessions:
            assert model.burn_in(session.name) <= session.scored_from, arm


@pytest.mark.slow
def test_a_cells_past_and_its_neighbors_predict_a_head_direction_cell_after_one_epoch(observed):
    sweep, sessions = observed("head_direction")
    values = {path: leaf.corners()[-1] for path, leaf in sweep.arms["coupled_glm"].distributions.items()}
    config = sweep.trial("coupled_glm", values, key="few", phase="tune", seed=0)
    scores = []
    config = replace(config, train=replace(config.train, epochs=1))
    train_trial(config, sessions, LocalRuntime(on_report=lambda m, _: scores.append(m["validation_score"])))
    assert scores[-1] > 0.1  # chance is 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_readout_of_energies_learns_v4_in_a_few_epochs(asked):
    sweep, session = asked("v4", "train.epochs=3", "train.ema=null")
    values = {"readout.weight_l1": 3e-4, "optimizer.learning_rate": 4e-3}
    scores = []
    config = sweep.trial("energy_linear", values, key="few", phase="tune", seed=0)
    train_trial(config, [session], LocalRuntime(on_report=lambda m, _: scores.append(m["validation_score"])))
    assert scores[-1] > 0.35  # chance is 0; the linear arm ends at .24


def test_motor_cortex_is_predicted_from_all_other_areas_or_half_from_half(observed):
    held = {name: observed(name)[1][0].facts for name in ("motor_cortex", "within_area")}
    sizes = {name: (facts.observed_channels, facts.n_neurons) for name, facts in held.items()}
    assert sizes == {"motor_cortex": (1040, 113), "within_area": (56, 57)}
    assert {area for facts in held.values() for area in facts.areas} == {"MOs"}


def test_every_area_of_the_matrix_is_read_through_equally_many_neurons_and_predicted_where_it_is_not_read(observed):
    from neuroint.recordings import open_for

    sweep, (session,) = observed("cross_area")
    words = sweep.data.to_areas
    held = {word: np.isin(session.facts.areas, members_of(word)).sum() for word in words}
    assert sum(held.values()) == session.facts.n_neurons == 462
    assert min(held.values()) >= 50
    for word in words:
        for arm in (word, f"{word}_shuffled"):
            values = {path: one.corners()[0] for path, one in sweep.arms[arm].distributions.items()}
            (found,) = open_for(sweep.trial(arm, values, key="k", phase="tune", seed=0))
            assert found.facts.observed_channels == 40
            assert set(found.facts.observed_areas) <= set(members_of(word))
            assert found.facts.areas == session.facts.areas


@pytest.mark.slow
def test_other_areas_predict_motor_cortex_after_a_few_epochs_and_those_of_another_trial_do_not(observed):
    from neuroint.recordings import open_for

    sweep, _ = observed("motor_cortex")
    core = {"core.latents": 15, "core.cell": "lstm", "core.directions": 2}
    values = core | {"optimizer.learning_rate": 0.01, "optimizer.weight_decay": 0.1}
    scores = {}
    for arm in ("seq2seq", "seq2seq_shuffled"):
        config = sweep.trial(arm, values, key="few", phase="tune", seed=0)
        config = replace(config, train=replace(config.train, epochs=4))
        runtime = LocalRuntime(on_report=lambda m, _, arm=arm: scores.update({arm: m["best_validation_score"]}))
        train_trial(config, open_for(config), runtime)
    assert scores["seq2seq"] > 0.004  # bits per bin; a constant rate scores 0 at best
    assert scores["seq2seq_shuffled"] < 0.001
