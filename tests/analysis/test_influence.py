"""Influence matrices by hand, in bounded memory, and what they refuse; finite differences are among the contracts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drives import EMBEDDING, clips, population
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuroint.analysis.influence import influence, recorded_influence
from neuroint.modules.base import Reads
from neuroint.modules.interaction.linear_autoregressive import LinearAutoregressive
from neuroint.modules.interaction.none import NoInteraction
from neuroint.modules.link import Identity
from neuroint.registry import interactions


def autoregressive(coefficients):
    stage = LinearAutoregressive(n_neurons=len(coefficients), lags=len(coefficients[0]), bound=0.9).double()
    wanted = torch.tensor(coefficients, dtype=torch.float64) / 0.9
    with torch.no_grad():
        stage.raw_coefficients.copy_(wanted / (1 - wanted.abs().sum(1, keepdim=True)))
    return stage


def test_of_an_autoregression_it_is_the_sum_of_the_impulse_response_up_to_each_frame():
    coefficients = [[0.5, -0.2], [0.1, 0.3]]
    model = population(autoregressive(coefficients), link=Identity(), neurons=2)
    burn_in = model.burn_in("one")
    frames = burn_in + 5
    expected = []
    for a in coefficients:
        impulse = np.zeros(frames)
        for t in range(frames):
            impulse[t] = float(t == 0) + sum(a[k] * impulse[t - 1 - k] for k in range(2) if t > k)
        expected.append(np.cumsum(impulse)[burn_in:].mean())
    found = influence(model, "one", clips(frames, 2))
    torch.testing.assert_close(found, torch.diag(torch.tensor(expected, dtype=torch.float64)), rtol=1e-10, atol=0)
    # long after its start a sustained change is answered by 1 / (1 - sum of coefficients)
    np.testing.assert_allclose(expected, [1 / 0.7, 1 / 0.6], rtol=1e-4)


def test_of_an_autoregression_the_same_frame_part_is_the_slope_of_the_link():
    model = population(autoregressive([[0.5, -0.2], [0.1, 0.3]]), link=Identity(), neurons=2)
    found = influence(model, "one", clips(model.burn_in("one") + 4, 2), over="same_frame")
    torch.testing.assert_close(found, torch.eye(2, dtype=torch.float64))


def test_without_interaction_it_is_the_mean_slope_of_the_link_on_the_diagonal():
    given = clips(7)
    found = influence(population(NoInteraction()), "one", given)
    torch.testing.assert_close(found, torch.diag(torch.sigmoid(given.behavior).mean((0, 1))))


class Sums(nn.Module):
    """Adds to the first neuron's drive twice what was recorded of the second one, and thrice what was before that."""

    reads = Reads(information="recorded_past", population=True)
    memory_bins = 1

    def forward(self, drive, context):
        now = context.observed
        before = nn.functional.pad(now, (0, 0, 1, 0))[:, :-1]
        added = torch.zeros_like(drive)
        added[..., 0] = 2 * now[..., 1] + 3 * before[..., 1]
        return drive + added


def test_of_records_it_is_the_sum_of_the_weights_of_all_lags():
    model = population(Sums(), link=Identity(), lag=2)
    found = recorded_influence(model, "one", clips(model.burn_in("one") + 4))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[0, 1] = 5
    torch.testing.assert_close(found, expected)


def test_a_change_of_drives_does_not_pass_through_records():
    model = population(Sums(), link=Identity(), lag=2)
    found = influence(model, "one", clips(model.burn_in("one") + 4))
    torch.testing.assert_close(found, torch.eye(5, dtype=torch.float64))


# --- samples, memory, refusals


def fitted(neurons=5):
    torch.manual_seed(0)
    stage = interactions["attention"].build(
        {"position": "none", "heads": 1, "head_width": 2},
        {"n_neurons": neurons, "embedding_channels": EMBEDDING, "positions_um": None},
    )
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return population(stage.double(), neurons=neurons)


def test_a_sample_of_targets_is_those_rows():
    given = clips(5)
    whole = influence(fitted(), "one", given)
    torch.testing.assert_close(influence(fitted(), "one", given, targets=[3, 0]), whole[[3, 0]])


def test_clips_weigh_the_same():
    given = clips(5)
    parts = [influence(fitted(), "one", given.map(lambda x, clip=clip: x[clip : clip + 1])) for clip in range(2)]
    torch.testing.assert_close(influence(fitted(), "one", given), sum(parts) / 2)


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(out) if torch.is_tensor(x)]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize("over", ["past", "same_frame"])
def test_no_tensor_is_larger_than_those_of_a_training_step(over):
    neurons, frames = 60, 40
    model, given = fitted(neurons), clips(frames, neurons, batch=1)
    with Largest() as step:
        model(given, "one").sum().backward()
    with Largest() as counted:
        influence(model, "one", given, over=over)
    assert counted.elements <= max(step.elements, neurons * frames, neurons * neurons) < neurons * neurons * frames


def test_the_model_is_left_as_it_was():
    model = fitted().train()
    model.link.eval()
    influence(model, "one", clips(5))
    assert model.training
    assert not model.link.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_clips_shorter_than_the_burn_in_are_refused():
    model = population(autoregressive([[0.5, -0.2], [0.1, 0.3]]), neurons=2)
    short = model.burn_in("one") - 2
    with pytest.raises(ValueError, match=rf"give {short} predicted frames, all within.*at least 3 frame\(s\) longer"):
        influence(model, "one", clips(short, 2))


def test_targets_that_are_no_neurons_are_refused():
    with pytest.raises(ValueError, match=r"targets \[-1, 9\] are not neurons; expected indices from 0 to 4"):
        influence(fitted(), "one", clips(5), targets=[-1, 2, 9])


def test_records_are_asked_for_where_the_inputs_hold_none():
    model = population(Sums())
    with pytest.raises(ValueError, match=r"reads records: True, the inputs hold some: False; give both"):
        recorded_influence(model, "one", replace(clips(9), observed=None))
