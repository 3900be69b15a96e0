"""Attention between neurons whose map changes with what drives them."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.chunks import over_frames
from neuroint.modules.pair_bias import PAIR_BIASES
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import EmbeddingFrom, EmbeddingTokens, compressed, excluded, null_start, softmax_weights
from neuroint.registry import Count, Fact, Positive, interactions

ROWS = 512  # neurons that ask at a time; aligned, because GPU kernels read masks in blocks
FUSED_WIDTHS = 8  # torch fuses masked attention in half precision for multiples of it, and holds maps otherwise


class _Prepared(NamedTuple):
    """What is the same for all frames: heads x neurons x features, the last query and key feature being the null's."""

    query: Float[Tensor, "heads neurons feature"]
    key: Float[Tensor, "heads tokens feature"]
    value: Float[Tensor, "heads neurons width"]
    output: Float[Tensor, "heads neurons width"]
    query_of_drive: Float[Tensor, "heads feature"]
    key_of_drive: Float[Tensor, "heads feature"]
    mask: Float[Tensor, "rows window"]


@interactions.register("dynamic_attention")
class DynamicAttention(nn.Module):
    r"""Add to each neuron's drive what it attends to among all others, by what drives both at the same frame.

    .. math::
        d'_i(t) = d_i(t) + \sum_h o_{ih} \cdot \sum_j A_{hij}(t)\, v_{jh}\, \mathrm{softplus}(d_j(t)), \\
        A_{hij}(t) = \mathrm{softmax}_{j \ne i,\,\varnothing}\big(q_{hi}(t) \cdot k_{hj}(t) / \sqrt{w} + b_h(x_i - x_j)
        \big), \quad q_i(t) = Q e_i + a\, \mathrm{asinh}(d_i(t)), \quad k_j(t) = K e_j + b\, \mathrm{asinh}(d_j(t))

    Tokens are sums of a part from the embedding and one from the drive, whose logarithmic scale keeps logits small for
    any drive. a and b start at 0, which is a map that does not change, as in ``attention``; values are scaled by the
    rectified drive, so that a silent neuron says nothing. No neuron attends to itself, though its own drive decides
    what it asks for; the null token takes half the mass at the start. It reads drives of the same frame, no records.
    Outputs o start at 0, which is ``none``, and so does strength 0 (:meth:`off`). Its nulls: ``attention``, which has
    the same parameters but a and b, for the change with time, and ``population_mean`` for attending at all.

    Cost is neurons^2 x heads x width x frames. Fused kernels (torch's scaled_dot_product_attention) work through blocks
    of neurons that ask and chunks of frames: no map is ever stored, and the mask of the diagonal is a window of one
    table of block x 2 neurons. The bias is therefore one that is a product of queries and keys (Fourier), with any
    shape within its range. :meth:`attention_map` makes maps of chosen neurons and frames anew.

    Args:
        heads: maps.
        head_width: w, width of queries, keys, values and outputs.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        position: ``fourier`` (any shape over the vector between cells) or ``none``.
        position_bases: waves.
        lateral_um: unit of length of the waves in the plane.
        depth_um: the same in depth.

    Raises:
        MissingFactError: a bias from positions without positions, or ``embedding: readout`` without a readout.
        ValueError: a subset of neurons, or no embedding in the context.

    Source: Vaswani et al. (2017), NeurIPS 30; Fourier features after Tancik et al. (2020), NeurIPS 33.
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
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 32,
        position: Literal["fourier", "none"] = "fourier",
        position_bases: Count = 4,
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
    ) -> None:
        super().__init__()
        self.bias = PAIR_BIASES[position](positions_um, heads, position_bases, lateral_um, depth_um)
        self.tokens = EmbeddingTokens(
            n_neurons, embedding_channels, embedding, embedding_width, heads, head_width, channels=head_width
        )
        self.query_of_drive = nn.Parameter(torch.zeros(heads, head_width))
        self.key_of_drive = nn.Parameter(torch.zeros(heads, head_width))
        self.null_logit = null_start(heads, n_neurons - 1, "softmax")
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all outputs to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute the parts of all tokens that come from embeddings and positions."""
        refuse_subset("dynamic_attention", context)
        tokens = self.tokens(context)
        query, key, value, output = (part.transpose(0, 1) for part in tokens)
        near, far = (part.transpose(0, 1) for part in self.bias.factors(tokens.query))
        none, spare = torch.zeros_like(query[..., :1]), _spare(query.shape[-1] + near.shape[-1] + 1, query.device.type)
        query = functional.pad(torch.cat([query / query.shape[-1] ** 0.5, near, none + 1], dim=-1), spare)
        key = functional.pad(torch.cat([key, far, none], dim=-1), spare)
        before = key.shape[-1] - spare[1] - 1
        nobody = functional.pad(self.null_logit.to(key.dtype)[:, None, None], (before, spare[1]))
        wide = (0, key.shape[-1] - value.shape[-1])
        slopes = self.query_of_drive / value.shape[-1] ** 0.5, self.key_of_drive
        slopes = (functional.pad(slope, wide) for slope in slopes)
        return _Prepared(query, torch.cat([key, nobody], dim=1), value, self.strength * output, *slopes, _mask(value))

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add what every neuron attends to, each frame by itself."""
        held = prepared(self, context)
        per_frame = 4 * held.key.numel() + 2 * held.query.numel()
        influence = over_frames(self._frames, per_frame, drive.flatten(0, 1), held)
        return drive + influence.unflatten(0, drive.shape[:2])

    def attention_map(
        self,
        context: Context,
        drive: Float[Tensor, "frames neurons"],
        chosen: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "frames heads chosen neurons"]:
        """Return A of chosen neurons (all, if none are named) for analysis; what is missing went to the null token."""
        held, chosen = prepared(self, context), _all_or(chosen, drive)
        query, key, _ = self._at(held, drive)
        logits = query[:, :, chosen] @ key[:, :, :-1].transpose(-1, -2)
        return softmax_weights(excluded(logits, chosen), self.null_logit, drive.shape[1])

    def coupling(
        self,
        context: Context,
        drive: Float[Tensor, "frames neurons"],
        chosen: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "frames chosen neurons"]:
        """Return what column j's rectified drive is multiplied by in row i's sum, with the map held fixed."""
        held, chosen = prepared(self, context), _all_or(chosen, drive)
        signed = held.output[:, chosen] @ held.value.transpose(-1, -2)
        return (self.attention_map(context, drive, chosen) * signed).sum(1)

    def _at(self, held: _Prepared, drive: Float[Tensor, "frames neurons"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values at some frames: frames x heads x neurons x features; the null's are the last."""
        x, said = compressed(drive)[:, None, :, None], functional.softplus(drive)[:, None, :, None]
        query = held.query + x * held.query_of_drive[:, None]
        key = held.key + functional.pad(x, (0, 0, 0, 1)) * held.key_of_drive[:, None]
        wide = held.key.shape[-1] - held.value.shape[-1]
        return query, key, functional.pad(held.value * said, (0, wide, 0, 1))

    def _frames(self, drive: Float[Tensor, "frames neurons"], *parts: Tensor) -> Float[Tensor, "frames neurons"]:
        held = _Prepared(*parts)
        mask = held.mask
        query, key, value = self._at(held, drive)
        n_neurons, width, found = drive.shape[1], held.output.shape[-1], []
        for start in range(0, n_neurons, ROWS):
            asked = query[:, :, start : start + ROWS]
            begin = mask.shape[0] * ((n_neurons - 1) // mask.shape[0]) - start
            window = mask[: asked.shape[2], begin : begin + n_neurons + 1]
            heard = functional.scaled_dot_product_attention(asked, key, value, attn_mask=window, scale=1.0)
            found.append((heard[..., :width] * held.output[:, start : start + ROWS]).sum((1, 3)))
        return torch.cat(found, dim=-1)


def _spare(width: int, device: str) -> tuple[int, int]:
    """Zeros before and behind features of a width: on a card no fused kernel with a mask takes odd widths."""
    return (0, -width % FUSED_WIDTHS) if device == "cuda" else (0, 0)


def _all_or(chosen: Tensor | None, drive: Tensor) -> Tensor:
    return torch.arange(drive.shape[-1], device=drive.device) if chosen is None else chosen


def _mask(like: Float[Tensor, "heads neurons width"]) -> Float[Tensor, "rows window"]:
    """Make a table whose windows of n + 1 columns leave out the neuron that asks, each block's at a place of its own.

    Row r forbids column r + last, where last is the first neuron of the last block: the window of the block that
    begins at s starts at last - s.
    """
    n_neurons = like.shape[1]
    rows = min(ROWS, n_neurons)
    last = rows * ((n_neurons - 1) // rows)
    width = -(-(last + n_neurons + 1) // 16) * 16
    return like.new_zeros(rows, width).diagonal_scatter(like.new_full((rows,), -torch.inf), last)
