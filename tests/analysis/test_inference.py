"""Verdicts keep their error rates when seeds and animals vary, and say when nothing can be tested."""

import numpy as np
import pytest
from scipy import stats

from neuroint.analysis.inference import (
    compare,
    difference_per_animal,
    difference_per_stimulus,
    holm,
    holm_correct,
)
from neuroint.metrics.moments import MomentsBuilder
from neuroint.metrics.scoring import scores

STUDIES = 500
CEILING = 0.05 + 2 * np.sqrt(0.05 * 0.95 / STUDIES)


def studies(rng, effect=0.0, seeds=5, animals=5, seed_sd=0.001, animal_sd=0.0, rest_sd=0.0003, n=STUDIES):
    """Differences n x seeds x animals: crossed random effects as in a paired sweep."""
    shape = (n, seeds, animals)
    return (
        effect
        + rng.normal(0, seed_sd, (n, seeds, 1))
        + rng.normal(0, animal_sd, (n, 1, animals))
        + rng.normal(0, rest_sd, shape)
    )


def rates(differences, smallest_effect=0.001, **options):
    found = [compare(difference, smallest_effect, **options) for difference in differences]
    return np.mean([c.p < 0.05 for c in found]), np.mean([c.verdict == "supported" for c in found]), found


@pytest.mark.parametrize(
    "world",
    [
        {"seed_sd": 0.001, "animal_sd": 0.0},
        {"seed_sd": 0.0, "animal_sd": 0.002},
        {"seed_sd": 0.001, "animal_sd": 0.002},
        {"seed_sd": 0.001, "animal_sd": 0.001},
        {"seed_sd": 0.001, "animal_sd": 0.001, "seeds": 10, "animals": 10},
        {"seed_sd": 0.001, "animal_sd": 0.001, "seeds": 3, "animals": 3},
        {"seed_sd": 0.0, "animal_sd": 0.0},
    ],
)
def test_false_positives_stay_at_or_under_nominal(world):
    rejected, supported, _ = rates(studies(np.random.default_rng(0), **world))
    assert rejected <= CEILING
    assert supported <= CEILING / 2 + 0.01


def test_a_test_over_seeds_alone_would_not_stay_there():
    differences = studies(np.random.default_rng(0), animal_sd=0.002)
    naive = stats.ttest_1samp(differences.mean(axis=2), 0, axis=1).pvalue
    assert np.mean(naive < 0.05) > 0.15


def test_a_real_effect_is_found_more_often_with_more_seeds_and_animals():
    rng = np.random.default_rng(1)
    _, few, _ = rates(studies(rng, effect=0.003, animal_sd=0.002))
    _, many, _ = rates(studies(rng, effect=0.003, animal_sd=0.002, seeds=10, animals=10))
    assert 0.4 < few < 0.8
    assert many > 0.9


def test_the_interval_covers_the_truth_at_least_as_often_as_it_says():
    differences = studies(np.random.default_rng(2), effect=0.004, animal_sd=0.001)
    covered = [low <= 0.004 <= high for low, high in (compare(d, 0.001).interval for d in differences)]
    assert np.mean(covered) >= 1 - CEILING


def test_equivalence_is_claimed_for_no_effect_and_not_at_the_smallest_effect():
    rng = np.random.default_rng(3)
    quiet = {"seed_sd": 0.0002, "animal_sd": 0.0003}
    at_zero = [c.verdict for c in rates(studies(rng, **quiet), smallest_effect=0.001)[2]]
    at_edge = [c.verdict for c in rates(studies(rng, effect=0.001, **quiet), smallest_effect=0.001)[2]]
    assert at_zero.count("equivalent") > 0.9 * STUDIES
    assert at_edge.count("equivalent") <= CEILING * STUDIES


def test_min_f_is_what_clark_wrote():
    difference = studies(np.random.default_rng(4), effect=0.002, seeds=4, animals=6, animal_sd=0.001, n=1)[0]
    f_seeds = stats.ttest_1samp(difference.mean(axis=1), 0).statistic ** 2
    f_animals = stats.ttest_1samp(difference.mean(axis=0), 0).statistic ** 2
    min_f = f_seeds * f_animals / (f_seeds + f_animals)
    df = (f_seeds + f_animals) ** 2 / (f_seeds**2 / 5 + f_animals**2 / 3)
    found = compare(difference, 0.001)
    assert (found.difference / found.error) ** 2 == pytest.approx(min_f)
    assert found.df == pytest.approx(df)
    assert found.p == pytest.approx(stats.f.sf(min_f, 1, df))


def test_two_seeds_and_two_animals_worked_out_by_hand():
    found = compare(np.array([[1.0, 3.0], [3.0, 5.0]]), 10.0)
    # seed means 2 4, animal means 2 4: squared errors 1 and 1, so t = 3 / sqrt(2) on 2 / (1/1 + 1/1) * 2 = 2 df
    assert (found.difference, found.error, found.df) == pytest.approx((3.0, np.sqrt(2), 2.0))
    t = 3 / np.sqrt(2)
    assert found.p == pytest.approx(1 - t / np.sqrt(2 + t**2))  # closed form of t with 2 df
    upper = 7 / np.sqrt(2)
    assert found.p_equivalent == pytest.approx((1 - upper / np.sqrt(2 + upper**2)) / 2)


def test_a_worse_arm_is_not_supported_however_small_its_p():
    difference = -0.1 + studies(np.random.default_rng(5), n=1)[0]
    found = compare(difference, 0.01)
    assert found.p < 1e-4
    assert found.verdict == "not_supported"


def test_a_difference_surely_smaller_than_what_matters_is_equivalent_even_if_significant():
    difference = 0.002 + studies(np.random.default_rng(6), seed_sd=1e-5, rest_sd=1e-5, n=1)[0]
    found = compare(difference, 0.01)
    assert found.p < 1e-6
    assert found.verdict == "equivalent"


def test_the_scale_of_the_score_does_not_change_the_verdict():
    difference = studies(np.random.default_rng(7), effect=0.003, animal_sd=0.001, n=1)[0]
    large, small = compare(difference, 0.001), compare(difference * 1e-120, 1e-123)
    assert small.p == pytest.approx(large.p)
    assert small.df == pytest.approx(large.df)


@pytest.mark.parametrize(
    ("difference", "unit", "sentence"),
    [
        (np.ones((1, 5)), "animal", r"Not testable for animals like these: 1 seed cannot tell a design from luck"),
        (np.ones((5, 1)), "animal", r"1 animal; compare held-out stimuli within this recording instead"),
        (np.ones((5, 1)), "stimulus", r"Not testable for this recording: 1 stimulus; score at least two"),
        (np.array([[0.1, np.nan], [0.2, 0.3]]), "animal", r"1 of 4 differences are missing"),
        (np.full((3, 4), 0.1), "animal", r"all differences are equal"),
        (np.zeros((3, 4)), "stimulus", r"check that seeds reach training"),
    ],
)
def test_what_cannot_be_tested_is_not_tested_and_says_why(difference, unit, sentence):
    found = compare(difference, 0.01, unit=unit)
    assert found.verdict == "not_testable"
    assert sentence in found.sentence
    assert np.isnan([found.p, found.difference, *found.interval]).all()


def test_one_animal_is_tested_over_its_stimuli_and_the_sentence_speaks_of_this_recording_only():
    difference = studies(np.random.default_rng(8), effect=0.01, animals=12, n=1)[0]
    found = compare(difference, 0.001, unit="stimulus")
    assert found.verdict == "supported"
    assert found.sentence.startswith("Supported for this recording: difference 0.0")
    assert found.sentence.endswith("5 seeds x 12 stimuli.")
    assert "min-F'(1, " in found.sentence


def test_an_undeclared_smallest_effect_and_an_impossible_alpha_are_refused():
    with pytest.raises(ValueError, match="declare an effect above 0"):
        compare(np.ones((3, 3)), 0.0)
    with pytest.raises(ValueError, match=r"alpha 0\.9"):
        compare(np.ones((3, 3)), 0.1, alpha=0.9)


def test_holm_is_as_worked_out_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.005])), [0.06, 0.03, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1, 1])
    assert holm(np.array([])).size == 0


def test_holm_over_contrasts_leaves_out_those_that_cannot_be_tested():
    rng = np.random.default_rng(9)
    contrasts = {
        "a": compare(studies(rng, effect=0.003, animal_sd=0.001, n=1)[0], 0.001),
        "b": compare(studies(rng, animal_sd=0.001, n=1)[0], 0.001),
        "c": compare(np.ones((1, 4)), 0.001),
    }
    corrected = holm_correct(contrasts)
    assert list(corrected) == ["a", "b", "c"]
    assert corrected["a"].p == pytest.approx(2 * contrasts["a"].p)
    assert corrected["c"] is contrasts["c"]
    assert "(Holm over 2 contrasts)" in corrected["a"].sentence
    assert "Holm" not in contrasts["a"].sentence


def test_no_contrast_is_claimed_too_often_among_five():
    rng = np.random.default_rng(10)
    families = studies(rng, animal_sd=0.001, n=5 * 200).reshape(200, 5, 5, 5)
    claims = [
        any(c.p < 0.05 for c in holm_correct({str(k): compare(d, 0.001) for k, d in enumerate(family)}).values())
        for family in families
    ]
    assert np.mean(claims) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_differences_pool_the_sessions_of_an_animal_and_drop_undefined_neurons_in_both_arms():
    arm = {"s1": np.array([[1.0, 2.0], [2.0, 3.0]]), "s2": np.array([[4.0], [5.0]]), "s3": np.array([[1.0], [np.nan]])}
    reference = {"s1": np.array([[0.0, np.nan], [0.0, 0.0]]), "s2": np.zeros((2, 1)), "s3": np.zeros((2, 1))}
    got = difference_per_animal(arm, reference, {"s1": "mouse", "s2": "mouse", "s3": "another"})
    # animals sorted: "another" has no neuron defined in both seeds; "mouse" keeps s1's first neuron and s2's
    np.testing.assert_array_equal(got, [[np.nan, (1 + 4) / 2], [np.nan, (2 + 5) / 2]])


def test_arms_that_do_not_pair_are_refused():
    scored = {"s": np.ones((2, 3))}
    with pytest.raises(ValueError, match="same sessions with the same seeds"):
        difference_per_animal(scored, {"s": np.ones((3, 3))}, {"s": "a"})
    with pytest.raises(ValueError, match=r"animals are known for \[\]"):
        difference_per_animal(scored, scored, {})
    with pytest.raises(ValueError, match="got 0 seeds of the arm and 1"):
        difference_per_stimulus([], [moments(np.random.default_rng(0), 0.5)], "feve")


def moments(rng, noise, responses=None):
    """Eight stimuli of 40 frames, four repeats, six neurons; predictions with errors of the given size."""
    builder = MomentsBuilder(6)
    for stimulus in range(8):
        draw = np.random.default_rng(stimulus)
        signal = draw.normal(size=(1, 40, 6))
        y = signal + draw.normal(size=(4, 40, 6))
        p = np.broadcast_to(signal + rng.normal(0, noise, signal.shape), y.shape)
        builder.add(p, y, np.ones(y.shape, bool))
    return builder.finish()


def test_differences_per_stimulus_average_to_the_difference_of_the_score():
    rng = np.random.default_rng(11)
    arm, reference = [moments(rng, 0.4) for _ in range(4)], [moments(rng, 0.7) for _ in range(4)]
    for name in ("feve", "single_trial_correlation"):
        got = difference_per_stimulus(arm, reference, name)
        assert got.shape == (4, 8)
        direct = [
            scores(a, [name])[name].mean() - scores(r, [name])[name].mean() for a, r in zip(arm, reference, strict=True)
        ]
        np.testing.assert_allclose(got.mean(axis=1), direct, atol=0.01)
        assert compare(got, 0.01, unit="stimulus").verdict == "supported"


def test_a_negative_difference_is_written_with_a_true_minus_sign():
    sentence = compare(np.array([[-0.1, -0.2], [-0.12, -0.19]]), 0.005).sentence
    assert "difference \N{MINUS SIGN}0.1525 (95% interval \N{MINUS SIGN}" in sentence
    assert " -" not in sentence
