"""Normalization by mean and spread of the drive of cells in the same place."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads
from neuroint.modules.blending import Blend, divided_by_size, spread
from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.positions import Positions
from neuroint.modules.rectified import full
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Fact, normalizations

Groups = Literal["places", "planes"]
Members = list[Int[np.ndarray, "..."]]  # of unequal lengths
# Halves of more than 3 neurons hold 2 at least; a group of one would lose its drive to its own mean.
GroupSize = Annotated[int, Field(ge=3)]


@normalizations.register("group")
class Group(nn.Module):
    r"""Subtract the mean of the cells in the same place from each drive and divide by their spread, by a learned share.

    .. math:: d'_i = (1 - m)\, d_i + m \Big(\gamma_i \frac{d_i - \mu_{g(i)}}{\sqrt{\sigma^2 + v_{g(i)}}} + b_i\Big)

    with mean mu and variance v of the drive over the neurons of group g at one frame, never over time; ``batch time
    neurons`` in and out. Groups are ``places`` (the recorded volume is halved along its longest side, at the median,
    until no part holds more than ``group_neurons``, so that no part is nearly empty as the fields of a regular grid
    would be) or ``planes`` of imaging, cells of one depth. It reads the stimulus only.

    It starts and ends as ``layer`` does: m = .05; strength zero (:meth:`off`) is the drive, and so ``none``. Its null
    is ``permuted_positions`` of itself, groups of the same sizes anywhere; ``layer`` is one group. Cost is linear in
    neurons.

    Args:
        groups: ``places`` or ``planes``.
        group_neurons: the most neurons of a place; half of it is the fewest.

    Raises:
        MissingFactError: no positions.
        ValueError: a subset of neurons, or a plane with a single neuron.

    Source: Wu & He (2018), ECCV, with groups of neighbors in the place of groups of channels.
    """

    reads: ClassVar[Reads] = Reads(population=True)
    members: Tensor
    shares: Tensor
    group_of: Tensor

    def __init__(
        self,
        *,
        positions_um: Fact[Positions],
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        groups: Groups = "places",
        group_neurons: GroupSize = 128,
    ) -> None:
        super().__init__()
        found = GROUPS[groups](positions_um, group_neurons)
        center = np.empty_like(mean_drive)
        for members in found:
            center[members] = mean_drive[members].mean()
        size = spread(mean_drive - center)
        self.blend = Blend(scale=math.sqrt(2) * size, offset=center)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(size)))
        for name, values in _tables(found, len(positions_um)).items():
            self.register_buffer(name, values, persistent=False)

    def off(self) -> None:
        """Set the share of the normalized drive to 0."""
        self.blend.off()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Normalize every frame by itself."""
        refuse_subset("group", context)
        held = full(drive)
        apart = held - self._mean(held)
        return self.blend(held, divided_by_size(apart, self._mean(apart.square()), self.log_sigma), context)

    def _mean(self, values: Float[Tensor, "batch time neurons"]) -> Float[Tensor, "batch time neurons"]:
        """Each neuron's value averaged over its group."""
        return neighbor_sum(values, self.members, self.shares)[..., self.group_of]


def places(positions_um: Positions, group_neurons: int) -> Members:
    """Halve the volume along its longest side until no part holds more than ``group_neurons``."""
    waiting, done = [np.arange(len(positions_um))], []
    while waiting:
        members = waiting.pop()
        if len(members) <= group_neurons:
            done.append(np.sort(members))
            continue
        axis = np.ptp(positions_um[members], axis=0).argmax()
        order = members[np.argsort(positions_um[members, axis], kind="stable")]
        waiting += [order[: len(order) // 2], order[len(order) // 2 :]]
    return done


def planes(positions_um: Positions, group_neurons: int) -> Members:
    """Put the cells of one depth, in whole micrometers, together."""
    depths, plane = np.unique(positions_um[:, 2].round(), return_inverse=True)
    found = [np.flatnonzero(plane == index) for index in range(len(depths))]
    if min(len(members) for members in found) < 2:
        raise ValueError(
            f"groups: planes found {len(depths)} depths among {len(positions_um)} neurons, and a plane with one neuron "
            "has no spread; set groups: places"
        )
    return found


GROUPS = {"places": places, "planes": planes}


def _tables(groups: Members, n_neurons: int) -> dict[str, Tensor]:
    """Members of every group, padded, with their shares in its mean, and the group of every neuron."""
    shape = (len(groups), max(len(members) for members in groups))
    table, shares, group_of = np.zeros(shape, int), np.zeros(shape, np.float32), np.zeros(n_neurons, int)
    for index, members in enumerate(groups):
        table[index, : len(members)], shares[index, : len(members)] = members, 1 / len(members)
        group_of[members] = index
    return {"members": torch.tensor(table), "shares": torch.tensor(shares), "group_of": torch.tensor(group_of)}
