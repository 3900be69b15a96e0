"""Sentences of the report whose truth can be read off a contrast."""

from dataclasses import replace

import pytest

from neuroint.report import analyse
from neuroint.report.findings import SnrGain
from neuroint.report.markdown import markdown
from neuroint.report.wording import at_odds


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
