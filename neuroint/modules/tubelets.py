"""Embed overlapping blocks of video, without ever cutting them out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class TubeletEmbedding(nn.Module):
    r"""Normalize every block of frames x pixels (or not), map it to a token, and normalize that.

    .. math:: \mathrm{LN}\big(W\, \mathrm{LN}_\gamma(b) + c\big) =
        \mathrm{LN}\Big(\frac{(W \gamma) * x - \mu_b \sum W\gamma}{\sigma_b} + W \beta + c\Big)

    The right side is a convolution with the blocks' means and standard deviations, which are box filters: a clip of 300
    frames has 170,000 overlapping blocks of thousands of numbers, which are never held. Frames are padded by zeros in
    space so that the grid covers them; time is not padded.

    A block that is normalized has lost its contrast: a token of noise is as large as one of an edge. Without, it is
    :math:`\mathrm{LN}(W * x + c)`.

    Args:
        planes: channels of the video.
        width: of a token.
        frames: frames of a block; they step by one.
        side_px: pixels of a block per side.
        stride_px: pixels from one block to the next.
        normalize: blocks, as published.

    Source: tubelets of Arnab et al. (2021), ICCV, 6836-6846.
    """

    def __init__(
        self, planes: int, width: int, frames: int, side_px: int, stride_px: int, *, normalize: bool = True
    ) -> None:
        super().__init__()
        self.block, self.stride = (frames, side_px, side_px), (1, stride_px, stride_px)
        self.padding = (side_px - 1) // 2
        shape = (planes, *self.block)
        self.gain, self.offset = (
            nn.Parameter(made(shape)) if normalize else None for made in (torch.ones, torch.zeros)
        )
        self.weight = nn.Parameter(torch.empty(width, *shape))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.weight.data.flatten(1))
        self.norm = nn.LayerNorm(width)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens."""
        side, stride = self.block[1], self.stride[1]
        rows, columns = ((pixels + 2 * self.padding - side) // stride + 1 for pixels in (height, width))
        return rows, columns

    def forward(
        self, video: Float[Tensor, "batch time plane height width"]
    ) -> Float[Tensor, "batch new_time rows columns token"]:
        """Make the tokens."""
        x = functional.pad(video.transpose(1, 2), [self.padding] * 4)
        if self.gain is None or self.offset is None:
            seen = functional.conv3d(x, self.weight, self.bias, stride=self.stride)
            return self.norm(seen.permute(0, 2, 3, 4, 1))
        mean, precision = self._statistics(x)
        filters = self.weight * self.gain
        found = (
            functional.conv3d(x, filters, stride=self.stride) - mean * filters.sum((1, 2, 3, 4))[:, None, None, None]
        )
        constant = (self.weight * self.offset).sum((1, 2, 3, 4)) + self.bias
        return self.norm((found * precision).permute(0, 2, 3, 4, 1) + constant)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and one over standard deviation of every block."""
        moments = torch.stack([x.mean(1), x.square().mean(1)], dim=1)  # of normalized video: no large mean to lose
        mean, square = functional.avg_pool3d(moments, self.block, self.stride).split(1, dim=1)
        return mean, ((square - mean.square()).clamp(min=0) + self.norm.eps).rsqrt()
