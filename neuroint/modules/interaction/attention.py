"""Attention between neurons whose map does not change with time."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.embedding import EMBEDDINGS
from neuroint.modules.pair_bias import PAIR_BIASES, Position
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import WEIGHTS, EmbeddingFrom, Weights, excluded, null_start
from neuroint.registry import Count, Fact, Positive, interactions

ROWS = 512  # rows of the map held at a time; 4 heads x 512 x 8000 neurons are 64 MB
HELD = 2**28  # entries of the largest coupling matrix that is kept for a whole call: 1 GiB, 16000 neurons


class _Tokens(NamedTuple):
    """What every row of the map is computed from."""

    query: Float[Tensor, "neurons heads width"]
    key: Float[Tensor, "neurons heads width"]
    value: Float[Tensor, "neurons heads"]
    output: Float[Tensor, "neurons heads"]


class _Prepared(NamedTuple):
    """What is the same for all frames; the coupling is missing where it is too large to keep."""

    tokens: _Tokens
    coupling: Float[Tensor, "neurons neurons"] | None


@interactions.register("attention")
class Attention(nn.Module):
    r"""Add to each neuron's drive what it attends to in the rectified drives of all others at the same frame.

    .. math::
        d'_i(t) = d_i(t) + \sum_j C_{ij}\, \mathrm{softplus}(d_j(t)), \quad
        C_{ij} = \sum_h o_{ih} A_{hij} K_h(x_i - x_j) v_{jh}, \\
        A_{hij} = \mathrm{softmax}_{j \ne i,\,\varnothing}\big(q_{hi} \cdot k_{hj} / \sqrt{w} + b_h(x_i - x_j)\big)

    Queries q, keys k, values v and outputs o come from the neurons' embeddings alone, so the map is one for all frames
    and is computed once per call. A neuron does not attend to itself, which would be a free gain. The null token (empty
    set) has a learned logit and the value 0, so that attending to nobody can be said; it starts with half the mass.
    With ``weights: sigmoid`` each weight stands for itself, A = sigmoid(logit - null) / (N - 1). The sign of an
    influence lies in o times v, and in K where ``position`` is ``center_surround`` (else K is 1 and b is learned): read
    C (:meth:`coupling`), not A alone. It reads drives of the same frame, no records. Outputs start at 0, which is
    ``none``, its null, and so does strength 0 (:meth:`off`); twins with permuted embeddings or positions are the nulls
    of what the map says, ``population_mean`` is that of attending at all.

    Cost is neurons^2 x (heads x width + frames). The map is held in blocks of rows and recomputed in the backward pass;
    C is kept for a call up to 16000 neurons.

    Args:
        heads: maps.
        head_width: w, width of queries and keys.
        weights: ``softmax`` (neurons compete) or ``sigmoid``.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        position: term from where cells lie: ``rbf`` (any shape over distance), ``center_surround`` (signed), ``alibi``
            (a slope), ``fourier`` or ``mlp`` (any shape over the vector between cells), or ``none``.
        position_bases: radial bases each of lateral distance and of depth; waves; a fourth of hidden units.
        lateral_um: range of the bases, or length of the slope, in the plane.
        depth_um: the same in depth.

    Raises:
        MissingFactError: a bias from positions without positions, or ``embedding: readout`` without a readout.
        ValueError: a subset of neurons, or no embedding in the context.

    Source: Vaswani et al. (2017), NeurIPS 30; biases over distance after Press et al. (2022), ICLR; sigmoid weights
    after Ramapuram et al. (2025), ICLR; a center and its surround after Chettih & Harvey (2019), Nature 567, 334-340.
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
        weights: Weights = "softmax",
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 32,
        position: Position = "rbf",
        position_bases: Count = 4,
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
    ) -> None:
        super().__init__()
        self.heads, self.others = heads, n_neurons - 1
        self.weigh = WEIGHTS[weights]
        self.embedding = EMBEDDINGS[embedding](n_neurons, embedding_channels, embedding_width)
        self.bias = PAIR_BIASES[position](positions_um, heads, position_bases, lateral_um, depth_um)
        self.query = nn.Linear(self.embedding.width, heads * head_width)
        self.key = nn.Linear(self.embedding.width, heads * head_width)
        self.value = nn.Linear(self.embedding.width, heads)
        self.output = nn.Linear(self.embedding.width, heads)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.null_logit = null_start(heads, n_neurons - 1, weights)
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all couplings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute the coupling, or what its rows come from where it is too large to keep."""
        refuse_subset("attention", context)
        tokens = self._tokens(context)
        kept = len(tokens.query) ** 2 <= HELD
        return _Prepared(tokens, self._over_rows(self._coupling_rows, tokens) if kept else None)

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add the influence of all other neurons."""
        tokens, coupling = prepared(self, context)
        rectified = functional.softplus(drive)
        if coupling is not None:
            return drive + rectified @ coupling.T
        influence = self._over_rows(partial(self._influence_rows, rectified.flatten(0, 1).T), tokens)
        return drive + influence.T.unflatten(0, drive.shape[:2])

    def attention_map(self, context: Context) -> Float[Tensor, "heads neurons neurons"]:
        """Return A for analysis: rows attend to columns; what is missing from 1 in a row went to the null token."""
        tokens = prepared(self, context).tokens
        return torch.cat([self._map_rows(tokens, start)[0] for start in range(0, len(tokens.query), ROWS)], dim=1)

    def coupling(self, context: Context) -> Float[Tensor, "neurons neurons"]:
        """Return C for analysis: the signed influence of column j's rectified drive on row i's drive."""
        held = prepared(self, context)
        return self._over_rows(self._coupling_rows, held.tokens) if held.coupling is None else held.coupling

    def _tokens(self, context: Context) -> _Tokens:
        embedding = self.embedding(context)
        query, key = (layer(embedding).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key))
        return _Tokens(query, key, self.value(embedding), self.strength * self.output(embedding))

    def _over_rows(self, function, tokens: _Tokens) -> Tensor:
        """Compute blocks of rows one after the other; with more than one, each is computed again when going back."""
        starts = range(0, len(tokens.query), ROWS)
        if len(starts) == 1 or not torch.is_grad_enabled():
            return torch.cat([function(start, *tokens) for start in starts])
        again = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([again(start, *tokens) for start in starts])

    def _map_rows(self, tokens: _Tokens, start: int) -> tuple[Tensor, Tensor]:
        """Rows of A and of K, heads x rows x neurons."""
        rows = slice(start, min(start + ROWS, len(tokens.query)))
        bias = self.bias(rows)
        query = tokens.query[rows].transpose(0, 1) / tokens.key.shape[-1] ** 0.5
        logits = query @ tokens.key.permute(1, 2, 0) + bias.logit
        askers = torch.arange(rows.start, rows.stop, device=logits.device)
        return self.weigh(excluded(logits, askers), self.null_logit, self.others), bias.factor

    def _coupling_rows(self, start: int, *tokens: Tensor) -> Float[Tensor, "rows neurons"]:
        held = _Tokens(*tokens)
        attended, factor = self._map_rows(held, start)
        output = held.output[start : start + attended.shape[1]]
        return (attended * factor * held.value.T[:, None] * output.T[..., None]).sum(0)

    def _influence_rows(self, rectified: Float[Tensor, "neurons frames"], start: int, *tokens: Tensor) -> Tensor:
        return self._coupling_rows(start, *tokens) @ rectified
