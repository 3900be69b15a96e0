"""Sentences of the report whose truth can be read off a contrast."""

from dataclasses import replace

import pytest

from neuroint.report import analyse
from neuroint.report.findings import SnrGain
from neuroint.report.markdown import markdown
from neuroint.report.wording import at_odds, by_jackknife, could_hide


@pytest.fixture(scope="module")
def findings(whole):
    return analyse(whole)


def told(findings, difference, gain, **changes):
    found = findings.contrasts[0]
    return at_odds(replace(found, difference=difference, snr=SnrGain(gain, [gain], [3.0] * 5), **changes))


def test_a_gain_that_disagrees_with_the_correlation_is_explained_by_the_scale_of_rates(findings):
    assert told(findings, 0.01, [0.1, 0.2, -0.1, 0.1, 0.1]) == ""
    assert "correlation (\N{MINUS SIGN}0.0100) does not" in told(findings, -0.01, [0.1, 0.2, -0.1, 0.1, 0.1])
    assert "badly scaled" in told(findings, 0.01, [0.4, 0.6, 1.3, 0.2, 0.1])
    assert told(findings, 0.01, []) == ""


def test_another_score_is_checked_by_the_correlation_beside_it(findings):
    other = {"metric": "bits_per_spike", "other_metrics": {"single_trial_correlation": -0.02}}
    assert "correlation (\N{MINUS SIGN}0.0200)" in told(findings, 0.5, [0.1] * 5, **other)


def test_markdown_holds_the_sentence_of_a_disagreement(findings):
    found = replace(findings.contrasts[0], difference=-0.01)
    assert "squared errors" in markdown(replace(findings, contrasts=[found]))


def test_a_difference_over_stimuli_says_that_it_is_not_that_of_the_two_scores_beside_it(findings):
    found = findings.contrasts[0]
    assert "jackknife" in by_jackknife(replace(found, unit="stimulus"))
    assert by_jackknife(replace(found, unit="animal")) == ""
    assert "jackknife" in markdown(replace(findings, contrasts=[replace(found, unit="stimulus")]))


def test_what_was_not_shown_is_told_apart_from_what_is_not_there(findings):
    found = replace(findings.contrasts[0], verdict="not_supported", smallest_effect=0.005)
    wide = could_hide(replace(found, interval=(-0.31, 0.30)))
    assert "the interval reaches +0.3000" in wide
    assert "smaller than about 0.3 cannot be told from 0" in wide
    assert could_hide(replace(found, interval=(-0.03, 0.004))) == "", "no difference that would matter is in it"
    assert could_hide(replace(found, verdict="supported", interval=(0.01, 0.3))) == ""
    assert could_hide(replace(found, interval=(float("nan"), float("nan")))) == ""
