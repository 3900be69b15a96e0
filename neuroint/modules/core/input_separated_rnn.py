"""The recurrent network whose driven units may be kept apart from those that are observed."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.penalties import weighed_sum
from neuroint.modules.rectified_scan import Scanned, rectified_scan
from neuroint.registry import Count, Fact, Index, NonNegative, OpenShare, cores

State = tuple[Tensor | None, int]


@cores.register("input_separated_rnn")
class InputSeparatedRnn(nn.Module):
    r"""Let recurrent units go on by themselves from the activity recorded first, driven by behavior alone.

    .. math:: r_t = \max(0, \tanh(u_{t-1} W + b + [0; W_{in} v_t + b_{in}])), \quad
        u_t = (1 - \alpha) u_{t-1} + \alpha r_t

    The first ``observed_channels`` units stand for the recorded neurons, whose rates are the features ``batch time
    observed 1 1``; ``hidden`` units follow. Behavior v reaches the last ``driven`` units. Before the first frame u is
    the activity recorded ``lag`` frames before it, and 0 for hidden units: after that nothing recorded is read, so that
    any clip is an open-loop rollout. Frames before the first known record are 0 and belong to the burn-in. A clip in
    chunks equals the clip whole.

    When driven and observed units are disjoint, the coupling among observed units must explain what does not depend on
    the input, and what does must pass through hidden units. Information class: recorded past (the first known frame
    alone) and behavior. A step costs one product of units x units per frame; memory is two numbers per unit and frame.
    Behind it stand readout ``observed_units``, link ``identity`` and objective ``mse``. Its nulls: the same network
    with ``separated: false`` and no hidden units, and, for couplings, units shuffled (``neuroint.analysis.ring``).

    Args:
        hidden: units beyond the observed ones.
        driven: units that behavior reaches, the last ones; None means all hidden ones when separated, and all units
            when not.
        separated: refuse to drive an observed unit.
        alpha: share of the state that is new in every frame.
        rank: of W; None means full.
        weight_l1: weight of the mean absolute entry of W, beside a loss per response.
        weight_l2: weight of the mean squared entry of W.
        rate_l1: weight of the mean rate of all units.
        rate_l2: weight of the mean squared rate of all units.

    Raises:
        ValueError: driven units overlap with observed ones although separated, exceed all units, or are none.

    Source: Liu, "Neural system identification" (github.com/liuyuezhang/nsi); Zhang (1996), J Neurosci 16, 2112-2126.
    """

    reads: ClassVar[Reads] = Reads(information="recorded_past", population=True)

    def __init__(
        self,
        *,
        observed_channels: Fact[int],
        behavior_channels: Fact[int],
        observed_lag_bins: Fact[int] = 1,
        hidden: Index = 100,
        driven: Count | None = None,
        separated: bool = True,
        alpha: OpenShare = 0.2,
        rank: Count | None = None,
        weight_l1: NonNegative = 0.0,
        weight_l2: NonNegative = 0.0,
        rate_l1: NonNegative = 0.0,
        rate_l2: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.observed, self.units = observed_channels, observed_channels + hidden
        free = hidden if separated else self.units
        self.driven = free if driven is None else driven
        _check(self.driven, free, separated, observed_channels, behavior_channels)
        self.lag, self.alpha, self.lost_frames = observed_lag_bins, alpha, 0
        self.feature_shape = (observed_channels, 1, 1)
        self.weight_strengths, self.rate_strengths = (weight_l1, weight_l2), (rate_l1, rate_l2)
        self.factors = nn.ParameterList(_drawn_factors(self.units, rank))
        self.bias = nn.Parameter(torch.zeros(self.units))
        self.input = nn.Linear(behavior_channels, self.driven)
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.input.bias)
        self._activity: Tensor | None = None

    def connectivity(self) -> Float[Tensor, "units units"]:
        """W: row i leads from unit i to the unit of each column; observed units come first, driven ones last."""
        first, *others = self.factors
        return first @ others[0].t() if others else first

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time observed 1 1"]:
        """Return rates of the observed units from the start of a clip."""
        return self.scan(inputs, None)[0]

    def scan(self, inputs: Inputs, state: State | None) -> tuple[Float[Tensor, "batch time observed 1 1"], State]:
        """Go on from the state that the frames before left behind; None means the start of a clip."""
        found, unknown, state = self._followed(inputs, state)
        if found is None:
            return self.bias.new_zeros(inputs.n_batch, unknown, *self.feature_shape), state
        if self.training and any(self.rate_strengths):
            self._activity = found.rates
        shown = functional.pad(found.shown, (0, 0, unknown, 0)) if unknown else found.shown
        return shown[..., None, None], state

    def activity(self, inputs: Inputs) -> Float[Tensor, "batch time units"]:
        """Return rates of all units from the start of a clip; 0 before the first known record."""
        found, unknown, _ = self._followed(inputs, None)
        if found is None:
            return self.bias.new_zeros(inputs.n_batch, unknown, self.units)
        return functional.pad(found.rates.transpose(0, 1), (0, 0, unknown, 0))

    def _followed(self, inputs: Inputs, state: State | None) -> tuple[Scanned | None, int, State]:
        """Follow the units; how many first frames nothing is known in; u behind the last frame, and frames seen."""
        start, seen = (None, 0) if state is None else state
        behavior, observed = _given(inputs)
        unknown, after = min(max(0, self.lag - seen), inputs.n_frames), seen + inputs.n_frames
        if unknown == inputs.n_frames:
            return None, unknown, (start, after)
        if start is None:
            start = functional.pad(observed[:, unknown], (0, self.units - self.observed))
        drive = self.input(behavior[:, unknown:])
        found = rectified_scan(drive, start, self.connectivity(), self.bias, self.alpha, self.observed)
        return found, unknown, (found.last, after)

    def penalty(self) -> Float[Tensor, ""]:
        """Weigh the mean absolute and squared entries of W."""
        l1, l2 = self.weight_strengths
        w = self.connectivity()
        return weighed_sum((l1, _mean_absolute, w), (l2, _mean_square, w))

    def activity_penalty(self) -> Float[Tensor, ""]:
        """Weigh the mean absolute and squared rates of the last pass in training; it can be asked for once."""
        rates, self._activity = self._activity, None
        if rates is None:
            return self.bias.new_zeros(())
        l1, l2 = self.rate_strengths
        return weighed_sum((l1, _mean_absolute, rates), (l2, _mean_square, rates))


def _check(driven: int, free: int, separated: bool, observed: int, behavior: int) -> None:
    if behavior < 1 or observed < 1:
        raise ValueError(
            f"core 'input_separated_rnn': {observed} recorded and {behavior} behavior channels; it needs both: set "
            "data.observed: past and give the recording behavior"
        )
    if not 1 <= driven <= free:
        kept = "hidden units (driven and observed units are separated)" if separated else "units"
        raise ValueError(
            f"core 'input_separated_rnn': {driven} driven units, expected 1 to the {free} {kept}; change driven or "
            "hidden, or set separated: false"
        )


def _drawn_factors(units: int, rank: int | None) -> list[nn.Parameter]:
    """Draw W as Glorot does, or two factors whose product has the same variance, 1 / units."""
    if rank is None:
        return [nn.Parameter(nn.init.xavier_uniform_(torch.empty(units, units)))]
    return [nn.Parameter(torch.randn(units, rank) / (units * rank) ** 0.25) for _ in range(2)]


def _given(inputs: Inputs) -> tuple[Tensor, Tensor]:
    if inputs.behavior is None or inputs.observed is None:
        missing = "behavior" if inputs.behavior is None else "recorded activity"
        raise ValueError(f"core 'input_separated_rnn': the inputs have no {missing}; set data.observed: past")
    return inputs.behavior, inputs.observed


def _mean_absolute(x: Tensor) -> Tensor:
    return x.abs().mean()


def _mean_square(x: Tensor) -> Tensor:
    return x.square().mean()
