"""Hold couplings that a model found against what is known of a circuit: wiring, distance, tuning.

Two numbers that go together say little by themselves: neurons that send much, cells that lie at the edge and tuning
that is bunched make matrices alike. So every agreement comes with draws of a null that keeps just those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from neuroint.modules.graphs import exchanged

Matrix = Float[np.ndarray, "neurons neurons"]
Null = Callable[[Matrix, int], Matrix]
ROUNDS = 30  # exchanges offered to every edge; whole wiring diagrams are denser than the graphs of neighbors


@dataclass(frozen=True)
class Agreement:
    """How well two matrices agree, and how well they would by chance.

    Attributes:
        correlation: Spearman's, over the pairs that both know.
        pairs: how many those are.
        null: the same correlation with every draw of the null in place of what is known.
    """

    correlation: float
    pairs: int
    null: Float[np.ndarray, " draws"]

    @property
    def p(self) -> float:
        """Share of draws as far from the null's mean as what was found, two-sided; never below 1/(draws + 1)."""
        center = self.null.mean()
        further = np.abs(self.null - center) >= abs(self.correlation - center) - 1e-12
        return float((1 + further.sum()) / (1 + len(self.null)))


def agreement(
    found: Matrix, known: Float[np.ndarray, "others others"], null: Null, *, draws: int = 1000, seed: int = 0
) -> Agreement:
    r"""Correlate the ranks of what a model found with those of what is known, over known pairs of two neurons.

    .. math:: \rho = \mathrm{corr}(\mathrm{rank}\, F_{ij},\ \mathrm{rank}\, K_{ij}), \quad i \ne j

    Both are [target, source]. The null redraws K, so whatever the null keeps (degrees, or the whole matrix up to
    names) explains none of the agreement. Give the magnitude of couplings where K has no sign.

    Args:
        found: influence of source on target, say from :func:`neuroint.analysis.influence.recorded_influence`.
        known: wiring, distance or difference of tuning; NaN where it was not measured.
        null: ``rewired_edges`` for a wiring diagram, ``relabeled`` for what follows from a property of each neuron.
        draws: of the null.
        seed: of the draws.

    Raises:
        ValueError: the matrices are of different neurons, or fewer than three pairs are known, or all are alike.

    Source: Maslov & Sneppen (2002), Science 296, 910-913 (rewiring); Mantel (1967), Cancer Res. 27, 209-220 (labels).
    """
    if found.shape != known.shape:
        raise ValueError(
            f"found is over {len(found)} neurons, known over {len(known)}; give both for the same neurons in one order"
        )
    correlation, pairs = _spearman(found, known)
    seeds = np.random.SeedSequence(seed).generate_state(draws).tolist()
    chance = [_spearman(found, null(known, draw))[0] for draw in seeds]
    return Agreement(correlation, pairs, np.array(chance))


def rewired_edges(known: Matrix, seed: int) -> Matrix:
    """Exchange the targets of random pairs of edges: each neuron keeps how many it sends to and receives from.

    Entries above zero are edges; a weight stays with its source. Pairs that were not measured stay so, and no edge is
    moved there.
    """
    target, source = np.nonzero(np.nan_to_num(known) > 0)
    closed = np.isnan(known) | np.eye(len(known), dtype=bool)
    moved = exchanged(source, target, len(known), np.random.default_rng(seed), ROUNDS, closed.T)
    drawn = np.where(np.isnan(known), np.nan, 0.0)
    drawn[moved, source] = known[target, source]
    return drawn


def relabeled(known: Matrix, seed: int) -> Matrix:
    """Give the neurons each other's names: rows and columns together, so that the matrix keeps its form."""
    order = np.random.default_rng(seed).permutation(len(known))
    return known[np.ix_(order, order)]


def _spearman(found: Matrix, known: Matrix) -> tuple[float, int]:
    kept = ~np.isnan(known) & ~np.isnan(found) & ~np.eye(len(known), dtype=bool)
    x, y = rankdata(found[kept]), rankdata(known[kept])
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(
            f"{len(x)} pairs of neurons are known, with {len(np.unique(x))} different values found and "
            f"{len(np.unique(y))} known; a correlation needs 3 pairs and two values of each"
        )
    return float(np.corrcoef(x, y)[0, 1]), len(x)
