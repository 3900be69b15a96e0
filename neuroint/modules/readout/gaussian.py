"""The readout that looks at one point per neuron, uncertain in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuroint.modules.base import Reads
from neuroint.modules.bilinear import weighed_at
from neuroint.modules.penalties import absolute_sum, weighed_sum
from neuroint.modules.selection import of_neurons
from neuroint.registry import Fact, MissingFactError, NonNegative, Positive, readouts

Positions = Float[np.ndarray, "neurons 3"]


class PredictedGrid(nn.Module):
    r"""Predict every neuron's point from where its cell lies in the cortex: retinotopy.

    .. math:: \mu = \tanh(W_2\, \mathrm{ELU}(W_1 p + b_1) + b_2)

    with p the lateral coordinates, centered per axis and divided by the largest absolute value.
    """

    source: Tensor

    def __init__(self, n_neurons: int, positions_um: Positions | None) -> None:
        super().__init__()
        if positions_um is None:
            raise MissingFactError(
                "readout 'gaussian' with grid: positions needs positions_um, which the data does not have; "
                "supply it or choose grid: free"
            )
        source = positions_um[:, :2] - positions_um[:, :2].mean(0)
        scale = max(float(np.abs(source).max()), 1e-6)  # cells that all lie at one point share one grid point
        self.register_buffer("source", torch.as_tensor(source / scale, dtype=torch.float32), persistent=False)
        self.predict = nn.Sequential(nn.Linear(2, 30), nn.ELU(), nn.Linear(30, 2), nn.Tanh())

    def forward(self, neurons: Int[Tensor, " chosen"] | None) -> Float[Tensor, "chosen 2"]:
        return self.predict(of_neurons(self.source, neurons))


class FreeGrid(nn.Module):
    """Learn every neuron's point by itself, from a random start near the center."""

    def __init__(self, n_neurons: int, positions_um: Positions | None) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.empty(n_neurons, 2).uniform_(-0.2, 0.2))

    def forward(self, neurons: Int[Tensor, " chosen"] | None) -> Float[Tensor, "chosen 2"]:
        return of_neurons(self.points, neurons)


GRIDS = {"positions": PredictedGrid, "free": FreeGrid}


class Shifter(nn.Sequential):
    """Turn the pupil's position into a shift of every point, at most 1 along each axis: 57 parameters for two axes."""

    def __init__(self, pupil_channels: int) -> None:
        super().__init__(
            nn.Linear(pupil_channels, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2), nn.Tanh()
        )


@readouts.register("gaussian")
class Gaussian(nn.Module):
    r"""Read each neuron's drive at one point of the feature maps, drawn from its own Gaussian in training.

    .. math:: d_n(t) = b_n + \sum_c w_{nc} F_c(g_n(t), t), \quad
        g_n = \mathrm{clamp}(\mu_n + \Sigma_n \epsilon, -1, 1) + s(t)

    with noise drawn per frame and neuron in training, and none in evaluation; s(t) is the shift that the pupil tells.
    Points are (x, y) in [-1, 1] from edge to edge of the feature maps, which are zero outside. The noise comes from
    torch's default generator, as that of dropout does: whoever trains seeds it. With positions and two pupil axes,
    8000 neurons and 128 channels have 1,064,152 parameters, and 57 in the shifter. Its null is ``linear``, which may
    look everywhere, and ``grid: free`` for what the positions tell.

    With ``features: shared`` neurons that are matched, in whichever session, have the same features up to a scale,

    .. math:: w_n = s_n\, W_{m(n)},

    with m their ids and W one table for all sessions of a model; a neuron that is matched with none has a row of its
    own. The null of sharing is ``features: own``. A run on other sessions, or other ids, starts without these weights.

    Args:
        grid: ``positions`` predicts the points from where the cells lie, ``free`` learns them one by one.
        sampling: draw points in training; otherwise there is no Sigma.
        shifter: shift all points by the pupil's position, where it was recorded.
        sigma_init: entries of Sigma start uniformly between plus and minus this.
        features: ``own`` of every neuron, or ``shared`` among matched ones.
        feature_l1: weight of the sum of absolute feature weights, beside a loss per response; a shared row counts once.

    Raises:
        MissingFactError: ``grid: positions`` without positions, or ``features: shared`` without ids of matched neurons.
        ValueError: the pupil that the shifter was built for is missing.

    Source: Lurz et al. (2021), ICLR.
    """

    reads: ClassVar[Reads] = Reads()
    match_ids: Tensor
    rows: Tensor
    owned: Tensor

    def __init__(
        self,
        *,
        feature_shape: Fact[tuple[int, int, int]],
        n_neurons: Fact[int],
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        positions_um: Fact[Positions] | None = None,
        pupil_channels: Fact[int] = 0,
        match_ids: Fact[Int[np.ndarray, " neurons"]] | None = None,
        grid: Literal["positions", "free"] = "positions",
        sampling: bool = True,
        shifter: bool = True,
        sigma_init: Positive = 0.3,
        features: Literal["own", "shared"] = "own",
        feature_l1: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.embedding_channels = feature_shape[0]
        self.grid = GRIDS[grid](n_neurons, positions_um)
        self.shifter = Shifter(pupil_channels) if shifter and pupil_channels else None
        sigma = torch.empty(n_neurons, 2, 2).uniform_(-sigma_init, sigma_init)
        self.sigma = nn.Parameter(sigma) if sampling else None
        self.weights = nn.Parameter(torch.full((n_neurons, feature_shape[0]), 1 / feature_shape[0]))
        self.scale = None
        if features == "shared":
            self.scale = nn.Parameter(torch.ones(n_neurons, 1))
            self.register_buffer("match_ids", torch.as_tensor(_known(match_ids)))
            self.share([self])
        self.bias = nn.Parameter(torch.tensor(mean_drive, dtype=torch.float32))
        self.feature_l1 = feature_l1

    def forward(
        self,
        features: Float[Tensor, "batch time channel height width"],
        pupil: Float[Tensor, "batch pupil_time pupil"] | None = None,
        neurons: Int[Tensor, " chosen"] | None = None,
    ) -> Float[Tensor, "batch time chosen"]:
        """Read the drive of all neurons, or of the chosen ones; the last frames of the pupil belong to the features."""
        weights, bias = of_neurons(self.embedding(), neurons), of_neurons(self.bias, neurons)
        points = self._points(features.shape[0] * features.shape[1], neurons) + self._shift(features, pupil)
        with torch.autocast(features.device.type, enabled=False):  # a point's place needs more than 8 bits
            drive = weighed_at(features.flatten(0, 1).to(weights.dtype), points.to(weights.dtype), weights)
        return drive.unflatten(0, features.shape[:2]) + bias

    def embedding(self) -> Float[Tensor, "neurons embed"]:
        """Feature weights of every neuron."""
        return self.weights if self.scale is None else self.scale * self.weights[self.rows]

    @staticmethod
    def share(readouts: Sequence[Any]) -> None:
        """Give readouts of several sessions one table of features, a row for every cell or type that is matched."""
        if readouts[0].scale is None:
            return
        known = np.concatenate([np.asarray(readout.match_ids) for readout in readouts])
        ids, rows = np.unique(_apart(known), return_inverse=True)
        channels, seen = readouts[0].embedding_channels, 0
        table = nn.Parameter(torch.full((len(ids), channels), 1 / channels))
        first = np.zeros(len(rows), bool)
        first[np.unique(rows, return_index=True)[1]] = True
        for readout in readouts:
            part = slice(seen, seen := seen + len(readout.match_ids))
            readout.weights = table
            readout.register_buffer("rows", torch.as_tensor(rows[part]), persistent=False)
            readout.register_buffer("owned", torch.as_tensor(rows[part][first[part]]), persistent=False)
            readout.register_buffer("match_ids", torch.as_tensor(known[part]))  # kept with the weights: whose they are
            readout.register_buffer("row_ids", torch.as_tensor(ids))

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the sum of absolute feature weights."""
        counted = self.weights if self.scale is None else self.weights[self.owned]
        return weighed_sum((self.feature_l1, absolute_sum, counted))

    def _points(self, frames: int, neurons: Tensor | None) -> Float[Tensor, "frames chosen 2"]:
        center = self.grid(neurons).expand(frames, -1, -1)
        if self.sigma is None or not self.training:
            return center.clamp(-1, 1)
        noise = torch.randn_like(center)
        return (center + torch.einsum("nij,fnj->fni", of_neurons(self.sigma, neurons), noise)).clamp(-1, 1)

    def _shift(self, features: Tensor, pupil: Tensor | None) -> Tensor:
        if self.shifter is None:
            return features.new_zeros(())
        if pupil is None:
            raise ValueError("readout 'gaussian' was built with a shifter, and no pupil was given; set shifter: false")
        return self.shifter(pupil[:, -features.shape[1] :].flatten(0, 1))[:, None]


def _known(match_ids: Int[np.ndarray, " neurons"] | None) -> Int[np.ndarray, " neurons"]:
    """Ids of matched neurons.

    Raises:
        MissingFactError: there are none.
    """
    if match_ids is None:
        raise MissingFactError(
            "readout 'gaussian' with features: shared needs match_ids of every session, which the data does not have; "
            "supply ids of neurons that are the same in several sessions, or choose features: own"
        )
    return match_ids


def _apart(ids: Int[np.ndarray, " all_neurons"]) -> Int[np.ndarray, " all_neurons"]:
    """Give each of the neurons that are matched with none a negative id of its own."""
    alone = ids < 0
    return np.where(alone, -alone.cumsum(), ids)
