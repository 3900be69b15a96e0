"""Which neurons attention over neurons reads most: maps and in-degree by hand, relations and agreement with nulls."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from silencing_worlds import masked_session
from torch import nn

from neuroint.analysis.attended import agreement_of_seeds, in_degree, relation, spatial_attention
from neuroint.config import parse_sweep
from neuroint.data.base import FINAL_TEST, TRAIN, VALIDATION
from neuroint.model import build_model, facts_of

COUNTS = np.random.default_rng(0).poisson(1.0, (8, 6, 4)).astype(np.float32)
SESSION = masked_session(COUNTS, held_in=3)


class Given(nn.Module):
    """A core that reads by the maps it was given, in the second half of clips turned around."""

    def __init__(self, first, second):
        super().__init__()
        self.layers = torch.tensor([first, second])
        self.drop = nn.Dropout(0.5)

    def spatial_maps(self, inputs):
        here = self.layers[:, None].expand(-1, len(inputs.observed), -1, -1).clone()
        odd = inputs.observed[:, 0, 0] % 2 == 1
        here[:, odd] = here[:, odd].flip(-1)
        return self.drop(here)


class Model(nn.Module):
    """Hands its inputs on as they are."""

    def __init__(self, core):
        super().__init__()
        self.core = core

    def lagged(self, inputs):
        return inputs


FIRST = [[0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.5, 0.5]]
SECOND = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]


def fitted(core, **choices):
    sweep = parse_sweep(
        {
            "name": "attended",
            "core": {"name": core, "frames": 6, "layers": 2, "heads": 1, "hidden": 5, **choices},
            "readout": "linear",
            "link": "exp",
            "search": {"trials": 1},
            "reference": "one",
            "arms": {"one": {}},
        }
    )
    torch.manual_seed(0)
    return build_model(sweep.trial("one", {}, key="a", phase="tune", seed=0).specs, facts_of([SESSION]))


def test_in_degree_is_the_sum_of_a_column_without_what_a_neuron_gives_itself():
    np.testing.assert_allclose(in_degree(np.array(FIRST)), [0.75, 1.25, 0.5, 0.25])


def test_held_out_neurons_read_but_are_not_among_those_that_are_read():
    np.testing.assert_allclose(in_degree(np.array(FIRST), held_in=2), [0.75, 1.25])


def test_uniform_attention_gives_every_neuron_the_share_of_the_others():
    np.testing.assert_allclose(in_degree(np.full((5, 5), 0.2)), np.full(5, 0.8))


def test_maps_are_averaged_over_clips_and_layers():
    """Of the training clips some have an odd count in their first entry, where maps are turned around."""
    clips = SESSION.clips(TRAIN)
    turned = float((COUNTS[clips, 0, 0] % 2 == 1).mean())
    assert 0 < turned < 1
    mean = (np.array(FIRST) + np.array(SECOND)) / 2
    expected = (1 - turned) * mean + turned * mean[:, ::-1]
    model = Model(Given(FIRST, SECOND))
    np.testing.assert_allclose(spatial_attention(model, SESSION, TRAIN), expected, rtol=1e-6)
    np.testing.assert_allclose(spatial_attention(model, SESSION, TRAIN, clips_at_once=1), expected, rtol=1e-6)
    assert model.training
    assert model.core.drop.training


def test_the_first_layer_can_be_taken_alone_or_layers_be_followed_by_rollout():
    """Neuron 1 takes half of itself, a quarter each of 0 and 1; then half of itself and half of neuron 2."""
    counts = 2 * COUNTS
    session = masked_session(counts, held_in=3)
    model = Model(Given(FIRST, SECOND))
    np.testing.assert_allclose(spatial_attention(model, session, TRAIN, layers="first"), FIRST, rtol=1e-6)
    rolled = spatial_attention(model, session, TRAIN, layers="rollout")
    neuron_1, neuron_2 = [0.25, 0.75, 0.0, 0.0], [0.125, 0.125, 0.625, 0.125]
    np.testing.assert_allclose(rolled[1], (np.array(neuron_1) + np.array(neuron_2)) / 2, rtol=1e-6)
    np.testing.assert_allclose(rolled.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("core", ["stndt", "stndt_fixed"])
@pytest.mark.parametrize("layers", ["mean", "first", "rollout"])
def test_maps_of_real_cores_are_of_all_neurons_and_their_rows_sum_to_one(core, layers):
    attention = spatial_attention(fitted(core), SESSION, VALIDATION, layers=layers)
    assert attention.shape == (4, 4)
    np.testing.assert_allclose(attention.sum(1), 1, rtol=1e-5)


def test_maps_are_those_of_evaluation_whatever_mode_the_model_is_in():
    model = fitted("stndt_fixed")
    trained, evaluated = (spatial_attention(model.train(mode), SESSION, TRAIN) for mode in (True, False))
    np.testing.assert_array_equal(trained, evaluated)


def test_a_core_without_attention_over_neurons_is_refused():
    with pytest.raises(ValueError, match=r"core Ndt has no attention over neurons; fit a model with core 'stndt'"):
        spatial_attention(fitted("ndt"), SESSION, TRAIN)


def test_a_core_whose_spatial_attention_is_off_is_refused():
    with pytest.raises(ValueError, match=r"no neuron reads another in core StndtFixed.*set spatial: true"):
        spatial_attention(fitted("stndt_fixed", spatial=False), SESSION, TRAIN)


def test_a_tier_without_clips_is_refused():
    with pytest.raises(ValueError, match=r"tier 'final_test' of session 'masked' holds no clip; name a tier"):
        spatial_attention(fitted("stndt"), SESSION, FINAL_TEST)


def test_a_session_without_records_is_refused():
    session = replace(SESSION, name="plain", source=SESSION.source.source)
    with pytest.raises(ValueError, match=r"session 'plain' offers no recorded activity.*data.observed: masked"):
        spatial_attention(fitted("stndt"), session, TRAIN)


def test_a_relation_is_spearmans_correlation():
    x, y = np.random.default_rng(1).normal(size=(2, 30))
    y[:4] = 0.0  # ties
    assert relation(x, y).correlation == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_a_relation_given_a_trait_is_the_partial_correlation_of_ranks():
    x, y, z = np.random.default_rng(2).normal(size=(3, 40))
    x, y = x + z, y - z
    xy, xz, yz = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert relation(x, y, z[:, None]).correlation == pytest.approx(expected, abs=1e-12)


def test_what_goes_together_through_the_rate_alone_is_not_found_given_the_rate():
    random = np.random.default_rng(3)
    rate = random.normal(size=80)
    x, y = rate + 0.5 * random.normal(size=(2, 80))
    assert relation(x, y, draws=199).p == pytest.approx(1 / 200)
    assert relation(x, y, rate[:, None], draws=199).p > 0.05


def test_unrelated_neurons_are_told_apart_in_one_of_twenty_populations():
    random = np.random.default_rng(4)
    worlds = random.normal(size=(200, 3, 25))
    small = np.mean([relation(x, y, z[:, None], draws=60, seed=k).p <= 0.05 for k, (x, y, z) in enumerate(worlds)])
    assert 0.01 <= small <= 0.09


def test_seeds_that_rank_neurons_alike_agree_fully():
    same = np.stack([np.arange(9.0), np.exp(np.arange(9.0)), 2 + np.arange(9.0)])
    found = agreement_of_seeds(same, draws=199)
    assert found.correlation == pytest.approx(1)
    assert found.kendall_w == pytest.approx(1)
    assert found.p == pytest.approx(1 / 200)


def test_agreement_is_the_mean_over_pairs_of_seeds_and_gives_kendalls_w():
    """W from its own definition: spread of the sums of ranks, over what it is when all agree."""
    degrees = np.random.default_rng(5).normal(size=(4, 12))
    found = agreement_of_seeds(degrees, draws=9)
    pairs = [spearmanr(degrees[a], degrees[b]).statistic for a in range(4) for b in range(a)]
    assert found.correlation == pytest.approx(np.mean(pairs), abs=1e-12)
    ranks = 1 + degrees.argsort(1).argsort(1)
    sums = ranks.sum(0)
    assert found.kendall_w == pytest.approx(12 * ((sums - sums.mean()) ** 2).sum() / (16 * (12**3 - 12)), abs=1e-12)


def test_seeds_that_agree_through_the_rate_alone_do_not_agree_given_the_rate():
    random = np.random.default_rng(6)
    rate = random.normal(size=60)
    degrees = rate + 0.5 * random.normal(size=(3, 60))
    assert agreement_of_seeds(degrees, draws=199).correlation > 0.5
    given = agreement_of_seeds(degrees, rate[:, None], draws=199)
    assert abs(given.correlation) < 0.25
    assert given.p > 0.05


def test_the_null_of_agreement_deals_neurons_anew_and_lies_around_zero():
    degrees = np.tile(np.arange(20.0), (3, 1))
    null = agreement_of_seeds(degrees, draws=499).null
    assert abs(null.mean()) < 0.02
    assert null.std() == pytest.approx(1 / np.sqrt(3 * 19), rel=0.15)  # three independent pairs, each of variance 1/19


def test_a_single_seed_is_refused():
    with pytest.raises(
        ValueError, match=r"in-degrees of 1 seed say nothing about agreement; fit .* at least two seeds"
    ):
        agreement_of_seeds(np.arange(5.0)[None])


def test_properties_of_other_neurons_and_missing_values_are_refused():
    x = np.arange(5.0)
    with pytest.raises(ValueError, match=r"of \[5, 4\] neurons, and 0 values are missing; give one finite value"):
        relation(x, x[:4])
    with pytest.raises(ValueError, match=r"of \[5, 5, 3\] neurons"):
        relation(x, x, x[:3, None])
    with pytest.raises(ValueError, match=r"and 1 values are missing"):
        relation(x, np.array([1.0, np.nan, 2.0, 3.0, 4.0]))


def test_a_property_that_does_not_vary_is_refused():
    x = np.arange(5.0)
    with pytest.raises(ValueError, match=r"ranking \[1\] does not vary over the 5 neurons once 0 traits are taken off"):
        relation(x, np.ones(5))
    with pytest.raises(ValueError, match=r"ranking \[0\] does not vary .* once 1 traits are taken off; leave it out"):
        relation(x, np.array([3.0, 1.0, 2.0, 5.0, 4.0]), x[:, None])
