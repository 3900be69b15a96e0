"""Filters made of Hermite functions, and convolutions that answer alike to a turned picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.hermite import hermval
from torch import Tensor, nn
from torch.nn import functional


def hermite_filters(side_px: int, order: int, rotations: int) -> Float[np.ndarray, "rotations basis side side"]:
    r"""Evaluate Hermite functions on a grid, each turned by as many angles as asked for.

    .. math:: \psi_{nm}(x, y) = H_n(x) H_m(y)\, e^{-(x^2 + y^2)/2}, \quad n + m \le order

    with unit norm each. The grid ends at 1.5 times where the highest order turns to decay, sqrt(2 order + 1), so that
    little is cut off; turning a function is looking it up at turned places, and is exact.

    Source: Ecker et al. (2019), ICLR, whose steerable basis spans the same functions.
    """
    reach = 1.5 * math.sqrt(2 * order + 1) if order else 2.0
    line = np.linspace(-reach, reach, side_px) if side_px > 1 else np.zeros(1)
    y, x = np.meshgrid(line, line, indexing="ij")
    powers = [(n, m) for total in range(order + 1) for n in range(total + 1) for m in [total - n]]
    turned = []
    for angle in 2 * np.pi * np.arange(rotations) / rotations:
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        window = np.exp(-(along**2 + across**2) / 2)
        turned.append(
            [hermval(along, np.eye(n + 1)[n]) * hermval(across, np.eye(m + 1)[m]) * window for n, m in powers]
        )
    found = np.array(turned)
    return found / np.linalg.norm(found[:1], axis=(2, 3), keepdims=True)


class RotatedConv(nn.Module):
    r"""Filter pictures by the same filters in several directions.

    Channels are features times directions. Behind pictures without directions, the filter of feature f in direction r
    is the sum of turned basis functions with the weights of f; behind features with directions, the weights are also
    shifted along the directions of the input by r. So turning the picture by one step turns the maps and shifts their
    directions: that is what "the same features in every direction" means.

    Args:
        inner: features that come in; each has ``directions`` channels, or one where these are not ``turned_input``.
        features: features that go out.
        side_px: of the filters.
        order: highest order of the Hermite functions.
        directions: how many.
        turned_input: what comes in has directions.
        padding: pixels of zeros.
    """

    basis: Tensor

    def __init__(
        self, inner: int, features: int, side_px: int, order: int, directions: int, *, turned_input: bool, padding: int
    ) -> None:
        super().__init__()
        basis = torch.tensor(hermite_filters(side_px, order, directions), dtype=torch.float32)
        self.register_buffer("basis", basis, persistent=False)
        shifts = directions if turned_input else 1
        self.weights = nn.Parameter(torch.empty(features, inner, shifts, basis.shape[1]))
        nn.init.normal_(self.weights, std=(inner * shifts * basis.shape[1]) ** -0.5)
        self.padding = padding

    def filters(self) -> Float[Tensor, "channel inner_channel side side"]:
        """Put the filters of all directions together."""
        directions, shifts = len(self.basis), self.weights.shape[2]
        made = [
            torch.einsum("fisb,bhw->fishw", self.weights.roll(turn % shifts, dims=2), self.basis[turn])
            for turn in range(directions)
        ]
        return torch.stack(made, dim=1).flatten(2, 3).flatten(0, 1)

    def forward(self, x: Float[Tensor, "frames inner_channel height width"]) -> Tensor:
        """Filter."""
        return functional.conv2d(x, self.filters(), padding=self.padding)
