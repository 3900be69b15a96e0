"""Attention between all neurons in time linear in how many there are."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.chunks import over_frames
from neuroint.modules.positions import Positions
from neuroint.modules.rectified import full
from neuroint.modules.rotary import ROTATIONS
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import EmbeddingFrom, EmbeddingTokens, compressed
from neuroint.registry import Count, Fact, Positive, interactions


class _Prepared(NamedTuple):
    """Parts of tokens that come from embeddings, slopes over the compressed drive, null tokens, and angles."""

    query: Float[Tensor, "heads neurons width"]
    key: Float[Tensor, "heads neurons width"]
    value: Float[Tensor, "heads neurons width"]
    output: Float[Tensor, "heads neurons width"]
    query_of_drive: Float[Tensor, "heads width"]
    key_of_drive: Float[Tensor, "heads width"]
    null: Float[Tensor, " heads"]
    angle: Float[Tensor, "all_neurons pairs"]


@interactions.register("linear_attention")
class LinearAttention(nn.Module):
    r"""Add to each neuron's drive what it attends to among all others, through sums that all neurons share.

    .. math::
        d'_i(t) = d_i(t) + \sum_h o_{ih} \cdot \sum_{j \ne i} A_{hij}(t)\, v_{jh}\, \mathrm{softplus}(d_j(t)), \\
        A_{hij} = \frac{\tfrac{1}{N-1} \varphi(q_i)^T R(x_j - x_i)\, \varphi(k_j)}
        {\nu_h + \tfrac{1}{N-1} \sum_{l \ne i} \varphi(q_i)^T \varphi(k_l)}, \quad \varphi(x) = \mathrm{elu}(x) + 1, \\
        q_i(t) = Q e_i + a\, \mathrm{asinh}(d_i(t)), \quad k_j(t) = K e_j + b\, \mathrm{asinh}(d_j(t))

    The sums over j are made once per frame, and each neuron's own term is taken out of them. nu > 0 is the null token:
    attending to nobody can be said, no denominator is ever 0, and it starts with half the mass of like cells. R turns
    pairs of features by angles that grow with position (``rotary``), so weights fall, rise and change sign with the
    vector between two cells; without positions R is the identity and weights are positive. It reads drives of the same
    frame, no records. Outputs o start at 0, which is ``none``, and so does strength 0 (:meth:`off`); its null is
    ``population_mean``, which weighs all alike.

    Cost is neurons x heads x width^2 x frames, linear in neurons; frames are worked through in chunks, computed again
    in the backward pass, in at least single precision because of the difference. :meth:`attention_map` makes the
    implied map.

    Args:
        heads: maps.
        head_width: w, width of queries, keys, values and outputs; even with ``rotary``.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.
        position: ``rotary`` or ``none``.
        lateral_um: unit of length of the angles in the plane.
        depth_um: the same in depth.

    Raises:
        MissingFactError: ``rotary`` without positions, or ``embedding: readout`` without a readout.
        ValueError: an odd width with ``rotary``, a subset of neurons, or no embedding in the context.

    Source: Katharopoulos et al. (2020), ICML; rotations with an unrotated denominator after Su et al. (2024),
    Neurocomputing 568, 127063.
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
        position: Literal["rotary", "none"] = "rotary",
        lateral_um: Positive = 300.0,
        depth_um: Positive = 150.0,
    ) -> None:
        super().__init__()
        self.others = max(n_neurons - 1, 1)
        self.rotation = ROTATIONS[position](positions_um, head_width, lateral_um, depth_um)
        self.tokens = EmbeddingTokens(
            n_neurons, embedding_channels, embedding, embedding_width, heads, head_width, channels=head_width
        )
        self.query_of_drive = nn.Parameter(torch.zeros(heads, head_width))
        self.key_of_drive = nn.Parameter(torch.zeros(heads, head_width))
        self.null_logit = nn.Parameter(torch.full((heads,), math.log(head_width)))  # features of zeros: phi.phi = w
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all outputs to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute the parts of all tokens that come from embeddings, and the angles."""
        refuse_subset("linear_attention", context)
        query, key, value, output = (full(part.transpose(0, 1)) for part in self.tokens(context))
        slopes = full(self.query_of_drive), full(self.key_of_drive)
        null = full(self.null_logit).exp()
        return _Prepared(query, key, value, self.strength * output, *slopes, null, self.rotation())

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add what every neuron attends to, each frame by itself."""
        held = prepared(self, context)
        influence = over_frames(self._frames, 8 * held.query.numel(), drive.flatten(0, 1), held)
        return drive + influence.unflatten(0, drive.shape[:2])

    def attention_map(
        self, context: Context, drive: Float[Tensor, "frames neurons"]
    ) -> Float[Tensor, "frames heads neurons neurons"]:
        """Return A for analysis: rows attend to columns; entries may be negative with ``rotary``."""
        held = prepared(self, context)
        query, key = self._features(held, full(drive))
        turned = self.rotation.turn(query, held.angle) @ self.rotation.turn(key, held.angle).transpose(-1, -2)
        weights = turned / (self.others * self._mass(held, query, key)[..., None])
        return weights - torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))

    def coupling(
        self, context: Context, drive: Float[Tensor, "frames neurons"]
    ) -> Float[Tensor, "frames neurons neurons"]:
        """Return what column j's rectified drive is multiplied by in row i's sum, with the map held fixed."""
        held = prepared(self, context)
        return (self.attention_map(context, drive) * (held.output @ held.value.transpose(-1, -2))).sum(1)

    def _features(self, held: _Prepared, drive: Float[Tensor, "frames neurons"]) -> tuple[Tensor, Tensor]:
        """Positive features of queries and keys, frames x heads x neurons x width."""
        x = compressed(drive)[:, None, :, None]
        query = functional.elu(held.query + x * held.query_of_drive[:, None]) + 1
        return query, functional.elu(held.key + x * held.key_of_drive[:, None]) + 1

    def _mass(self, held: _Prepared, query: Tensor, key: Tensor) -> Float[Tensor, "frames heads neurons"]:
        """The denominator: the null token and the mean of all others; rounding cannot make a sum of others negative."""
        others = (key.sum(-2, keepdim=True) - key).clamp(min=0) / self.others
        return (query * others).sum(-1) + held.null[:, None]

    def _frames(self, drive: Float[Tensor, "frames neurons"], *parts: Tensor) -> Float[Tensor, "frames neurons"]:
        """Influence on every neuron: the sum over all, less its own term, which no rotation changes."""
        held = _Prepared(*parts)
        with torch.autocast(drive.device.type, enabled=False):
            drive = full(drive)
            query, key = self._features(held, drive)
            said = held.value * functional.softplus(drive)[:, None, :, None] / self.others
            summed = self.rotation.turn(key, held.angle).transpose(-1, -2) @ said
            heard = self.rotation.turn(query, held.angle) @ summed - (query * key).sum(-1, keepdim=True) * said
            return ((heard * held.output).sum(-1) / self._mass(held, query, key)).sum(1)
