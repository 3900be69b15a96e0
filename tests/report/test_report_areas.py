"""Which area predicts which: scores and contrasts on the neurons of each area."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import Sweep, confirm_key, moments

from neuroint.analysis.inference import compare, difference_per_stimulus, holm
from neuroint.metrics.moments import Moments
from neuroint.metrics.single_trial_correlation import single_trial_correlation
from neuroint.report import analyse, tables
from neuroint.report.markdown import markdown
from neuroint.report.neurons import NEURONS_FILE, read_neurons
from neuroint.results import write_moments

AREAS = ("MOs", "VISp", "VISl") * 5
ARMS = {"none": 0.5, "pool": 0.1, "attention": 0.5}
INSIDE = {"MOs": np.isin(AREAS, ["MOs"]), "visual": np.isin(AREAS, ["VISp", "VISl"])}
SETTINGS = {"noise": ARMS, "areas": AREAS, "to_areas": ("MOs", "visual"), "animals": 1}


def cells(findings, tier="dev_test"):
    return {(found.arm, found.area): found for found in findings.areas if found.tier == tier}


def scored(arm, seed, **settings):
    made = Sweep(**{**SETTINGS, "neurons": 15, "frames": 12, **settings})
    found = moments(made, arm, seed, 0, "s0", "dev_test")
    return Moments(found.values[:, :1])


def test_a_cell_is_the_mean_over_the_area_s_neurons_and_seeds(sweep):
    found = cells(analyse(sweep(**SETTINGS)))
    assert list(found) == [(arm, area) for arm in ARMS for area in INSIDE]
    for (arm, area), cell in found.items():
        each = [single_trial_correlation(scored(arm, seed))[INSIDE[area]].mean() for seed in range(3)]
        assert cell.neurons == INSIDE[area].sum()
        assert (cell.score.mean, cell.score.low, cell.score.high) == pytest.approx(
            (np.mean(each), min(each), max(each))
        )
        assert cell.unit == "single_trial_correlation"


def test_a_difference_is_tested_on_the_area_s_neurons_and_adjusted_over_the_matrix(sweep):
    found = cells(analyse(sweep(**SETTINGS)))
    by_hand = {}
    for arm in ("pool", "attention"):
        for area, inside in INSIDE.items():
            sides = [[Moments(scored(a, s).values[..., inside]) for s in range(3)] for a in (arm, "none")]
            by_hand[arm, area] = compare(difference_per_stimulus(*sides, "single_trial_correlation"), 0.005)
    adjusted = holm(np.array([one.p for one in by_hand.values()]))
    for (key, one), p in zip(by_hand.items(), adjusted, strict=True):
        assert found[key].difference == pytest.approx(one.difference)
        assert found[key].interval == pytest.approx(one.interval)
        assert found[key].p == pytest.approx(p)
    assert found["pool", "visual"].p < 0.05
    assert not any(found["none", area].tested for area in INSIDE)


def test_bits_per_bin_are_told_as_bits_per_spike_of_the_area_as_a_whole(sweep):
    found = cells(analyse(sweep(**SETTINGS, score={"metric": "bits_per_bin", "smallest_effect": 0.001})))
    bits = []
    for seed in range(3):
        area = Moments(scored("pool", seed).values[..., INSIDE["MOs"]])
        mean = area["sum_y"] / area["n_frames"]
        null = (area["n_frames"] * mean - area["sum_y"] * np.log(mean)).sum()
        bits.append((null - area["sum_poisson"].sum()) / (area["sum_y"].sum() * np.log(2)))
    assert found["pool", "MOs"].score.mean == pytest.approx(np.mean(bits))
    assert found["pool", "MOs"].unit == "bits per spike of the area as a whole"
    difference = found["pool", "MOs"].score.mean - found["none", "MOs"].score.mean
    assert found["pool", "MOs"].difference == pytest.approx(difference, abs=0.01), "jackknife, in the same unit"


def test_an_arm_that_cannot_be_tested_is_still_shown(sweep):
    found = cells(analyse(sweep(**SETTINGS, seeds=1)))
    assert np.isfinite(found["pool", "MOs"].score.mean)
    assert (found["pool", "MOs"].tested, found["pool", "MOs"].p) == (False, 1.0)


def test_without_names_every_area_is_a_column_and_the_unassigned_are_none(sweep):
    areas = ("MOs", "VISp", "root") * 5
    found = cells(analyse(sweep(**{**SETTINGS, "areas": areas, "to_areas": ()})))
    assert {area for _, area in found} == {"MOs", "VISp"}


@pytest.mark.parametrize("areas", [None, ("MOs",) * 15, ("MOs",) * 14 + ("VISp",)], ids=["unknown", "one", "too few"])
def test_fewer_than_two_areas_are_no_matrix(sweep, areas):
    findings = analyse(sweep(**{**SETTINGS, "areas": areas, "to_areas": ()}))
    assert findings.areas == []
    assert tables.per_area(findings, "dev_test").rows == []


def test_the_matrix_is_in_the_page_and_in_markdown(sweep):
    folder = sweep(**SETTINGS)
    assert read_neurons(folder).areas == {"s0": AREAS}
    findings = analyse(folder)
    table = tables.per_area(findings, "dev_test")
    assert table.header == ["arm", "MOs (5 neurons)", "visual (10 neurons)"]
    assert [row[0] for row in table.rows] == list(ARMS)
    assert table.rows[1][2].endswith("*")
    assert ";" not in table.rows[0][1], "the reference has no difference from itself"
    assert "By area of the predicted neurons" in markdown(findings)


def test_several_animals_are_compared_as_over_all_neurons(sweep):
    settings = {**SETTINGS, "animals": 3}
    found = cells(analyse(sweep(**settings)))
    by_hand = {}
    for arm in ("pool", "attention"):
        for area, inside in INSIDE.items():
            differences = np.empty((3, 3))
            for seed, animal in np.ndindex(3, 3):
                ours, theirs = (
                    single_trial_correlation(
                        moments(Sweep(**{**settings, "neurons": 15, "frames": 12}), a, seed, animal, "", "dev_test")
                    )[inside]
                    for a in (arm, "none")
                )
                differences[seed, animal] = np.mean(ours - theirs)
            by_hand[arm, area] = compare(differences, 0.005)
    assert found["pool", "visual"].interval == pytest.approx(by_hand["pool", "visual"].interval)
    p = holm(np.array([one.p for one in by_hand.values()]))
    assert [found[key].p for key in by_hand] == pytest.approx(p)


def test_an_area_of_one_of_several_animals_is_not_tested_over_stimuli_instead(sweep):
    folder = sweep(**{**SETTINGS, "animals": 3})
    file = folder / NEURONS_FILE
    table = pq.read_table(file)
    areas = ["MOs" if place < 5 else "VISp" for place in range(table.num_rows)]
    pq.write_table(table.set_column(table.column_names.index("area"), "area", pa.array(areas)), file)
    found = cells(analyse(folder))
    assert found["pool", "MOs"].neurons == 5
    assert not found["pool", "MOs"].tested
    assert found["pool", "visual"].tested


def test_bits_per_bin_of_several_sessions_stay_as_they_are(sweep):
    score = {"metric": "bits_per_bin", "smallest_effect": 0.001}
    assert cells(analyse(sweep(**{**SETTINGS, "animals": 2}, score=score)))["pool", "MOs"].unit == "bits_per_bin"


def test_a_loss_is_marked_as_one_and_its_gain_is_positive_where_the_arm_is_better(sweep):
    findings = analyse(sweep(**SETTINGS, score={"metric": "poisson_loss"}))
    found = cells(findings)
    assert found["pool", "visual"].score.mean < found["none", "visual"].score.mean
    assert found["pool", "visual"].difference > 0
    assert "poisson_loss (lower is better)" in tables.per_area(findings, "dev_test").caption


def test_runs_on_other_neurons_are_left_out_and_without_the_reference_there_is_no_matrix(sweep):
    folder = sweep(**SETTINGS)
    made = Sweep(**{**SETTINGS, "neurons": 14, "frames": 12, "areas": None})
    for seed in range(3):
        found = {"s0": moments(made, "pool", seed, 0, "s0", "dev_test")}
        write_moments(folder / "runs" / confirm_key("pool", seed), "dev_test", found)
    assert {arm for arm, _ in cells(analyse(folder))} == {"none", "attention"}
    for seed in range(3):
        shutil.rmtree(folder / "runs" / confirm_key("none", seed))
    assert analyse(folder).areas == []


def test_a_score_that_is_not_installed_leaves_no_matrix(sweep):
    assert analyse(sweep(**SETTINGS, score={"metric": "foreign"})).areas == []
