"""Sparse matrices between neurons that lie near one another: the pool, the coupling, the neuropil."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import svds

from neuroint.data.simulators.v1_parts.cells import Cells

POOL_UM, CENTER_UM, SURROUND_UM, NEUROPIL_UM = 150.0, 60.0, 160.0, 50.0
MOST_NEIGHBORS = 256  # more are thinned at random, so that a row stays sparse in a dense population
_ROWS = 256  # at a time: memory grows with neurons, not with their square
_DENSE = 1024  # up to here the spectral norm is computed from the full matrix

Weight = Callable[[Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]], Float[np.ndarray, " pairs"]]


def pool_weights(rng: np.random.Generator, cells: Cells) -> sparse.csr_array:
    """Weigh the population pool: ``W_hat_ij`` proportional to ``exp(-D^2 / 2 150^2) exp(cos 2 dtheta)``, rows sum to 1.

    D in micrometers; self excluded; nothing beyond three length scales. A neuron without neighbors has an empty row.
    """

    def weight(distance, tuning):
        return np.exp(-(distance**2) / (2 * POOL_UM**2) + tuning)

    return rows_to_one(_matrix(rng, cells, 3 * POOL_UM, weight))


def coupling_weights(rng: np.random.Generator, cells: Cells, norm: float, like_to_like: float) -> sparse.csr_array:
    """Couple neurons: ``C = rho K / ||K||_2``, diagonal 0.

    ``K = [exp(-D^2 / 2 60^2) - .6 exp(-D^2 / 2 160^2)] (1 + kappa cos 2 dtheta)``: near neurons excite, farther ones
    suppress; kappa > 0 is like-to-like wiring, kappa < 0 the like-suppresses-like influence seen with single-cell
    stimulation (Chettih and Harvey, Nature 2019).

    Raises:
        ValueError: no two neurons are near enough to be coupled.
    """
    if norm == 0:
        return sparse.csr_array((cells.count, cells.count))

    def weight(distance, tuning):
        hat = np.exp(-(distance**2) / (2 * CENTER_UM**2)) - 0.6 * np.exp(-(distance**2) / (2 * SURROUND_UM**2))
        return hat * (1 + like_to_like * tuning)

    kernel = _matrix(rng, cells, 3 * SURROUND_UM, weight)
    if kernel.nnz == 0:
        raise ValueError(
            f"coupling={norm} couples neurons within {3 * SURROUND_UM:.0f} um, but none of the {cells.count} neurons "
            "has such a neighbor; simulate more neurons or set coupling=0"
        )
    return sparse.csr_array(kernel * (norm / spectral_norm(kernel)))


def mixing_weights(rng: np.random.Generator, cells: Cells, neuropil: float) -> sparse.csr_array:
    """Mix activity into what outlines record: duplicates see their source, everyone sees the neuropil.

    ``M = (I + strength K) S``, with K a Gaussian of 50 um whose rows sum to 1, and S the identity but for duplicates,
    which see .8 of their source and .2 of a cell of their own.
    """
    identity = sparse.eye_array(cells.count, format="csr")

    def weight(distance, _):
        return np.exp(-(distance**2) / (2 * NEUROPIL_UM**2))

    around = rows_to_one(_matrix(rng, cells, 3 * NEUROPIL_UM, weight))
    mixing = sparse.csr_array((identity + neuropil * around) @ _outlines(cells))
    mixing.eliminate_zeros()
    return mixing


def rows_to_one(matrix: sparse.csr_array) -> sparse.csr_array:
    """Divide every row by its sum; empty rows stay empty."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return sparse.csr_array(sparse.diags_array(1 / np.where(sums == 0, 1, sums)) @ matrix)


def spectral_norm(matrix: sparse.csr_array) -> float:
    """Largest singular value."""
    rows = len(matrix.indptr) - 1
    if rows <= _DENSE:
        return float(np.linalg.norm(matrix.toarray(), 2))
    start = np.ones(rows) / np.sqrt(rows)  # fixed, so that the result is reproducible
    return np.asarray(svds(matrix, k=1, v0=start, return_singular_vectors=False)).item()


def _outlines(cells: Cells) -> sparse.csr_array:
    second = np.flatnonzero(cells.duplicate_of >= 0)
    own = np.ones(cells.count)
    own[second] = 0.2
    entries = np.full(len(second), 0.8)
    source = sparse.csr_array((entries, (second, cells.duplicate_of[second])), shape=(cells.count, cells.count))
    return sparse.csr_array(sparse.diags_array(own) + source)


def _matrix(rng: np.random.Generator, cells: Cells, reach_um: float, weight: Weight) -> sparse.csr_array:
    """Fill in weights of distance and of cos 2 (difference in orientation) for all neighbors within reach."""
    angle = 2 * cells.direction_rad
    blocks = []
    for rows, columns in _neighbors(rng, cells.positions_um, reach_um):
        distance = np.linalg.norm(cells.positions_um[rows] - cells.positions_um[columns], axis=1)
        blocks.append((weight(distance, np.cos(angle[rows] - angle[columns])), rows, columns))
    values, rows, columns = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return sparse.csr_array((values, (rows, columns)), shape=(cells.count, cells.count))


def _neighbors(
    rng: np.random.Generator, positions: Float[np.ndarray, "neurons 3"], reach_um: float
) -> Iterator[tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]]:
    """Yield pairs of neighbors, a block of rows at a time; rows with too many keep a random choice."""
    for first in range(0, len(positions), _ROWS):
        block = positions[first : first + _ROWS]
        distance = np.linalg.norm(block[:, None] - positions[None], axis=2)
        distance[np.arange(len(block)), first + np.arange(len(block))] = np.inf
        near = distance <= reach_um
        if near.sum(axis=1).max() > MOST_NEIGHBORS:
            ticket = np.where(near, rng.random(near.shape), 2.0)
            near &= ticket <= np.partition(ticket, MOST_NEIGHBORS - 1, axis=1)[:, MOST_NEIGHBORS - 1, None]
        rows, columns = np.nonzero(near)
        yield rows + first, columns
