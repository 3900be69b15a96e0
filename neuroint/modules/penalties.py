"""What training may add to the loss: how large weights are, and how rough filters are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SPATIAL = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))
TEMPORAL = ((-1.0,), (4.0,), (-1.0,))  # as the Sensorium 2023 baseline has it; a second difference would have 2


def weighed_sum(*terms: tuple[float, Callable[[Tensor], Tensor], Tensor]) -> Float[Tensor, ""]:
    """Sum measures of parameters times their strengths, given as (strength, measure, parameter).

    A term of strength 0 is not computed. Strengths stand beside a loss per response (a mean, not a sum).
    """
    start = terms[0][2].new_zeros(())
    return sum((strength * measure(parameter) for strength, measure, parameter in terms if strength > 0), start)


def absolute_sum(weights: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Sum the absolute values, in the units of the weights."""
    return weights.abs().sum()


def spatial_roughness(filters: Float[Tensor, "*filters height width"]) -> Float[Tensor, ""]:
    r"""Measure the roughness of filters over pixels, without unit.

    .. math:: \|L * w\|^2 / \|w\|^2

    with the five-point Laplacian L and zeros around the filter; 0 only for filters of zeros, about 20 for white noise.
    """
    return _roughness(filters, SPATIAL)


def temporal_roughness(filters: Float[Tensor, "*filters time pixel"]) -> Float[Tensor, ""]:
    r"""Measure the roughness of filters along time, as :func:`spatial_roughness` does with the kernel -1, 4, -1."""
    return _roughness(filters, TEMPORAL)


def _roughness(filters: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    planes = filters.reshape(-1, 1, *filters.shape[-2:])
    laplacian = torch.tensor(kernel, dtype=filters.dtype, device=filters.device)[None, None]
    padding = (len(kernel) // 2, len(kernel[0]) // 2)
    energy = planes.square().sum().clamp(min=torch.finfo(filters.dtype).tiny)
    return functional.conv2d(planes, laplacian, padding=padding).square().sum() / energy
