"""Attention of all neurons to all through a few points that listen to the population."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads, prepared
from neuroint.modules.chunks import over_frames
from neuroint.modules.rectified import full
from neuroint.modules.selection import refuse_subset
from neuroint.modules.tokens import EmbeddingFrom, EmbeddingTokens, compressed, null_start, softmax_weights
from neuroint.registry import Count, Fact, interactions


class _Prepared(NamedTuple):
    """Logits are those at drive 0; the slopes say how they change with the compressed drive of the neuron."""

    listening: Float[Tensor, "heads points neurons"]
    listening_slope: Float[Tensor, "heads points 1"]
    asking: Float[Tensor, "heads neurons points"]
    asking_slope: Float[Tensor, "heads 1 points"]
    value: Float[Tensor, "heads neurons width"]
    output: Float[Tensor, "heads neurons width"]
    null_listening: Float[Tensor, " heads"]
    null_asking: Float[Tensor, " heads"]


@interactions.register("inducing_attention")
class InducingAttention(nn.Module):
    r"""Add to each neuron's drive what it attends to among a few points that each sum up the whole population.

    .. math::
        Z_m(t) = \sum_j P_{mj}(t)\, v_j s_j(t), \quad
        d'_i(t) = d_i(t) + \sum_h o_i \cdot \sum_m B_{im}(t) \big(Z_m(t) - P_{mi}(t)\, v_i s_i(t)\big), \\
        P_{mj} = \mathrm{softmax}_{j,\varnothing}\big(I_m \cdot k_j(t) / \sqrt{w}\big), \quad
        B_{im} = \mathrm{softmax}_{m,\varnothing}\big(q_i(t) \cdot \kappa_m / \sqrt{w}\big), \\
        q_i(t) = Q e_i + a\, \mathrm{asinh}(d_i(t)), \quad k_j(t) = K e_j + b\, \mathrm{asinh}(d_j(t)), \quad
        s_j = \mathrm{softplus}(d_j)

    per head h. Points m hold learned queries I, to the population, and learned keys kappa, for the neurons. So the map
    B P between neurons has a rank of at most m per head. What a neuron itself told a point is taken out of what it
    hears from it; its own drive still decides what it asks for, and competes for the points. Null tokens let a point
    listen to nobody and a neuron ask nobody; each starts with half the mass. It reads drives of the same frame, no
    records. Positions enter by way of embeddings only. Outputs o start at 0, which is ``none``, and so does strength 0
    (:meth:`off`); its null is ``population_mean``, a single point that listens to all alike.

    Cost is neurons x points x heads x width x frames, linear in neurons; frames are worked through in chunks and
    computed again in the backward pass.

    Args:
        points: m.
        heads: maps.
        head_width: w, width of queries, keys, values and outputs.
        embedding: ``readout`` (the readout's weights per neuron) or ``free``.
        embedding_width: width of free embeddings.

    Raises:
        MissingFactError: ``embedding: readout`` without a readout.
        ValueError: a subset of neurons, or no embedding in the context.

    Source: Lee et al. (2019), ICML (induced set attention); Jaegle et al. (2021), ICML (Perceiver).
    """

    reads: ClassVar[Reads] = Reads(population=True)
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        embedding_channels: Fact[int] | None = None,
        points: Count = 16,
        heads: Count = 4,
        head_width: Count = 16,
        embedding: EmbeddingFrom = "readout",
        embedding_width: Count = 32,
    ) -> None:
        super().__init__()
        self.tokens = EmbeddingTokens(
            n_neurons, embedding_channels, embedding, embedding_width, heads, head_width, channels=head_width
        )
        self.point_query = nn.Parameter(torch.randn(heads, points, head_width))
        self.point_key = nn.Parameter(torch.randn(heads, points, head_width))
        self.query_of_drive = nn.Parameter(torch.zeros(heads, head_width))
        self.key_of_drive = nn.Parameter(torch.zeros(heads, head_width))
        self.null_listening = null_start(heads, n_neurons, "softmax")
        self.null_asking = null_start(heads, points, "softmax")
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set all outputs to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def prepare(self, context: Context) -> _Prepared:
        """Compute what logits are at drive 0, and how they change with drive."""
        refuse_subset("inducing_attention", context)
        query, key, value, output = (part.transpose(0, 1) for part in self.tokens(context))
        scale = key.shape[-1] ** -0.5
        return _Prepared(
            listening=scale * self.point_query @ key.transpose(-1, -2),
            listening_slope=scale * self.point_query @ self.key_of_drive[..., None],
            asking=scale * query @ self.point_key.transpose(-1, -2),
            asking_slope=(scale * self.point_key @ self.query_of_drive[..., None]).transpose(-1, -2),
            value=value,
            output=self.strength * output,
            null_listening=self.null_listening,
            null_asking=self.null_asking,
        )

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Add what every neuron hears from the points, each frame by itself."""
        held = prepared(self, context)
        per_frame = 6 * held.asking.numel() + held.value.numel()
        influence = over_frames(self._frames, per_frame, drive.flatten(0, 1), held)
        return drive + influence.unflatten(0, drive.shape[:2])

    def attention_map(
        self, context: Context, drive: Float[Tensor, "frames neurons"]
    ) -> Float[Tensor, "frames heads neurons neurons"]:
        """Return B P without its diagonal for analysis; what is missing from 1 in a row went to null tokens."""
        listening, asking = self._weights(prepared(self, context), full(drive))
        through = asking @ listening
        return through - torch.diag_embed(through.diagonal(dim1=-2, dim2=-1))

    def coupling(
        self, context: Context, drive: Float[Tensor, "frames neurons"]
    ) -> Float[Tensor, "frames neurons neurons"]:
        """Return what column j's rectified drive is multiplied by in row i's sum, with the map held fixed."""
        held = prepared(self, context)
        return (self.attention_map(context, drive) * (held.output @ held.value.transpose(-1, -2))).sum(1)

    def _weights(self, held: _Prepared, drive: Float[Tensor, "frames neurons"]) -> tuple[Tensor, Tensor]:
        """P (frames x heads x points x neurons) and B (frames x heads x neurons x points)."""
        x = compressed(drive)[:, None]
        listening = held.listening + held.listening_slope * x[:, :, None]
        asking = held.asking + x[..., None] * held.asking_slope
        return (
            softmax_weights(listening, held.null_listening, listening.shape[-1]),
            softmax_weights(asking, held.null_asking, asking.shape[-1]),
        )

    def _frames(self, drive: Float[Tensor, "frames neurons"], *parts: Tensor) -> Float[Tensor, "frames neurons"]:
        """Influence on every neuron: heard from all, less what it told itself."""
        with torch.autocast(drive.device.type, enabled=False):
            drive, held = full(drive), _Prepared(*map(full, parts))
            listening, asking = self._weights(held, drive)
            told = listening * functional.softplus(drive)[:, None, None]
            summed = told @ held.value
            heard = (asking * (held.output @ summed.transpose(-1, -2))).sum((1, 3))
            own = (asking * told.transpose(-1, -2)).sum(-1) * (held.output * held.value).sum(-1)
            return heard - own.sum(1)
