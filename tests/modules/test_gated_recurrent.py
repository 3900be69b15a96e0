"""A gate between the last rate and the driven one, against the equation in NumPy."""

import numpy as np
import pytest
import torch
from coupling_worlds import N, context, design, drives, moved, rates, recorded
from torch.nn import functional


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gate(stage, drive, last):
    value = {name: parameter.detach().numpy() for name, parameter in stage.named_parameters()}
    e = context().embedding.numpy()
    e = e / np.sqrt((e**2).mean(1, keepdims=True))
    logit = value["of_drive"] * np.arcsinh(drive) + value["of_rate"] * np.arcsinh(last)
    logit = logit + e @ value["of_embedding.weight"][0] + value["of_embedding.bias"]
    return stage.least_update + (1 - stage.least_update) * sigmoid(logit)


@pytest.mark.parametrize("fed", ["predictions", "recorded"])
def test_behind_softplus_the_rate_is_the_gated_mean(fed):
    stage, observed = moved(design("gated_recurrent", fed=fed)), recorded()
    last, expected = np.zeros((2, N)), []
    for t in range(drives().shape[1]):
        last = observed[:, t].numpy() if fed == "recorded" else last
        u = gate(stage, drives()[:, t].numpy(), last)
        last = (1 - u) * last + u * np.log1p(np.exp(drives()[:, t].numpy()))
        expected.append(last)
    found = rates(stage, drives(), context(observed)).detach()
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-11)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("link", [functional.softplus, lambda x: functional.elu(x) + 1, torch.exp, lambda x: x])
def test_the_drive_stays_within_the_drives_so_far_for_any_parameter_and_link(seed, link):
    stage = moved(design("gated_recurrent"), scale=10.0 ** (seed % 5 - 1), seed=seed)
    drive, kept = drives(scale=3.0, frames=30, seed=seed), []
    rates(stage, drive, context(), link=lambda z: kept.append(z) or link(z))
    z = torch.stack(kept, 1)
    assert (z <= drive.cummax(1).values + 1e-9).all()
    assert functional.softplus(z).min() >= 0
    later = z[:, 1:]  # from the second frame on, nothing falls below the least of the last z and the drive
    assert (later >= torch.minimum(z[:, :-1], drive[:, 1:]) - 1e-9).all()


def test_a_gate_that_hardly_opens_forgets_the_start_within_its_memory():
    stage = design("gated_recurrent", least_update=0.1)
    torch.nn.init.constant_(stage.of_embedding.bias, -50.0)  # u is its floor
    ends = []
    for start in (0.0, 1.0):
        state = torch.full((1, N), max(start, 1e-30), dtype=torch.float64).log()
        for _ in range(stage.memory_bins):
            z, state = stage.step(torch.zeros(1, N).double(), torch.zeros(1, N).double(), state, context())
        ends.append(functional.softplus(z))
    assert stage.memory_bins == 29
    assert (ends[1] - ends[0]).max().item() == pytest.approx(0.9**29)


def test_it_starts_almost_open():
    stage = design("gated_recurrent")
    u = stage.update(drives()[:, 0], torch.ones(2, N).double(), context())
    torch.testing.assert_close(u, torch.full_like(u, 0.1 + 0.9 * sigmoid(3.0)))


def test_open_gates_are_exactly_the_drive():
    stage = moved(design("gated_recurrent"))
    stage.off()
    drive = drives(scale=1e-7)
    kept = []
    rates(stage, drive, context(), link=lambda z: kept.append(z) or functional.softplus(z))
    assert torch.equal(torch.stack(kept, 1), drive)


def test_negative_records_count_as_silence():
    stage = moved(design("gated_recurrent", fed="recorded"))
    torch.nn.init.zeros_(stage.of_rate)
    silent, negative = (rates(stage, drives(), context(torch.full_like(recorded(), x))) for x in (0.0, -3.0))
    torch.testing.assert_close(silent, negative)
