"""Scores of the Neural Latents Benchmark: by hand, against its own tool, and on data too small to be scored."""

import math

import numpy as np
import pytest

from neuroint.metrics.nlb import (
    bits_per_spike,
    bits_per_spike_per_neuron,
    few_shot_bits,
    psth_r2,
    tp_correlation,
    velocity_r2,
)

DRAW = np.random.default_rng(0)
TRAIN, EVAL, TIME, NEURONS = 12, 9, 20, 6
RATES = DRAW.gamma(2.0, 0.2, (TRAIN + EVAL, TIME, NEURONS))
COUNTS = DRAW.poisson(RATES).astype(float)
VELOCITY = RATES[..., :2] * 3 + DRAW.normal(0, 0.2, (TRAIN + EVAL, TIME, 2))
CONDITIONS = [np.array([0, 3, 5]), np.array([1, 2]), np.array([], dtype=int)]
PSTH = np.stack([RATES[TRAIN:][trials].mean(0) if len(trials) else RATES[0] for trials in CONDITIONS])


@pytest.fixture(scope="module")
def tool():
    """The benchmark's own evaluation: `pip install --no-deps nlb-tools`, because its pandas pin is obsolete."""
    return pytest.importorskip("nlb_tools.evaluation")


def unscored(counts):
    changed = counts.copy()
    changed[2, 5:9] = np.nan
    changed[:, :3, 1] = np.nan
    return changed


# --- by hand


def test_bits_per_spike_by_hand():
    rates, counts = np.array([[[1.0], [2.0]]]), np.array([[[1.0], [3.0]]])
    null, model = (2 - math.log(2)) + (2 - 3 * math.log(2)), 1 + (2 - 3 * math.log(2))
    assert bits_per_spike(rates, counts).value == pytest.approx((null - model) / (4 * math.log(2)), abs=1e-12)


def test_the_mean_count_scores_zero():
    assert bits_per_spike(np.broadcast_to(COUNTS.mean((0, 1)), COUNTS.shape).copy(), COUNTS).value == pytest.approx(0)


def test_neurons_weighted_by_their_spikes_make_the_pooled_score():
    each, counts = bits_per_spike_per_neuron(RATES, unscored(COUNTS)), unscored(COUNTS)
    assert each.shape == (NEURONS,)
    pooled = np.average(each, weights=np.nansum(counts, axis=(0, 1)))
    assert pooled == pytest.approx(bits_per_spike(RATES, counts).value, abs=1e-12)


def test_tp_correlation_by_hand():
    behavior = np.array([[0, 0, 1, 800, 600], [0, 0, 1, 800, 700], [0, 0, 1, 800, 900.0]])
    steps = np.array([3.0, 2.0, 1.0])  # a slower state takes longer
    rates = np.arange(5.0)[None, :, None] * steps[:, None, None]
    counts = np.zeros((3, 5, 1))
    found = tp_correlation(counts, rates, behavior).value
    assert found == pytest.approx(np.corrcoef(steps, behavior[:, 4])[0, 1])


# --- against the benchmark's own tool


@pytest.mark.parametrize("counts", [COUNTS, unscored(COUNTS)], ids=["all", "some not scored"])
def test_bits_per_spike_equals_the_tool(tool, counts):
    rates = RATES.copy()
    rates[0, :4, 2] = 0.0
    expected = tool.bits_per_spike(rates.copy(), counts.copy())
    assert bits_per_spike(rates, counts).value == pytest.approx(expected, abs=1e-6)
    assert (rates[0, :4, 2] == 0).all(), "rates are left as they were"


def test_velocity_equals_the_tool_with_unknown_velocities_and_masks(tool):
    velocity = VELOCITY.copy()
    velocity[1, 4:8] = np.nan
    masks = np.stack([np.arange(len(RATES)) % 2 == 0, np.arange(len(RATES)) % 2 == 1], axis=1)
    given = (RATES[:TRAIN], velocity[:TRAIN], masks[:TRAIN], RATES[TRAIN:], velocity[TRAIN:], masks[TRAIN:])
    train, train_v, train_m, new, new_v, new_m = given
    found = velocity_r2(train, train_v, new, new_v, train_m, new_m)
    assert found.value == pytest.approx(tool.velocity_decoding(*given), abs=1e-6)
    assert 0.5 < found.value < 1


@pytest.mark.parametrize("jitter", [None, np.array([0, 2, -3, 1, 0, -1, 0, 0, 0])], ids=["none", "jittered"])
def test_psth_equals_the_tool(tool, jitter):
    psth, rates = PSTH.copy(), RATES[TRAIN:] + DRAW.normal(0, 0.05, RATES[TRAIN:].shape)
    psth[:, :4], psth[:, -4:] = np.nan, np.nan
    expected = tool.eval_psth(psth, rates, CONDITIONS, jitter=jitter)
    found = psth_r2(psth, rates, CONDITIONS, jitter)
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.unscored == "1 of 3 conditions have no evaluated trial"


def test_tp_correlation_equals_the_tool(tool):
    counts, rates = COUNTS.copy(), RATES
    counts[:, :5] = np.nan
    counts[3, 5:9] = np.nan
    conditions = np.repeat([[0, 0, 1], [1, 0, 1], [1, 180, 0]], 7, axis=0)
    behavior = np.concatenate([conditions, DRAW.uniform(500, 1200, (21, 2))], axis=1)
    expected = tool.speed_tp_correlation(counts, rates, behavior)
    assert tp_correlation(counts, rates, behavior).value == pytest.approx(expected, abs=1e-6)


# --- few data


def test_without_a_spike_or_a_scored_bin_it_says_so():
    silent = bits_per_spike(RATES, np.zeros_like(COUNTS))
    assert math.isnan(silent.value)
    assert silent.unscored == "not one spike in 2520 scored bins: bits per spike has no spike"
    nothing = bits_per_spike(RATES, np.full_like(COUNTS, np.nan))
    assert math.isnan(nothing.value)
    assert nothing.unscored == "every count is NaN: nothing is scored"


def test_a_neuron_that_is_never_scored_is_counted_and_one_without_spikes_is_nan():
    counts = COUNTS.copy()
    counts[..., 0], counts[..., 1] = np.nan, 0
    assert bits_per_spike(RATES, counts).unscored == "1 of 6 neurons have no scored bin"
    each = bits_per_spike_per_neuron(RATES, counts)
    assert np.isnan(each[:2]).all()
    assert np.isfinite(each[2:]).all()


def test_one_neuron_one_trial_and_one_bin_are_scored():
    assert bits_per_spike(np.ones((1, 1, 1)), np.ones((1, 1, 1))).value == 0


def test_too_few_bins_of_velocity_are_said_per_mask():
    velocity = np.full_like(VELOCITY, np.nan)
    velocity[0, :3] = 1
    found = velocity_r2(RATES[:TRAIN], velocity[:TRAIN], RATES[TRAIN:], VELOCITY[TRAIN:])
    assert math.isnan(found.value)
    assert found.unscored == "mask 0 has 3 training and 180 evaluated bins of velocity"


def test_a_velocity_of_which_one_axis_is_unknown_is_left_out():
    velocity = VELOCITY.copy()
    velocity[TRAIN:, :2, 1] = np.nan
    found = velocity_r2(RATES[:TRAIN], velocity[:TRAIN], RATES[TRAIN:], velocity[TRAIN:])
    assert math.isfinite(found.value)


def test_no_held_out_neuron_leaves_a_tp_correlation():
    behavior = np.concatenate([np.zeros((21, 3)), DRAW.uniform(500, 1200, (21, 2))], axis=1)
    assert math.isfinite(tp_correlation(COUNTS[..., :0], RATES, behavior).value)


def test_jitter_longer_than_a_trial_leaves_nothing_of_it():
    jitter = np.full(len(RATES[TRAIN:]), RATES.shape[1] + 3)
    with pytest.raises(ValueError, match="jitter moved the edge of a trial there"):
        psth_r2(PSTH, RATES[TRAIN:], CONDITIONS, jitter)


def test_conditions_without_trials_and_unknown_times_are_said():
    empty = psth_r2(PSTH, RATES[TRAIN:], [np.array([], dtype=int)] * 3)
    assert math.isnan(empty.value)
    assert empty.unscored == "3 of 3 conditions have no evaluated trial"
    unknown = tp_correlation(COUNTS, RATES, np.full((21, 5), np.nan))
    assert math.isnan(unknown.value)
    assert unknown.unscored == "no trial has both a produced time and bins between set and go"


def test_a_condition_of_one_trial_is_left_out_of_the_tp_correlation():
    conditions = np.repeat([[0, 0, 1], [1, 0, 1]], [1, 20], axis=0)
    behavior = np.concatenate([conditions, DRAW.uniform(500, 1200, (21, 2))], axis=1)
    found = tp_correlation(COUNTS, RATES, behavior)
    assert math.isfinite(found.value)
    assert found.unscored == "1 of 2 conditions cannot be correlated"


@pytest.mark.parametrize(
    ("rates", "counts", "message"),
    [
        (RATES[:3], COUNTS, r"rates are \(3, 20, 6\) and counts \(21, 20, 6\); give a rate per bin"),
        (np.log(RATES), COUNTS, r"0 scored rates are NaN or infinite and \d+ negative; give finite rates"),
        (RATES * np.nan, COUNTS, "2520 scored rates are NaN or infinite and 0 negative"),
    ],
    ids=["shape", "log rates", "nan"],
)
def test_rates_that_are_none_are_refused(rates, counts, message):
    with pytest.raises(ValueError, match=message):
        bits_per_spike(rates, counts)


def test_bins_that_jitter_moves_to_the_edge_must_be_unknown_in_the_psth():
    with pytest.raises(ValueError, match="average rates are NaN in bins whose PSTH is known: jitter moved the edge"):
        psth_r2(PSTH, RATES[TRAIN:], CONDITIONS, np.full(EVAL, 2))


def test_a_psth_needs_the_trials_of_each_condition():
    with pytest.raises(ValueError, match="3 conditions have a PSTH and 2 trials; give both"):
        psth_r2(PSTH, RATES[TRAIN:], CONDITIONS[:2])


# --- few-shot co-smoothing


def test_latents_that_hold_the_rates_are_read_from_few_trials_and_noise_is_not():
    latent = np.log(RATES[..., :3])
    counts = DRAW.poisson(np.exp(latent @ np.eye(3))).astype(float)
    noise = np.concatenate([latent, DRAW.normal(size=(*latent.shape[:2], 40))], axis=2)
    given = {"shots": 3, "draws": 3}
    parts = (counts[:TRAIN], counts[TRAIN:])
    good = few_shot_bits(latent[:TRAIN], parts[0], latent[TRAIN:], parts[1], **given).value
    extraneous = few_shot_bits(noise[:TRAIN], parts[0], noise[TRAIN:], parts[1], **given).value
    assert good > 0
    assert extraneous < good - 0.05


def test_a_neuron_silent_in_the_drawn_trials_is_scored_all_the_same():
    counts = COUNTS.copy()
    counts[:TRAIN, :, 0] = 0
    found = few_shot_bits(RATES[:TRAIN], counts[:TRAIN], RATES[TRAIN:], counts[TRAIN:], shots=2, draws=1)
    assert math.isfinite(found.value)


@pytest.mark.parametrize("times", [10, 100, 1e6])
def test_latents_far_from_those_of_the_drawn_trials_give_a_bad_score_and_not_an_absurd_one(times):
    found = few_shot_bits(RATES[:TRAIN], COUNTS[:TRAIN], RATES[TRAIN:] * times, COUNTS[TRAIN:], shots=2, draws=6)
    highest = 10 * COUNTS[:TRAIN].max()  # rates are no higher; a bin of no spike then costs as many nats
    assert -highest / COUNTS[TRAIN:].mean() / math.log(2) - 10 < found.value < 0


def test_no_neurons_have_no_scores():
    assert bits_per_spike_per_neuron(np.zeros((3, 4, 0)), np.zeros((3, 4, 0))).shape == (0,)


def test_more_shots_than_trials_are_refused():
    with pytest.raises(ValueError, match="shots is 13 and there are 12 training trials"):
        few_shot_bits(RATES[:TRAIN], COUNTS[:TRAIN], RATES[TRAIN:], COUNTS[TRAIN:], shots=13)
