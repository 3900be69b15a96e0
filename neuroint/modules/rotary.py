"""Turn pairs of features by angles that grow with position, so that a product depends on the vector between cells."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.positions import Positions
from neuroint.registry import MissingFactError


class Rotation(nn.Module):
    """Rotate pairs of features by learned frequencies times position; lateral and depth ranges are the units.

    Raises:
        MissingFactError: there are no positions.
        ValueError: the width is odd.
    """

    places: Tensor

    def __init__(self, positions_um: Positions | None, width: int, lateral_um: float, depth_um: float) -> None:
        super().__init__()
        if positions_um is None:
            raise MissingFactError(
                "rotary positions need positions_um, which the data does not have; supply it or set position: none"
            )
        if width % 2:
            raise ValueError(f"rotary positions turn pairs of features, got head_width {width}; choose an even one")
        scaled = np.asarray(positions_um, np.float64) / (lateral_um, lateral_um, depth_um)
        self.register_buffer("places", torch.tensor(scaled - scaled.mean(0), dtype=torch.float32), persistent=False)
        self.frequency = nn.Parameter(math.pi / 2 * torch.randn(width // 2, 3))  # radians per range

    def forward(self) -> Float[Tensor, "neurons pairs"]:
        """Angles of every neuron."""
        return self.places @ self.frequency.T

    def turn(
        self, features: Float[Tensor, "*batch neurons width"], angle: Float[Tensor, "neurons pairs"]
    ) -> Float[Tensor, "*batch neurons width"]:
        """Rotate the first half of the features with the second."""
        first, second = features.chunk(2, dim=-1)
        cosine, sine = angle.cos(), angle.sin()
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class NoRotation(nn.Module):
    """Leave features as they are."""

    nothing: Tensor

    def __init__(self, positions_um: Positions | None, width: int, lateral_um: float, depth_um: float) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, 1), persistent=False)

    def forward(self) -> Float[Tensor, "1 1"]:
        """An angle of 0."""
        return self.nothing

    def turn(
        self, features: Float[Tensor, "*batch neurons width"], angle: Float[Tensor, "1 1"]
    ) -> Float[Tensor, "*batch neurons width"]:
        """Return the features."""
        return features


ROTATIONS = {"rotary": Rotation, "none": NoRotation}
