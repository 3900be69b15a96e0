"""What silencing costs: by hand in models that read known neurons, and against controls that share rate and SNR."""

import numpy as np
import pytest
import torch
from silencing_worlds import masked_session
from torch import nn

from neuroint.analysis.matching import traits_of
from neuroint.analysis.silencing import Silencer, against_controls, most
from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION
from neuroint.metrics.nlb import LEAST_RATE, bits_per_spike

HELD_IN = 3
NONE = np.array([], np.int64)


class Repeats(nn.Module):
    """Predicts that every neuron does what one held-in neuron did."""

    def __init__(self, which):
        super().__init__()
        self.which = which
        self.drop = nn.Dropout(0.9)

    def forward(self, inputs, session):
        return self.drop(inputs.observed[..., self.which : self.which + 1].expand(-1, -1, HELD_IN + 1))


def world(which=0, forward_bins=0):
    """Three held-in neurons, and a held-out one that repeats one of them."""
    held_in = 1.0 + np.random.default_rng(0).poisson(1.0, (12, 5, HELD_IN)).astype(np.float32)
    return masked_session(
        np.concatenate([held_in, held_in[..., which : which + 1]], axis=2), HELD_IN, forward_bins=forward_bins
    )


def counts_of(session, tier, neuron):
    read = [session.source.read(int(clip), 0, 5) for clip in session.clips(tier)]
    return np.stack([clip.responses[:, neuron] for clip in read]).astype(np.float64)[..., None]


@pytest.mark.parametrize("tier", [VALIDATION, DEV_TEST])
def test_the_mean_in_place_of_the_only_neuron_that_tells_something_leaves_zero_bits(tier):
    """The model then predicts the mean count, which is the null that bits are counted from."""
    silencer = Silencer(Repeats(1), world(1), tier)
    counts = counts_of(world(1), tier, HELD_IN)
    assert silencer.intact == pytest.approx(bits_per_spike(counts, counts).value)
    assert silencer.score(np.array([1])) == pytest.approx(0, abs=1e-6)
    assert silencer.loss(np.array([1])) == pytest.approx(silencer.intact, abs=1e-6)


def test_only_the_neuron_that_is_read_costs_anything():
    singly = Silencer(Repeats(2), world(2), DEV_TEST).singly()
    assert singly[:2].tolist() == [0, 0]
    assert singly[2] > 0.1
    assert Silencer(Repeats(2), world(2), DEV_TEST).loss(np.array([0, 1])) == 0


def test_zeros_say_that_there_was_no_spike():
    silencer = Silencer(Repeats(0), world(), DEV_TEST, how="zero")
    counts = counts_of(world(), DEV_TEST, HELD_IN)
    expected = bits_per_spike(np.full(counts.shape, LEAST_RATE), counts).value
    assert silencer.score(np.array([0])) == pytest.approx(expected)


def test_counts_of_the_clip_before_stand_in_for_those_of_a_clip():
    silencer = Silencer(Repeats(0), world(), DEV_TEST, how="other_clip")
    counts = counts_of(world(), DEV_TEST, HELD_IN)
    expected = bits_per_spike(np.roll(counts, 1, axis=0), counts).value
    assert silencer.score(np.array([0])) == pytest.approx(expected)


@pytest.mark.parametrize("how", ["mean", "other_clip"])
def test_bins_that_models_are_not_shown_stay_at_zero(how):
    seen = []

    class Watching(Repeats):
        def forward(self, inputs, session):
            seen.append(inputs.observed.clone())
            return super().forward(inputs, session)

    session = world(0, forward_bins=2)
    Silencer(Watching(0), session, DEV_TEST, how=how).score(np.array([0]))
    intact, silenced = seen
    assert (silenced[:, 3:] == 0).all()
    torch.testing.assert_close(silenced[..., 1:], intact[..., 1:])
    if how == "mean":
        torch.testing.assert_close(silenced[:, :3, 0], intact[:, :3, 0].mean().expand(3, 3))


def test_predictions_are_those_of_evaluation_and_the_model_stays_in_its_mode():
    model = Repeats(0).train()
    assert Silencer(model, world(), DEV_TEST).intact == Silencer(model.eval(), world(), DEV_TEST).intact
    model.train()
    Silencer(model, world(), DEV_TEST).singly()
    assert model.drop.training


def test_true_rates_can_stand_in_for_recorded_counts():
    session, rates = world(), np.full((3, 5, HELD_IN + 1), 2.0)
    found = Silencer(Repeats(0), session, DEV_TEST, against=rates).intact
    counts = counts_of(session, DEV_TEST, HELD_IN)
    assert found == pytest.approx(bits_per_spike(counts, rates[..., :1]).value)
    with pytest.raises(ValueError, match=r"against is \(2, 5, 4\); expected clips, frames and neurons \(3, 5, 4\)"):
        Silencer(Repeats(0), session, DEV_TEST, against=rates[:2])


@pytest.mark.parametrize("tier", [TRAIN, FINAL_TEST])
def test_only_validation_and_dev_test_are_read(tier):
    with pytest.raises(ValueError, match=rf"silencing reads tier '{tier}'; expected validation or dev_test, never a"):
        Silencer(Repeats(0), world(), tier)


def test_a_neuron_that_is_not_held_in_is_refused():
    silencer = Silencer(Repeats(0), world(), DEV_TEST)
    for wrong in ([3], [-1]):
        with pytest.raises(ValueError, match=r"silenced neurons are .*; expected indices from 0 to 2"):
            silencer.score(np.array(wrong))


def test_a_tier_without_a_spike_or_without_a_scored_response_is_refused():
    silent = np.ones((8, 4, 3), np.float32)
    silent[:, :, 2] = 0
    with pytest.raises(ValueError, match=r"session 'masked' cannot be scored: not one spike in .*; take another tier"):
        Silencer(Repeats(0), masked_session(silent, 2), DEV_TEST)
    unknown = np.ones((8, 4, 3), np.float32)
    unknown[4:, :, 2] = np.nan
    with pytest.raises(ValueError, match=r"session 'masked' has no response that is scored in this tier"):
        Silencer(Repeats(0), masked_session(unknown, 2), DEV_TEST)


def test_one_clip_has_no_other_to_be_exchanged_with():
    counts = np.ones((4, 5, 4), np.float32)
    with pytest.raises(ValueError, match=r"silencing by 'other_clip' needs a second clip.*choose 'mean'"):
        Silencer(Repeats(0), masked_session(counts, HELD_IN), VALIDATION, how="other_clip")


def test_the_most_important_are_those_that_rank_highest():
    assert most(np.array([0.1, 3.0, 2.0, 3.0, 0.0, 1.0]), 3).tolist() == [1, 3, 2]


@pytest.mark.parametrize("k", [0, 4])
def test_more_neurons_than_leave_controls_are_refused(k):
    with pytest.raises(ValueError, match=rf"k is {k} of 7 neurons; choose from 1 to 3, so that as many are left"):
        most(np.arange(7.0), k)


def test_a_set_of_neurons_is_asked_for_once_and_in_one_order():
    asked = []

    def loss(some):
        asked.append(tuple(some.tolist()))
        return float(some.sum())

    against_controls(loss, np.array([5, 2]), np.zeros((7, 2)), draws=100)
    assert len(set(asked)) == len(asked)
    assert all(list(some) == sorted(some) for some in asked)


def test_difference_interval_and_p_by_hand():
    """One chosen neuron that costs 3, and two like it that cost 1 and 2: of all three, one costs as much."""
    costs = np.array([3.0, 1.0, 2.0])
    found = against_controls(lambda some: costs[some].sum(), np.array([0]), np.zeros((3, 1)), draws=2000)
    assert found.lost == 3
    assert found.difference == pytest.approx(1.5, abs=0.05)
    assert found.interval == (1, 2)
    assert found.p == pytest.approx(1 / 3, abs=0.04)
    assert found.sets == 2
    assert found.caution == "there are only 2 different sets of controls"


def populations(number, *, of_rate, planted=0.0):
    """Costs and in-degrees of 40 neurons that both go with rate and reliability; the planted part goes from one to the
    other directly."""
    random = np.random.default_rng(7)
    for _ in range(number):
        table = random.normal(size=(40, 2))
        own = random.normal(size=(2, 40))
        through = table @ np.array([0.6, 0.8]) * of_rate
        degree = through + np.sqrt(1 - of_rate**2) * own[0]
        yield through + planted * own[0] + own[1], degree, table


def shares(worlds, k=6, **matching):
    """In how many populations the most attended neurons are called important."""
    found = [
        against_controls(
            lambda some, costs=costs: float(costs[some].sum()), most(degree, k), table, draws=40, **matching
        )
        for costs, degree, table in worlds
    ]
    return np.mean([one.p <= 0.05 for one in found]), found


def test_controls_of_any_rate_find_importance_where_matched_ones_find_none():
    """Here in-degree tells nothing that rate and reliability do not."""
    worlds = list(populations(80, of_rate=0.7))
    loose, _ = shares(worlds, nearest=None, caliper=None)
    strict, _ = shares(worlds)
    assert loose > 0.25
    assert strict <= 0.1


def test_importance_beyond_rate_and_reliability_is_found():
    share, found = shares(list(populations(40, of_rate=0.4, planted=2.0)))
    assert share > 0.8
    assert np.mean([one.difference for one in found]) > 3
    assert np.mean([one.interval[0] > 0 for one in found]) > 0.7


def test_sets_dealt_from_all_neurons_keep_their_rate_where_controls_alone_do_not():
    """Nothing is there. Of 40 neurons, controls of 13 chosen ones scatter less than the chosen ones themselves."""
    share, found = shares(list(populations(80, of_rate=0.0)), k=13, nearest=None, caliper=None)
    of_controls = np.mean([(one.controls >= one.lost).mean() <= 0.05 for one in found])
    assert share <= 0.1
    assert of_controls > 0.12


def test_a_neuron_that_nobody_is_like_is_evidence_of_nothing():
    table = np.concatenate([[[99.0]], np.zeros((20, 1))])
    costs = np.concatenate([[1000.0], np.zeros(20)])
    found = against_controls(lambda some: float(costs[some].sum()), np.array([0]), table, draws=50)
    assert found.difference == 1000
    assert found.p == 1
    assert found.caution.startswith("no control is like neurons [0]")


def test_a_caution_names_neurons_that_nobody_is_like_and_how_far_controls_are():
    table = np.concatenate([[[9.0, 0.0], [0.0, 0.0]], np.random.default_rng(1).normal(0, 0.2, (30, 2))])
    found = against_controls(lambda some: float(some.sum()), np.array([0, 1]), table, draws=40)
    assert "no control is like neurons [0]" in found.caution
    assert "controls differ by 4." in found.caution
    even = against_controls(lambda some: float(some.sum()), np.array([1, 5]), table, draws=40)
    assert even.caution == ""


def test_neurons_that_a_model_reads_are_found_important_among_neurons_of_equal_rate():
    """Twelve held-in neurons of equal rate, of which the first five drive the held-out one by their counts."""
    random = np.random.default_rng(2)
    held_in = random.poisson(1.0, (60, 10, 12)).astype(np.float32)
    weights = torch.zeros(12)
    weights[:5] = 0.4

    class Reads(nn.Module):
        def forward(self, inputs, session):
            return torch.exp((inputs.observed - 1) @ weights.to(inputs.observed))[..., None].expand(-1, -1, 13)

    rates = np.exp((held_in - 1) @ weights.numpy())
    counts = np.concatenate([held_in, random.poisson(rates)[..., None].astype(np.float32)], axis=2)
    session = masked_session(counts, 12)
    silencer = Silencer(Reads(), session, DEV_TEST)
    table = traits_of(session).table()
    found = against_controls(silencer.loss, np.arange(5), table, draws=120, caliper=None, nearest=None)
    assert found.lost > 0.2
    assert found.controls == pytest.approx(0)
    assert found.p < 0.05
    wrong = against_controls(silencer.loss, np.arange(6, 11), table, draws=120, caliper=None, nearest=None)
    assert wrong.difference < 0
    assert wrong.p > 0.3
