"""What ``benchmarks/recovery.py`` measures of a model is what it is, and a corner of its matrix is found again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from recovery_parts.designs import CONTROL, DESIGNS, Design
from recovery_parts.fitting import SESSION, Training, drive_as_stimulus, fit, model_on_known_drive, split
from recovery_parts.scores import against, coupling_of, effects, noise_correlations, profile
from recovery_parts.tables import mean_of, reports_coupling
from recovery_parts.world import Clips, Known

from neuroint.data.base import Facts

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "recovery.py"
WHERE = {"mode": "oracle", "snr": "high"}
NEURONS, FRAMES = 6, 120


def small_world(responses=None):
    """A world that no circuit made: enough to build models on."""
    draw = np.random.default_rng(3)
    shape = (2, FRAMES, NEURONS)
    drive = draw.gamma(1, 1, shape).astype(np.float32)
    given = draw.gamma(2, 5, shape).astype(np.float32) if responses is None else responses
    clips = Clips(drive, np.zeros((2, FRAMES, 4, 4), np.float32), given, given)
    positions = draw.uniform(0, 200, (NEURONS, 3)).astype(np.float32)
    facts = Facts(NEURONS, (NEURONS, 1, 1), given.mean((0, 1)), FRAMES, bin_s=1 / 30, positions_um=positions)
    tuning = draw.normal(size=(NEURONS, 2)).astype(np.float32)
    nothing = np.zeros((NEURONS, NEURONS))
    tiers = dict.fromkeys(("train", "validation", "test"), clips)
    return Known("none", "small", facts, tiers, tuning, positions, nothing, nothing, np.ones(NEURONS))


@pytest.mark.parametrize("fed", ["predictions", "recorded"])
def test_what_is_measured_of_a_coupled_model_is_its_coupling(fed):
    world = small_world()
    design = Design(interaction=("full_coupling", {"fed": fed}), recorded=fed == "recorded")
    model = model_on_known_drive(world, design)
    interaction = model.stages(SESSION)[1]
    torch.nn.init.normal_(interaction.raw_coupling, std=0.1)
    found = effects(model, split(world.clips["test"], drive_as_stimulus(world.clips["test"])))
    coupling = interaction.coupling(model.context(SESSION, None, None)).detach().numpy()
    off = ~np.eye(NEURONS, dtype=bool)
    np.testing.assert_allclose(coupling_of(found)[off], coupling[off], atol=1e-4)
    np.testing.assert_allclose(found["instant"], 0, atol=1e-6)


def test_nothing_behind_a_frozen_core_is_left_as_it_is():
    world = small_world()
    model = model_on_known_drive(world, DESIGNS["none"]).requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    part = split(world.clips["train"], drive_as_stimulus(world.clips["train"]))
    about = fit(model, part, part, Training(steps=2, check_every=1), seed=0)
    assert about["validation_loss"] == about["first_validation_loss"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_interaction_has_no_effects_between_neurons():
    world = small_world()
    model = model_on_known_drive(world, DESIGNS["static_saturation"])
    found = effects(model, split(world.clips["test"], drive_as_stimulus(world.clips["test"])))
    assert not coupling_of(found).any()


def test_a_coupling_twice_as_strong_has_the_correlation_one_and_the_slope_two():
    truth = np.array([[0, 0.2, -0.1], [0.1, 0, 0.3], [0.0, 0.1, 0]])
    places = np.array([[0.0, 0, 0], [70, 0, 0], [0, 130, 0]])
    found = against(2 * truth, truth, places)
    assert found["corr"] == pytest.approx(1)
    assert found["slope"] == pytest.approx(2)
    # distances 70, 130 and 148 um: one pair in the second bin of 60 um, two in the third
    np.testing.assert_allclose(profile(truth, places)[:4], [0, 0.15, (-0.1 + 0.0 + 0.3 + 0.1) / 4, 0])


def test_noise_passed_on_a_bin_later_is_told_from_noise_shared_in_a_bin():
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(4, FRAMES, NEURONS)).astype(np.float32)
    passed, shared = noise.copy(), noise.copy()
    passed[:, 1:, 0] += noise[:, :-1, 1]
    shared[..., 0] += noise[..., 1]
    now, before = noise_correlations(repeats_of(passed))
    assert before[0, 1] > 0.5 > 0.2 > abs(now[0, 1])
    now, before = noise_correlations(repeats_of(shared))
    assert now[0, 1] > 0.5 > 0.2 > abs(before[0, 1])


def repeats_of(responses):
    """A world whose two tiers hold the same four clips: pairs of repeats."""
    return small_world(responses)


def row(truth, design, **scores):
    """A row of the table, as ``rows`` makes it."""
    quiet = {"noise_same_bin": 0.0, "noise_next_bin": 0.0, "coupling_norm": 0.02}
    return {**WHERE, "truth": truth, "seed": 0, "design": design, **quiet, **scores}


@pytest.mark.parametrize(
    ("excess", "gains", "of_null", "same_bin", "reported"),
    [
        (0.3, (0.05, 0.04), 0.01, 0.0, True),
        (0.01, (0.05, 0.04), 0.01, 0.0, False),
        (0.3, (0.0, 0.0), -0.01, 0.0, False),
        (0.3, (0.05, -0.01), -0.01, 0.0, False),
        (0.3, (0.05, 0.04), 0.06, 0.0, False),
        (0.3, (0.05, 0.04), 0.01, 0.6, False),
    ],
    ids=[
        "coupled",
        "no more than the twin",
        "predicts no better",
        "predicts better in one seed only",
        "predicts no better than its null",
        "noise shared in a bin",
    ],
)
def test_coupling_is_reported_only_when_large_useful_and_not_shared_noise(excess, gains, of_null, same_bin, reported):
    found = []
    for seed, gain in enumerate(gains):
        learned = {"coupling_norm": excess, "feve": gain}
        of_seed = [
            row("none", "distance_kernel"),
            row("latent", "static_saturation", less_twin={"feve": 0.0}),
            row("latent", "kernel_elsewhere", less_twin={"feve": of_null}),
            row("latent", "distance_kernel", noise_same_bin=same_bin, less_twin=learned),
        ]
        found += [one | {"seed": seed} for one in of_seed]
    assert reports_coupling(found, **WHERE, truth="latent", design="distance_kernel") is reported


def test_a_null_never_reports_coupling_and_a_design_without_the_fits_of_its_null_says_nothing():
    learned = {"coupling_norm": 0.3, "feve": 0.05}
    found = [row("none", "distance_kernel"), row("latent", "distance_kernel", less_twin=learned)]
    assert reports_coupling(found, **WHERE, truth="latent", design="population_mean") is False
    assert reports_coupling(found, **WHERE, truth="latent", design="distance_kernel") is None


CORNER = {  # truth: the design that is made of it, or that would be fooled
    "none": "distance_kernel",
    "own_history": "own_history",
    "pool": "population_pool",
    "rate_coupling": "distance_kernel",
    "latent": "distance_kernel",
}


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """One seed of the matrix at the higher SNR with the drive known: each truth's design, and the static control."""
    cells = [f"oracle/high/{truth}/0/{design}" for truth, one in CORNER.items() for design in (CONTROL, one)]
    cells += [f"oracle/high/{truth}/0/kernel_elsewhere" for truth in ("none", "rate_coupling", "latent")]
    folder = tmp_path_factory.mktemp("corner")
    command = [sys.executable, PROGRAM, "--cells", *cells, "--cache", folder, "--out", folder / "found.json"]
    command += ["--steps", "75"]  # half of what the tables take
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())["rows"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("truth", "least"), [("own_history", 0.1), ("pool", 0.3), ("rate_coupling", 0.02)])
def test_the_design_with_the_truths_equation_predicts_better_than_a_static_nonlinearity(corner, truth, least):
    gain = [mean_of(corner, "feve", truth=truth, design=design) for design in (CORNER[truth], CONTROL)]
    assert gain[0] - gain[1] > least
    assert gain[0] > 0.95


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_constants_kernel_and_pool_come_back(corner):
    found = {truth: next(r for r in corner if r["truth"] == truth and r["design"] == d) for truth, d in CORNER.items()}
    assert found["own_history"]["found exponent"] == pytest.approx(2, abs=0.4)
    assert found["own_history"]["found tau_s"] == pytest.approx(0.2, rel=0.3)
    assert found["pool"]["pool_corr"] > 0.9
    assert found["rate_coupling"]["coupling_corr"] > 0.8
    assert found["rate_coupling"]["coupling_slope"] == pytest.approx(1, abs=0.3)
    assert found["none"]["coupling_norm"] < 0.1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("truth", "reported"), [("rate_coupling", True), ("latent", False)])
def test_coupling_is_reported_where_it_is_and_not_for_a_shared_latent(corner, truth, reported):
    assert reports_coupling(corner, **WHERE, truth=truth, design="distance_kernel") is reported
