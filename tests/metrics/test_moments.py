"""Moments are sums that add up, survive a file, and keep their digits."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuroint.metrics.moments import COLUMNS, REPEATED, SINGLE, Moments, MomentsBuilder, concatenate
from neuroint.metrics.scoring import scores


def stimulus(rng, repeats=4, time=7, neurons=3, missing=0.2):
    y = rng.poisson(2.0, (repeats, time, neurons)).astype(np.float32)
    p = rng.gamma(2.0, 1.0, (repeats, time, neurons)).astype(np.float32)
    return p, y, rng.random((repeats, time, neurons)) >= missing


def build(stimuli, neurons=3, **options):
    builder = MomentsBuilder(neurons, **options)
    for one in stimuli:
        builder.add(*one)
    return builder.finish()


def several(seed=0, n=5):
    rng = np.random.default_rng(seed)
    return [stimulus(rng, repeats=1 + k % 4, time=5 + k) for k in range(n)]


def test_every_column_of_two_repeats_of_two_frames_is_as_worked_out_by_hand():
    y = np.array([[1.0, 2.0], [3.0, 2.0]])[:, :, None]  # repeats 1 2 and 3 2
    p = np.array([[1.0, 1.0], [2.0, 0.0]])[:, :, None]
    m = build([(p, y, np.ones(y.shape, bool))], neurons=1)
    expected = {
        "n_frames": 4, "sum_y": 8, "sum_yy": 18, "sum_p": 4, "sum_pp": 6, "sum_yp": 9,
        "n_mean": 2, "sum_ym": 4, "sum_ymym": 8, "sum_pm": 2, "sum_pmpm": 2.5, "sum_ympm": 4,
        "n_var": 2, "n_var_trials": 4, "sum_var": 2, "sum_var_over_n": 1, "sum_se": 0.5 + 2.5,
        "sum_ym_var": 4, "sum_ymym_var": 8, "sum_pm_var": 2, "sum_pmpm_var": 2.5, "sum_ympm_var": 4,
    }  # fmt: skip
    assert {name: m[name].item() for name in expected} == expected
    poisson = 4 - (1 * np.log(1) + 2 * np.log(1) + 3 * np.log(2) + 2 * np.log(1e-8))
    assert m["sum_poisson"].item() == pytest.approx(poisson, rel=1e-7)
    assert set(expected) | {"sum_poisson"} == set(COLUMNS)


def test_the_halves_of_the_repeats_add_up_to_all_in_every_single_trial_column():
    values = build(several()).values
    single = [COLUMNS.index(name) for name in SINGLE]
    np.testing.assert_allclose(values[:, 1, single] + values[:, 2, single], values[:, 0, single], rtol=1e-12)


def test_half_zero_holds_the_first_third_and_fifth_repeat():
    p, y, v = stimulus(np.random.default_rng(1), repeats=5)
    whole, even, odd = build([(p, y, v)]), build([(p[::2], y[::2], v[::2])]), build([(p[1::2], y[1::2], v[1::2])])
    np.testing.assert_array_equal(whole.sum(half=0).values, even.sum().values)
    np.testing.assert_array_equal(whole.sum(half=1).values, odd.sum().values)


def test_weights_count_a_stimulus_as_often_as_a_bootstrap_drew_it():
    stimuli = several()
    drawn = np.array([2, 0, 1, 0, 3])
    repeated = build([one for one, times in zip(stimuli, drawn, strict=True) for _ in range(times)])
    np.testing.assert_allclose(build(stimuli).sum(drawn).values, repeated.sum().values, rtol=1e-12)


def test_shares_of_two_workers_concatenate_to_the_moments_of_one():
    stimuli = several()
    parts = [build(stimuli[:2], session="a", tier="validation"), build(stimuli[2:], session="a", tier="validation")]
    np.testing.assert_array_equal(concatenate(parts).values, build(stimuli).values)
    with pytest.raises(ValueError, match="concatenate within a session and tier only"):
        concatenate([parts[0], build(stimuli, session="b", tier="validation")])
    with pytest.raises(ValueError, match="no moments to concatenate"):
        concatenate([])


def test_bounded_rows_hold_the_same_sums_as_a_row_per_stimulus():
    folded, full = build(several(n=7), rows=3), build(several(n=7))
    assert folded.n_stimuli == 3
    np.testing.assert_allclose(folded.values[1], full.values[1] + full.values[4], rtol=1e-12)
    np.testing.assert_allclose(folded.sum().values, full.sum().values, rtol=1e-12)


def test_neurons_in_several_chunks_give_what_one_chunk_gives(monkeypatch):
    whole = build(several())
    monkeypatch.setattr("neuroint.metrics.moments._CHUNK", 1)
    np.testing.assert_allclose(build(several()).values, whole.values, rtol=1e-13)


def test_a_parquet_file_gives_back_every_bit(tmp_path):
    moments = build(several(), session="mouse/1", tier="dev_test")
    pq.write_table(moments.to_table(), tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.num_rows == 5 * 3 * 3
    again = Moments.from_table(table)
    np.testing.assert_array_equal(again.values, moments.values)
    assert (again.session, again.tier) == ("mouse/1", "dev_test")


def test_rows_of_a_table_may_come_in_any_order():
    moments = build(several())
    table = moments.to_table()
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    np.testing.assert_array_equal(Moments.from_table(shuffled).values, moments.values)


def test_a_row_of_the_table_says_which_neuron_stimulus_and_half_it_is():
    moments = build(several())
    row = moments.to_table().slice(1 * 9 + 2 * 3 + 1, 1).to_pylist()[0]
    assert (row["stimulus"], row["half"], row["neuron"]) == (1, "1", 1)
    assert row["sum_y"] == moments.values[1, 2, COLUMNS.index("sum_y"), 1]


def test_a_table_that_is_cut_foreign_or_of_another_definition_is_refused():
    table = build(several()).to_table()
    with pytest.raises(ValueError, match="make 45; it was cut"):
        Moments.from_table(table.slice(0, 40).take([*range(39), 0]).replace_schema_metadata(table.schema.metadata))
    with pytest.raises(ValueError, match=r"lacks sum_yp; give a table"):
        Moments.from_table(table.drop_columns(["sum_yp"]))
    with pytest.raises(ValueError, match="definition 0, this version reads definition 1"):
        Moments.from_table(table.replace_schema_metadata({"session": "", "tier": "", "definition": "0"}))
    with pytest.raises(ValueError, match="definition None"):
        Moments.from_table(table.replace_schema_metadata(None))


def test_responses_of_mean_1000_keep_their_correlation_to_a_millionth():
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(1, 20_000, 2))
    y = (1000 + (signal + rng.normal(size=signal.shape)) / np.sqrt(2)).astype(np.float32)
    p = (1000 + signal).astype(np.float32)
    half = np.s_[:, :10_000], np.s_[:, 10_000:]
    m = build([(p[h], y[h], np.ones(y[h].shape, bool)) for h in half], neurons=2)
    expected = [np.corrcoef(y[0, :, i].astype(float), p[0, :, i].astype(float))[0, 1] for i in range(2)]
    np.testing.assert_allclose(scores(m, ["single_trial_correlation"])["single_trial_correlation"], expected, atol=1e-6)


def test_what_is_not_valid_may_hold_anything():
    p, y, v = stimulus(np.random.default_rng(3))
    dirty_p, dirty_y = np.where(v, p, np.inf), np.where(v, y, np.nan)
    np.testing.assert_array_equal(build([(dirty_p, dirty_y, v)]).values, build([(p, y, v)]).values)


def test_a_neuron_without_repeated_frames_has_repeated_columns_of_zero():
    p, y, v = stimulus(np.random.default_rng(4), repeats=2, missing=0)
    v[1, :, 1] = False
    m = build([(p, y, v)])
    assert all(m[name][1] == 0 for name in REPEATED)
    assert m["n_var"].tolist() == [7, 0, 7]
    assert m.has_repeats


def test_one_presentation_per_stimulus_has_no_repeats_and_an_empty_second_half():
    m = build([stimulus(np.random.default_rng(5), repeats=1)])
    assert not m.has_repeats
    assert not m.sum(half=1).values.any()


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (1, r"responses: 1 of 84 entries marked valid are NaN or infinite; mark what was not recorded"),
        (0, r"prediction: 1 of 84 entries marked valid are NaN or infinite; the model has diverged"),
    ],
)
def test_nan_inside_what_counts_is_refused(which, message):
    arrays = list(stimulus(np.random.default_rng(6), missing=0))
    arrays[which][0, 3, 2] = np.nan
    with pytest.raises(ValueError, match=message):
        MomentsBuilder(3).add(*arrays)


def test_wrong_shapes_weights_halves_and_empty_builders_are_refused():
    p, y, v = stimulus(np.random.default_rng(7))
    with pytest.raises(ValueError, match=r"all three must be \(repeats, time, 4 neurons\)"):
        MomentsBuilder(4).add(p, y, v)
    with pytest.raises(ValueError, match="at least one repeat"):
        MomentsBuilder(3).add(p[:0], y[:0], v[:0])
    with pytest.raises(ValueError, match="no stimulus was added for tier 'final_test'"):
        MomentsBuilder(3, tier="final_test").finish()
    with pytest.raises(ValueError, match="0 neurons and None rows"):
        MomentsBuilder(0)
    moments = build([(p, y, v)])
    with pytest.raises(ValueError, match="give one for each of 1 stimuli"):
        moments.sum(np.ones(2))
    with pytest.raises(ValueError, match="take halves before summing"):
        moments.sum().sum(half=1)
