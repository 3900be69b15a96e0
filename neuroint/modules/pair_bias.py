"""What the places of two cells do to the attention between them; lateral distance and depth have their own scales.

A bias gives two terms for each pair of cells: a *logit* that is added before the weights are made, and a *factor* that
multiplies what is attended to afterwards. Weights are never negative, so only a factor lets the sign of an influence
turn over with distance.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.positions import Positions, radial_basis
from neuroint.registry import MissingFactError

Position = Literal["rbf", "center_surround", "alibi", "fourier", "mlp", "none"]
SURROUND = 0.6  # start of the surround's share: it holds the center back, and is wider


class Bias(NamedTuple):
    """Terms of pairs; a first axis of 1 is the same for all heads."""

    logit: Float[Tensor, "heads_logit rows others"]
    factor: Float[Tensor, "heads_factor rows others"]


class NoBias(nn.Module):
    """Leave every pair as it is."""

    nothing: Tensor

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, 1, 1), persistent=False)

    def forward(self, rows: slice) -> Bias:
        """Terms of some rows of the map."""
        return Bias(self.nothing, self.nothing + 1)

    def along(self, neighbors: Int[Tensor, "neurons neighbor"]) -> Bias:
        """Terms of each neuron and its neighbors."""
        return self(slice(None))

    def factors(
        self, like: Float[Tensor, "neurons heads width"]
    ) -> tuple[Float[Tensor, "neurons heads empty"], Float[Tensor, "neurons heads empty"]]:
        """Queries and keys of no width: their products are 0."""
        return like[..., :0], like[..., :0]


class PairBias(nn.Module):
    """A bias over where two cells lie, in units of the lateral and the depth range; adds no logit unless it says so."""

    places: Tensor

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__()
        if positions_um is None:
            raise MissingFactError(
                "a bias from positions needs positions_um, which the data does not have; supply it or "
                "set position: none"
            )
        scaled = np.asarray(positions_um, np.float64) / (lateral_um, lateral_um, depth_um)
        places = torch.tensor(scaled - scaled.mean(0), dtype=torch.float32)
        self.register_buffer("places", places, persistent=False)

    def forward(self, rows: slice) -> Bias:
        """Terms of some rows of the map."""
        return self.between(self.places[rows, None] - self.places)

    def along(self, neighbors: Int[Tensor, "neurons neighbor"]) -> Bias:
        """Terms of each neuron and its neighbors."""
        return self.between(self.places[:, None] - self.places[neighbors])

    def between(self, apart: Float[Tensor, "rows others 3"]) -> Bias:
        """Terms of pairs that lie apart by some vector: a logit, and the factor 1."""
        return Bias(self.logit(apart), apart.new_ones(1, 1, 1))

    def logit(self, apart: Float[Tensor, "rows others 3"]) -> Float[Tensor, "heads rows others"]:
        """What is added before the weights are made."""
        raise NotImplementedError


def _reach(apart: Float[Tensor, "rows others 3"]) -> tuple[Float[Tensor, "rows others"], Float[Tensor, "rows others"]]:
    """Lateral distance and distance in depth."""
    return torch.hypot(apart[..., 0], apart[..., 1]), apart[..., 2].abs()


class RadialBias(PairBias):
    r"""Add a learned function of lateral distance and one of depth, per head, which start at 0.

    .. math:: b_h = \sum_b w_{hb}\,\mathrm{RBF}_b(D^{lateral}) + \sum_b u_{hb}\,\mathrm{RBF}_b(D^{depth})
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__(positions_um, heads, bases, lateral_um, depth_um)
        self.weights = nn.Parameter(torch.zeros(heads, 2, bases))

    def logit(self, apart: Float[Tensor, "rows others 3"]) -> Float[Tensor, "heads rows others"]:
        """What is added before the weights are made."""
        bumps = [radial_basis(distance, 1.0, self.weights.shape[-1]) for distance in _reach(apart)]
        return torch.einsum("hb,bij->hij", self.weights.flatten(1), torch.cat(bumps))


class CenterSurroundBias(PairBias):
    r"""Multiply what is attended to by a center minus a surround, per head: near and far cells differ in sign.

    .. math:: K_h = g_h \exp(-D_{c}^2 / 2) - u_h \exp(-D_{s}^2 / 2)

    with D in units of the learned scales of center and surround, apart in the plane and in depth. It starts at a center
    of a fifth and a surround of a half of the ranges, with g = 1 and u = .6.
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__(positions_um, heads, bases, lateral_um, depth_um)
        self.weights = nn.Parameter(torch.tensor([1.0, -SURROUND]).repeat(heads, 1))
        self.log_scales = nn.Parameter(torch.tensor([[0.2, 0.2], [0.5, 0.5]]).log().repeat(heads, 1, 1))

    def between(self, apart: Float[Tensor, "rows others 3"]) -> Bias:
        """Terms of pairs: no logit, and a factor of either sign."""
        precision = (-2 * self.log_scales).exp()  # heads, center and surround, plane and depth
        squared = torch.stack(_reach(apart)).square()
        fall = torch.einsum("hca,aij->hcij", precision, squared)
        factor = torch.einsum("hc,hcij->hij", self.weights, torch.exp(-fall / 2))
        return Bias(apart.new_zeros(1, 1, 1), factor)


class SlopeBias(PairBias):
    r"""Add slopes over lateral distance and depth, per head, which start at 0 (a positive slope favors near cells).

    .. math:: b_h = -s_h D^{lateral}/\lambda^{lateral} - u_h D^{depth}/\lambda^{depth}
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__(positions_um, heads, bases, lateral_um, depth_um)
        self.slopes = nn.Parameter(torch.zeros(heads, 2))

    def logit(self, apart: Float[Tensor, "rows others 3"]) -> Float[Tensor, "heads rows others"]:
        """What is added before the weights are made."""
        return -torch.einsum("ha,aij->hij", self.slopes, torch.stack(_reach(apart)))


class FourierBias(PairBias):
    r"""Add waves over the vector between two cells, per head, which start at 0; direction counts, not distance alone.

    .. math:: b_h = \sum_f c_{hf} \cos(\omega_f \cdot \Delta) + s_{hf} \sin(\omega_f \cdot \Delta)

    with learned omega, in radians per range. A wave of a difference is a product of waves, so the bias is also one of
    queries and keys (:meth:`factors`) and needs no table of pairs.
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__(positions_um, heads, bases, lateral_um, depth_um)
        self.frequency = nn.Parameter(math.pi / 2 * torch.randn(bases, 3))
        self.weights = nn.Parameter(torch.zeros(heads, 2, bases))  # cosines, sines

    def logit(self, apart: Float[Tensor, "rows others 3"]) -> Float[Tensor, "heads rows others"]:
        """What is added before the weights are made."""
        phase = torch.einsum("fa,ija->fij", self.frequency, apart)
        return torch.einsum("hf,fij->hij", self.weights.flatten(1), torch.cat([phase.cos(), phase.sin()]))

    def factors(
        self, like: Float[Tensor, "neurons heads width"]
    ) -> tuple[Float[Tensor, "neurons heads waves"], Float[Tensor, "neurons heads waves"]]:
        """Queries and keys whose products are the logits."""
        phase = self.places @ self.frequency.T
        cosine, sine = phase.cos()[:, None], phase.sin()[:, None]
        even, odd = self.weights.unbind(1)
        query = torch.cat([even * cosine + odd * sine, even * sine - odd * cosine], dim=-1)
        return query, torch.cat([cosine, sine], dim=-1).expand_as(query)


class NetworkBias(PairBias):
    r"""Add a small network of the vector between two cells, per head; its last layer starts at 0.

    .. math:: b_h = u_h \cdot \tanh(W \Delta + w)

    with four hidden units for each basis asked for.
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__(positions_um, heads, bases, lateral_um, depth_um)
        self.hidden = nn.Linear(3, 4 * bases)
        self.weights = nn.Parameter(torch.zeros(heads, 4 * bases))

    def logit(self, apart: Float[Tensor, "rows others 3"]) -> Float[Tensor, "heads rows others"]:
        """What is added before the weights are made."""
        return torch.einsum("hf,ijf->hij", self.weights, torch.tanh(self.hidden(apart)))


PAIR_BIASES = {
    "rbf": RadialBias,
    "center_surround": CenterSurroundBias,
    "alibi": SlopeBias,
    "fourier": FourierBias,
    "mlp": NetworkBias,
    "none": NoBias,
}
