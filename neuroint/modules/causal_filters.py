"""Filters over recorded activity that look back only: bases, and summaries of a population."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.registry import MissingFactError


def raised_cosines(count: int, bins: int) -> Float[Tensor, "base bin"]:
    r"""Make bumps over the last ``bins`` bins, narrow near the present and wide far back; each sums to 1.

    .. math:: \psi_b(l) \propto 1 + \cos\big(\pi\,(u_l - b\,\delta) / 2\delta\big)
        \;\text{ where }\; |u_l - b\,\delta| < 2\delta, \quad u_l = \log(1 + l), \quad
        \delta = \log(1 + L) / (B + 1)

    Lag l = 0 is the first column: the newest record that may be read. The last bump ends where the filter does.

    Raises:
        ValueError: more bases than bins.

    Source: the bases of Pillow et al. (2008), Nature 454, 995-999.
    """
    if count > bins:
        raise ValueError(f"{count} bases do not fit into a filter of {bins} bin(s); take fewer bases or more bins")
    log_lag = torch.log1p(torch.arange(bins, dtype=torch.float64))
    spacing = torch.log1p(torch.tensor(float(bins), dtype=torch.float64)) / (count + 1)
    phase = (log_lag - spacing * torch.arange(count)[:, None]) / (2 * spacing)
    bumps = 1 + torch.cos(torch.pi * phase.clamp(-1, 1))
    return (bumps / bumps.sum(1, keepdim=True)).float()


def newest(values: Float[Tensor, "batch history channel"], frames: int) -> Float[Tensor, "batch frames channel"]:
    """Take the last ``frames`` bins, with zeros before what is known."""
    kept = values[:, max(0, values.shape[1] - frames) :]
    return functional.pad(kept, (0, 0, frames - kept.shape[1], 0))


def causal_filter(
    values: Float[Tensor, "batch history channel"], filters: Float[Tensor, "base bin"], frames: int
) -> Float[Tensor, "base batch frames channel"]:
    """Filter every channel with every base, for the last ``frames`` frames; before what is known there are zeros."""
    past = newest(values, frames + filters.shape[1] - 1).transpose(1, 2)
    found = functional.conv1d(past.flatten(0, 1)[:, None], filters.flip(1)[:, None].to(past.dtype))
    return found.unflatten(0, past.shape[:2]).permute(2, 0, 3, 1)


def records(stage: str, context: Context) -> Float[Tensor, "batch history observed"]:
    """Pick the recorded activity, or raise ``ValueError`` where the context holds none."""
    if context.observed is None:
        raise ValueError(
            f"'{stage}' reads recorded activity and the context holds none; set data.observed, or give "
            "Context(observed=...) that ends where the drive ends"
        )
    return context.observed


def require_channels(stage: str, observed_channels: int) -> None:
    """Raise ``MissingFactError`` where the data offers no recorded activity."""
    if observed_channels < 1:
        raise MissingFactError(
            f"'{stage}' reads recorded activity, and the data offers {observed_channels} channels of it; set "
            "data.observed: {read: past} or {read: others}, or choose a design that reads predictions"
        )


class RecordedSummary(nn.Module):
    r"""Summarize recorded activity by a few numbers per frame: a projection, then a filter that looks back only.

    .. math:: g_m(t) = \sum_b q_{mb} \sum_l \psi_b(l) \sum_c P_{cm}\, y_c(t - l)

    Args:
        channels: recorded channels.
        summaries: how many numbers.
        bins: length of the filters.
        bases: raised cosines psi that they are made of; they start as the bases' mean.
    """

    basis: Tensor

    def __init__(self, channels: int, summaries: int, bins: int, bases: int) -> None:
        super().__init__()
        self.register_buffer("basis", raised_cosines(bases, bins), persistent=False)
        self.projection = nn.Parameter(torch.randn(channels, summaries) / channels**0.5)
        self.shape = nn.Parameter(torch.full((summaries, bases), 1 / bases))

    def forward(
        self, observed: Float[Tensor, "batch history observed"], frames: int
    ) -> Float[Tensor, "batch frames summary"]:
        """Summarize what had been recorded up to each of the last ``frames`` frames."""
        filters = self.shape @ self.basis
        projected = newest(observed, frames + filters.shape[1] - 1) @ self.projection
        past = projected.transpose(1, 2)
        return functional.conv1d(past, filters.flip(1)[:, None].to(past.dtype), groups=len(filters)).transpose(1, 2)
