"""Blocks of transformers on video: attention that never stores its maps, positions as rotations, what is dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neuroint.modules.transformer import attention_maps, context_window

TOKENS_AT_ONCE = 2**14  # of a block that runs again: an eighth of a GiB of queries, keys, values at V1T's width
Sequence = Float[Tensor, "sequences tokens width"]
Angles = Float[Tensor, "tokens pairs"]


def rotary_angles(places: Float[Tensor, "tokens axes"], head_width: int, slowest: float = 1000.0) -> Angles:
    r"""Compute the angles by which pairs of features turn: place times frequency, the pairs shared out among axes.

    .. math:: \theta_p = x_{p \bmod A}\; s^{-k / K}

    with A axes and K pairs per axis. The product of a turned query with a turned key depends on the difference of their
    places alone.

    Args:
        places: of the tokens, in grid steps or frames.
        head_width: of queries and keys; twice the number of pairs.
        slowest: s, steps over which the slowest pair turns by one radian.

    Source: Su et al. (2021), arXiv:2104.09864.
    """
    pairs, axes = head_width // 2, places.shape[1]
    order = torch.arange(pairs, dtype=places.dtype, device=places.device)
    frequency = slowest ** (-(order // axes) / max(1, math.ceil(pairs / axes)))
    return places[:, (order % axes).long()] * frequency


def turned(x: Float[Tensor, "*batch tokens head_width"], angles: Angles | None) -> Tensor:
    """Rotate the first half of the features with the second by the angles of their tokens; an odd last one stays."""
    if angles is None:
        return x
    pairs = angles.shape[1]
    first, second, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], dim=-1)


class SelfAttention(nn.Module):
    r"""Let the tokens of a sequence look at each other (or back only).

    .. math:: \mathrm{softmax}(q k^T / \sqrt{w})\, v \; W_o

    by torch's fused kernels, which never hold the maps; :meth:`maps` computes them for analysis.

    Args:
        width: of tokens.
        heads: maps.
        head_width: of queries, keys and values, per head.
        dropout: share of the map that is dropped in training.
        causal: a token looks at itself and those before it.
        bias: of the output.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, dropout: float, *, causal: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.into = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=bias)

    def forward(self, x: Sequence, angles: Angles | None = None) -> Sequence:
        """Mix the tokens."""
        query, key, value = self._heads(x, angles)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def maps(self, x: Sequence, angles: Angles | None = None) -> Float[Tensor, "sequences heads tokens tokens"]:
        """Return who looks at whom; rows sum to 1."""
        query, key, _ = self._heads(x, angles)
        return attention_maps(query, key, _until_now(x) if self.causal else None)

    def _heads(self, x: Sequence, angles: Angles | None) -> list[Tensor]:
        query, key, value = self.into(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return [turned(query, angles), turned(key, angles), value]


def _until_now(x: Sequence) -> Bool[Tensor, "tokens tokens"] | None:
    window = context_window(x.shape[1], None, 0)
    return None if window is None else window.to(x.device)


class DropPath(nn.Module):
    """Leave a branch out for whole sequences in training, and enlarge it for the others by as much.

    Source: Huang et al. (2016), ECCV, 646-661.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Float[Tensor, " sequences *rest"]) -> Float[Tensor, " sequences *rest"]:
        """Drop sequences, or nothing in evaluation."""
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.share
        return x * kept / (1 - self.share)


def remembering_less(block: nn.Module, again: bool, *given: Tensor, **shared: Any) -> Tensor:
    """Run a block, and when asked to, run it again on the way back instead of keeping what is inside it.

    Running statistics of norms in it move once all the same.
    """
    if not (again and torch.is_grad_enabled()):
        return block(*given, **shared)
    # compiled code never repeats what it does to buffers, and takes no contexts
    around = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, block)}
    return checkpoint(block, *given, use_reentrant=False, **around, **shared)  # pyright: ignore[reportReturnType]


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first run and of the second."""
    return nullcontext(), _unmoved(block)


@contextmanager
def _unmoved(block: nn.Module) -> Iterator[None]:
    """Put back what a run changed in the buffers of a block."""
    before = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        yield
    finally:  # torch leaves a second run by an exception once it has what it needs
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def group_by_group(
    x: Sequence, block: nn.Module, again: bool, rows: tuple[Tensor, ...] = (), **shared: Any
) -> Sequence:
    """Run a block that mixes nothing between sequences; to remember less, on few of them at a time, and again.

    Then what is inside the block is held for ``TOKENS_AT_ONCE`` tokens, however long the clip. What is dropped in
    training is drawn group by group.

    Args:
        x: all sequences.
        block: takes sequences, their rows, and what all share.
        again: whether to remember less.
        rows: what else the block takes, a row for every sequence.
        **shared: what it takes that is one for all.
    """
    if not again:
        return block(x, *rows, **shared)
    size = max(1, TOKENS_AT_ONCE // x.shape[1])
    groups = zip(*(one.split(size) for one in (x, *rows)), strict=True)
    return torch.cat([remembering_less(block, again, *group, **shared) for group in groups])


def drawn_tokens(x: Sequence, places: range, share: float, training: bool) -> Int[Tensor, " drawn"] | None:
    """Draw which tokens a block sees in training: some of the places, at least one, and all others; in order.

    None for all of them.
    """
    if not training or share == 1:
        return None
    drawn = torch.randperm(len(places))[: max(1, round(share * len(places)))] + places.start
    others = [token for token in range(x.shape[1]) if token not in places]
    return torch.cat([drawn, drawn.new_tensor(others)]).sort().values.to(x.device)


def on_some_tokens(
    run: Callable[[Sequence], Sequence], x: Sequence, seen: Int[Tensor, " seen"] | None
) -> Float[Tensor, "sequences tokens width"]:
    """Run blocks on some of the tokens, the same of every sequence; the others stay what they are.

    Source: random layerwise token dropping, Yao et al. (2022), arXiv:2211.11586.
    """
    if seen is None:
        return run(x)
    return x.index_copy(1, seen, run(x[:, seen]).to(x.dtype))
