"""Which runs of an arm make its ensemble, how many, and what is told of them."""

from __future__ import annotations

import pytest
from sweeps import RATE, entering

from neuroint.sweep import ensembling
from neuroint.sweep.ensembling import choose
from neuroint.sweep.selection import finished_runs


@pytest.mark.parametrize(
    ("validation", "n"),
    [([0.5], 1), ([0.5, 0.4], 1), ([0.1, 0.3, 0.3, 0.2], 2), ([-0.2, -0.1], 2), ([float("nan"), 0.2], 2)],
)
def test_the_fewest_runs_with_the_highest_validation_score_are_chosen(validation, n):
    assert choose(validation) == n


def test_nothing_is_chosen_where_no_score_is_defined():
    with pytest.raises(ValueError, match=r"got validation scores \[nan, nan\]; expected one that is defined"):
        choose([float("nan")] * 2)


def test_finished_runs_of_search_and_confirmation_are_ranked_and_repeats_left_out(tmp_path):
    journal = entering(tmp_path / "journal.jsonl")
    journal("reference-none-0000", "finished", [0.2, 0.5])
    journal("arm-none-0000", "finished", [0.5])  # the same values and seed: the same run once more
    journal("arm-none-0001", "finished", [0.4], params={RATE: 0.02})
    journal("arm-none-0002", "stopped", [0.9], params={RATE: 0.03})
    journal("arm-none-0003", "finished", [float("nan")], params={RATE: 0.04})
    journal("confirm-none-c0-s0", "finished", [0.6], phase="confirm", params={RATE: 0.05})
    journal("arm-pool-0000", "finished", [0.9], arm="pool")
    journal("ensemble-none", "finished", [0.9], phase="ensemble", params={RATE: 0.06})
    found = [run.key for run in finished_runs(journal.record(), "none", [RATE])]
    assert found == ["confirm-none-c0-s0", "reference-none-0000", "arm-none-0001"]


def test_numbers_that_are_not_defined_are_null_in_json():
    one = ensembling.Ensemble(
        "NaN", "single_trial_correlation", ["a"], 1, [float("nan")], 0.5, float("nan"), 0, 0, False
    )
    (found,) = ensembling.as_json([one])
    assert (found["arm"], found["validation"], found["dev_test"], found["dev_test_best"]) == ("NaN", [None], None, 0.5)
