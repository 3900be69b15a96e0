"""Say which arms are larger or dearer than the reference, and which registered control would be matched to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from neuroint.config import Spec, TrialConfig

TOLERANCE = 0.1  # share by which parameters or operations may differ
PERMUTED = ("permuted_positions", "permuted_identities")
LONGEST_FILTER = 40  # lags of a filter that stands for more parameters: longer, and a crop is all burn-in


@dataclass(frozen=True)
class Size:
    """What an arm has to learn with, and what a step of it costs."""

    parameters: int
    flops: int

    def matches(self, other: Size) -> bool:
        """Whether both are within the tolerance of the other's."""
        pairs = ((self.parameters, other.parameters), (self.flops, other.flops))
        return all(abs(mine - theirs) <= TOLERANCE * theirs for mine, theirs in pairs)

    def against(self, other: Size) -> str:
        """Both numbers of both."""
        parameters = f"{self.parameters:,} parameters against {other.parameters:,}"
        flops = f"{self.flops / 1e9:.3g} GFLOP a step against {other.flops / 1e9:.3g}"
        changes = _change(self.parameters, other.parameters), _change(self.flops, other.flops)
        return f"{parameters} ({changes[0]}), {flops} ({changes[1]})"


def _change(mine: int, theirs: int) -> str:
    return f"{100 * (mine / theirs - 1):+.0f} %" if theirs else "from nothing"


def fair_control(
    config: TrialConfig, size: Size, reference: TrialConfig, extra_per_neuron: float, measure: Callable[..., Size]
) -> str | None:
    """Find a registered control whose size is that of an arm, as it is written in YAML; None where there is none.

    Candidates are tried in turn: the arm's design on permuted positions, then on permuted identities, then what has as
    many parameters for a neuron alone.

    Args:
        config: of the arm.
        size: of the arm.
        reference: what the arm is compared with; what it has, too, needs no control.
        extra_per_neuron: parameters of the arm beyond the reference's, for every neuron.
        measure: a configuration's size; ``ValueError`` if it cannot be built.
    """
    for slot, spec in _controls(config, reference, extra_per_neuron):
        try:
            found = measure(replace(config, specs={**config.specs, slot: spec}))
        except ValueError:  # this control does not suit this design or this data: the next one may
            continue
        if found.matches(size):
            return f"{slot}: {_written({'name': spec.name, **spec.options})}"
    return None


def has_controls(config: TrialConfig, reference: TrialConfig, extra_per_neuron: float) -> bool:
    """Whether any registered control stands against an arm: none does against a control, or another core."""
    return any(True for _ in _controls(config, reference, extra_per_neuron))


def _controls(config: TrialConfig, reference: TrialConfig, extra_per_neuron: float) -> Iterator[tuple[str, Spec]]:
    lags = min(max(round(extra_per_neuron), 1), LONGEST_FILTER)
    alone = {"interaction": Spec("own_drive_filter", {"lags": lags}), "normalization": Spec("static_saturation")}
    for slot, without_others in alone.items():
        spec = config.specs[slot]
        if spec == reference.specs[slot] or spec.name in (*PERMUTED, without_others.name, "none"):
            continue
        yield from ((slot, Spec(control, {"of": {"name": spec.name, **spec.options}})) for control in PERMUTED)
        yield slot, without_others


def _written(spec: dict[str, Any]) -> str:
    """YAML's flow style, which JSON nearly is."""
    return json.dumps(spec).replace('"', "")
