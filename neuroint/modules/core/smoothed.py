"""Recorded activity smoothed in time: the floor of every model that reads other neurons."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.transformer import counts_of
from neuroint.registry import Count, Fact, MissingFactError, Positive, cores

REACH = 3  # standard deviations to each side
UNIT_HZ = 10.0  # features are about 1


@cores.register("smoothed")
class Smoothed(nn.Module):
    r"""Smooth recorded activity of every held-in neuron by a Gaussian in time, and take a few mixtures of it, if asked.

    .. math:: s_i(t) = \sum_u k(u) n_i(t - u), \quad F = s, \; \mathrm{or} \; F = C s

    with k of sum 1 over three standard deviations to each side, zeros beyond the clip. Features are in tens of
    responses per second. With readout ``linear`` and link ``exp`` the model is Poisson regression on smoothed counts;
    with ``latents`` it is of reduced rank, a linear factor model of fixed smoothness, the nearest thing to
    Gaussian-process factor analysis here. It reads ``recorded_others``, and the future by three standard deviations.
    Cost: one convolution. Its null is ``constant``.

    Args:
        sd_s: standard deviation of the Gaussian in seconds.
        latents: number of mixtures; None hands on every channel.

    Raises:
        MissingFactError: no recorded activity is on offer, or the bin width is not known.

    Source: Yu et al. (2009), J. Neurophysiol. 102, 614-635; the smoothing baseline of Pei et al. (2021).
    """

    kernel: Tensor

    reads: ClassVar[Reads] = Reads(information="recorded_others", causal=False, population=True)

    def __init__(
        self, *, observed_channels: Fact[int], bin_s: Fact[float], sd_s: Positive = 0.05, latents: Count | None = None
    ) -> None:
        super().__init__()
        if not observed_channels:
            raise MissingFactError(
                "core 'smoothed' reads recorded activity, which the data does not offer; set data.observed: masked or "
                "others"
            )
        self.channels, self.lost_frames = observed_channels, 0
        self.feature_shape = (latents or observed_channels, 1, 1)
        reach = max(1, math.ceil(REACH * sd_s / bin_s))
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) * bin_s / sd_s) ** 2)
        self.register_buffer("kernel", kernel / kernel.sum() / bin_s / UNIT_HZ, persistent=False)
        self.mix = nn.Linear(observed_channels, latents, bias=False) if latents else nn.Identity()

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel 1 1"]:
        """Smooth every channel."""
        x = counts_of(inputs, self.channels).transpose(1, 2)
        kernel = self.kernel.to(x.dtype).expand(self.channels, 1, -1)
        smooth = functional.conv1d(x, kernel, padding=kernel.shape[2] // 2, groups=self.channels)
        return self.mix(smooth.transpose(1, 2))[..., None, None]
