"""Rectify drives, and get back from rates to drives, in logarithms of at least single precision."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FLOOR = 1e-6  # added to the rectified drive before its logarithm
DEEP = -36.0  # below it softplus(d) and exp(d) differ by less than the last digit of float64


def log_rectified(drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute log(softplus(d) + 1e-6), which is finite for every drive."""
    return torch.log(functional.softplus(full(drive)) + FLOOR)


def log_positive(rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute log(max(r, 0) + 1e-6), which is finite for every rate, also behind a link that lets rates be negative."""
    return torch.log(full(rate).clamp(min=0) + FLOOR)


def log_softplus(drive: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute log(softplus(d)) to the last digits for every drive; below -36 it is the drive itself."""
    drive = full(drive)
    safe = drive.clamp(min=DEEP)
    return torch.where(drive < DEEP, drive, torch.log(functional.softplus(safe)))


def drive_of_log_rate(log_rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Find the drive whose softplus is exp(log_rate); below e^-36 the two agree to float64's last digits."""
    safe = log_rate.clamp(min=DEEP)
    rate = safe.exp()
    return torch.where(log_rate < DEEP, log_rate, rate + torch.log(-torch.expm1(-rate)))


def full(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hold numbers in at least single precision: for logarithms, and for sums from which one's own term is taken."""
    return values if values.dtype == torch.float64 else values.float()
