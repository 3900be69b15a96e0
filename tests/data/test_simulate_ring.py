"""The simulated head-direction ring: its connectivity by hand, its dynamics, its files, and how they are read."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.data.base import TRAIN, DataError
from neuroint.data.opening import open_sessions
from neuroint.data.simulators.ring import simulate_ring
from neuroint.data.simulators.ring_parts.network import (
    NONLINEARITIES,
    Network,
    head_turns,
    initial_state,
    ring_network,
    run,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return simulate_ring(tmp_path_factory.mktemp("ring") / "out")


def phase(rates):
    units = rates.shape[2]
    return np.angle((rates * np.exp(2j * np.pi * np.arange(units) / units)).sum(axis=2))


def test_the_connectivity_is_the_published_one():
    network = ring_network(100)
    assert network.recurrent[3, 3] == pytest.approx(0.1 - 0.03)
    assert network.recurrent[3, 53] == pytest.approx(0.1 * np.cos(0.06 * 50) - 0.03)
    assert network.recurrent[2, 99] == pytest.approx(0.1 * np.cos(0.06 * 3) - 0.03)  # around the ring
    assert network.shifting[0, 10, 4] == pytest.approx(0.02 * -0.1 * 0.06 * np.sin(0.06 * 6) * 6)
    assert network.shifting[0, 4, 10] == pytest.approx(0.02 * -0.1 * 0.06 * np.sin(0.06 * 6) * -6)
    assert np.abs(network.shifting).max() == pytest.approx(0.00364, abs=2e-5)
    assert network.leak == 1.0


def test_a_smaller_ring_keeps_the_sum_of_what_a_unit_gets():
    small, large = ring_network(20), ring_network(100)
    np.testing.assert_allclose(small.recurrent.sum(axis=0), large.recurrent.sum(axis=0)[0], rtol=0.02)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_the_bump_follows_the_velocity_at_gain_one_against_the_order_of_units(nonlinearity):
    random = np.random.default_rng(0)
    velocity, _ = head_turns(8, 300, 0.025, random)
    state = initial_state(100, np.random.default_rng(0))
    rates = run(
        ring_network(100), velocity, state=state, noise=0.1, settle=300, nonlinearity=nonlinearity, random=random
    )
    moved = np.angle(np.exp(1j * np.diff(phase(rates), axis=1))) / 0.025
    asked = velocity[:, 1:, 0]
    assert np.corrcoef(moved.ravel(), asked.ravel())[0, 1] < -0.99
    assert np.polyfit(asked.ravel(), moved.ravel(), 1)[0] == pytest.approx(-1.05, abs=0.04)
    assert rates.max(axis=2).mean() == pytest.approx(0.9, abs=0.12)


def test_activity_is_that_of_the_reference():
    """Peak .920 at most, mean .275, 40.3 % of units active, gain -1.020: the reference's own figures."""
    random = np.random.default_rng(0)
    velocity, _ = head_turns(10, 400, 0.025, random)
    state = initial_state(100, np.random.default_rng(0))
    rates = run(
        ring_network(100), velocity, state=state, noise=0.1, settle=500, nonlinearity="rectified_tanh", random=random
    )
    assert rates.mean() == pytest.approx(0.275, abs=0.002)
    assert (rates > 0).mean() == pytest.approx(0.403, abs=0.004)
    moved = np.angle(np.exp(1j * np.diff(phase(rates), axis=1))) / 0.025
    assert np.polyfit(velocity[:, 1:, 0].ravel(), moved.ravel(), 1)[0] == pytest.approx(-1.02, abs=0.004)


def test_one_step_is_the_equation():
    network = Network(np.array([[0.5, -1.0], [2.0, 0.25]]), np.array([[[0.0, 3.0], [0.5, 0.0]]]), leak=0.5)
    velocity = np.array([[[2.0], [0.0]]])
    arguments = {"state": np.array([0.4, 0.2]), "noise": 0.0, "settle": 0, "random": np.random.default_rng(0)}
    rates = run(network, velocity, nonlinearity="rectified_tanh", **arguments)
    first = np.tanh([0.5 * 0.4 + 2 * 0.2 + 2 * 3 * 0.2, -0.4 + 0.25 * 0.2 + 2 * 0.5 * 0.4])
    np.testing.assert_allclose(rates[0, 0], first, rtol=1e-6)
    u = 0.5 * np.array([0.4, 0.2]) + 0.5 * first
    second = np.maximum(np.tanh([0.5 * u[0] + 2 * u[1], -u[0] + 0.25 * u[1]]), 0)
    np.testing.assert_allclose(rates[0, 1], second, rtol=1e-6)


def test_noise_has_the_length_it_is_given():
    network = Network(np.eye(50), np.zeros((1, 50, 50)))
    arguments = {"state": np.ones(50), "settle": 0, "random": np.random.default_rng(0)}
    rates = run(network, np.zeros((1, 1, 1)), noise=0.3, nonlinearity="threshold_power", **arguments)
    assert np.linalg.norm((rates[0, 0] / 0.74) ** 2 - 1) == pytest.approx(0.3, rel=1e-4)


def test_velocity_is_autoregressive_and_heading_its_sum():
    velocity, heading = head_turns(200, 400, 0.025, np.random.default_rng(0))
    late = velocity[:, 50:, 0]
    assert late.std() == pytest.approx(2.0, rel=0.02)
    assert np.corrcoef(late[:, 1:].ravel(), late[:, :-1].ravel())[0, 1] == pytest.approx(0.8, abs=0.01)
    assert heading[0, 0, 0] == pytest.approx(np.pi + velocity[0, 0, 0] * 0.025)
    turned = np.angle(np.exp(1j * np.diff(heading[..., 0], axis=1)))
    np.testing.assert_allclose(turned, velocity[:, 1:, 0] * 0.025, atol=1e-9)


def test_files_hold_what_is_promised(written):
    folder = written / "ring"
    shapes = {file.stem: np.load(file, allow_pickle=False).shape for file in folder.glob("*.npy")}
    assert shapes == {"rates": (12, 60, 20), "velocity": (12, 60, 1), "heading": (12, 60, 1), "x0": (12, 1)}
    assert {np.load(file).dtype for file in folder.glob("*.npy")} == {np.dtype("float32")}
    np.testing.assert_array_equal(np.load(folder / "truth" / "W.npy"), ring_network(20).recurrent)
    np.testing.assert_array_equal(np.load(folder / "truth" / "Wv.npy"), ring_network(20).shifting)
    constants = json.loads((folder / "truth" / "constants.json").read_text())
    assert {key: constants[key] for key in ("c", "k", "h", "a")} == {"c": 0.1, "k": 0.06, "h": -0.03, "a": 0.02}


def test_one_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    again, other = simulate_ring(tmp_path / "again"), simulate_ring(tmp_path / "other", seed=1)
    rates = [(out / "ring" / "rates.npy").read_bytes() for out in (written, again, other)]
    assert rates[0] == rates[1] != rates[2]


def test_the_command_line_simulates_another_nonlinearity(tmp_path):
    words = ["data", "simulate", "ring", str(tmp_path / "out"), "--set", "nonlinearity=logistic", "--set", "frames=20"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (session,) = open_sessions(tmp_path / "out")
    assert session.cautions == ("simulated: ring, logistic",)
    assert set(session.lengths) == {20}


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_a_place_that_is_occupied_is_refused(occupied, tmp_path):
    out = tmp_path / "out"
    out.write_text("") if occupied == "file" else (out / "something").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"out is (a file|not empty); give a folder that is empty or does not exist"):
        simulate_ring(out)


def test_trajectories_become_clips_and_velocity_behavior(written):
    (session,) = open_sessions(written)
    assert (session.name, session.facts.n_neurons, session.facts.behavior_channels) == ("ring", 20, 1)
    assert (session.facts.bin_s, session.scored_from) == (0.025, 1)
    clip = session.source.read(5, 10, 7)
    np.testing.assert_array_equal(clip.responses, np.load(written / "ring" / "rates.npy")[5, 10:17])
    np.testing.assert_array_equal(clip.behavior, np.load(written / "ring" / "velocity.npy")[5, 10:17])


def test_tiers_are_dealt_by_a_seed(written):
    tiers = [open_sessions(written, "ring", {"split_seed": seed})[0].tiers for seed in (0, 0, 1)]
    assert tiers[0] == tiers[1] != tiers[2]
    assert {tier: tiers[0].count(tier) for tier in set(tiers[0])} == {
        TRAIN: 9,
        "validation": 1,
        "dev_test": 1,
        "final_test": 1,
    }


def broken(written, tmp_path, change):
    folder = tmp_path / "broken"
    shutil.copytree(written, folder)
    change(folder / "ring")
    return folder


def cut_velocity(folder):
    np.save(folder / "velocity.npy", np.load(folder / "velocity.npy")[:, :-1])


def flat_rates(folder):
    np.save(folder / "rates.npy", np.load(folder / "rates.npy")[0])


def unknown_rate(folder):
    rates = np.load(folder / "rates.npy")
    rates[3, 4, 5] = np.nan
    np.save(folder / "rates.npy", rates)


FAULTS = {
    cut_velocity: "rates have 12 trajectories of 60 frames, velocity 12 of 59; expected the same numbers",
    flat_rates: r"rates.npy has shape \(60, 20\), expected three axes: trajectories time channel",
    unknown_rate: "rates.npy holds NaN or infinite values; simulate it again",
    lambda folder: (folder / "rates.npy").unlink(): "rates.npy cannot be read",
    lambda folder: (folder / "rates.npy").write_bytes((folder / "rates.npy").read_bytes()[:900]): "is truncated",
    lambda folder: (folder / "ring.json").write_text("{}"): "ring.json cannot be read .*expected JSON with bin_s",
    lambda folder: (folder / "ring.json").write_text('{"bin_s": 0}'): "bin_s is 0.0; expected a positive number",
    lambda folder: (folder / "ring.json").unlink(): "holds no folder with a ring.json; give what `neuroint data",
}


@pytest.mark.parametrize(("change", "message"), FAULTS.items(), ids=range(len(FAULTS)))
def test_faults_say_what_was_found(written, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        open_sessions(broken(written, tmp_path, change), "ring")


def test_too_few_trajectories_for_the_shares_are_refused(tmp_path):
    out = simulate_ring(tmp_path / "few", trajectories=3, frames=10)
    with pytest.raises(DataError, match="3 different stimuli cannot be split"):
        open_sessions(out)
