"""What the places of two cells add to the attention between them; lateral distance and depth have their own scales."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.positions import Positions, radial_basis
from neuroint.registry import MissingFactError


class NoBias(nn.Module):
    """Add nothing."""

    nothing: Tensor

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, 1, 1), persistent=False)

    def forward(self, rows: slice) -> Float[Tensor, "1 1 1"]:
        """Return a zero."""
        return self.nothing


class _Apart(nn.Module):
    """Lateral distance and depth between cells, in units of their ranges."""

    places: Tensor

    def __init__(self, positions_um: Positions | None, lateral_um: float, depth_um: float) -> None:
        super().__init__()
        if positions_um is None:
            raise MissingFactError(
                "a bias from positions needs positions_um, which the data does not have; supply it or "
                "set position: none"
            )
        scale = torch.tensor([lateral_um, lateral_um, depth_um])
        places = torch.tensor(positions_um, dtype=torch.float32) / scale
        self.register_buffer("places", places - places.mean(0), persistent=False)

    def forward(self, rows: slice) -> tuple[Float[Tensor, "rows neurons"], Float[Tensor, "rows neurons"]]:
        places = self.places
        here = places[rows]
        exact = "donot_use_mm_for_euclid_dist"
        lateral = torch.cdist(here[:, :2], places[:, :2], compute_mode=exact)
        return lateral, (here[:, None, 2] - places[None, :, 2]).abs()


class RadialBias(nn.Module):
    r"""Add a learned function of lateral distance and one of depth, per head, which start at 0.

    .. math:: b_h = \sum_b w_{hb}\,\mathrm{RBF}_b(D^{lateral}) + \sum_b u_{hb}\,\mathrm{RBF}_b(D^{depth})
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__()
        self.apart = _Apart(positions_um, lateral_um, depth_um)
        self.weights = nn.Parameter(torch.zeros(heads, 2, bases))

    def forward(self, rows: slice) -> Float[Tensor, "heads rows neurons"]:
        """Bias of some rows of the map."""
        bumps = [radial_basis(distance, 1.0, self.weights.shape[-1]) for distance in self.apart(rows)]
        return torch.einsum("hb,bij->hij", self.weights.flatten(1), torch.cat(bumps))


class SlopeBias(nn.Module):
    r"""Add slopes over lateral distance and depth, per head, which start at 0 (a positive slope favors near cells).

    .. math:: b_h = -s_h D^{lateral}/\lambda^{lateral} - u_h D^{depth}/\lambda^{depth}
    """

    def __init__(
        self, positions_um: Positions | None, heads: int, bases: int, lateral_um: float, depth_um: float
    ) -> None:
        super().__init__()
        self.apart = _Apart(positions_um, lateral_um, depth_um)
        self.slopes = nn.Parameter(torch.zeros(heads, 2))

    def forward(self, rows: slice) -> Float[Tensor, "heads rows neurons"]:
        """Bias of some rows of the map."""
        return -torch.einsum("ha,aij->hij", self.slopes, torch.stack(self.apart(rows)))


PAIR_BIASES = {"rbf": RadialBias, "alibi": SlopeBias, "none": NoBias}
