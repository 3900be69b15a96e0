"""Agreement with a known circuit is a rank correlation over known pairs, and its nulls keep what they promise."""

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from neuroint.analysis.structure import agreement, relabeled, rewired_edges

OFF = ~np.eye(20, dtype=bool)


def wiring(seed, neurons=20, density=0.2):
    """Counts of synapses [target, source]; hubs send more."""
    draw = np.random.default_rng(seed)
    chance = density * draw.uniform(0.2, 2, neurons)
    found = (draw.uniform(size=(neurons, neurons)) < chance) * draw.integers(1, 9, (neurons, neurons)).astype(float)
    np.fill_diagonal(found, 0)
    return found


def noise(seed, neurons=20):
    return np.random.default_rng(seed).normal(size=(neurons, neurons))


def test_the_correlation_is_spearmans_over_pairs_of_different_neurons():
    found, known = noise(1), wiring(2)
    result = agreement(found, known, relabeled, draws=3)
    assert result.correlation == pytest.approx(spearmanr(found[OFF], known[OFF]).statistic, abs=1e-12)
    assert result.pairs == 380


def test_pairs_that_were_not_measured_take_no_part():
    found, known = noise(1), wiring(2)
    holed = np.where(noise(3) > 1, np.nan, known)
    kept = OFF & ~np.isnan(holed)
    result = agreement(found, holed, rewired_edges, draws=3)
    assert result.pairs == kept.sum()
    assert result.correlation == pytest.approx(spearmanr(found[kept], known[kept]).statistic, abs=1e-12)


def test_rewiring_keeps_how_many_edges_each_neuron_sends_and_receives_and_the_weights_it_sends():
    known = wiring(4)
    drawn = rewired_edges(known, 0)
    assert np.array_equal((drawn > 0).sum(0), (known > 0).sum(0))
    assert np.array_equal((drawn > 0).sum(1), (known > 0).sum(1))
    assert np.array_equal(np.sort(drawn, axis=0), np.sort(known, axis=0))
    assert not drawn.diagonal().any()
    shared = ((drawn > 0) & (known > 0)).sum() / (known > 0).sum()
    assert shared < 0.6  # hubs keep some of their few possible partners


def test_rewiring_moves_no_edge_to_a_pair_that_was_not_measured():
    known = np.where(noise(5) > 0.8, np.nan, wiring(4))
    drawn = rewired_edges(known, 0)
    assert np.array_equal(np.isnan(drawn), np.isnan(known))
    assert np.nansum(drawn > 0) == np.nansum(known > 0)


def test_relabeling_moves_rows_and_columns_together():
    positions = np.random.default_rng(0).uniform(size=20)
    distance = np.abs(positions[:, None] - positions)
    drawn = relabeled(distance, 1)
    assert np.array_equal(drawn, drawn.T)
    assert np.allclose(np.linalg.eigvalsh(drawn), np.linalg.eigvalsh(distance))
    assert not np.array_equal(drawn, distance)


def test_couplings_that_follow_the_wiring_are_told_from_chance():
    known = wiring(6)
    result = agreement(known + 2 * noise(7), known, rewired_edges, draws=200)
    assert result.p == pytest.approx(1 / 201)


def test_couplings_that_follow_the_senders_alone_are_not():
    """Each neuron's total output explains the plain correlation, and the null keeps it."""
    known = wiring(8)
    result = agreement(np.tile((known > 0).sum(0), (20, 1)) + 0.01 * noise(9), known, rewired_edges, draws=200)
    assert result.correlation > 0.2
    assert result.p > 0.05


@pytest.mark.slow
def test_without_any_relation_p_is_spread_evenly():
    known = wiring(10)
    p = [agreement(noise(100 + seed), known, relabeled, draws=60).p for seed in range(60)]
    assert kstest(p, "uniform").pvalue > 0.01


def test_the_same_seed_draws_the_same_null():
    first, again = (agreement(noise(1), wiring(2), relabeled, draws=5, seed=3).null for _ in range(2))
    assert np.array_equal(first, again)


def test_matrices_of_different_neurons_are_refused():
    with pytest.raises(ValueError, match="found is over 20 neurons, known over 19; give both for the same neurons"):
        agreement(noise(1), wiring(2)[:19, :19], relabeled)


def test_too_few_known_pairs_are_refused():
    with pytest.raises(ValueError, match="0 pairs of neurons are known"):
        agreement(noise(1), np.full((20, 20), np.nan), relabeled)
