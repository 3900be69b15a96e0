"""Upper bounds of how much a coupling matrix can amplify activity, and couplings that are held below one.

Every bound is of the spectral norm, can be differentiated, and is never too small: a coupling that is divided by it
keeps its norm below the cap whatever an optimizer does to its parameters.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

FORGOTTEN = 0.05  # share of the initial state's effect that may be left after the memory, in the worst case
JITTER = 1e-9  # share of its mean that is added to a Gram matrix's diagonal, far above rounding in double precision
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


def bins_to_forget(factor: float) -> int:
    """Count the bins after which at most 5 % is left of what shrinks by ``factor`` per bin."""
    return math.ceil(math.log(FORGOTTEN) / math.log(factor))


def capped(coupling: Float[Tensor, "*shape"], squared_norm: Float[Tensor, ""], cap: float) -> Float[Tensor, "*shape"]:
    r"""Scale a coupling so that its norm stays below a cap.

    .. math:: \rho\, C / \max(1, \beta)

    with beta the bound whose square is given. The square is what is compared with 1, so that the gradient of a root at
    0 is never asked for.
    """
    return coupling * (cap * squared_norm.clamp(min=1).rsqrt())


def dense_norm(coupling: Float[Tensor, "neurons neurons"]) -> Float[Tensor, ""]:
    r"""Bound the squared spectral norm of a matrix by its largest row sum times its largest column sum.

    .. math:: \|C\|_2^2 \le \|C\|_1 \|C\|_\infty
    """
    size = coupling.abs()
    return size.sum(0).amax() * size.sum(1).amax()


def sparse_norm(
    neighbors: Int[Tensor, "neurons neighbor"], weights: Float[Tensor, "neurons neighbor"]
) -> Float[Tensor, ""]:
    """Bound the squared spectral norm of a sparse matrix as :func:`dense_norm` does, from the weights of neighbors."""
    size = weights.abs()
    columns = size.new_zeros(len(size)).index_add(0, neighbors.flatten(), size.flatten())
    return columns.amax() * size.sum(1).amax()


def low_rank_norm(left: Float[Tensor, "neurons rank"], right: Float[Tensor, "neurons rank"]) -> Float[Tensor, ""]:
    r"""Find the squared spectral norm of U V^T from rank x rank matrices alone.

    .. math:: \|U V^\top\|_2^2 = \lambda_{\max}(L^\top V^\top V L), \quad L L^\top = U^\top U + \epsilon I

    Unlike the QR factors of U, L has a gradient also where U is 0 or its columns depend on each other. Epsilon, a
    billionth of the mean squared column of U, makes the norm too large by at most .00004 |U| |V|, never too small.
    """
    first, second = (factor.double().T @ factor.double() for factor in (left, right))
    identity = torch.eye(len(first), dtype=first.dtype, device=first.device)
    spread = JITTER * first.diagonal().mean() + torch.finfo(torch.float32).tiny
    root = torch.linalg.cholesky(first + spread * identity)
    return torch.linalg.eigvalsh(root.T @ second @ root)[-1].to(left.dtype)
