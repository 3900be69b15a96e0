"""Where cells lie: distances, neighbors, and smooth bases of distance. All lengths are in micrometers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Positions = Float[np.ndarray, "neurons 3"]


def nearest_neighbors(
    positions_um: Positions, count: int
) -> tuple[Int[np.ndarray, "neurons count"], Float[np.ndarray, "neurons count"]]:
    """Find every cell's nearest other cells, nearest first, and how far they are.

    A cell is never its own neighbor, also where several cells share one position. With fewer other cells than asked
    for, all of them are returned.

    Raises:
        ValueError: fewer than two cells, or a position that is not finite.
    """
    from scipy.spatial import KDTree  # here, because every process that trains would wait for it

    n_neurons = len(positions_um)
    if n_neurons < 2:
        raise ValueError(f"neighbors need at least 2 neurons, got {n_neurons}; choose a design without neighbors")
    if not np.isfinite(positions_um).all():
        raise ValueError("positions_um has entries that are not finite; remove those neurons or the positions")
    wanted = min(count, n_neurons - 1) + 1
    found = KDTree(positions_um).query(positions_um, k=wanted)
    distances, indices = np.asarray(found[0]), np.asarray(found[1])
    other = indices != np.arange(n_neurons)[:, None]
    other[other.all(1), -1] = False  # cells at one point can push a cell out of its own list: drop the farthest instead
    shape = (n_neurons, wanted - 1)
    return indices[other].reshape(shape), distances[other].reshape(shape)


def radial_basis(distance_um: Float[Tensor, "*shape"], range_um: float, count: int) -> Float[Tensor, " count *shape"]:
    r"""Spread distances over Gaussian bumps from 0 to a range.

    .. math:: \exp(-(D - c_b)^2 / 2h^2)

    with equally spaced centers c and their spacing as width h. Far beyond the range all bumps are 0. Distances are
    data: no gradient is kept for them.
    """
    centers = torch.linspace(0, range_um, count, dtype=distance_um.dtype, device=distance_um.device)
    width = range_um / max(count - 1, 1)
    apart = distance_um.detach() - centers.view(-1, *(1,) * distance_um.dim())
    return apart.square_().mul_(-1 / (2 * width**2)).exp_()  # in place: these are the largest tensors of attention
