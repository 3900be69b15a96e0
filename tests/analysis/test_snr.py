"""A gain that is constant over SNR must look constant, where the usual plot shows a slope."""

import numpy as np
import pytest
from scipy import stats

from neuroint.analysis.snr import gain_by_snr, mean_by_quintile, snr_quintiles
from neuroint.metrics.moments import MomentsBuilder
from neuroint.metrics.scoring import scores

GAIN = 0.05


def build(p, y):
    builder = MomentsBuilder(y.shape[2])
    builder.add(np.broadcast_to(p, y.shape), y, np.ones(y.shape, bool))
    return builder.finish()


def study(seed, gain, neurons=1000, frames=200, repeats=10, feve=0.5):
    """Two models of neurons whose SNR spans two decades; their FEVE differs by ``gain`` in every neuron."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(10 ** rng.uniform(-2, 0, neurons))
    # realized power exactly 1: sorting by SNR sorts by the signal drawn, which both halves share
    signal = stats.zscore(rng.normal(size=(1, frames, neurons)), axis=1, ddof=1)
    y = signal * scale + rng.normal(size=(repeats, frames, neurons))

    error = rng.normal(size=signal.shape)  # in the same places for both models, as with paired fits
    error /= np.sqrt(np.mean(error**2, axis=1))

    def model(share):
        return build((signal + np.sqrt(1 - share) * error) * scale, y)

    return model(feve + gain), model(feve)


def test_a_constant_gain_is_flat_over_quintiles_where_the_difference_of_correlations_rises():
    arm, reference = study(0, GAIN)
    gain = gain_by_snr(arm, reference)["gain"].to_numpy()
    np.testing.assert_allclose(gain[1:], GAIN, atol=0.005)
    assert gain[0] == pytest.approx(GAIN, abs=0.015)  # little signal: noisier, not biased

    name = "single_trial_correlation"
    labels = snr_quintiles(scores(reference, ["snr"])["snr"])
    naive = mean_by_quintile(scores(arm, [name])[name] - scores(reference, [name])[name], labels)
    assert (np.diff(naive) > 0).all()
    assert naive[4] > 3 * naive[0]
    feve = mean_by_quintile(scores(arm, ["feve"])["feve"] - scores(reference, ["feve"])["feve"], labels)
    assert feve[0] > 1.5 * GAIN  # the mean of per-neuron ratios is lost where there is little signal


@pytest.mark.slow
def test_the_gain_is_unbiased_in_every_quintile_over_many_studies():
    gains = np.array([gain_by_snr(*study(seed, GAIN, neurons=300))["gain"].to_numpy() for seed in range(20)])
    error = gains.std(axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(gains.mean(axis=0) - GAIN) < 3 * error + 0.02 * GAIN).all()  # a ratio of sums is not quite unbiased
    assert (error < 0.004).all()


def test_a_model_gains_nothing_over_itself():
    gain = gain_by_snr(*study(1, 0.0))["gain"].to_numpy()
    np.testing.assert_allclose(gain, 0, atol=1e-12)  # the two models are one


def test_swapping_arm_and_reference_turns_the_sign():
    arm, reference = study(2, GAIN, neurons=60)
    there, back = gain_by_snr(arm, reference), gain_by_snr(reference, arm)
    np.testing.assert_allclose(there["gain"].to_numpy(), -back["gain"].to_numpy())
    assert there["quintile"].to_pylist() == [1, 2, 3, 4, 5]
    assert there["neurons"].to_pylist() == [12.0] * 5


def test_the_gain_is_error_reduction_over_signal_power_worked_out_from_the_halves():
    arm, reference = study(3, GAIN, neurons=5)
    table = gain_by_snr(arm, reference)
    reduction, power = np.zeros(5), np.zeros(5)
    for label_half, gain_half in ((0, 1), (1, 0)):
        order = np.argsort(scores(reference, ["snr"], half=label_half)["snr"])
        a, r = arm.sum(half=gain_half), reference.sum(half=gain_half)
        reduction += ((r["sum_se"] - a["sum_se"]) / 200)[order] / 2
        power += scores(r, ["signal_power"])["signal_power"][order] / 2
    np.testing.assert_allclose(table["error_reduction"].to_numpy(), reduction)
    np.testing.assert_allclose(table["signal_power"].to_numpy(), power)
    np.testing.assert_allclose(table["gain"].to_numpy(), np.where(power > 0, reduction / power, np.nan))


def test_fewer_than_four_repeats_are_refused():
    rng = np.random.default_rng(0)
    three = build(rng.random((1, 9, 4)), rng.random((3, 9, 4)))
    with pytest.raises(ValueError, match="needs at least four presentations"):
        gain_by_snr(three, three)


def test_models_scored_on_different_frames_are_refused():
    arm, _ = study(4, GAIN, neurons=5)
    other, _ = study(5, GAIN, neurons=5)
    with pytest.raises(ValueError, match="score both on the same session, tier and frames"):
        gain_by_snr(arm, other)
    with pytest.raises(ValueError, match="not scored on the same responses"):
        gain_by_snr(arm, study(4, GAIN, neurons=6)[0])


def test_quintiles_are_fifths_and_undefined_snr_is_zero():
    labels = snr_quintiles(np.array([0.3, np.nan, -0.1, 0.2, 5.0, 0.25, np.nan]))
    assert labels.tolist() == [4, 0, 1, 2, 5, 3, 0]
    assert np.bincount(snr_quintiles(np.random.default_rng(0).normal(size=1003)))[1:].tolist() == [
        201,
        200,
        201,
        200,
        201,
    ]


def test_equal_snr_shares_a_quintile_and_no_snr_at_all_gives_zeros():
    assert len(set(snr_quintiles(np.full(7, 0.4)))) == 1
    assert snr_quintiles(np.full(3, np.nan)).tolist() == [0, 0, 0]


def test_means_leave_out_undefined_scores_and_labels():
    values = np.array([1.0, 3.0, np.nan, 5.0, 100.0])
    means = mean_by_quintile(values, np.array([1, 1, 2, 5, 0]))
    np.testing.assert_array_equal(means, [2, np.nan, np.nan, np.nan, 5])
    with pytest.raises(ValueError, match="got 5 values and 2 labels"):
        mean_by_quintile(values, np.array([1, 2]))
