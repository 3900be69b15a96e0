"""Attention between neurons whose map does not change with time."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neuroint.modules.base import Context, Reads
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.pair_bias import PAIR_BIASES
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Count, Fact, Positive, interactions

ROWS = 512  # rows of the map held at a time; 4 heads x 512 x 8000 neurons are 64 MB


class _Tokens(NamedTuple):
    """What every row of the map is computed from."""

    query: Float[Tensor, "neurons heads width"]
    key: Float[Tensor, "neurons heads width"]
    value: Float[Tensor, "neurons heads"]
    output: Float[Tensor, "neurons heads"]


@interactions.register("attention")
class Attention(nn.Module):
    r"""Add to each neuron's drive what it attends to in the rectified drives of all others at the same frame.

    .. math::
        d'_i(t) = d_i(t) + \sum_j C_{ij}\, \mathrm{softplus}(d_j(t)), \quad
        C_{ij} = \sum_h o_{ih} A_{hij} v_{jh}, \\
        A_{hij} = \mathrm{softmax}_{j \ne i,\,\varnothing}\big(q_{hi} \cdot k_{hj} / \sqrt{w} + b_h(x_i - x_j)\big)

    Queries q, keys k, values v and outputs o come from the neurons' embeddings alone, so the map is one for all frames
    and is computed once per call. A neuron does not attend to itself, which would be a free gain. The null token (empty
    set) has a learned logit and the value 0, so that attending to nobody can be said; it starts with half the mass. The
    sign of an influence lies in o times v: read C (:meth:`coupling`), not A alone. It reads drives of the same frame,
    no records. Outputs start at 0, which is ``none``, its null; twins with permuted embeddings or positions are the
    nulls of what the map says.

    Cost is neurons^2 x (heads x width + frames); the map is held in blocks of rows and recomputed in the backward pass.

    Args:
        heads: maps.
        head_width: w, width of queries and keys.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        position: bias from where cells lie: ``rbf`` (any shape over distance), ``alibi`` (a slope), or ``none``.
        position_bases: radial bases each of lateral distance and of depth.
        lateral_um: range of the bases, or length of the slope, in the plane.
        depth_um: the same in depth.

    Raises:
        MissingFactError: a bias from positions without positions, or ``embedding: readout`` without a readout.
        ValueError: a subset of neurons, or no embedding in the context.

    Source: Vaswani et al. (2017), NeurIPS 30; biases over distance after Press et al. (2022), ICLR.
    """

    reads: ClassVar[Reads] = Reads(population=True)
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        positions_um: Fact[Positions] | None = None,
        embedding_channels: Fact[int] | None = None,
        heads: Count = 4,
        head_width: Count = 16,
        embedding: Literal["readout", "free"] = "readout",
        embedding_width: Count = 32,
        position: Literal["rbf", "alibi", "none"] = "rbf",
        position_bases: Count = 4,
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.bias = PAIR_BIASES[position](positions_um, heads, position_bases, lateral_um, depth_um)
        self.query = nn.Linear(self.embedding.width, heads * head_width)
        self.key = nn.Linear(self.embedding.width, heads * head_width)
        self.value = nn.Linear(self.embedding.width, heads)
        self.output = nn.Linear(self.embedding.width, heads)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.null_logit = nn.Parameter(torch.full((heads,), math.log(max(n_neurons - 1, 1))))
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all couplings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add the influence of all other neurons."""
        refuse_subset("attention", context)
        tokens, rectified = self._tokens(context), functional.softplus(drive)
        blocks = range(0, drive.shape[-1], ROWS)
        influence = [self._influence(rectified, tokens, start, recompute=len(blocks) > 1) for start in blocks]
        return drive + torch.cat(influence, dim=-1)

    def attention_map(self, context: Context) -> Float[Tensor, "heads neurons neurons"]:
        """Return A for analysis: rows attend to columns; what is missing from 1 in a row went to the null token."""
        tokens = self._tokens(context)
        held = torch.cat([self._map_rows(tokens, start) for start in range(0, len(tokens.query), ROWS)], dim=1)
        return _with_diagonal(held, torch.zeros_like(held[..., 0]), 0)

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return C for analysis: the signed influence of column j's rectified drive on row i's drive."""
        tokens = self._tokens(context)
        return torch.cat([self._coupling_rows(tokens, start) for start in range(0, len(tokens.query), ROWS)])

    def _tokens(self, context: Context) -> _Tokens:
        embedding = self.embedding(context)
        query, key = (layer(embedding).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key))
        return _Tokens(query, key, self.value(embedding), self.strength * self.output(embedding))

    def _map_rows(self, tokens: _Tokens, start: int) -> Float[Tensor, "heads rows neurons"]:
        """Rows of A, except that the mass of the null token stands on the diagonal."""
        rows = slice(start, min(start + ROWS, len(tokens.query)))
        query = tokens.query[rows].transpose(0, 1) / tokens.key.shape[-1] ** 0.5
        logits = torch.baddbmm(self.bias(rows).to(query.dtype), query, tokens.key.permute(1, 2, 0))
        null = self.null_logit[:, None].expand(-1, logits.shape[1]).to(logits.dtype)
        return _with_diagonal(logits, null, start).softmax(-1)

    def _coupling_rows(self, tokens: _Tokens, start: int) -> Float[Tensor, "rows neurons"]:
        attended = self._map_rows(tokens, start)
        output = tokens.output[start : start + attended.shape[1]]
        coupling = (attended * tokens.value.T[:, None] * output.T[..., None]).sum(0)
        return _with_diagonal(coupling, coupling.new_zeros(len(coupling)), start)

    def _influence(self, rectified: Tensor, tokens: _Tokens, start: int, *, recompute: bool) -> Tensor:
        run = partial(self._influence_rows, start)
        if recompute and torch.is_grad_enabled():
            return checkpoint(run, rectified, *tokens, use_reentrant=False, preserve_rng_state=False)
        return run(rectified, *tokens)

    def _influence_rows(self, start: int, rectified: Tensor, *tokens: Tensor) -> Tensor:
        return rectified @ self._coupling_rows(_Tokens(*tokens), start).T


def _with_diagonal(
    block: Float[Tensor, "*heads rows neurons"], values: Float[Tensor, "*heads rows"], start: int
) -> Float[Tensor, "*heads rows neurons"]:
    """Replace the entries of a block of rows that stand on the diagonal of the whole map."""
    return torch.diagonal_scatter(block, values, offset=start, dim1=-2, dim2=-1)
