"""Parts of transformers over bins and over neurons: attention, feed-forward layers, positions, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.registry import MissingFactError

TFIXUP_SCALE = 0.67  # times the number of layers to the power -1/4 (Huang et al. 2020, ICML)
MAPS = ("query", "key", "value", "out")
USEFUL_BIASES = ("query", "value", "out")
QKV_GAIN = 0.5**0.5  # Xavier's bound as if query, key and value were one matrix


def attention_maps(
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch heads tokens width"],
    allowed: Bool[Tensor, "tokens tokens"] | None = None,
) -> Float[Tensor, "batch heads tokens tokens"]:
    """Who reads whom: rows sum to 1. What fused attention uses and never holds, for analysis."""
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (logits if allowed is None else logits.masked_fill(~allowed, -math.inf)).softmax(-1)


class Attention(nn.Module):
    """Multi-head attention, fused where its maps are not asked for.

    Args:
        width: of a token.
        heads: must divide the width.
        dropout: of attention weights.
        biased: which of its four maps have a bias; that of keys changes nothing, because a softmax does not see what
            is added to all of its row.
    """

    def __init__(self, width: int, heads: int, dropout: float, biased: Collection[str] = USEFUL_BIASES) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide tokens of width {width}; choose a divisor of it")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, name in biased) for name in MAPS)
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight, QKV_GAIN)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], allowed: Bool[Tensor, "tokens tokens"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Let every token read the allowed ones."""
        q, k, v = (self._split(linear(x)) for linear in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out(read.transpose(1, 2).flatten(2))

    def maps(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch heads tokens tokens"]:
        """Who reads whom: rows sum to 1."""
        return attention_maps(self._split(self.query(x)), self._split(self.key(x)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with a rectifier between them."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        """Transform every token by itself."""
        return self.linear2(self.drop(torch.relu(self.linear1(x))))


class TemporalLayer(nn.Module):
    """Attention over bins and a feed-forward layer, each after a layer norm and beside a residual path."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, biased: Collection[str] = USEFUL_BIASES
    ) -> None:
        super().__init__()
        self.norm_time, self.time = nn.LayerNorm(width), Attention(width, heads, dropout, biased)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width, hidden, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], allowed: Bool[Tensor, "time time"] | None
    ) -> Float[Tensor, "batch time width"]:
        """Mix bins, then channels."""
        x = x + self.drop(self.time(self.norm_time(x), allowed))
        return x + self.drop(self.feed(self.norm_feed(x)))


def scale_by_depth(module: nn.Module, layers: int) -> None:
    """Scale the initial output weights of attention and feed-forward layers, so that deep stacks start calmly."""
    names = ("out.weight", "linear1.weight", "linear2.weight")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(names):
                parameter *= TFIXUP_SCALE * layers**-0.25


def sinusoids(places: int, width: int) -> Float[Tensor, "places width"]:
    """Sines and cosines of wavelengths from 2 pi to 20,000 pi places (Vaswani et al. 2017, NeurIPS)."""
    channel = torch.arange(0, width, 2, dtype=torch.float32)
    angle = torch.arange(places, dtype=torch.float32)[:, None] * torch.exp(-math.log(10_000) * channel / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width].contiguous()


def context_window(frames: int, back: int | None, forward: int | None) -> Bool[Tensor, "frames frames"] | None:
    """Which bins (columns) a bin (row) may read; None for all of them."""
    if back is None and forward is None:
        return None
    ahead = torch.arange(frames) - torch.arange(frames)[:, None]
    return (ahead >= -(frames if back is None else back)) & (ahead <= (frames if forward is None else forward))


def population_width(core: str, observed_channels: int, n_neurons: int) -> int:
    """Check that a core which reads counts has some, and predicts at least the neurons it reads.

    Raises:
        MissingFactError: nothing recorded is on offer.
        ValueError: more neurons are observed than predicted.
    """
    if not observed_channels:
        raise MissingFactError(
            f"core '{core}' reads recorded activity, which the data does not offer; set data.observed: masked"
        )
    if observed_channels > n_neurons:
        raise ValueError(
            f"core '{core}' has a channel per predicted neuron, of which there are {n_neurons}, and cannot read "
            f"{observed_channels} observed ones; set data.observed: masked, or lower data.held_in"
        )
    return n_neurons


def counts_of(inputs: Inputs, width: int) -> Float[Tensor, "batch time width"]:
    """Recorded activity of held-in neurons, and zeros for the held-out ones behind them.

    Raises:
        ValueError: there is no recorded activity.
    """
    if inputs.observed is None:
        raise ValueError("a core that reads recorded activity was given none; set data.observed: masked")
    return functional.pad(inputs.observed, (0, width - inputs.observed.shape[2]))


def windows_of(x: Float[Tensor, "batch time width"], frames: int) -> Float[Tensor, "samples frames width"]:
    """Cut clips into stretches of ``frames`` bins, the last of which ends with the clip; pad shorter clips by zeros."""
    time = x.shape[1]
    if time <= frames:
        return functional.pad(x, (0, 0, 0, frames - time))
    return torch.cat([x[:, start : start + frames] for start in _starts(time, frames)])


def in_windows(
    run: Callable[[Tensor], Tensor], x: Float[Tensor, "batch time width"], frames: int
) -> Float[Tensor, "batch time out"]:
    """Run something that wants ``frames`` bins on clips of any length, stretch by stretch."""
    batch, time = x.shape[:2]
    found = run(windows_of(x, frames))
    if time <= frames:
        return found[:, :time]
    stretches, starts = found.split(batch), _starts(time, frames)
    overlap = starts[-2] + frames - starts[-1]  # of the last stretch with the one before, whose bins count
    return torch.cat([*stretches[:-1], stretches[-1][:, overlap:]], dim=1)


def _starts(time: int, frames: int) -> list[int]:
    return [*range(0, time - frames, frames), time - frames]
