"""Recorded history of each neuron and of its partners, filtered and added to its drive."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from neuroint.modules.base import Context, Reads
from neuroint.modules.causal_filters import causal_filter, newest, raised_cosines, records, require_channels
from neuroint.modules.graphs import neighbor_graph
from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.penalties import absolute_sum, weighed_sum
from neuroint.modules.positions import Positions
from neuroint.modules.selection import refuse_subset
from neuroint.registry import Count, Fact, Index, MissingFactError, NonNegative, interactions

Partners = Literal["position", "random", "degree_matched", "all"]
LARGEST = 500  # channels: beyond it there are more couplings than recordings can tell apart

Channels = Int[np.ndarray, " observed"]
Weights = Float[Tensor, "neurons partner base"]


class _NeighborPartners(nn.Module):
    """The recorded channels of k other neurons."""

    channels: Tensor

    def __init__(
        self, kind: Partners, observed_neurons: Channels, n_neurons: int, positions: Positions | None, k: int, seed: int
    ) -> None:
        super().__init__()
        own = _own_channels(observed_neurons, n_neurons)
        if (own < 0).any():
            raise MissingFactError(
                f"'coupled_glm' looks for partners among the predicted neurons, and {int((own < 0).sum())} of "
                f"{n_neurons} have no recorded channel of their own; set partners: all, or data.observed: "
                "{read: past}"
            )
        graph = neighbor_graph(kind, n_neurons, positions, k, seed)  # pyright: ignore[reportArgumentType]
        self.register_buffer("channels", torch.tensor(own)[graph.neighbors], persistent=False)  # pyright: ignore[reportArgumentType]
        self.count = self.channels.shape[1]

    def masked(self, weights: Weights) -> Weights:
        """Every partner is another neuron."""
        return weights

    def forward(
        self, filtered: Float[Tensor, "base batch time observed"], weights: Weights, context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Weigh and sum what the partners of the neurons present did."""
        channels = _present(self.channels, context)
        parts = [neighbor_sum(one, channels, weights[..., base]) for base, one in enumerate(filtered)]
        return torch.stack(parts).sum(0)


class _AllPartners(nn.Module):
    """Every recorded channel but the neuron's own."""

    others: Tensor

    def __init__(
        self, kind: Partners, observed_neurons: Channels, n_neurons: int, positions: Positions | None, k: int, seed: int
    ) -> None:
        super().__init__()
        self.count = len(observed_neurons)
        if self.count > LARGEST:
            raise ValueError(
                f"'coupled_glm' with partners: all has weights for every pair and was given {self.count} recorded "
                f"channels, expected at most {LARGEST}; set partners: position or random, or use 'latent'"
            )
        others = torch.tensor(observed_neurons) != torch.arange(n_neurons)[:, None]
        self.register_buffer("others", others[..., None], persistent=False)

    def masked(self, weights: Weights) -> Weights:
        """Set the weights of the neuron's own channel to 0."""
        return weights * self.others

    def forward(
        self, filtered: Float[Tensor, "base batch time observed"], weights: Weights, context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Weigh and sum what all others did."""
        return (filtered @ weights.permute(2, 1, 0)[:, None]).sum(0)


PARTNERS = {
    "position": _NeighborPartners,
    "random": _NeighborPartners,
    "degree_matched": _NeighborPartners,
    "all": _AllPartners,
}


@interactions.register("coupled_glm")
class CoupledGlm(nn.Module):
    r"""Add to each neuron's drive its own recorded history and that of its partners, each through filters in time.

    .. math::
        z_i(t) = d_i(t) + \sum_b h_{ib}\, (y_i * \psi^h_b)(t) + \sum_{j \in N(i)} \sum_b c_{ijb}\, (y_j * \psi^c_b)(t),
        \quad (y * \psi)(t) = \sum_{l \ge 0} \psi(l)\, y(t - l)

    The parameters are K c with K the number of partners: an optimizer that moves every parameter alike (Adam) moves a
    drive by as much whatever K is, where free c overfit in a few steps. y is recorded activity as the model hands it
    on, already lagged (600 ms for calcium traces, unless the data says
    otherwise), so that l = 0 is the newest record that may be read; zeros stand before what is known. The bases psi are
    raised cosines in log-time that sum to 1, so h and c are in drive per response per bin. N(i) are the k nearest
    recorded neurons, or all, never the neuron itself; own history is there for neurons that are among the channels.

    With ``two_step`` both sums read the residual in place of y,

    .. math:: \tilde y_j(t) = y_j(t) - \mathrm{softplus}(d_j)(t), \quad \text{no gradient through } d_j,

    both taken at the bin that was recorded, where d is the drive that comes into this stage: what the stimulus explains
    cannot be taken for coupling, and couplings cannot bend the stimulus model. It stands for the residual around the
    mean over repeats, for stimuli that were shown once. softplus(d) is the rate without interaction behind link
    ``softplus``. Before the first predicted frame d is not known, and the residual counts as 0. With a frozen core and
    readout that were fitted without interaction these are the two steps proper; fitted together, they alternate within
    each step of the optimizer. It mixes drives of neurons, and needs them all.

    It reads the recorded past (or the held-in others, where the data offers those), another class than the stimulus. A
    gain is no proof of coupling: a shared latent gives one too (``latent`` is that null), and so do a smooth trace and
    a shorter lag. The nulls of *who* the partners are, are ``partners: random`` (each reads and is read by k) and
    ``degree_matched``. It never runs on its own predictions, and says nothing about whether it would be stable if it
    did. It starts at h = c = 0, which is ``none``, and so is strength 0 (:meth:`off`). ``memory_bins`` is the length of
    the longer filter.

    Cost is neurons x (k + channels / neurons) x bases x frames.

    Args:
        history_bins: length of own filters.
        history_bases: raised cosines that they are made of.
        coupling_bins: length of the filters of partners.
        coupling_bases: raised cosines that they are made of.
        partners: ``position`` (k nearest), ``random`` or ``degree_matched`` (the controls), or ``all``.
        neighbors: k.
        graph_seed: of the random graphs.
        two_step: read residuals, as above.
        l1: strength of the penalty, the mean over neurons of their summed absolute c.
        group: strength of the penalty, the mean over neurons of their summed norms of c over bases: whole pairs go.

    Raises:
        MissingFactError: no recorded channels, a graph without positions or with neurons that were not recorded, or
            ``two_step`` where those or the lag are missing.
        ValueError: more than 500 channels with ``partners: all``, more bases than bins, no records in the context, or a
            subset of neurons with ``two_step``.

    Source: Pillow et al. (2008), Nature 454, 995-999; two steps after Mahuas et al. (2020), NeurIPS 33, who take
    residuals around the mean over repeats.
    """

    history_basis: Tensor
    coupling_basis: Tensor
    own: Tensor
    of_channel: Tensor
    strength: Tensor

    def __init__(
        self,
        *,
        n_neurons: Fact[int],
        observed_channels: Fact[int],
        observed_neurons: Fact[Channels] | None = None,
        observed_lag_bins: Fact[int] | None = None,
        positions_um: Fact[Positions] | None = None,
        history_bins: Count = 10,
        history_bases: Count = 4,
        coupling_bins: Count = 15,
        coupling_bases: Count = 3,
        partners: Partners = "position",
        neighbors: Count = 32,
        graph_seed: Index = 0,
        two_step: bool = False,
        l1: NonNegative = 0.0,
        group: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        require_channels("coupled_glm", observed_channels)
        whose = np.full(observed_channels, -1) if observed_neurons is None else observed_neurons
        self.reads = Reads(information="recorded_past", population=two_step)
        self.memory_bins = max(history_bins, coupling_bins)
        self.lag_bins = _lag(whose, observed_lag_bins) if two_step else None
        self.l1, self.group = l1, group
        self.register_buffer("history_basis", raised_cosines(history_bases, history_bins), persistent=False)
        self.register_buffer("coupling_basis", raised_cosines(coupling_bases, coupling_bins), persistent=False)
        self.register_buffer("own", torch.tensor(_own_channels(whose, n_neurons)), persistent=False)
        self.register_buffer("of_channel", torch.tensor(whose), persistent=False)
        self.partners = PARTNERS[partners](partners, whose, n_neurons, positions_um, neighbors, graph_seed)
        self.coupling_weights = nn.Parameter(torch.zeros(n_neurons, self.partners.count, coupling_bases))
        held = bool((self.own >= 0).any())
        self.history_weights = nn.Parameter(torch.zeros(n_neurons, history_bases)) if held else None
        self.register_buffer("strength", torch.ones(()))

    def off(self) -> None:
        """Set history and couplings to 0, which leaves the drive as it is."""
        self.strength.zero_()

    def penalty(self) -> Float[Tensor, ""]:
        """Means over neurons of the summed absolute couplings and of the summed norms of pairs, times strengths."""
        weights = self._couplings()
        per_neuron = 1 / len(weights)
        return weighed_sum((self.l1 * per_neuron, absolute_sum, weights), (self.group * per_neuron, _norms, weights))

    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> Tensor:
        """Rates of earlier frames, which only ``two_step`` remembers: none yet."""
        return drive_0[:, None][:, :0]

    def scan(
        self, drive: Float[Tensor, "batch time neurons"], state: Tensor, context: Context
    ) -> tuple[Float[Tensor, "batch time neurons"], Tensor]:
        """Add what had been recorded up to each frame."""
        observed = records("coupled_glm", context)
        if self.lag_bins is not None:
            refuse_subset("coupled_glm", context)
            observed, state = self._residual(observed, drive, state, self.lag_bins)
        added = self._history(observed, drive.shape[1], context) + self._coupling(observed, drive.shape[1], context)
        return drive + added, state

    def history_filters(self) -> Float[Tensor, "neurons bin"]:
        """Return the filters over own history for analysis, the newest bin first; 0 where there is no own record."""
        if self.history_weights is None:
            return self.history_basis.new_zeros(len(self.own), self.history_basis.shape[1])
        return self._recorded_only(self.history_weights) @ self.history_basis

    def coupling(self, context: Context) -> Float[Tensor, "neurons observed"]:
        """Return the coupling of channels (columns) to neurons (rows), summed over time, for analysis."""
        weights = self.strength * self._couplings().sum(-1)
        if isinstance(self.partners, _AllPartners):
            return weights
        return weights.new_zeros(len(weights), len(self.of_channel)).scatter(1, self.partners.channels, weights)

    def _couplings(self) -> Weights:
        """Compute c."""
        return self.partners.masked(self.coupling_weights) / self.partners.count

    def _recorded_only(self, weights: Tensor) -> Tensor:
        return self.strength * weights * (self.own >= 0)[:, None]

    def _history(self, observed: Tensor, frames: int, context: Context) -> Tensor | float:
        if self.history_weights is None:
            return 0.0
        own = observed[..., _present(self.own, context).clamp(min=0)]
        filtered = causal_filter(own, self.history_basis, frames)
        weights = context.of_neurons(self._recorded_only(self.history_weights))
        return torch.einsum("kbtn,nk->btn", filtered, weights)

    def _coupling(self, observed: Tensor, frames: int, context: Context) -> Tensor:
        weights = self.strength * context.of_neurons(self._couplings())
        return self.partners(causal_filter(observed, self.coupling_basis, frames), weights, context)

    def _residual(self, observed: Tensor, drive: Tensor, state: Tensor, lag: int) -> tuple[Tensor, Tensor]:
        """Take from records the rates of the frames they were recorded at; 0 where those were not predicted."""
        rates = torch.cat([state, functional.softplus(drive).detach()], dim=1)
        known = min(max(0, rates.shape[1] - lag), observed.shape[1])
        expected = rates[:, : rates.shape[1] - lag][:, -known:] if known else rates[:, :0]
        residual = newest(observed, known) - expected[..., self.of_channel]
        return residual, rates[:, -(lag + self.memory_bins - 1) :]


def _own_channels(observed_neurons: Channels, n_neurons: int) -> Int[np.ndarray, " neurons"]:
    """Find each neuron's channel, -1 where it was not recorded."""
    own = np.full(n_neurons, -1)
    channels = np.flatnonzero(observed_neurons >= 0)
    own[observed_neurons[channels]] = channels
    return own


def _present(channels: Int[Tensor, " all_neurons *partner"], context: Context) -> Int[Tensor, " neurons *partner"]:
    """Pick the rows of the neurons present."""
    return channels if context.neurons is None else channels[context.neurons]


def _norms(weights: Weights) -> Float[Tensor, ""]:
    return torch.linalg.vector_norm(weights, dim=-1).sum()


def _lag(observed_neurons: Channels, lag_bins: int | None) -> int:
    """Check what residuals need: the lag, and a prediction for every channel."""
    strangers = int((observed_neurons < 0).sum())
    if lag_bins is None or strangers:
        raise MissingFactError(
            f"'coupled_glm' with two_step takes predictions from records, and was given the lag {lag_bins} and "
            f"{strangers} of {len(observed_neurons)} channels that are never predicted; set data.observed: "
            "{read: past}, or two_step: false"
        )
    return lag_bins
