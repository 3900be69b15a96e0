"""The linear way from one population to another, through a few dimensions."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.causal_filters import require_channels
from neuroint.modules.observed import observed_of
from neuroint.registry import Count, Fact, Index, cores


@cores.register("reduced_rank")
class ReducedRank(nn.Module):
    r"""Project recorded activity of a stretch of bins onto a few latents, linearly.

    .. math:: z_m(t) = \sum_{l=-after}^{before} \sum_c P_{mcl}\, y_c(t - l)

    y is recorded activity as the model hands it on, in responses per bin, 0 beyond the ends of the clip. Features are
    ``batch time latents 1 1`` in units of y. With readout ``linear`` the drive is a regression of rank ``latents`` at
    most on the held-in neurons, and the link the only nonlinearity: the linear null of ``seq2seq``. Its own nulls are
    ``time_course``, ``constant``, and itself with ``observed.shuffled``.

    It reads what the data offers (class ``recorded_others`` or ``recorded_past``); causal without ``after``. Clips are
    not cut for evaluation, because zeros stand beyond their ends. Cost is channels x latents x (before + 1 + after) per
    frame.

    Args:
        latents: M, the rank.
        before: bins before t that are read.
        after: bins after t that are read.

    Raises:
        MissingFactError: the data offers no recorded activity.
        ValueError: the inputs hold none.

    Source: Izenman (1975), J. Multivar. Anal. 5, 248-264; Semedo et al. (2019), Neuron 102, 249-259, across areas.
    """

    whole_clips: ClassVar[bool] = True

    def __init__(
        self, *, observed_channels: Fact[int] = 0, latents: Count = 15, before: Index = 0, after: Index = 0
    ) -> None:
        super().__init__()
        require_channels("reduced_rank", observed_channels)
        self.reads = Reads(information="recorded_others", causal=after == 0)
        self.reach = (before, after)
        width = before + 1 + after
        self.weights = nn.Parameter(torch.randn(latents, observed_channels, width) / (observed_channels * width) ** 0.5)
        self.feature_shape = (latents, 1, 1)
        self.lost_frames = 0

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time latents 1 1"]:
        """Project every frame and its surroundings."""
        observed = observed_of("reduced_rank", inputs)
        padded = functional.pad(observed.transpose(1, 2), self.reach)
        return functional.conv1d(padded, self.weights).transpose(1, 2)[..., None, None]
