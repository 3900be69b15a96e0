"""The simulated torus of grid cells: its connectivity by hand, its lattice, its walks, and its files."""

import numpy as np
import pytest

from neuroint.data.opening import open_sessions
from neuroint.data.simulators.ring_parts.network import initial_state, run, torus_network, walks
from neuroint.data.simulators.torus import simulate_torus

BETA = 3 / 13**2


def test_the_connectivity_is_a_difference_of_gaussians_and_its_derivatives():
    network = torus_network(32)
    assert network.recurrent[0, 0] == 0
    expected = 5 * (np.exp(-1.05 * BETA * 25) - np.exp(-BETA * 25))  # 3 to the right, 4 up
    assert network.recurrent[0, 3 + 4 * 32] == pytest.approx(expected)
    assert network.recurrent[0, 29 + 28 * 32] == pytest.approx(expected)  # around the torus
    slope = 5 * BETA * (1.05 * np.exp(-1.05 * BETA * 25) - np.exp(-BETA * 25)) * -2
    assert network.shifting[0, 3 + 4 * 32, 0] == pytest.approx(3 * slope)
    assert network.shifting[1, 3 + 4 * 32, 0] == pytest.approx(4 * slope)
    assert network.shifting[1, 0, 3 + 4 * 32] == pytest.approx(-4 * slope)
    assert (network.leak, network.bias) == (0.2, 1.0)


@pytest.mark.slow
def test_bumps_stand_in_a_hexagonal_lattice_that_moves_with_the_animal():
    random = np.random.default_rng(0)
    velocity, places = walks(4, 250, 0.02, random)
    state = initial_state(256, np.random.default_rng(0))
    rates = run(
        torus_network(16), velocity, state=state, noise=0.0, settle=400, nonlinearity="rectified_tanh", random=random
    )
    waves = np.fft.fft2(rates.reshape(4, 250, 16, 16))
    power = (np.abs(waves) ** 2).mean(axis=(0, 1))
    power[0, 0] = 0
    strongest = np.argsort(-power.ravel())[:6]
    found = [(np.array(np.unravel_index(k, power.shape)) + 8) % 16 - 8 for k in strongest]
    lengths = [np.hypot(*wave) for wave in found]
    assert max(lengths) / min(lengths) < 1.3, "six waves of nearly the same length"
    angles = np.sort([np.degrees(np.arctan2(*wave)) for wave in found])
    np.testing.assert_allclose(np.diff(angles), 60, atol=7)  # a torus of 16 x 16 holds no perfect hexagons
    one = np.unwrap(np.angle(waves.reshape(4, 250, -1)[..., strongest[0]]), axis=1)
    moved, walked = one[:, 50:] - one[:, :-50], places[:, 50:] - places[:, :-50]
    design = walked.reshape(-1, 2)
    fitted = design @ np.linalg.lstsq(design, moved.ravel(), rcond=None)[0]
    assert np.corrcoef(fitted, moved.ravel())[0, 1] > 0.9


def test_walks_stay_in_the_arena_and_places_are_sums_of_steps():
    velocity, places = walks(20, 2000, 0.02, np.random.default_rng(0))
    assert 1.0 < np.abs(places).max() < 1.1
    np.testing.assert_allclose(places, np.cumsum(0.02 * velocity, axis=1), atol=1e-9)
    speed = np.linalg.norm(velocity, axis=2)
    assert speed[speed > 0].mean() == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.02)


def test_it_is_read_as_a_session_with_two_channels_of_velocity(tmp_path):
    (session,) = open_sessions(simulate_torus(tmp_path / "out", frames=20))
    assert (session.name, session.facts.n_neurons, session.facts.behavior_channels) == ("torus", 100, 2)
    assert session.facts.bin_s == 0.02
    assert np.load(tmp_path / "out" / "torus" / "truth" / "Wv.npy").shape == (2, 100, 100)
    rates = np.load(tmp_path / "out" / "torus" / "rates.npy")
    assert rates.shape == (12, 20, 100)
    assert 0.02 < rates.mean() < 0.1


def test_a_place_that_is_occupied_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match=r"simulator 'torus': .*out is a file; give a folder"):
        simulate_torus(tmp_path / "out")
