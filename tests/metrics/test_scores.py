"""Scores equal plain implementations from raw arrays, published biases, and values worked out by hand."""

import numpy as np
import pytest

from neuroint.metrics.moments import MomentsBuilder
from neuroint.metrics.scoring import needs_repeats, pseudovalues, scores, undefined, why_unavailable
from neuroint.registry import UnknownNameError, metrics


def build(stimuli):
    builder = MomentsBuilder(stimuli[0][0].shape[2])
    for one in stimuli:
        builder.add(*one)
    return builder.finish()


def ragged(seed=0, neurons=4, n_stimuli=6):
    """Float64 stimuli with 1 to 5 repeats, unequal lengths, and a fifth of the entries missing."""
    rng = np.random.default_rng(seed)
    stimuli = []
    for k in range(n_stimuli):
        shape = (1 + k % 5, 8 + k, neurons)
        rate = rng.gamma(2.0, 1.0, (1, *shape[1:]))
        y = rng.poisson(rate, shape).astype(float)
        stimuli.append((rate * rng.gamma(20, 0.05, shape), y, rng.random(shape) > 0.2))
    return stimuli


def one(name, stimuli):
    return scores(build(stimuli), [name])[name]


def everything_valid(p, y):
    return [(p, y, np.ones(y.shape, bool))]


# --- plain implementations, one neuron at a time, frame by frame ------------------------------------------------


def frames(stimuli, neuron):
    """The valid (responses, predictions) of every frame that has any."""
    for p, y, v in stimuli:
        for t in range(y.shape[1]):
            keep = v[:, t, neuron]
            if keep.any():
                yield y[keep, t, neuron], p[keep, t, neuron]


def pearson(y, p):
    y, p = np.asarray(y), np.asarray(p)
    return np.mean((y - y.mean()) / (y.std() + 1e-8) * (p - p.mean()) / (p.std() + 1e-8))


def plain_single(f):
    return pearson(np.concatenate([y for y, _ in f]), np.concatenate([p for _, p in f]))


def plain_average(f):
    return pearson([y.mean() for y, _ in f], [p.mean() for _, p in f])


def repeated(f):
    return [(y, p) for y, p in f if y.size > 1]


def plain_noise(f):
    return np.mean([y.var(ddof=1) for y, _ in repeated(f)])


def plain_signal(f):
    f = repeated(f)
    return np.var([y.mean() for y, _ in f], ddof=1) - np.mean([y.var(ddof=1) / y.size for y, _ in f])


def plain_cc_norm(f):
    f = repeated(f)
    y, p = [y.mean() for y, _ in f], [p.mean() for _, p in f]
    return np.cov(y, p)[0, 1] / np.sqrt(np.var(p, ddof=1) * plain_signal(f))


def plain_feve(f):
    f = repeated(f)
    center = np.mean([y.mean() for y, _ in f])
    trials = sum(y.size for y, _ in f)
    total = np.mean([np.mean((y - center) ** 2) for y, _ in f]) * trials / (trials - 1)
    error = np.mean([np.mean((y - p) ** 2) for y, p in f])
    return 1 - (error - plain_noise(f)) / (total - plain_noise(f))


def plain_poisson(f):
    y, p = np.concatenate([y for y, _ in f]), np.concatenate([p for _, p in f])
    return np.mean(p - y * np.log(p + 1e-8))


def plain_null(f):
    y = np.concatenate([y for y, _ in f])
    return plain_poisson([(y, np.full(y.shape, y.mean()))])


def plain_bits(f):
    y = np.concatenate([y for y, _ in f])
    return (plain_null(f) - plain_poisson(f)) * y.size / (y.sum() * np.log(2))


PLAIN = {
    "single_trial_correlation": plain_single,
    "correlation_to_average": plain_average,
    "noise_variance": plain_noise,
    "signal_power": plain_signal,
    "snr": lambda f: plain_signal(f) / plain_noise(f),
    "explainable_variance": lambda f: plain_signal(f) / (plain_signal(f) + plain_noise(f)),
    "cc_norm": plain_cc_norm,
    "feve": plain_feve,
    "poisson_loss": plain_poisson,
    "poisson_loss_null": plain_null,
    "bits_per_spike": plain_bits,
    "bits_per_bin": lambda held: (plain_null(held) - plain_poisson(held)) / np.log(2),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_score_of_ragged_repeats_equals_its_plain_implementation(name):
    stimuli = ragged()
    expected = [PLAIN[name](list(frames(stimuli, neuron))) for neuron in range(4)]
    np.testing.assert_allclose(one(name, stimuli), expected, rtol=1e-10)


def test_every_registered_score_has_a_plain_implementation():
    assert set(PLAIN) == set(metrics.names())


# --- published formulas where repeats are equal -----------------------------------------------------------------


def balanced(seed=1, repeats=4, time=30, neurons=3):
    rng = np.random.default_rng(seed)
    rate = rng.gamma(2.0, 1.0, (1, time, neurons))
    y = rng.poisson(rate, (repeats, time, neurons)).astype(float)
    return np.broadcast_to(rate + rng.normal(0, 0.3, rate.shape), y.shape).copy(), y


def sahani_linden(y):
    n = y.shape[0]
    return (n * y.mean(axis=0).var(axis=0, ddof=1) - y.var(axis=1, ddof=1).mean(axis=0)) / (n - 1)


def test_signal_power_is_that_of_sahani_and_linden_when_no_repeat_has_an_offset_from_the_others():
    p, y = balanced()
    level = y - y.mean(axis=1, keepdims=True) + y.mean(axis=(0, 1))  # every repeat has the same mean over frames
    noise = level.var(axis=0, ddof=1).mean(axis=0)
    # taking offsets out costs their form one of M frames: its noise is M / (M - 1) of ours
    expected = sahani_linden(level) + noise / (y.shape[1] - 1) / y.shape[0]
    np.testing.assert_allclose(one("signal_power", everything_valid(p, level)), expected, rtol=1e-10)


def test_signal_power_agrees_with_sahani_and_linden_on_average():
    p, y = balanced(neurons=2000)
    gap = one("signal_power", everything_valid(p, y)) - sahani_linden(y)
    assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(2000)


def test_with_equal_repeats_feve_is_the_formula_of_cadena():
    p, y = balanced()
    noise = y.var(axis=0, ddof=1).mean(axis=0)
    total = y.reshape(-1, 3).var(axis=0, ddof=1)
    expected = 1 - (np.mean((y - p) ** 2, axis=(0, 1)) - noise) / (total - noise)
    np.testing.assert_allclose(one("feve", everything_valid(p, y)), expected, rtol=1e-10)


def test_with_equal_repeats_cc_norm_is_close_to_the_formula_of_schoppe():
    """Close, because their signal power takes out an offset of each repeat."""
    p, y = balanced(time=400)
    n = y.shape[0]
    power = (y.sum(axis=0).var(axis=0, ddof=1) - y.var(axis=1, ddof=1).sum(axis=0)) / (n * (n - 1))
    covariance = [np.cov(y.mean(axis=0)[:, i], p[0, :, i])[0, 1] for i in range(3)]
    expected = covariance / np.sqrt(p[0].var(axis=0, ddof=1) * power)
    np.testing.assert_allclose(one("cc_norm", everything_valid(p, y)), expected, rtol=2e-3)


# --- by hand ------------------------------------------------------------------------------------------------------


def test_two_repeats_of_two_frames_give_the_scores_worked_out_by_hand():
    y = np.array([[0.0, 4.0], [2.0, 6.0]])[:, :, None]  # means 1 and 5, variance 2 in both frames
    p = np.array([[1.0, 4.0], [1.0, 4.0]])[:, :, None]
    got = {name: value.item() for name, value in scores(build(everything_valid(p, y)), metrics.names()).items()}
    assert got["noise_variance"] == pytest.approx(2)
    assert got["signal_power"] == pytest.approx(8 - 1)  # var(1, 5) = 8, noise of a mean of two = 1
    assert got["snr"] == pytest.approx(3.5)
    assert got["explainable_variance"] == pytest.approx(7 / 9)
    assert got["cc_norm"] == pytest.approx(6 / np.sqrt(4.5 * 7))
    # squared errors 1 0 1 4, mean 1.5; deviations from 3 are 3 1 1 3, so the total is 20 / 3
    assert got["feve"] == pytest.approx(1 - (1.5 - 2) / (20 / 3 - 2))
    assert got["single_trial_correlation"] == pytest.approx(2 / np.sqrt(5), abs=1e-7)
    assert got["correlation_to_average"] == pytest.approx(1, abs=1e-7)
    null = 3 - 3 * np.log(3)
    loss = (10 - (4 + 6) * np.log(4)) / 4
    assert got["poisson_loss_null"] == pytest.approx(null, abs=1e-7)
    assert got["poisson_loss"] == pytest.approx(loss, abs=1e-7)
    assert got["bits_per_spike"] == pytest.approx((null - loss) * 4 / (12 * np.log(2)), abs=1e-7)


def test_the_mean_of_bits_per_bin_over_the_mean_count_is_the_pooled_bits_per_spike():
    stimuli = ragged()
    stimuli = [(p, y, np.ones(y.shape, bool)) for p, y, _ in stimuli]
    counts = [np.concatenate([y for y, _ in frames(stimuli, neuron)]) for neuron in range(4)]
    weights = np.array([count.sum() for count in counts])
    pooled = (one("bits_per_spike", stimuli) * weights).sum() / weights.sum()
    assert one("bits_per_bin", stimuli).mean() / np.mean(counts) == pytest.approx(pooled, rel=1e-9)


def test_a_coin_flip_predicted_exactly_earns_almost_one_bit_per_spike():
    y = np.tile([0.0, 1.0], 50)[None, :, None]
    assert one("bits_per_spike", everything_valid(y.copy(), y)) == pytest.approx(1, abs=1e-6)


def test_clips_are_concatenated_before_correlating():
    up, down = np.array([1.0, 2.0, 3.0])[None, :, None], np.array([11.0, 12.0, 13.0])[None, :, None]
    stimuli = [*everything_valid(up[:, ::-1].copy(), up), *everything_valid(down[:, ::-1].copy(), down)]
    assert one("single_trial_correlation", stimuli).item() > 0.9  # within each clip it is -1


# --- nulls and undefined cases ----------------------------------------------------------------------------------


def test_a_silent_neuron_scores_zero_in_correlations_and_nan_where_nothing_can_be_explained():
    p = np.random.default_rng(0).random((3, 20, 1))
    got = scores(build(everything_valid(p, np.zeros((3, 20, 1)))), metrics.names())
    zero = {"single_trial_correlation", "correlation_to_average", "noise_variance", "signal_power", "poisson_loss_null"}
    nan = {"snr", "explainable_variance", "cc_norm", "feve", "bits_per_spike"}
    assert all(got[name].item() == 0 for name in zero)
    assert all(np.isnan(got[name].item()) for name in nan)
    assert got["poisson_loss"].item() == pytest.approx(p.mean())


@pytest.mark.parametrize("level", [0.1, 1e3, 1 / 3])
def test_a_constant_neuron_is_told_from_rounding(level):
    y = np.full((3, 50, 1), level)
    p = np.random.default_rng(0).random(y.shape)
    got = scores(build(everything_valid(p, y)), metrics.names())
    assert got["single_trial_correlation"].item() == got["correlation_to_average"].item() == 0
    assert got["noise_variance"].item() == got["signal_power"].item() == 0
    assert np.isnan([got[name].item() for name in ("snr", "explainable_variance", "cc_norm", "feve")]).all()


@pytest.mark.parametrize("name", ["single_trial_correlation", "correlation_to_average", "cc_norm"])
def test_a_constant_prediction_scores_zero(name):
    _, y = balanced()
    np.testing.assert_array_equal(one(name, everything_valid(np.full(y.shape, 0.7), y)), 0)


def test_predicting_the_mean_of_the_scored_responses_is_the_null_of_feve_bits_and_loss():
    _, y = balanced(time=400)
    got = scores(build(everything_valid(np.broadcast_to(y.mean(axis=(0, 1)), y.shape).copy(), y)), metrics.names())
    np.testing.assert_allclose(got["feve"], 0, atol=1e-2)  # ddof of the total leaves 1 / trials
    np.testing.assert_allclose(got["bits_per_spike"], 0, atol=1e-7)
    np.testing.assert_allclose(got["poisson_loss"], got["poisson_loss_null"], rtol=1e-10)


def test_a_neuron_without_any_valid_frame_is_nan_in_every_score_and_changes_no_other():
    stimuli = [(p, y, v & (np.arange(4) != 2)) for p, y, v in ragged()]
    without, whole = scores(build(stimuli), metrics.names()), scores(build(ragged()), metrics.names())
    for name in metrics.names():
        assert np.isnan(without[name][2])
        np.testing.assert_array_equal(without[name][[0, 1, 3]], whole[name][[0, 1, 3]])


def test_a_negative_prediction_makes_the_poisson_scores_of_that_neuron_nan():
    p, y = balanced()
    p[1, 3, 2] = -0.5
    got = scores(build(everything_valid(p, y)), ["poisson_loss", "bits_per_spike", "poisson_loss_null", "feve"])
    for name in ("poisson_loss", "bits_per_spike"):
        assert np.isnan(got[name]).tolist() == [False, False, True]
    assert not np.isnan(got["feve"]).any()
    assert not np.isnan(got["poisson_loss_null"]).any()


def test_negative_mean_responses_have_no_poisson_null():
    p, y = balanced()
    assert np.isnan(one("poisson_loss_null", everything_valid(p, y - 100))).all()


def test_without_repeats_a_score_that_needs_them_is_nan_and_says_why():
    rng = np.random.default_rng(2)
    moments = build([(rng.random((1, 9, 2)), rng.random((1, 9, 2)), np.ones((1, 9, 2), bool)) for _ in range(3)])
    for name, values in scores(moments, metrics.names()).items():
        assert np.isnan(values).all() == needs_repeats(name), name
    assert why_unavailable(moments, "feve") == "feve is not available: no stimulus of this tier was shown twice"
    assert why_unavailable(moments, "poisson_loss") is None
    assert why_unavailable(build(ragged()), "feve") is None
    both = scores(moments, ["single_trial_correlation", "correlation_to_average"])
    np.testing.assert_allclose(both["single_trial_correlation"], both["correlation_to_average"], rtol=1e-12)


def test_a_single_repeated_frame_has_noise_but_no_signal():
    y = np.array([1.0, 2.0, 4.0])[:, None, None]
    got = scores(build(everything_valid(y.copy(), y)), ["noise_variance", "signal_power", "snr", "feve", "cc_norm"])
    assert got["noise_variance"].item() == pytest.approx(np.var([1, 2, 4], ddof=1))
    assert np.isnan([got[name].item() for name in ("signal_power", "snr", "feve", "cc_norm")]).all()


def test_a_misspelled_score_names_the_nearest_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'feve'"):
        scores(build(ragged()), ["fevee"])


def test_halves_are_scored_by_themselves():
    p, y = balanced(repeats=4)
    moments = build(everything_valid(p, y))
    alone = scores(build(everything_valid(p[1::2].copy(), y[1::2].copy())), metrics.names())
    for name, values in scores(moments, metrics.names(), half=1).items():
        np.testing.assert_array_equal(values, alone[name])


# --- biases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [2, 10])
def test_pure_noise_has_a_signal_power_and_snr_of_zero_on_average_with_the_sign_kept(repeats):
    rng = np.random.default_rng(3)
    y = rng.normal(size=(repeats, 100, 2000))
    got = scores(
        build(everything_valid(np.zeros_like(y), y)), ["signal_power", "snr", "explainable_variance", "cc_norm"]
    )
    assert abs(got["signal_power"].mean()) < 3 * got["signal_power"].std() / np.sqrt(2000)
    for name in ("snr", "explainable_variance"):
        assert abs(got[name].mean()) < 0.03 / repeats  # uncorrected, it would be 1 / repeats
    assert 0.45 < np.mean(got["signal_power"] < 0) < 0.6
    assert undefined(got["cc_norm"]) == np.count_nonzero(got["signal_power"] <= 0)


@pytest.mark.parametrize("repeats", [2, 10])
def test_signal_at_half_of_the_variance_is_recovered_whatever_the_number_of_repeats(repeats):
    rng = np.random.default_rng(4)
    signal = rng.normal(size=(1, 100, 2000))
    y = signal + rng.normal(size=(repeats, 100, 2000))
    got = scores(
        build(everything_valid(np.broadcast_to(signal, y.shape).copy(), y)), ["explainable_variance", "cc_norm", "feve"]
    )
    assert got["explainable_variance"].mean() == pytest.approx(0.5, abs=0.01)
    assert got["cc_norm"].mean() == pytest.approx(1, abs=0.01)
    assert got["feve"].mean() == pytest.approx(1, abs=0.02)  # a ratio of unbiased parts, not itself unbiased


def test_with_unequal_repeats_and_noise_signal_power_and_feve_stay_unbiased():
    """Frames shown often are noisier here: pooling trials instead of frames would be wrong."""
    rng = np.random.default_rng(5)
    stimuli = []
    for repeats, sd in ((2, 0.5), (8, 2.0)):
        signal = rng.normal(size=(1, 100, 1000))
        y = signal + rng.normal(0, sd, (repeats, 100, 1000))
        stimuli += everything_valid(np.broadcast_to(signal, y.shape).copy(), y)
    got = scores(build(stimuli), ["signal_power", "noise_variance", "feve"])
    assert got["noise_variance"].mean() == pytest.approx((0.25 + 4) / 2, abs=0.02)
    assert abs(got["signal_power"].mean() - 1) < 3 * got["signal_power"].std() / np.sqrt(1000)
    assert got["feve"].mean() == pytest.approx(1, abs=0.02)


# --- pseudovalues ------------------------------------------------------------------------------------------------


def test_pseudovalues_of_a_mean_are_the_means_of_the_stimuli():
    p, y = balanced(time=6)
    stimuli = [one for k in range(4) for one in everything_valid(p + k, y + k)]
    expected = [PLAIN["poisson_loss"](list(frames(stimuli[k : k + 1], 0))) for k in range(4)]
    np.testing.assert_allclose(pseudovalues(build(stimuli), "poisson_loss")[:, 0], expected, rtol=1e-10)


def test_pseudovalues_leave_each_stimulus_out_in_turn():
    stimuli = ragged()
    got = pseudovalues(build(stimuli), "feve")
    expected = 6 * one("feve", stimuli) - 5 * one("feve", stimuli[:2] + stimuli[3:])
    np.testing.assert_allclose(got[2], expected, rtol=1e-9)
    with pytest.raises(ValueError, match="got 1 stimulus; leaving one out needs at least 2"):
        pseudovalues(build(stimuli[:1]), "feve")
