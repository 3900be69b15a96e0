"""Time and weigh a training step of STNDT at the size of MC_Maze against the same model of PyTorch's plain layers.

``python benchmarks/stndt_step.py``: 182 neurons of which 137 are shown, 180 bins, batches of ``--batch`` (64) trials,
4 layers of 2 heads and a hidden width of 128, as published; float32, 2 threads: masked view given, forward, Poisson
loss, backward, clipping, AdamW. The plain model is made of ``nn.MultiheadAttention``, which for published STNDT must
compute the values and outputs that it throws away, ``nn.LayerNorm`` and ``nn.Linear``, with the same weights:
features of both are compared in float64. A case's pairs of steps alternate in one process; peak memory is
that of a process which has taken one kind of step only, and what the same process held before it.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_process import answered, measured, parser_of, timed, written
from torch import Tensor, nn
from torch.nn import functional

from neuroint import registry
from neuroint.data.base import Inputs
from neuroint.memory import measure_anew, peak_mb

NEURONS, SHOWN, BINS, THREADS = 182, 137, 180, 2
SIZE = {"frames": BINS, "layers": 4, "heads": 2, "hidden": 128}
CPU = torch.device("cpu")
SAME = 1e-9  # largest difference of features, which are of order 1, allowed in float64


class Attending(nn.Module):
    """``nn.MultiheadAttention`` with the weights of a given attention."""

    def __init__(self, part: Any, dropout: float) -> None:
        super().__init__()
        width, maps = part.query.in_features, (part.query, part.key, part.value)
        self.peer = nn.MultiheadAttention(width, part.heads, dropout, batch_first=True)
        with torch.no_grad():
            self.peer.in_proj_weight.copy_(torch.cat([one.weight for one in maps]))
            self.peer.in_proj_bias.copy_(torch.cat([_bias(one) for one in maps]))
            self.peer.out_proj.weight.copy_(part.out.weight)
            self.peer.out_proj.bias.copy_(_bias(part.out))

    def forward(self, x: Tensor, weights: bool) -> tuple[Tensor, Tensor]:
        """What is read and, where weights are asked for, who reads whom, averaged over heads."""
        return self.peer(x, x, x, need_weights=weights)


def _bias(linear: nn.Linear) -> Tensor:
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias


class PlainLayer(nn.Module):
    """A layer of STNDT, published or fixed, of plain layers with a given layer's weights."""

    def __init__(self, layer: Any, dropout: float) -> None:
        super().__init__()
        self.time, self.space = Attending(layer.temporal.time, dropout), Attending(layer.space, dropout)
        kept = (layer.temporal.norm_time, layer.temporal.norm_feed, layer.norm_space, layer.norm_feed)
        self.norms = copy.deepcopy(nn.ModuleList(kept))
        self.norm_values = copy.deepcopy(getattr(layer, "norm_values", None))
        self.feeds = nn.ModuleList([_feed(layer.temporal.feed, dropout), _feed(layer.feed, dropout)])
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, over_neurons: Tensor | None) -> Tensor:
        """Mix bins, then neurons."""
        time, feed, space, last = self.norms
        x = x + self.drop(self.time(time(x), weights=False)[0])
        x = x + self.drop(self.feeds[0](feed(x)))
        turned = space(x.transpose(1, 2) if over_neurons is None else over_neurons)
        read, maps = self.space(turned, weights=self.norm_values is not None)
        if self.norm_values is not None:
            read = maps @ self.norm_values(x).transpose(1, 2)
        x = x + self.drop(read).transpose(1, 2)
        return x + self.drop(self.feeds[1](last(x)))


def _feed(part: Any, dropout: float) -> nn.Sequential:
    first, second = copy.deepcopy(part.linear1), copy.deepcopy(part.linear2)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), second)


class Plain(nn.Module):
    """The whole core of plain layers."""

    def __init__(self, core: Any, dropout: float) -> None:
        super().__init__()
        self.parts = copy.deepcopy(nn.ModuleList([core.embed_time, core.embed_space, core.norm]))
        self.layers = nn.ModuleList([PlainLayer(layer, dropout) for layer in core.layers])
        self.places_time, self.places_space = nn.Buffer(core.places_time), nn.Buffer(core.places_space)
        self.drop = nn.Dropout(dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        """Features of whole windows."""
        if inputs.observed is None:
            raise ValueError("the benchmark's inputs hold records; they are missing")
        counts = functional.pad(inputs.observed, (0, NEURONS - SHOWN))
        time, space, norm = self.parts
        x = self.drop(time(counts) * NEURONS**0.5 + self.places_time)
        over_neurons = self.drop(space(counts.transpose(1, 2)) * BINS**0.5 + self.places_space)
        for k, layer in enumerate(self.layers):
            x = layer(x, None if k else over_neurons)
        return self.drop(norm(x))[..., None, None]


class WithReadout(nn.Module):
    """A core and its linear readout; log rates."""

    def __init__(self, core: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.core, self.readout = core, readout

    def forward(self, inputs: Inputs) -> Tensor:
        """Log rates ``batch time neurons``."""
        return self.readout(self.core(inputs), None, None)


def build(name: str, dropout: float) -> dict[str, WithReadout]:
    """The shipped model and the plain one, with the same weights."""
    torch.manual_seed(0)
    rates = dict.fromkeys(("dropout", "dropout_rates", "dropout_embedding"), dropout)
    core: Any = registry.cores[name].build(SIZE | rates, {"observed_channels": SHOWN, "n_neurons": NEURONS})
    facts = {"feature_shape": core.feature_shape, "n_neurons": NEURONS, "mean_drive": np.full(NEURONS, -3, np.float32)}
    readout: Any = registry.readouts["linear"].build({}, facts)
    return {
        "shipped": WithReadout(core, readout),
        "plain": WithReadout(Plain(core, dropout), copy.deepcopy(readout)),
    }


def drawn(batch: int) -> tuple[Inputs, Tensor]:
    """Masked records, and what is to be predicted."""
    draw = torch.Generator().manual_seed(1)
    counts = torch.poisson(torch.full((batch, BINS, NEURONS), 0.05), draw)
    shown = counts[..., :SHOWN] * (torch.rand(batch, BINS, SHOWN, generator=draw) > 0.25)
    return Inputs(observed=shown), counts


def step_of(model: WithReadout, batch: int) -> Callable[[], None]:
    """Prepare a training step."""
    given, counts = drawn(batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    live = list(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        functional.poisson_nll_loss(model(given), counts).backward()
        nn.utils.clip_grad_norm_(live, 200.0)
        optimizer.step()

    return step


@torch.no_grad()
def difference(name: str) -> float:
    """Compare features of both in float64, without dropout.

    Raises:
        ValueError: they differ.
    """
    given, _ = drawn(2)
    given = Inputs(observed=None if given.observed is None else given.observed.double())
    shipped, plain = (model.core.double().eval()(given) for model in build(name, 0.0).values())
    worst = float((shipped - plain).abs().max())
    if worst > SAME:
        raise ValueError(f"{name} and its plain layers differ by {worst:.1e}, at most {SAME} was expected")
    return worst


def measure(name: str, dropout: float, batch: int, repeats: int, only: str | None) -> dict[str, Any]:
    """Time pairs of steps or, of one kind only, its memory."""
    torch.set_num_threads(THREADS)
    models = build(name, dropout)
    if only:
        step = step_of(models[only], batch)
        del models
        before = peak_mb(CPU)
        measure_anew(CPU)
        step()
        step()
        return {"step_mb": round(peak_mb(CPU)), "before_mb": round(before)}
    steps = [step_of(models[kind], batch) for kind in ("shipped", "plain")]
    pairs = [[timed(step) for step in steps] for _ in range(repeats + 1)][1:]
    ratios = sorted(plain / shipped for shipped, plain in pairs)
    return {
        "difference": difference(name),
        "shipped_s": round(statistics.median(pair[0] for pair in pairs), 3),
        "plain_s": round(statistics.median(pair[1] for pair in pairs), 3),
        "trials_per_s": round(batch / statistics.median(pair[0] for pair in pairs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def main() -> None:
    """Measure and print JSON."""
    parser = parser_of(__doc__, quick="4 trials, once")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    if answered(options, measure):
        return
    batch, repeats = (4, 1) if options.quick else (options.batch, options.repeats)
    cases = [(name, dropout) for name in ("stndt", "stndt_fixed") for dropout in (0.2, 0.0)]
    jobs = [
        {"name": name, "dropout": dropout, "batch": batch, "repeats": repeats, "only": only}
        for name, dropout in cases
        for only in (None, "shipped", "plain")
    ]
    written(measured(Path(__file__), jobs, options), options.out)


if __name__ == "__main__":
    main()
