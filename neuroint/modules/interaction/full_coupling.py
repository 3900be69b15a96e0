"""A free coupling between every pair of neurons."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Fed, prepared
from neuroint.modules.last_activity import LastActivityCoupling
from neuroint.modules.penalties import absolute_sum, weighed_sum
from neuroint.modules.selection import refuse_subset
from neuroint.modules.spectral import OpenFraction, capped, dense_norm
from neuroint.registry import Fact, NonNegative, interactions

LARGEST = 500  # neurons: beyond it there are more couplings than recordings can tell apart


@interactions.register("full_coupling")
class FullCoupling(LastActivityCoupling):
    r"""Add a freely weighed sum of all other neurons' last activity to each neuron's drive.

    .. math:: z(t) = d(t) + C\, r(t - 1), \quad C = \rho\, W / \max\big(1, \sqrt{\|W\|_1 \|W\|_\infty}\big),
        \quad W_{ii} = 0

    r is in responses per bin, C in drive per response per bin. Fed with predictions it reads the model's own rate one
    frame before, so it is in the same information class as the stimulus; fed with records it reads the recorded past,
    another class, and nothing recurs. The root of the largest column sum times the largest row sum of absolute weights
    is never below the spectral norm, so that the norm of C stays below rho < 1 for every W, and with a link of slope at
    most 1 (``elu1``, ``softplus``, ``identity``) two runs under one drive approach each other by rho in every frame;
    behind ``exp`` that is not certified. It starts at W = 0, which is ``none``, and so is strength 0 (:meth:`off`).

    Its nulls are ``none``, ``distance_kernel`` and ``low_rank_recurrent`` (far fewer couplings), and a fit to data
    without coupling, whose W is not 0 either. Couplings under own predictions mean something only with a frozen core.
    Cost is neurons^2 x frames, and neurons^2 parameters.

    Args:
        fed: ``predictions`` (the model's own) or ``recorded``.
        bound: rho, the cap of the spectral norm.
        l1: strength of the penalty, the mean over neurons of their summed absolute W.

    Raises:
        ValueError: more than 500 neurons, or a subset of them.

    Source: the all-to-all couplings of Pillow et al. (2008), Nature 454, 995-999, on rates; that fitted couplings run
    away without a cap, Gerhard et al. (2017), PLoS Comput. Biol. 13, e1005390.
    """

    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        fed: Fed = "predictions",
        bound: OpenFraction = 0.9,
        l1: NonNegative = 1e-3,
    ) -> None:
        super().__init__(fed, bound)
        if n_neurons > LARGEST:
            raise ValueError(
                f"'full_coupling' has a weight for every pair and was given {n_neurons} neurons, expected at most "
                f"{LARGEST}; use 'distance_kernel', 'low_rank_recurrent', 'neighbor_attention' or 'coupled_glm'"
            )
        self.l1 = l1
        self.raw_coupling = nn.Parameter(torch.zeros(n_neurons, n_neurons))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all couplings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def penalty(self) -> Float[Tensor, ""]:
        """Mean over neurons of the summed absolute weights, times its strength."""
        return weighed_sum((self.l1 / len(self.raw_coupling), absolute_sum, self._weights()))

    def prepare(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Compute C, whose norm is below the bound."""
        refuse_subset("full_coupling", context)
        weights = self._weights()
        return self.strength * capped(weights, dense_norm(weights), self.bound)

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return C for analysis: the influence of column j's last activity on row i's drive."""
        return prepared(self, context)

    def influence(
        self, activity: Float[Tensor, "batch neurons"], coupling: Float[Tensor, "neurons neurons"]
    ) -> Float[Tensor, "batch neurons"]:
        """Apply C to the last activity."""
        return activity @ coupling.T

    def _weights(self) -> Float[Tensor, "neurons neurons"]:
        return self.raw_coupling - torch.diag(self.raw_coupling.diagonal())
