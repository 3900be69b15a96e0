"""What every registered metric owes: one number per neuron, from moments alone, with its definition written down."""

import inspect

import numpy as np
import pytest

from neuroint.metrics.moments import Moments, MomentsBuilder, concatenate
from neuroint.metrics.scoring import needs_repeats, scores
from neuroint.registry import metrics


@pytest.fixture(params=metrics.names())
def name(request):
    return request.param


def build(stimuli):
    builder = MomentsBuilder(stimuli[0][0].shape[2], "session", "validation")
    for one in stimuli:
        builder.add(*one)
    return builder.finish()


@pytest.fixture(scope="module")
def stimuli():
    """Ragged repeats of six stimuli, five neurons: the last is silent, the one before has no valid frame."""
    rng = np.random.default_rng(0)
    made = []
    for repeats in (4, 2, 1, 3, 5, 4):
        rate = rng.gamma(2.0, 1.0, (1, 12, 5))
        y = rng.poisson(rate, (repeats, 12, 5)).astype(np.float32)
        y[..., 4] = 0
        valid = rng.random(y.shape) > 0.1
        valid[..., 3] = False
        made.append(((rate + rng.normal(0, 0.1, y.shape) ** 2).astype(np.float32), y, valid))
    return made


def score(name, moments):
    return scores(moments, [name])[name]


def test_it_gives_one_float64_per_neuron_and_changes_nothing(name, stimuli):
    moments = build(stimuli)
    before = moments.values.copy()
    values = metrics[name].factory(moments)
    assert values.shape == (5,)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(moments.values, before)


def test_it_is_finite_for_responding_neurons_and_nan_where_nothing_was_recorded(name, stimuli):
    values = score(name, build(stimuli))
    assert np.isfinite(values[:3]).all()
    assert np.isnan(values[3])
    assert not np.isinf(values).any()


def test_it_scores_each_neuron_by_itself(name, stimuli):
    order = np.array([2, 4, 0])
    picked = build([tuple(array[..., order] for array in one) for one in stimuli])
    np.testing.assert_allclose(score(name, picked), score(name, build(stimuli))[order], rtol=1e-12)


def test_it_does_not_depend_on_the_order_of_stimuli_or_where_they_are_cut(name, stimuli):
    whole = score(name, build(stimuli))
    cut = [tuple(array[:, part] for array in one) for one in stimuli for part in (np.s_[5:], np.s_[:5])]
    np.testing.assert_allclose(score(name, build(stimuli[::-1])), whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(score(name, build(cut)), whole, rtol=1e-9, atol=1e-12)


def test_it_does_not_depend_on_the_order_of_repeats(name, stimuli):
    turned = build([tuple(array[::-1] for array in one) for one in stimuli])
    np.testing.assert_allclose(score(name, turned), score(name, build(stimuli)), rtol=1e-9, atol=1e-12)


def test_a_file_and_two_workers_give_the_same_score(name, stimuli):
    moments = build(stimuli)
    np.testing.assert_array_equal(score(name, Moments.from_table(moments.to_table())), score(name, moments))
    shares = concatenate([build(stimuli[:2]), build(stimuli[2:])])
    np.testing.assert_array_equal(score(name, shares), score(name, moments))


def test_it_has_no_choices_so_that_its_name_is_its_definition(name):
    assert metrics[name].choices == {}
    assert metrics[name].facts == {}


def test_its_docstring_says_when_it_is_nan_what_its_null_is_and_where_it_comes_from(name):
    text = inspect.getdoc(metrics[name].factory) or ""
    for word in ("NaN", "ull", "Source:"):
        assert word in text, f"{name} does not state '{word}'"
    assert len(metrics[name].summary) < 120


def test_without_any_repeat_it_is_nan_exactly_if_it_says_it_needs_repeats(name, stimuli):
    single = build([tuple(array[:1] for array in one) for one in stimuli])
    assert np.isnan(score(name, single)[:3]).all() == needs_repeats(name)
    assert np.isfinite(score(name, single)[:3]).all() != needs_repeats(name)
