"""The filter of a neuron's own drives, against NumPy's convolution."""

import numpy as np
import pytest
import torch

from neuroint.modules.base import Context
from neuroint.modules.interaction.own_drive_filter import OwnDriveFilter

N, LAGS = 3, 4


def given(**options):
    stage = OwnDriveFilter(n_neurons=N, lags=LAGS, **options).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        stage.weights.normal_(generator=generator)
    return stage, torch.randn(2, 20, N, generator=generator, dtype=torch.float64)


def run(stage, drive, context=None):
    context = context or Context()
    return stage.scan(drive, stage.initial_state(drive[:, 0], context), context)


@pytest.mark.parametrize("per_neuron", [True, False])
def test_it_is_a_causal_convolution_of_each_neurons_drive(per_neuron):
    stage, drive = given(per_neuron=per_neuron)
    weights = stage.weights.detach().numpy()
    expected = np.zeros((2, 20, N))
    for clip in range(2):
        for i in range(N):
            kernel = np.concatenate([[1.0], weights[i if per_neuron else 0]])
            expected[clip, :, i] = np.convolve(drive[clip, :, i].numpy(), kernel)[:20]
    torch.testing.assert_close(run(stage, drive)[0], torch.tensor(expected))


def test_a_pulse_comes_back_as_the_weights():
    stage, _ = given()
    pulse = torch.zeros(1, 8, N, dtype=torch.float64)
    pulse[0, 2] = 1
    out, _ = run(stage, pulse)
    torch.testing.assert_close(out[0, 3 : 3 + LAGS], stage.weights.detach().T)
    assert (out[0, 3 + LAGS :] == 0).all()


def test_it_starts_as_the_drive():
    drive = torch.randn(1, 5, N)
    assert torch.equal(run(OwnDriveFilter(n_neurons=N), drive)[0], drive)


def test_the_memory_is_as_long_as_the_filter():
    stage, drive = given()
    assert stage.memory_bins == LAGS
    other = drive.clone()
    other[:, 0] += 1
    differs = (run(stage, other)[0] != run(stage, drive)[0]).any((0, 2))
    assert differs[: LAGS + 1].all()
    assert not differs[LAGS + 1 :].any()


def test_neurons_present_use_their_own_weights():
    stage, drive = given()
    chosen = torch.tensor([2, 0])
    part, _ = run(stage, drive[..., chosen], Context(neurons=chosen))
    torch.testing.assert_close(part, run(stage, drive)[0][..., chosen])
