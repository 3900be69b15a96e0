"""Divisive normalization by a pool of nearby and similar neurons."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.excitation import Excitation, Parent, inverse_softplus, strength
from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.pool_weights import PoolWeights
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Count, Fact, Positive, normalizations


class _Prepared(NamedTuple):
    """What is the same for all frames."""

    weights: Float[Tensor, "neurons neighbor"]
    resting: Float[Tensor, "1 1 neurons"]


@normalizations.register("population_pool")
class PopulationPool(nn.Module):
    r"""Divide each neuron's rectified drive by a weighted pool of its neighbors and by the population's mean.

    .. math::
        r_i = r^0_i \frac{\sigma_i^n + P^0_i}{\sigma_i^n + P_i}, \quad r^0_i = A_i E_i, \quad
        E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n, \\
        P_i = \alpha_i \sum_{j \in N_k(i)} \hat w_{ij} E_j + \gamma \bar E, \quad
        \hat w_{ij} \propto \exp\Big(\sum_b w_b\, \mathrm{RBF}_b(D_{ij}) + \kappa s_{ij}\Big), \quad
        \sum_j \hat w_{ij} = 1

    over the k nearest other neurons, with D their distance in micrometers and s the cosine of their readout weights.
    P^0 is the pool when every neuron is at its sigma, so the gain is 1 there and a pool of strength 0 (:meth:`off`)
    leaves the parent r^0. The output is the drive whose softplus is r: behind link ``softplus`` the rate is r, and any
    other link still covers its whole range. Sigma and r are in responses per bin, n lies in (1, 4), alpha and gamma are
    without unit.

    It starts at n = 2, alpha = gamma = ``initial_strength``, uniform weights, sigma at the neuron's mean response, and
    A such that a neuron at its sigma keeps its drive. Cost grows with neurons x k x frames.

    Its null for *pooling* is itself with strength 0 (the same static nonlinearity); the null of the stage is ``none``,
    which strength 0 is exactly with ``parent: none``. It reads drives of the same frame, no records. A fit to data
    without a pool still returns positive strengths: compare them with fits to such data.

    Args:
        parent: r^0, what is left at strength 0: the ``power_law`` A E, or ``none``, softplus(d).
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
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        positions_um: Fact[Positions],
        mean_responses: Fact[Float[np.ndarray, " neurons"]],
        parent: Parent = "power_law",
        neighbors: Count = 32,
        distance_bases: Count = 4,
        range_um: Positive = 450.0,
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        self.excitation = Excitation(mean_responses, parent)
        self.pool = PoolWeights(positions_um, neighbors, distance_bases, range_um)
        self.register_buffer("strength", torch.ones(()))
        start = inverse_softplus(initial_strength)
        self.raw_alpha = nn.Parameter(torch.full((n_neurons,), start))
        self.raw_gamma = nn.Parameter(torch.tensor(start))

    @property
    def alpha(self) -> Float[Tensor, " neurons"]:
        """Strength of the weighted pool per neuron."""
        return strength(self.raw_alpha, self.strength)

    @property
    def gamma(self) -> Float[Tensor, ""]:
        """Strength of the population's mean."""
        return strength(self.raw_gamma, self.strength)

    def off(self) -> None:
        """Set the strength of both pools to 0, which leaves the static nonlinearity."""
        self.strength.zero_()

    def pool_weights(self, context: Context) -> Float[Tensor, "neurons neighbor"]:
        """Weights of the neighbors (``pool.neighbors``) in each neuron's pool; rows sum to 1."""
        return self.pool(context)

    def prepare(self, context: Context) -> _Prepared:
        """Weigh the neighbors, and find the denominator when every neuron is at its sigma."""
        refuse_subset("population_pool", context)
        weights = self.pool_weights(context)
        saturation = self.excitation.log_saturation(context)
        return _Prepared(weights, self._log_denominator(saturation[None, None], saturation, weights))

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Normalize every frame by itself."""
        held = prepared(self, context)
        log_excitation = self.excitation.log_excitation(drive)
        divided = self._log_denominator(log_excitation, self.excitation.log_saturation(context), held.weights)
        return self.excitation.scaled_drive(drive, held.resting - divided, context)

    def _log_denominator(
        self,
        log_excitation: Float[Tensor, "batch time neurons"],
        saturation: Float[Tensor, " neurons"],
        weights: Float[Tensor, "neurons neighbor"],
    ) -> Float[Tensor, "batch time neurons"]:
        """Logarithm of sigma^n + pool; every exponential is of a number that is at most 0, and the sum is never 0."""
        peak = log_excitation.detach().amax(-1, keepdim=True)
        excitation = torch.exp(log_excitation - peak)
        pool = self.alpha * neighbor_sum(excitation, self.pool.neighbors, weights)
        pool = pool + self.gamma * excitation.mean(-1, keepdim=True)
        top = torch.maximum(saturation.detach(), peak)
        return top + torch.log(torch.exp(saturation - top) + pool * torch.exp(peak - top))
