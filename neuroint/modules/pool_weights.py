"""Who is in a neuron's normalization pool, and how much each counts."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context
from neuroint.modules.embedding import scaled
from neuroint.modules.positions import Positions, nearest_neighbors, radial_basis


class PoolWeights(nn.Module):
    r"""Weigh the nearest neurons by how far they are and how alike; rows sum to 1.

    .. math:: \hat w_{ij} \propto \exp\Big(\sum_b w_b\, \mathrm{RBF}_b(D_{ij}) + \kappa s_{ij}\Big), \quad
        \sum_j \hat w_{ij} = 1

    with D in micrometers and s the cosine of the readout's weights. They start uniform.

    Args:
        positions_um: of all neurons.
        count: how many nearest other neurons.
        distance_bases: radial bases of distance, 0 to ``range_um``.
        range_um: where the last base is centered.
        own: the neuron itself is in its pool, first and at distance 0.

    Raises:
        ValueError: fewer than two neurons, or no embedding in the context.
    """

    neighbors: Tensor
    basis: Tensor

    def __init__(
        self, positions_um: Positions, count: int, distance_bases: int, range_um: float, own: bool = False
    ) -> None:
        super().__init__()
        indices, distances = nearest_neighbors(positions_um, count)
        if own:
            indices = np.insert(indices, 0, np.arange(len(indices)), axis=1)
            distances = np.insert(distances, 0, 0.0, axis=1)
        basis = radial_basis(torch.tensor(distances, dtype=torch.float32), range_um, distance_bases)
        self.register_buffer("neighbors", torch.tensor(indices), persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.distance_weights = nn.Parameter(torch.zeros(distance_bases))
        self.similarity_weight = nn.Parameter(torch.zeros(()))

    def forward(self, context: Context) -> Float[Tensor, "neurons neighbor"]:
        """Weights of ``neighbors``."""
        if context.embedding is None:
            raise ValueError("a pool needs an embedding; give Context(embedding=readout.embedding())")
        unit = scaled(context.embedding) / context.embedding.shape[1] ** 0.5
        similarity = torch.einsum("ic,ijc->ij", unit, unit[self.neighbors])
        bases = torch.einsum("b,bij->ij", self.distance_weights, self.basis)
        return torch.softmax(bases + self.similarity_weight * similarity, dim=-1)
