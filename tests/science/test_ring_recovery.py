"""``benchmarks/ring_recovery.py``: it goes on where it stopped, and a small ring is found again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from ring import fused, gradients, measure, plain
from ring_parts import fitting
from ring_parts.fitting import CONDITIONS, fit, model_of, windows, world_of
from ring_parts.scores import rollout, scores, wiring
from ring_parts.tables import claims, markdown

from neuroint.data.base import Inputs
from neuroint.modules.core.input_separated_rnn import InputSeparatedRnn

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "ring_recovery.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ring")


@pytest.fixture(scope="module")
def world(folder):
    return world_of(CONDITIONS["separated"], 0, "tiny", folder)


def test_a_run_that_was_cut_short_goes_on_to_the_same_weights(world, folder, monkeypatch):
    monkeypatch.setattr(fitting, "KEEP_EVERY", 3)
    condition = CONDITIONS["separated"]
    whole = fit(condition, world, 0, 6, folder / "whole")
    fit(condition, world, 0, 3, folder / "parts")
    parts = fit(condition, world, 0, 6, folder / "parts")
    assert parts["losses"] == whole["losses"]
    weights = [(folder / f"{name}.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_windows_are_cut_at_a_place_of_their_own(world):
    arrays = [torch.from_numpy(world.rates), torch.from_numpy(world.velocity)]
    rates, velocity = windows(arrays, np.random.default_rng(0))
    starts = np.random.default_rng(0).integers(0, 60 - 50 + 1, 12)
    assert len(set(starts)) > 1
    for i, start in enumerate(starts):
        np.testing.assert_array_equal(rates[i], world.rates[i, start : start + 50])
        np.testing.assert_array_equal(velocity[i], world.velocity[i, start : start + 50])


def test_the_truth_itself_is_scored_as_found(world):
    model = model_of(CONDITIONS["unseparated"], world, 0)
    with torch.no_grad():
        model.core.factors[0].copy_(torch.from_numpy(world.recurrent))
    found = scores(model, world, [0.1], draws=20)
    assert found["recurrent"]["correlation"]["score"] == pytest.approx(1)
    assert found["recurrent"]["circulant_r2"]["score"] == pytest.approx(1)
    assert "shifting" not in found


def test_a_rollout_without_velocity_keeps_the_bump_of_the_true_connectivity(world):
    still = world._replace(velocity=np.zeros_like(world.velocity))
    model = model_of(CONDITIONS["unseparated"], still, 0)
    model.core.alpha = 1.0
    with torch.no_grad():
        model.core.factors[0].copy_(torch.from_numpy(world.recurrent))
    rates = rollout(model, still)
    np.testing.assert_allclose(rates[:, -1].max(axis=1), 0.9, atol=0.05)
    assert (rates[:, -1] > 0).mean() == pytest.approx(0.4, abs=0.05)


def test_the_product_is_signed_by_the_gain_of_each_hidden_unit(world):
    model = model_of(CONDITIONS["separated"], world, 0)
    w, gain = model.core.connectivity().detach().numpy(), model.core.input.weight.detach().numpy()[:, 0]
    expected = sum(gain[k] * np.outer(w[:20, 20 + k], w[20 + k, :20]) for k in range(20))
    np.testing.assert_allclose(wiring(model).shifting, expected, atol=1e-6)


def row(condition, seed, **changed):
    one = {"score": 0.4, "null_max": 0.1, "p": 0.01}
    held = {name: dict(one) for name in ("correlation", "profile", "circulant_r2")}
    found = {"condition": condition, "seed": seed, "updates": 1000, "cpu_seconds": 30.0, "mse_end": 0.01}
    found |= {"open_loop_mse": 0.02, "open_loop_mse_of_constant": 0.1, "modulation_true": 0.003}
    found |= {"modulation_observed": 0.01, "hidden": 100, "shifters_plus": 40, "shifters_minus": 41}
    return found | {"recurrent": held} | changed


def test_claims_are_counted_over_seeds():
    weak = {
        "recurrent": {k: {"score": 0.2, "null_max": 0.3, "p": 1} for k in ("correlation", "profile", "circulant_r2")}
    }
    other = {"modulation_observed": 0.15, "hidden": 0, "shifters_plus": 0, "shifters_minus": 0, **weak}
    rows = [row("separated", 0), row("separated", 1, modulation_observed=0.03, shifters_minus=19)]
    rows += [row("separated", 2, **weak), row("unseparated", 0, **other), row("unseparated", 2, **other)]
    assert [claim.rsplit(": ", 1)[1] for claim in claims(rows)] == [
        "2 of 3 seeds",
        "2 of 2 seeds",
        "2 of 3 seeds",
        "1 of 2 seeds",
        "2 of 3 seeds",
    ]
    assert "| open-loop MSE / constant's | 0.2 (0.2 to 0.2) | 0.2 (0.2 to 0.2) |" in markdown(rows)


def test_the_formulations_that_are_timed_have_equal_gradients():
    torch.manual_seed(0)
    core = InputSeparatedRnn(observed_channels=100, behavior_channels=1, hidden=100)
    observed = torch.rand(2, 50, 100)
    inputs = Inputs(behavior=torch.randn(2, 50, 1), observed=observed)
    found = [gradients(core, run, inputs, observed[:, 1:]) for run in (plain, fused)]
    assert float(found[0].abs().max()) > 1e-5
    assert float((found[0] - found[1]).abs().max()) < 1e-6


def test_what_is_timed_is_told():
    found = measure(1)
    assert found["largest_gradient_difference"] < 1e-6
    assert found["ratio"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_ring_is_found_in_part_after_few_updates_and_a_second_call_trains_nothing(tmp_path):
    words = [sys.executable, str(PROGRAM), "--quick", "--conditions", "separated", "--folder", str(tmp_path)]
    first = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    again = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "separated-0 500" in first
    assert "separated-0 500" not in again
    found = json.loads((tmp_path / "quick" / "separated-0.json").read_text())
    assert found["mse_end"] < 0.6 * found["mse_start"]
    assert found["recurrent"]["correlation"]["score"] > found["recurrent"]["correlation"]["null_max"]
    assert found["open_loop_mse"] < found["open_loop_mse_of_constant"]
