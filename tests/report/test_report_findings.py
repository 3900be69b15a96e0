"""What a report concludes from sweeps whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import Sweep, confirm_key, moments

from neuroint.analysis.inference import compare
from neuroint.metrics.single_trial_correlation import single_trial_correlation
from neuroint.report import analyse, tables
from neuroint.report.neurons import NEURONS_FILE, read_neurons
from neuroint.report.wording import answer, words_of


def contrast(findings, arm="pool", tier="dev_test"):
    (found,) = [c for c in findings.of_tier(tier) if c.arm == arm]
    return found


@pytest.fixture(scope="module")
def findings(whole):
    return analyse(whole)


def test_the_arm_that_predicts_better_is_supported_and_the_other_is_not(findings):
    assert contrast(findings).verdict == "supported"
    assert contrast(findings, "attention").verdict == "not_supported"
    assert contrast(findings).scope == "animals like these"


def test_the_difference_is_the_mean_over_neurons_of_each_animal_and_seed(findings, whole):
    made = Sweep(noise={"none": 0.5, "pool": 0.3, "attention": 0.5}, neurons=15, frames=12)
    by_hand = np.empty((3, 3))
    for seed in range(3):
        for animal in range(3):
            pool, none = (
                single_trial_correlation(moments(made, arm, seed, animal, "", "dev_test")) for arm in ("pool", "none")
            )
            by_hand[seed, animal] = np.mean(pool - none)
    found = contrast(findings)
    np.testing.assert_allclose(found.differences, by_hand, atol=1e-12)
    alone = compare(by_hand, 0.005)
    assert found.p == pytest.approx(2 * alone.p)  # Holm: the smaller of two p values is doubled
    assert found.interval == pytest.approx(alone.interval)
    assert found.units == ["mouse0", "mouse1", "mouse2"]
    assert found.seeds == [100, 101, 102]


def test_the_share_of_improved_neurons_counts_neurons_whose_mean_over_seeds_is_higher(findings):
    made = Sweep(noise={"none": 0.5, "pool": 0.3}, neurons=15, frames=12)
    gains = [
        np.mean(
            [
                single_trial_correlation(moments(made, "pool", seed, animal, "", "dev_test"))
                - single_trial_correlation(moments(made, "none", seed, animal, "", "dev_test"))
                for seed in range(3)
            ],
            axis=0,
        )
        for animal in range(3)
    ]
    assert contrast(findings).improved == pytest.approx(np.mean(np.concatenate(gains) > 0))
    assert contrast(findings).neurons == 45


def test_scores_are_given_per_session_and_fifth_with_their_range_over_seeds(findings):
    arm = next(arm for arm in findings.arms if arm.name == "pool")
    scored = arm.scores["dev_test"]["single_trial_correlation"]
    assert scored.all.neurons == 45
    assert scored.all.seeds == 3
    assert scored.all.low < scored.all.mean < scored.all.high
    assert np.mean([s.mean for s in scored.sessions.values()]) == pytest.approx(scored.all.mean)
    fifths = [fifth.mean for fifth in scored.quintiles]
    assert fifths == sorted(fifths), "neurons of less noise are predicted better"
    assert sum(fifth.neurons for fifth in scored.quintiles) == 45


def test_the_gain_by_snr_is_the_share_of_explainable_variance_that_less_error_buys(sweep):
    found = contrast(analyse(sweep(noise={"none": 0.5, "pool": 0.2}, neurons=60, stimuli=12, frames=40)))
    # Signals have variance 1 and errors .5 and .2, so .3 of the explainable variance is gained at any noise.
    assert np.mean(found.snr.gain) == pytest.approx(0.3, abs=0.03)
    assert np.ptp(found.snr.gain) < 0.15
    assert len(found.snr.seeds) == 3


def test_two_arms_of_equal_quality_are_not_declared_different(sweep):
    verdicts = [
        contrast(analyse(sweep(f"s{k}", noise={"none": 0.4, "pool": 0.4}, random=k, repeats=1))).verdict
        for k in range(3)
    ]
    assert "supported" not in verdicts


def test_a_difference_smaller_than_what_matters_is_equivalent(sweep):
    folder = sweep(noise={"none": 0.40, "pool": 0.41}, score={"smallest_effect": 0.4})
    assert contrast(analyse(folder)).verdict == "equivalent"


def test_an_arm_that_predicts_worse_is_not_supported(sweep):
    found = contrast(analyse(sweep(noise={"none": 0.2, "pool": 0.7})))
    assert found.verdict == "not_supported"
    assert found.p < 0.05
    assert found.difference < 0


def test_one_seed_is_not_testable(sweep):
    found = contrast(analyse(sweep(seeds=1)))
    assert found.verdict == "not_testable"
    assert "1 seed cannot tell" in found.obstacle
    assert np.isfinite(found.difference), "what was seen is still shown"


def test_one_animal_is_tested_over_held_out_stimuli_and_speaks_of_this_recording(sweep):
    findings = analyse(sweep(animals=1, neurons=30))
    found = contrast(findings)
    assert (found.unit, found.scope, len(found.units)) == ("stimulus", "this recording", 6)
    assert found.verdict == "supported"
    assert any("this recording only" in text for text in findings.limits)


def test_several_sessions_of_one_animal_are_one_animal(sweep):
    folder = sweep(animals=2)
    table = read_neurons(folder)
    assert table.animals == {"s0": "mouse0", "s1": "mouse1"}
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / NEURONS_FILE)
    one = rows.set_column(1, "animal", pa.array(["mouse0"] * rows.num_rows))
    pq.write_table(one, folder / NEURONS_FILE)
    found = contrast(analyse(folder))
    assert (found.unit, len(found.units)) == ("stimulus", 6)


def test_sessions_whose_animals_are_unknown_are_not_taken_for_animals(sweep):
    folder = sweep()
    (folder / NEURONS_FILE).unlink()
    found = contrast(analyse(folder))
    assert found.verdict == "not_testable"
    assert "which session belongs to which animal" in found.obstacle


def test_arms_that_read_different_information_are_labelled_and_not_ranked(sweep):
    findings = analyse(sweep(information={"pool": "recorded_past"}))
    assert contrast(findings).label == "information contrast"
    assert any("not ranked" in text for text in findings.limits)


def test_own_predictions_and_stimulus_are_one_class(sweep):
    assert contrast(analyse(sweep(information={"pool": "own_predictions"}))).label == "same information"


def test_a_caution_blocks_the_conclusion_it_names_and_no_other(sweep):
    tags = {"cautions": "cells pooled over animals: no coupling, no normalization | bins unknown"}
    findings = analyse(sweep(tags=tags))
    assert findings.cautions == ["cells pooled over animals: no coupling, no normalization", "bins unknown"]
    assert contrast(findings).blocked == ["Says nothing about normalization: cells pooled over animals."]
    coupling = analyse(sweep("other", tags={"cautions": "cells pooled over animals: no coupling"}))
    assert contrast(coupling).blocked == [], "the arm changes normalization, not interaction"
    assert contrast(coupling).verdict == "supported"


def test_a_blocked_contrast_is_not_testable_here_in_verdict_sentence_and_headline(sweep):
    findings = analyse(sweep(tags={"cautions": "cells pooled over animals: no normalization"}))
    found, headline = contrast(findings), answer(findings, "dev_test")
    reason = "says nothing about normalization: cells pooled over animals"
    assert (found.verdict, words_of(found).word) == ("not_testable", "not testable here")
    assert found.sentence == f"Not testable for animals like these: {reason}."
    assert headline == f"pool cannot be judged on this data against none ({reason})."
    assert np.isfinite(found.difference), "what was seen is still shown"
    assert found.interval == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert tables.overview(findings).rows[1][-1] == "not testable here"


def test_many_arms_are_told_together_by_what_was_found_of_them(sweep):
    findings = analyse(sweep())
    found = contrast(findings)
    many = [replace(found, arm=name) for name in "abc"] + [replace(found, arm="d", verdict="equivalent")]
    assert answer(replace(findings, contrasts=many), "dev_test") == (
        "3 of 4 arms (a, b, c): each predicts better than none. 1 of 4 arms (d): each predicts as well as none."
    )


def test_a_blocked_contrast_does_not_make_the_others_pay(sweep):
    arms = {"none": 0.5, "pool": 0.3, "attention": 0.5}
    params = {"attention": {"normalization.name": "none", "interaction.name": "attention"}}
    findings = analyse(sweep(noise=arms, arm_params=params, tags={"cautions": "pooled: no coupling"}))
    assert contrast(findings, "attention").verdict == "not_testable"
    assert "Holm" not in contrast(findings).sentence, "one contrast is left"


def test_no_coupling_says_nothing_against_a_neurons_own_past(sweep):
    arms = {"none": 0.5, "pool": 0.3}
    params = {"pool": {"normalization.name": "none", "interaction.name": "linear_autoregressive"}}
    findings = analyse(sweep(noise=arms, arm_params=params, tags={"cautions": "pooled: no coupling"}))
    assert contrast(findings).blocked == []


def test_without_repeats_nothing_is_split_by_snr_and_the_reason_is_given(sweep):
    findings = analyse(sweep(repeats=1))
    assert contrast(findings).verdict == "supported"
    assert "four presentations" in contrast(findings).snr.unavailable
    assert any("cannot be split by SNR" in text for text in findings.missing)
    scored = findings.arms[1].scores["dev_test"]
    assert scored["feve"].all is None
    assert "no stimulus of this tier was shown twice" in scored["feve"].unavailable
    assert scored["single_trial_correlation"].quintiles == []


def test_a_failed_arm_is_listed_with_the_last_line_of_its_traceback(sweep):
    findings = analyse(sweep(failed=("pool",)))
    assert {(f.arm, f.status, f.reason) for f in findings.failures} == {
        ("pool", "failed", "RuntimeError: out of memory")
    }
    assert contrast(findings).verdict == "not_testable"
    assert "'pool' has no dev-test scores" in contrast(findings).obstacle
    assert any("no configuration confirmed" in text for text in findings.missing)


def test_an_interrupted_sweep_says_that_nothing_was_compared(sweep):
    findings = analyse(sweep(status="interrupted", scored=False))
    assert findings.contrasts == []
    assert any("The sweep is interrupted" in text for text in findings.missing)
    assert any("No dev-test score" in text for text in findings.missing)
    assert findings.arms[0].best_validation is not None


def test_an_arm_that_was_not_confirmed_shows_no_validation_score_beside_means_over_seeds(sweep):
    found = analyse(sweep(failed=("pool",)))
    findings = replace(found, arms=[replace(arm, best_validation=0.9) for arm in found.arms])
    column = {row[0]: row[2] for row in tables.overview(findings, "dev_test").rows}
    assert column["none"] == f"{findings.arms[0].mean_validation:.3f}"
    assert column["pool"] == "\N{EN DASH}"


def test_a_sweep_of_one_arm_compares_nothing(sweep):
    findings = analyse(sweep(noise={"none": 0.5}))
    assert findings.contrasts == []
    assert "There is one arm only, so nothing is compared." in findings.missing


def test_damaged_scores_of_one_run_are_reported_and_the_others_still_count(sweep):
    folder = sweep()
    (damaged,) = (folder / "runs" / confirm_key("pool", 1)).glob("moments_dev_test_s1.parquet")
    damaged.write_bytes(damaged.read_bytes()[:200])
    findings = analyse(folder)
    assert any("confirm-pool-c0-s1 on dev-test clips cannot be read" in text for text in findings.missing)
    assert contrast(findings).seeds == [100, 102]


def test_a_score_that_is_lower_when_better_is_turned_around(sweep):
    found = contrast(analyse(sweep(score={"metric": "poisson_loss", "smallest_effect": 0.001})))
    assert found.difference > 0
    assert found.verdict == "supported"


def test_no_smallest_effect_is_an_obstacle_and_not_a_crash(sweep):
    found = contrast(analyse(sweep(score={"smallest_effect": 0})))
    assert found.verdict == "not_testable"
    assert "declare an effect above 0" in found.obstacle


def test_the_final_test_is_compared_only_after_its_unlock(sweep):
    before, after = analyse(sweep("a")), analyse(sweep("b", tiers=("dev_test", "final_test")))
    assert before.of_tier("final_test") == []
    assert any("final test was not read" in text for text in before.limits)
    assert contrast(after, tier="final_test").verdict == "supported"
    assert {look.tier for look in after.test_looks} == {"dev_test", "final_test"}


def test_every_look_at_a_test_tier_is_listed(findings):
    assert len(findings.test_looks) == 9
    assert findings.test_looks[0].run == "confirm-none-c0-s0"
    assert findings.test_looks[0].reason == "comparison of arms"


def test_trials_epochs_and_settings_of_an_arm_are_those_of_the_journal(findings):
    arm = next(arm for arm in findings.arms if arm.name == "pool")
    assert arm.trials == {"finished": 4}
    assert arm.confirm_runs == {"finished": 3}
    assert arm.compute.epochs == 7 * 5
    assert arm.compute.seconds == pytest.approx(7 * 5 * 1.5)
    assert arm.chosen == {"normalization.name": "population_pool", "optimizer.learning_rate": 0.002}
    assert arm.mean_validation == pytest.approx(0.6 - 0.3 * 0.3 + 0.001)
    assert arm.best_so_far == sorted(arm.best_so_far)
    assert len(arm.best_so_far) == 4


def test_the_question_is_the_first_line_of_the_yaml(findings):
    assert findings.question == "Does a population pool help?"


def test_provenance_says_commit_data_seeds_and_how_many_trials_ran_at_once(findings):
    assert findings.provenance["git_commit"] == "abc123"
    assert findings.provenance["data_hash"] == "d1d2"
    assert findings.provenance["confirm seeds"] == "100, 101, 102"
    assert findings.provenance["tuning trials at a time"].startswith("1 at most")


def test_findings_are_json_without_nan(sweep):
    plain = analyse(sweep(seeds=1)).as_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)["contrasts"][0]["p"] is None


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no sweep.yaml and no journal.jsonl; expected the folder of a sweep"):
        analyse(tmp_path)


def test_positions_and_animals_come_back_as_written(whole):
    found = read_neurons(whole)
    assert found.animals == {"s0": "mouse0", "s1": "mouse1", "s2": "mouse2"}
    assert found.positions_um["s1"].shape == (15, 3)


def test_sessions_without_positions_are_left_out_of_the_maps(sweep):
    assert read_neurons(sweep(positions=False)).positions_um == {}
