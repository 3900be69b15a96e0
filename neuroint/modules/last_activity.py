"""What couplings to the last activity of the population share: whose activity it is, and when it is forgotten."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from neuroint.modules.base import Context, Fed, coupled_reads, prepared
from neuroint.modules.spectral import bins_to_forget


class LastActivityCoupling(nn.Module):
    r"""Add a linear map of the population's last activity to the drive.

    .. math:: z(t) = d(t) + C\, r(t - 1)

    A design offers ``prepare(context)``, which computes C, and ``influence(activity, coupling)``, which applies it; it
    keeps ``|C|_2 <= bound``. Fed with predictions, r is the model's own rate one frame before (zeros before the first
    frame), and what two initial states differ by shrinks by the bound in every frame behind a link of slope at most 1;
    ``memory_bins`` is when 5 % of it is left. That holds for this stage: a normalization before it that also reads last
    rates closes a second loop, and the two together are not certified. Fed with records, nothing recurs, and one bin is
    looked at.

    Args:
        fed: ``predictions`` or ``recorded``.
        bound: the cap of the spectral norm.
    """

    def __init__(self, fed: Fed, bound: float) -> None:
        super().__init__()
        self.fed, self.bound = fed, bound
        self.reads = coupled_reads(fed)
        self.memory_bins = bins_to_forget(bound) if fed == "predictions" else 1

    def prepare(self, context: Context) -> Any:
        """Compute the coupling."""
        raise NotImplementedError

    def influence(self, activity: Float[Tensor, "batch neurons"], coupling: Any) -> Float[Tensor, "batch neurons"]:
        """Apply the coupling to the last activity."""
        raise NotImplementedError

    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> None:
        """Nothing but the last activity is remembered, and the model keeps that."""
        return

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: None,
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], None]:
        """Add what the last activity contributes."""
        return drive_t + self.influence(last_rate, prepared(self, context)), None
