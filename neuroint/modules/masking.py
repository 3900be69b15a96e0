"""Hide parts of recorded activity, so that a model has something to predict from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from neuroint.registry import Count, Fraction

Mode = Literal["full", "timestep"]


@dataclass(frozen=True)
class Masking:
    """How much is masked, and what stands in its place.

    The ratio of masked entries is drawn uniformly between ``least`` and ``most`` for every batch, the span between 1
    and ``max_span`` bins: masked stretches are that long (or longer, where two meet), and the ratio is the same for
    every span. Of the masked entries a share ``token_ratio`` becomes 0; of the rest a share ``random_ratio`` becomes a
    whole number between 0 and the largest count of the batch, that one included; what is left keeps its count.

    ``full`` masks every neuron by itself, ``timestep`` all neurons of a bin.
    """

    mode: Mode = "full"
    least: Fraction = 0.1
    most: Fraction = 0.4
    token_ratio: Fraction = 0.8
    random_ratio: Fraction = 0.5
    max_span: Count = 1

    def __post_init__(self) -> None:
        """Refuse a range that is none."""
        if self.least > self.most:
            raise ValueError(f"masking: least={self.least} is above most={self.most}; swap them")


WIDTHS: Mapping[str, slice] = {"full": slice(None), "timestep": slice(0, 1)}  # channels that have a draw of their own


def draw_mask(
    masking: Masking, observed: Float[Tensor, "batch time channels"], generator: torch.Generator | None
) -> Bool[Tensor, "batch time channels"]:
    """Draw which entries are masked, anew for every batch."""
    span = int(_draw((), observed, generator, masking.max_span)) + 1
    ratio = masking.least + (masking.most - masking.least) * float(_draw((), observed, generator))
    begins = 1 - (1 - ratio) ** (1 / span)  # so that a bin is within any of `span` possible stretches at the ratio
    batch, time, channels = observed.shape
    width = len(range(channels)[WIDTHS[masking.mode]])
    begun = (_draw((batch, width, time + span - 1), observed, generator) < begins).to(torch.float32)
    masked = functional.max_pool1d(begun, span, stride=1) > 0
    return masked.transpose(1, 2).expand(observed.shape)


def corrupted(
    masking: Masking,
    observed: Float[Tensor, "batch time channels"],
    mask: Bool[Tensor, "batch time channels"],
    generator: torch.Generator | None,
) -> Float[Tensor, "batch time channels"]:
    """Put zeros and random counts in the place of masked entries."""
    shape, largest = observed.shape, int(observed.amax().clamp(min=0)) if observed.numel() else 0
    zeros = mask & (_draw(shape, observed, generator) < masking.token_ratio)
    random = mask & ~zeros & (_draw(shape, observed, generator) < masking.random_ratio)
    counts = _draw(shape, observed, generator, largest + 1).to(observed.dtype)
    return torch.where(random, counts, observed.masked_fill(zeros, 0))


def masked_view(
    masking: Masking, observed: Float[Tensor, "batch time channels"], generator: torch.Generator | None
) -> tuple[Float[Tensor, "batch time channels"], Bool[Tensor, "batch time channels"]]:
    """Draw a mask and what a model is shown under it."""
    mask = draw_mask(masking, observed, generator)
    return corrupted(masking, observed, mask, generator), mask


def _draw(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None, below: int | None = None) -> Tensor:
    """Draw uniform numbers in [0, 1), or whole ones in [0, below)."""
    uniform = torch.rand(shape, generator=generator, device=like.device, dtype=torch.float64)
    return uniform if below is None else (uniform * below).floor()
