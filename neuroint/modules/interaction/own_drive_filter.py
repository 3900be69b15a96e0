"""Each neuron's own past drives, weighed and added: what memory alone can do, without any other neuron."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads
from neuroint.registry import Count, Fact, interactions


@interactions.register("own_drive_filter")
class OwnDriveFilter(nn.Module):
    r"""Add each neuron's own past drives to its drive, filtered by a few weights per lag.

    .. math:: z_i(t) = d_i(t) + \sum_{l=1}^{L} a_{il}\, d_i(t - l)

    ``batch time neurons`` in and out; a has no unit. It reads drives of the stimulus only, and no neuron but its own.
    It is the matched control of every design that remembers: what a recurrence or a coupling gains over it is not a
    better temporal filter. A filter without feedback is stable for every weight. Lag 0 would be a gain, which a readout
    has already. Before the first frame drives count as 0, so it remembers L bins.

    It starts at a = 0 as does strength zero (:meth:`off`): ``none``, its null; that for the filter is a core with a
    longer temporal kernel. Cost is neurons x L per frame.

    Args:
        lags: L, in bins.
        per_neuron: weights for every neuron, or one set shared by all.

    Source: the feed-forward twin of ``linear_autoregressive``; Pillow et al. (2008), Nature 454, 995-999.
    """

    couples_neurons: ClassVar[bool] = False
    reads: ClassVar[Reads] = Reads()
    strength: Tensor

    def __init__(self, *, n_neurons: Fact[int], lags: Count = 8, per_neuron: bool = True) -> None:
        super().__init__()
        self.memory_bins, self.per_neuron = lags, per_neuron
        self.weights = nn.Parameter(torch.zeros(n_neurons if per_neuron else 1, lags))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all weights to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def initial_state(
        self, drive_0: Float[Tensor, "batch neurons"], context: Context
    ) -> Float[Tensor, "batch past neurons"]:
        """Drives of the last L bins: zeros."""
        return drive_0.new_zeros(drive_0.shape[0], self.memory_bins, drive_0.shape[1])

    def scan(
        self,
        drive: Float[Tensor, "batch time neurons"],
        state: Float[Tensor, "batch past neurons"],
        context: Context,
    ) -> tuple[Float[Tensor, "batch time neurons"], Float[Tensor, "batch past neurons"]]:
        """Filter a stretch of frames, and keep the last L drives."""
        weights = self.strength * (context.of_neurons(self.weights) if self.per_neuron else self.weights)
        known = torch.cat([state, drive], dim=1)
        kernels = weights.flip(-1).unsqueeze(1).expand(drive.shape[2], 1, -1)  # the last weight meets the oldest drive
        filtered = functional.conv1d(known[:, :-1].transpose(1, 2), kernels, groups=len(kernels))
        return drive + filtered.transpose(1, 2), known[:, drive.shape[1] :]
