"""Coupling that is a function of how far apart two cells are and how alike their tuning is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.base import Context, Fed, prepared
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.graphs import dense, edge_scores
from neuroint.modules.last_activity import LastActivityCoupling
from neuroint.modules.neighbors import frame_sum
from neuroint.modules.positions import Positions, nearest_neighbors, radial_basis
from neuroint.modules.selection import refuse_subset
from neuroint.modules.spectral import OpenFraction, capped, sparse_norm
from neuroint.modules.tokens import EmbeddingFrom
from neuroint.registry import Count, Fact, Positive, interactions


class _Prepared(NamedTuple):
    """The sparse coupling: who the neighbors are, and their weights."""

    neighbors: Int[Tensor, "neurons neighbor"]
    weights: Float[Tensor, "neurons neighbor"]


@interactions.register("distance_kernel")
class DistanceKernel(LastActivityCoupling):
    r"""Add the last activity of nearby neurons to each drive, weighed by a signed function of distance and likeness.

    .. math::
        z_i(t) = d_i(t) + \sum_{j \in N_k(i)} C_{ij}\, r_j(t - 1), \quad
        C = \rho\, W / \max\big(1, \sqrt{\|W\|_1 \|W\|_\infty}\big), \\
        W_{ij} = \frac{1}{k} \sum_b (w_b + v_b s_{ij}) \exp\big(-(D_{ij} - c_b)^2 / 2 h^2\big) \;\text{ where }\;
        D_{ij} \le 1, \quad W_{ii} = 0, \\
        D_{ij}^2 = |\Delta_\mathrm{lateral}|^2 / \lambda_\mathrm{lateral}^2 + \Delta_\mathrm{depth}^2 /
        \lambda_\mathrm{depth}^2

    over the k nearest other neurons in D, with s the cosine of their embeddings, centers c from 0 to 1 and width h
    their spacing. Both signs and any shape over distance can be said, such as a center with a surround. Beyond the k-th
    neighbor nothing couples: :attr:`reach` says how far that is, in units of the ranges; with thousands of neurons take
    more neighbors or shorter ranges. r is in responses per bin, C in drive per response per bin.

    Fed with predictions it reads the model's own rate one frame before, so it is in the same information class as the
    stimulus; fed with records it reads the recorded past, another class, and nothing recurs. The root of the largest
    column sum times the largest row sum of absolute weights is never below the spectral norm, so that the norm of C
    stays below rho < 1 for every w and v, and with a link of slope at most 1 (``elu1``, ``softplus``, ``identity``) two
    runs under one drive approach each other by rho in every frame; behind ``exp`` that is not certified. It starts at
    w = v = 0, which is ``none``, and so is strength 0 (:meth:`off`).

    Its nulls are ``none``, itself with permuted positions, and a fit to data without coupling: a kernel that is not 0
    also comes out where a pool with the same spatial scale was at work. Cost is neurons x k per frame.

    Args:
        neighbors: k, how many nearest other neurons may couple.
        distance_bases: B, bumps over distance.
        lateral_um: the range in the plane, first two coordinates.
        depth_um: the range in depth, third coordinate.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``, for the cosine.
        embedding_width: width of free embeddings.
        fed: ``predictions`` (the model's own) or ``recorded``.
        bound: rho, the cap of the spectral norm.

    Raises:
        MissingFactError: no positions, or ``embedding: readout`` without a readout.
        ValueError: fewer than two neurons, a subset of neurons, or no embedding in the context.

    Source: signed influence over distance and tuning as in Chettih & Harvey (2019), Nature 567, 334-340.
    """

    neighbors: Tensor
    basis: Tensor
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        positions_um: Fact[Positions],
        embedding_channels: Fact[int] | None = None,
        neighbors: Count = 64,
        distance_bases: Count = 6,
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 16,
        fed: Fed = "predictions",
        bound: OpenFraction = 0.9,
    ) -> None:
        super().__init__(fed, bound)
        places = positions_um / np.array([lateral_um, lateral_um, depth_um], positions_um.dtype)
        indices, apart = nearest_neighbors(places, neighbors)
        distance = torch.tensor(apart, dtype=torch.float32)
        self.reach = float(np.median(apart[:, -1]))
        self.register_buffer("neighbors", torch.tensor(indices), persistent=False)
        within = radial_basis(distance, 1.0, distance_bases) * (distance <= 1) / indices.shape[1]
        self.register_buffer("basis", within, persistent=False)
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.distance_weights = nn.Parameter(torch.zeros(distance_bases))
        self.similarity_weights = nn.Parameter(torch.zeros(distance_bases))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all couplings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute the couplings of all neighbors; their norm is below the bound."""
        refuse_subset("distance_kernel", context)
        with torch.autocast(self.strength.device.type, enabled=False):
            vectors = self.embedding(context)[:, None]
            similarity = edge_scores(vectors, vectors, self.neighbors)[0] / math.sqrt(vectors.shape[-1])
            alone = torch.einsum("b,bij->ij", self.distance_weights, self.basis)
            weights = alone + similarity * torch.einsum("b,bij->ij", self.similarity_weights, self.basis)
            capped_weights = capped(weights, sparse_norm(self.neighbors, weights), self.bound)
        return _Prepared(self.neighbors, self.strength * capped_weights)

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return C for analysis: the influence of column j's last activity on row i's drive."""
        return dense(*prepared(self, context))

    def influence(
        self, activity: Float[Tensor, "batch neurons"], coupling: _Prepared
    ) -> Float[Tensor, "batch neurons"]:
        """Sum the weighed last activity of the neighbors."""
        return frame_sum(activity, *coupling)
