"""Divisive normalization by a pool of nearby and similar neurons."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads
from neuroint.modules.embedding import scaled
from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.positions import Positions, nearest_neighbors, radial_basis
from neuroint.modules.rectified import drive_of_log_rate, log_rectified
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Count, Fact, Positive, normalizations

SILENT = 0.05  # responses per bin: the least semi-saturation at the start


@normalizations.register("population_pool")
class PopulationPool(nn.Module):
    r"""Divide each neuron's rectified drive by a weighted pool of its neighbors and by the population's mean.

    .. math::
        r_i = A_i \frac{E_i\,(\sigma_i^n + P^0_i)}{\sigma_i^n + P_i}, \quad E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n,
        \quad P_i = \alpha_i \sum_{j \in N_k(i)} \hat w_{ij} E_j + \gamma \bar E, \\
        \hat w_{ij} \propto \exp\Big(\sum_b w_b\, \mathrm{RBF}_b(D_{ij}) + \kappa s_{ij}\Big), \quad
        \sum_j \hat w_{ij} = 1

    over the k nearest other neurons, with D their distance in micrometers and s the cosine of their readout weights.
    P^0 is the pool when every neuron is at its sigma, so the gain is 1 there and a pool of strength 0 (:meth:`off`)
    leaves the static nonlinearity A E. The output is the drive whose softplus is r: behind link ``softplus`` the rate
    is r, and any other link still covers its whole range. Sigma and r are in responses per bin, n lies in (1, 4),
    alpha and gamma are without unit.

    It starts at n = 2, alpha = gamma = ``initial_strength``, uniform weights, sigma at the neuron's mean response, and
    A such that a neuron at its sigma keeps its drive. Cost grows with neurons x k x frames.

    Its null for *pooling* is itself with strength 0 (the same static nonlinearity); the null of the stage is ``none``.
    A fit to data without a pool still returns positive strengths: compare them with fits to such data.

    Args:
        neighbors: k, how many nearest other neurons may enter the weighted pool.
        distance_bases: radial bases of distance, 0 to ``range_um``.
        range_um: where the last base is centered.
        initial_strength: alpha and gamma at the start; .05 is near the model without a pool, and a strong pool is found
            sooner from a stronger start.

    Raises:
        ValueError: fewer than two neurons, a subset of neurons, or no embedding in the context.

    Source: Carandini & Heeger (2012), Nat. Rev. Neurosci. 13, 51-62; Burg et al. (2021), PLoS Comput. Biol. 17,
    e1009028.
    """

    reads: ClassVar[Reads] = Reads(population=True)
    neighbors: Tensor
    basis: Tensor
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        positions_um: Fact[Positions],
        mean_responses: Fact[Float[np.ndarray, " neurons"]],
        neighbors: Count = 32,
        distance_bases: Count = 4,
        range_um: Positive = 450.0,
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        indices, distances = nearest_neighbors(positions_um, neighbors)
        basis = radial_basis(torch.tensor(distances, dtype=torch.float32), range_um, distance_bases)
        self.register_buffer("neighbors", torch.tensor(indices), persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("strength", torch.ones(()))
        self.raw_exponent = nn.Parameter(torch.tensor(math.log(0.5)))  # 1 + 3 sigmoid of it is 2
        sigma = torch.tensor(np.maximum(mean_responses, SILENT), dtype=torch.float32)
        self.log_sigma = nn.Parameter(sigma.log())
        self.log_gain = nn.Parameter(-sigma.log())  # sigma^(1 - n) at n = 2
        start = math.log(math.expm1(initial_strength))
        self.raw_alpha = nn.Parameter(torch.full((n_neurons,), start))
        self.raw_gamma = nn.Parameter(torch.tensor(start))
        self.distance_weights = nn.Parameter(torch.zeros(distance_bases))
        self.similarity_weight = nn.Parameter(torch.zeros(()))

    @property
    def exponent(self) -> Float[Tensor, ""]:
        """n, between 1 and 4."""
        return 1 + 3 * torch.sigmoid(self.raw_exponent)

    @property
    def alpha(self) -> Float[Tensor, " neurons"]:
        """Strength of the weighted pool per neuron."""
        return self.strength * functional.softplus(self.raw_alpha)

    @property
    def gamma(self) -> Float[Tensor, ""]:
        """Strength of the population's mean."""
        return self.strength * functional.softplus(self.raw_gamma)

    def off(self) -> None:
        """Set the strength of both pools to 0, which leaves the static nonlinearity."""
        self.strength.zero_()

    def pool_weights(self, context: Context) -> Float[Tensor, "neurons neighbor"]:
        """Weights of the neighbors (``self.neighbors``) in each neuron's pool; rows sum to 1."""
        if context.embedding is None:
            raise ValueError("'population_pool' needs an embedding; give Context(embedding=readout.embedding())")
        unit = scaled(context.embedding) / context.embedding.shape[1] ** 0.5
        similarity = torch.einsum("ic,ijc->ij", unit, unit[self.neighbors])
        bases = torch.einsum("b,bij->ij", self.distance_weights, self.basis)
        return torch.softmax(bases + self.similarity_weight * similarity, dim=-1)

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Normalize every frame by itself."""
        refuse_subset("population_pool", context)
        weights = self.pool_weights(context)
        log_excitation = self.exponent * log_rectified(drive)
        resting = self._log_denominator((self.exponent * self.log_sigma)[None, None], weights)
        log_rate = self.log_gain + log_excitation + resting - self._log_denominator(log_excitation, weights)
        return drive_of_log_rate(log_rate)

    def _log_denominator(
        self, log_excitation: Float[Tensor, "batch time neurons"], weights: Float[Tensor, "neurons neighbor"]
    ) -> Float[Tensor, "batch time neurons"]:
        """Logarithm of sigma^n + pool; every exponential is of a number that is at most 0, and the sum is never 0."""
        peak = log_excitation.detach().amax(-1, keepdim=True)
        excitation = torch.exp(log_excitation - peak)
        pool = self.alpha * neighbor_sum(excitation, self.neighbors, weights)
        pool = pool + self.gamma * excitation.mean(-1, keepdim=True)
        saturation = self.exponent * self.log_sigma
        top = torch.maximum(saturation.detach(), peak)
        return top + torch.log(torch.exp(saturation - top) + pool * torch.exp(peak - top))
