"""The energies are those of the filters in the equation, and answer as energies should."""

import math

import numpy as np
import pytest
import torch

from neuroint.data.base import Inputs
from neuroint.modules.core.gabor_energy import EnergyBank, GaborEnergy

SIDE = 41
MIDDLE = 10  # places are two pixels apart: pixel 20


def bank(*waves, envelope=0.6):
    return EnergyBank((1, SIDE, SIDE), list(waves), envelope, cells=3, window=0.3)


def energy(image, *waves):
    found = bank(*waves).energies(torch.as_tensor(image, dtype=torch.float32)[None, None])
    return found[0, 0, :, MIDDLE, MIDDLE].numpy()


def grating(wavelength, angle, phase=0.0):
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.cos(2 * np.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength + phase)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_energies_equal_a_sum_over_the_filter_of_the_equation(angle):
    image, wavelength = np.random.default_rng(0).normal(size=(SIDE, SIDE)), 5.0
    y, x = np.mgrid[:SIDE, :SIDE] - 20.0
    gauss = np.exp(-(x**2 + y**2) / (2 * (0.6 * wavelength) ** 2))
    wave = np.exp(2j * np.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength)
    balanced = gauss * (wave - (gauss * wave).sum() / gauss.sum()) / np.sqrt((gauss**2).sum())
    expected = abs((image * balanced).sum()) ** 2
    assert energy(image, (wavelength, angle)) == pytest.approx([expected], rel=1e-4)


def test_a_uniform_image_has_no_energy():
    assert energy(np.full((SIDE, SIDE), 3.0), (3.0, 0.0), (5.0, 1.0)) == pytest.approx([0, 0], abs=1e-8)


def test_the_energy_of_a_grating_hardly_depends_on_its_phase():
    found = [energy(grating(6.0, 0.7, phase), (6.0, 0.7))[0] for phase in np.linspace(0, np.pi, 7)]
    assert np.ptp(found) < 0.03 * np.mean(found)


def test_the_filter_of_the_gratings_orientation_and_wavelength_answers_most():
    waves = [(wavelength, angle) for wavelength in (4.0, 8.0) for angle in (0.0, math.pi / 4, math.pi / 2)]
    for index, wave in enumerate(waves):
        assert energy(grating(*wave), *waves).argmax() == index


def test_white_noise_of_unit_variance_has_energy_one():
    images = torch.randn(400, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = bank((4.0, 0.3)).energies(images)[:, 0, 0, 4:-4, 4:-4]
    assert float(found.mean()) == pytest.approx(1.0, abs=0.03)


def test_without_learned_layers_nothing_is_fitted_and_every_wave_is_a_feature():
    core = GaborEnergy(stimulus_shape=(1, 20, 24), wavelengths_px=(3.0, 6.0), orientations=3, cells=4)
    assert not list(core.parameters())
    assert core.feature_shape == (7, 4, 4)


def test_the_last_feature_is_the_blurred_stimulus():
    core = GaborEnergy(stimulus_shape=(1, 20, 20), cells=2, window=0.1).eval()  # running statistics are 0 and 1
    image = torch.zeros(1, 1, 1, 20, 20)
    image[..., :10, 10:] = 2.0  # upper right
    blurred = core(Inputs(stimulus=image))[0, 0, -1]
    expected = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(blurred, expected, atol=1e-3, rtol=1e-3)


def test_no_wavelength_is_refused():
    with pytest.raises(ValueError, match=r"got no wavelengths_px; give at least one"):
        GaborEnergy(stimulus_shape=(1, 20, 20), wavelengths_px=())


def test_kernels_larger_than_the_grid_of_windows_are_refused():
    with pytest.raises(ValueError, match=r"need at least 6 windows per side, there are 5"):
        GaborEnergy(stimulus_shape=(1, 20, 20), channels=(4,), spatial_kernels=(6,))


def test_learned_layers_without_kernels_are_refused():
    with pytest.raises(ValueError, match=r"give one of each per layer"):
        GaborEnergy(stimulus_shape=(1, 20, 20), channels=(4,))


def test_every_image_and_channel_is_filtered_by_itself():
    images = torch.randn(3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    together = EnergyBank((2, SIDE, SIDE), [(4.0, 0.3), (7.0, 1.0)], 0.6, cells=3, window=0.3).energies(images)
    for image, channel in ((0, 1), (2, 0)):
        alone = energy(images[image, channel], (4.0, 0.3), (7.0, 1.0))
        np.testing.assert_allclose(together[image, channel, :, MIDDLE, MIDDLE].numpy(), alone, rtol=1e-4)
