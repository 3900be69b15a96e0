"""The influence of every registered normalization and interaction agrees with finite differences."""

from dataclasses import replace

import pytest
import torch
from drives import clips, population
from module_contracts import NEURONS, build, perturbed

from neuroint.analysis.influence import influence, recorded_influence
from neuroint.registry import interactions, normalizations

pytestmark = pytest.mark.slow


SLOTS = {"normalization": normalizations, "interaction": interactions}
STAGES = [
    (slot, name)
    for slot, registry in SLOTS.items()
    for name in registry.names()
    if not getattr(registry[name].factory, "on_features", False)  # before the readout there is no drive yet
]
every_stage = pytest.mark.parametrize(("slot", "name"), STAGES, ids=[f"{slot}-{name}" for slot, name in STAGES])


def shifted(inputs, role, neuron, by, frames: "slice | int" = slice(None)):
    changed = getattr(inputs, role).clone()
    changed[:, frames, neuron] += by
    return replace(inputs, **{role: changed})


@torch.no_grad()
def slope(model, inputs, role, neuron, frames: "slice | int" = slice(None), step=1e-5):
    """Central difference of all rates for a change of one neuron's drive or record at some frames."""
    up, down = (model(shifted(inputs, role, neuron, by, frames), "one") for by in (step, -step))
    return (up - down) / (2 * step)


def by_differences(model, inputs, role):
    burn_in = model.burn_in("one")
    return torch.stack([slope(model, inputs, role, j)[:, burn_in:].mean((0, 1)) for j in range(NEURONS)], dim=1)


def same_frame_by_differences(model, inputs):
    frames = range(model.burn_in("one"), inputs.n_frames)
    found = [[slope(model, inputs, "behavior", j, t)[:, t].mean(0) for j in range(NEURONS)] for t in frames]
    return torch.stack([torch.stack(row, dim=1) for row in found]).mean(0)


@every_stage
def test_influence_agrees_with_finite_differences(slot, name):
    model = population(perturbed(build(SLOTS[slot], name)), slot).eval()
    given = clips(model.burn_in("one") + 3)
    torch.testing.assert_close(
        influence(model, "one", given), by_differences(model, given, "behavior"), rtol=1e-5, atol=1e-8
    )


@pytest.mark.slow
@every_stage
def test_same_frame_influence_agrees_with_finite_differences(slot, name):
    model = population(perturbed(build(SLOTS[slot], name)), slot).eval()
    given = clips(model.burn_in("one") + 2, batch=1)
    found = influence(model, "one", given, over="same_frame")
    torch.testing.assert_close(found, same_frame_by_differences(model, given), rtol=1e-5, atol=1e-8)


@every_stage
def test_recorded_influence_agrees_with_finite_differences(slot, name):
    model = population(perturbed(build(SLOTS[slot], name)), slot).eval()
    given = clips(model.burn_in("one") + 3)
    if not model.reads_recorded:
        with pytest.raises(ValueError, match=r"the model reads records: False.*ask influence\(\)"):
            recorded_influence(model, "one", given)
        return
    found = recorded_influence(model, "one", given)
    torch.testing.assert_close(found, by_differences(model, given, "observed"), rtol=1e-5, atol=1e-8)
    assert found.abs().max() > 0
