"""Divisive normalization by a recurrent circuit of principal cells and gain-controlling cells."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.excitation import Excitation, Parent, inverse_softplus, strength
from neuroint.modules.leaky import LeakyMemory
from neuroint.modules.neighbors import frame_sum
from neuroint.modules.pool_weights import PoolWeights
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Count, Fact, Positive, normalizations

FAST_S = 0.01  # tau_y at the start: a membrane is fast beside a bin of a recording


class _Prepared(NamedTuple):
    """What is the same for all frames."""

    weights: Float[Tensor, "neurons neighbor"]
    log_resting: Float[Tensor, " neurons"]
    kept: Float[Tensor, ""]
    half_step: Float[Tensor, ""]


State = tuple[Float[Tensor, "batch neurons"], Float[Tensor, "batch neurons"]]


@normalizations.register("organics")
class Organics(nn.Module):
    r"""Pass each neuron's drive through a recurrent circuit whose steady state is division by a pool of neurons.

    .. math::
        \tau_y \dot y_i = -y_i + z_i + (1 - \sqrt{a_i})\, y_i = z_i - \sqrt{a_i}\, y_i, \quad z_i = \sqrt{E_i}, \quad
        E_i = (\mathrm{softplus}(d_i) + 10^{-6})^n, \\
        \tau_a \dot a_i = -a_i + 1 + \sum_{j \in N_k(i)} W_{ij}\, a_j y_j^2, \quad
        W_{ij} = \alpha_i \hat w_{ij} / \sigma_i^n, \quad r_i = A_i\, y_i^2\, a^0_i

    with y the membrane of principal cells, a the state of the cells that control their gain, in units of sigma^n, and w
    the weights of ``population_pool`` over the k nearest neurons and the neuron itself (rows sum to 1). a^0 is the a of
    a population at its sigma, so that the gain is 1 there. The steady state is a = 1 + W E, y = z / sqrt(a): division
    by sigma^n + alpha (w E). With ``parent: none`` r = softplus(d) (a y^2 / E)^(1/n) a^0 / a, the same in the steady
    state. The output is the drive whose softplus is r. Sigma and r are in responses per bin, the time constants in
    seconds, n lies in (1, 4), alpha is without unit. Its state follows from drives alone: it reads no predictions and
    no records. A clip starts in the steady state of its first frame.

    One bin is half a step of y with a held, a step of a with what it pools held, and half a step of y, each by its
    exponential: of first order in the bin, so time constants near the bin width are those of these steps.

    **Stability.** W_y is the identity, so the fixed point is locally stable for every parameter, in continuous time and
    for these steps at every bin width: at it the eigenvalues mu of a step satisfy xi_i (mu / kappa_i - 1) = (1 -
    lambda) (mu - 1) / (mu - lambda) (diag(y^2) W xi)_i with kappa_i = exp(-Delta sqrt(a_i) / tau_y) and lambda =
    exp(-Delta / tau_a), and as y_i^2 (W E)_i < E_i no mu of modulus 1 or more does. For every parameter and input y
    never exceeds the largest z it was given, a stays at or above 1, and a y^2 at or below (1 + 2 tau_y / (e Delta))^2
    times the largest E.

    Strength 0 (:meth:`off`) takes away the pool and the membrane's memory, which leaves the parent r^0: A E or
    softplus(d). It starts at n = 2, alpha = ``initial_strength``, tau_y = 10 ms, tau_a = ``tau_s``, uniform weights,
    and sigma and A as ``population_pool``. Cost is neurons x k x frames, one frame after the other.

    Its null for *dynamics* is ``population_pool``, for *pooling* ``static_saturation``, and that of the stage ``none``.

    Args:
        parent: r^0, what is left at strength 0: the ``power_law`` A E, or ``none``, softplus(d).
        neighbors: k, how many nearest other neurons may enter the weighted pool.
        distance_bases: radial bases of distance, 0 to ``range_um``.
        range_um: where the last base is centered.
        tau_s: tau_a at the start.
        max_tau_s: the longest tau_a, and by it the frames that training discards: 3 tau, 36 of 33 ms for .4 s. tau_y
            stays below half of it, so that the two together forget no more slowly.
        initial_strength: alpha at the start.

    Raises:
        ValueError: fewer than two neurons, a subset of neurons, no embedding in the context, or ``tau_s`` is not below
            ``max_tau_s``.

    Source: Heeger & Mackey (2019), PNAS 116, 22783-22794; Rawat, Heeger & Martiniani (2024), NeurIPS 37 (stability).
    """

    reads: ClassVar[Reads] = Reads(population=True)
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        positions_um: Fact[Positions],
        mean_responses: Fact[Float[np.ndarray, " neurons"]],
        bin_s: Fact[float],
        parent: Parent = "power_law",
        neighbors: Count = 32,
        distance_bases: Count = 4,
        range_um: Positive = 450.0,
        tau_s: Positive = 0.1,
        max_tau_s: Positive = 0.4,
        initial_strength: Positive = 0.05,
    ) -> None:
        super().__init__()
        self.excitation = Excitation(mean_responses, parent)
        self.pool = PoolWeights(positions_um, neighbors, distance_bases, range_um, own=True)
        self.memory = LeakyMemory(n_neurons, bin_s, tau_s, max_tau_s)
        self.memory_bins = self.memory.memory_bins
        self.half_bin_s, self.longest_tau_y_s = bin_s / 2, max_tau_s / 2
        share = min(FAST_S / self.longest_tau_y_s, 0.5)
        self.raw_tau_y = nn.Parameter(torch.tensor(share).logit())
        self.raw_alpha = nn.Parameter(torch.full((n_neurons,), inverse_softplus(initial_strength)))
        self.register_buffer("strength", torch.ones(()))

    @property
    def tau_y_s(self) -> Float[Tensor, ""]:
        """Time constant of the membrane at rest, in seconds."""
        return self.longest_tau_y_s * torch.sigmoid(self.raw_tau_y)

    def off(self) -> None:
        """Set the strength of the pool and the membrane's memory to 0, which leaves the parent."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Weigh the pool, and find its state when every neuron is at its sigma."""
        refuse_subset("organics", context)
        saturation = self.excitation.log_saturation(context)
        alpha = strength(self.raw_alpha, self.strength)
        weights = self.pool(context) * (alpha * torch.exp(-saturation))[:, None]
        resting = frame_sum(saturation.exp()[None], self.pool.neighbors, weights)[0]
        (kept,) = self.memory.kept(context)
        return _Prepared(weights, torch.log1p(resting), kept, self.half_bin_s / self.tau_y_s)

    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> State:
        """Membranes y and gain control a in the steady state of the first frame."""
        excitation = self.excitation.log_excitation(drive_0).exp()
        a = 1 + self._pooled(excitation, prepared(self, context))
        return torch.sqrt(excitation / a), a

    def scan(
        self, drive: Float[Tensor, "batch time neurons"], state: State, context: Context
    ) -> tuple[Float[Tensor, "batch time neurons"], State]:
        """Step through the frames, and read the rates off the membranes."""
        held: _Prepared = prepared(self, context)
        log_excitation = self.excitation.log_excitation(drive)
        (y, a), answers = state, []
        for z in torch.exp(log_excitation / 2).unbind(1):
            y, a = self.advance(z, y, a, held)
            answers.append(torch.stack([y, a]))
        log_y, log_a = torch.stack(answers, dim=2).log()
        lag = self.excitation.log_lag(2 * log_y + log_a - log_excitation)
        return self.excitation.scaled_drive(drive, lag + held.log_resting - log_a, context), (y, a)

    def advance(
        self,
        z: Float[Tensor, "batch neurons"],
        y: Float[Tensor, "batch neurons"],
        a: Float[Tensor, "batch neurons"],
        held: _Prepared,
    ) -> State:
        """Advance the circuit by one bin."""
        y = self._membrane(z, y, a, held)
        a = held.kept * a + (1 - held.kept) * (1 + self._pooled(a * y.square(), held))
        return self._membrane(z, y, a, held), a

    def _membrane(self, z: Tensor, y: Tensor, a: Tensor, held: _Prepared) -> Tensor:
        root = a.sqrt()
        left = self.strength * torch.exp(-held.half_step * root)
        return left * y + (1 - left) * z / root

    def _pooled(self, values: Float[Tensor, "batch neurons"], held: _Prepared) -> Float[Tensor, "batch neurons"]:
        return frame_sum(values, self.pool.neighbors, held.weights)
