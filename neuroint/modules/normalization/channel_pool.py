"""Divisive normalization among the channels of the core, over a neighborhood of pixels."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Reads
from neuroint.modules.convolution import over_frames
from neuroint.modules.excitation import Parent
from neuroint.modules.penalties import absolute_sum, weighed_sum
from neuroint.modules.rectified import FLOOR
from neuroint.registry import Count, Fact, NonNegative, normalizations

LEAST, MOST = 0.5, 4.0  # exponents; below 1 a power is steep at 0, and a half is steep enough
START = math.log((1 - LEAST) / (MOST - 1))  # the sigmoid of it makes an exponent of 1
WEAK = 1e-3  # weights of the pool at the start


def _odd(pixels: int) -> int:
    if pixels % 2 == 0:
        raise ValueError(f"expected an odd number of pixels, so that there is a middle one, got {pixels}")
    return pixels


OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]


@normalizations.register("channel_pool")
class ChannelPool(nn.Module):
    r"""Divide every channel of the core's features by a weighted pool of all channels around each pixel.

    .. math::
        z_l = \frac{y_l^{n_l}}{\eta_l^{n_l} + \sum_k p_{lk}\,\big(u_k * \mathrm{avg}_{s \times s}(y_k^{n_k})\big)}, \\
        y = \max(f, 0) + 10^{-6}, \quad p = |v|, \quad u_k \ge 0,\ \sum u_k = 1

    It stands inside the core: features f ``batch time channel height width`` in, z of the same shape out, each frame by
    itself; the average leaves out what lies beyond the edge. Features are cut at 0 and not bent by a softplus, because
    the ELU that cores end in agrees with the ReLU of the published model above 0, so that the two are one from there
    on; a softplus would leave a floor under every pool. n lies in (.5, 4), eta is in units of features, p without unit.
    A channel is in its own pool. It reads the stimulus only.

    Two things differ from the published model: its kernel u has free scale, which trades off with v, so here it sums
    to 1; and its exponent is unbounded. It starts as published at n = 1, eta = 1 and v = .001: hardly any pool.

    Strength zero (:meth:`off`) is its static parent: ``power_law`` z = (y / eta)^n, which at the start is the rectified
    feature, or ``none``, where z is f times the pool's gain eta^n / (eta^n + pool) and strength zero the core as it is.
    The null of *pooling* is itself with strength 0, of *specific* pooling ``specific: false``, of the stage ``none``.
    Cost per pixel and frame is channels^2, as of a 1 x 1 convolution.

    Args:
        parent: what is left without a pool.
        pool_px: s, side of the square that is averaged; odd.
        surround_px: side of the kernel u, odd; 1 leaves it out, 3 to 7 with ``dilation: 5`` are published surrounds.
        dilation: pixels between two entries of u.
        specific: a weight p for each pair of channels, or one per channel for the mean of all.
        sparsity: weight of the sum of all p in the loss per response.

    Source: Burg et al. (2021), PLoS Comput. Biol. 17, e1009028.
    """

    reads: ClassVar[Reads] = Reads()
    on_features: ClassVar[bool] = True
    strength: Tensor

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        parent: Parent = "power_law",
        pool_px: OddCount = 5,
        surround_px: OddCount = 1,
        dilation: Count = 1,
        specific: bool = True,
        sparsity: NonNegative = 1e-6,
    ) -> None:
        super().__init__()
        channels = feature_shape[0]
        self.parent, self.pool_px, self.dilation, self.sparsity = parent, pool_px, dilation, sparsity
        self.raw_exponent = nn.Parameter(torch.full((channels,), START))
        self.log_eta = nn.Parameter(torch.zeros(channels))
        self.pool_weights = nn.Parameter(torch.full((channels, channels if specific else 1), WEAK))
        surround = torch.zeros(channels, surround_px**2)
        self.raw_surround = nn.Parameter(surround) if surround_px > 1 else None
        self.register_buffer("strength", torch.ones(()))

    @property
    def exponent(self) -> Float[Tensor, " channel"]:
        """n, between .5 and 4."""
        return LEAST + (MOST - LEAST) * torch.sigmoid(self.raw_exponent)

    def off(self) -> None:
        """Set all weights of the pool to 0, which leaves the static parent."""
        self.strength.zero_()

    def weights(self) -> Float[Tensor, "channel pooled_channel"]:
        """Weights p: how much the rows are divided by the columns."""
        channels, columns = self.pool_weights.shape
        return self.strength * self.pool_weights.abs().expand(channels, channels) * (columns / channels)

    def surround(self) -> Float[Tensor, "channel 1 side side"] | None:
        """Kernel u of every pooled channel, which sums to 1."""
        if self.raw_surround is None:
            return None
        side = math.isqrt(self.raw_surround.shape[1])
        return self.raw_surround.softmax(-1).unflatten(-1, (1, side, side))

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the sum of the pool's weights."""
        return weighed_sum((self.sparsity, absolute_sum, self.pool_weights))

    def forward(
        self, features: Float[Tensor, "batch time channel height width"]
    ) -> Float[Tensor, "batch time channel height width"]:
        """Normalize every frame by itself."""
        n, log_eta = (value[:, None, None] for value in (self.exponent, self.log_eta))
        log_y = torch.log(functional.relu(features) + FLOOR)
        pool = over_frames(self._pooled, torch.exp(n * log_y))
        log_gain = -torch.log1p(pool * torch.exp(-n * log_eta))
        if self.parent == "none":
            return features * torch.exp(log_gain)
        return torch.exp(n * (log_y - log_eta) + log_gain)

    def _pooled(
        self, powers: Float[Tensor, "frames channel height width"]
    ) -> Float[Tensor, "frames channel height width"]:
        """Average over pixels, then weigh and sum over channels."""
        average = self._averaged(powers) / self._averaged(torch.ones_like(powers[:1, :1]))
        surround = self.surround()
        if surround is not None:
            reach = self.dilation * (surround.shape[-1] // 2)
            channels = len(surround)
            average = functional.conv2d(average, surround, None, 1, reach, self.dilation, channels)
        return functional.conv2d(average, self.weights()[..., None, None])

    def _averaged(self, maps: Float[Tensor, "frames channel height width"]) -> Tensor:
        """Average around every pixel, with zeros outside."""
        # Padded here: on a card torch's gradient of padded averages of channels-last maps was wrong (pytorch #188344)
        outside = (self.pool_px // 2,) * 4
        return functional.avg_pool2d(functional.pad(maps, outside), self.pool_px, 1)
