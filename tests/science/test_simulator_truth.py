"""The simulated world is what it says: equations recomputed, noise of known strength, confounders without coupling."""

import functools
import json

import numpy as np
import pytest
from scipy import sparse

from neuroint.data.simulators.v1 import simulate_v1
from neuroint.data.simulators.v1_parts.recording import chain_operators
from neuroint.data.simulators.v1_parts.settings import Recording

PER_TIER = {"stimuli": 1, "repeats": 8, "train_clips": 1, "sessions": 1}


class World:
    """A simulated session, read back from its files alone."""

    def __init__(self, out, **settings):
        (self.folder,) = simulate_v1(out, **{**PER_TIER, "neurons": 24, **settings}).iterdir()
        self.stimulus_ids = np.load(self.folder / "truth/stimulus_ids.npy")
        self.truth = json.loads((self.folder / "truth/truth.json").read_text())
        self.pool = self._matrix("W_hat")
        self.coupling = self._matrix("C")
        self.mixing = self._matrix("mixing")
        self.positions = np.load(self.folder / "meta/neurons/cell_motor_coordinates.npy")

    def _matrix(self, name):
        return sparse.load_npz(self.folder / f"truth/{name}.npz").toarray()

    def neuron(self, name):
        return np.load(self.folder / f"truth/neurons/{name}.npy")

    def clip(self, kind, i):
        """Time first, without padding."""
        array = np.moveaxis(np.load(self.folder / kind / f"{i}.npy"), -1, 0)[:200]
        return array.astype(float)

    def repeats(self, kind):
        """Stimuli, repeats, time, neurons."""
        groups = [np.flatnonzero(self.stimulus_ids == s) for s in np.unique(self.stimulus_ids)]
        return np.stack([[self.clip(kind, i) for i in group] for group in groups if len(group) > 1])

    def residuals(self):
        """Responses minus the mean over repeats, made unbiased for the number of repeats."""
        responses = self.repeats("data/responses")
        n = responses.shape[1]
        return (responses - responses.mean(1, keepdims=True)) * np.sqrt(n / (n - 1))

    def tuning(self):
        """cos 2 (difference in orientation)."""
        angle = 2 * self.neuron("direction_rad")
        return np.cos(angle[:, None] - angle[None])

    def distance(self):
        return np.linalg.norm(self.positions[:, None] - self.positions[None], axis=2)

    def gain(self, i):
        state, pupil = self.clip("truth/state", i).T
        return np.exp(np.outer(state, self.neuron("gain_state")) + np.outer(pupil, self.neuron("gain_pupil")))


@pytest.fixture(scope="module")
def simulate(tmp_path_factory):
    """A world of given settings, simulated once."""
    return functools.cache(lambda **settings: World(tmp_path_factory.mktemp("world") / "out", **settings))


@pytest.fixture(scope="module")
def still(simulate):
    """The default world without behavior."""
    return simulate(behavior_gain=0.0)


def energy_from_pixels(world, i):
    """E, written out as one spatiotemporal Gabor per neuron that slides over the stored video."""
    video = (world.clip("data/videos", i).transpose(0, 1, 2) - 128) / 128
    padded = np.concatenate([np.zeros((11, 18, 32)), video])
    y, x = np.meshgrid((np.arange(18) - 8.5) * 3.5, (np.arange(32) - 15.5) * 3.5, indexing="ij")
    tau = np.arange(12) / 30
    in_time = (tau / 0.06) ** 2 * np.exp(-2 * tau / 0.06)
    in_time /= in_time.sum()
    energy = np.empty((200, len(world.pool)))
    for n in range(energy.shape[1]):
        p = {
            k: world.neuron(k)[n] for k in ("azimuth_deg", "elevation_deg", "size_deg", "direction_rad", "spatial_cpd")
        }
        p |= {k: world.neuron(k)[n] for k in ("temporal_hz", "phase_rad", "complexity", "drive_rms")}
        dx, dy = x - p["azimuth_deg"], y - p["elevation_deg"]
        along = dx * np.cos(p["direction_rad"]) + dy * np.sin(p["direction_rad"])
        phase = 2 * np.pi * (p["spatial_cpd"] * along - p["temporal_hz"] * tau[:, None, None]) + p["phase_rad"]
        kernel = in_time[:, None, None] * np.exp(-(dx**2 + dy**2) / (2 * p["size_deg"] ** 2)) * np.exp(1j * phase)
        response = np.array([(padded[t : t + 12][::-1] * kernel).sum() for t in range(200)])
        e = (1 - p["complexity"]) * np.maximum(response.real, 0) + p["complexity"] * np.abs(response) / np.sqrt(2)
        energy[:, n] = (e / p["drive_rms"]) ** 2
    return energy


@pytest.mark.parametrize("strengths", [(1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.7, 3.0, 0.4)])
def test_rates_follow_the_written_equation_recomputed_from_pixels_and_truth(simulate, strengths):
    alpha, beta, rho = strengths
    world = simulate(neurons=10, repeats=2, pool=alpha, own_history=beta, coupling=rho)
    rates, energy, gain = world.clip("truth/rates", 0), energy_from_pixels(world, 0), world.gain(0)
    history, last, decay = np.zeros(10), np.zeros(10), np.exp(-1 / 30 / 0.2)
    for t in range(200):
        history = decay * history + (1 - decay) * last**2
        f = (0.5 + alpha + beta) * energy[t] / (0.5 + alpha * world.pool @ energy[t] + beta * history)
        expected = np.maximum(f + world.coupling @ last + 0.05, 0) * gain[t]
        np.testing.assert_allclose(rates[t], expected, rtol=1e-3, atol=1e-4, err_msg=f"frame {t}")
        last = rates[t]


def test_the_pool_falls_with_distance_rises_with_similar_tuning_and_excludes_self(still):
    weight = np.exp(-(still.distance() ** 2) / (2 * 150**2) + still.tuning()) * (still.distance() <= 450)
    np.fill_diagonal(weight, 0)
    np.testing.assert_allclose(still.pool, weight / weight.sum(1, keepdims=True), rtol=1e-10)


def test_repeats_share_the_rate_but_not_the_noise(still):
    rates, responses = still.repeats("truth/rates"), still.repeats("data/responses")
    np.testing.assert_array_equal(rates, np.broadcast_to(rates[:, :1], rates.shape))
    for a in range(8):
        for b in range(a):
            assert (responses[:, a] != responses[:, b]).mean() > 0.2


def test_behavior_makes_repeats_differ_by_the_gain_alone(simulate):
    world = simulate(behavior_gain=0.3, repeats=3)
    clips = np.flatnonzero(world.stimulus_ids == world.stimulus_ids.max())
    still = [world.clip("truth/rates", i) / world.gain(i) for i in clips]
    np.testing.assert_allclose(still[0], still[1], rtol=1e-4)
    assert not np.allclose(world.clip("truth/rates", clips[0]), world.clip("truth/rates", clips[1]), rtol=0.05)


def test_receptive_fields_follow_the_pupil_only_when_asked_to(simulate):
    moving = simulate(behavior_gain=0.0, gaze_deg=1.0, repeats=2).repeats("truth/rates")
    assert not np.allclose(moving[:, 0], moving[:, 1], rtol=0.05)


def sahani_linden(responses):
    """Signal power and noise variance per neuron, from stimuli x repeats x time x neurons."""
    n = responses.shape[1]
    noise = responses.var(axis=1, ddof=1).mean((0, 1))
    mean = responses.mean(axis=1).reshape(-1, responses.shape[-1])
    return mean.var(axis=0, ddof=1) - noise / n, noise


@pytest.mark.parametrize("target", [0.1, 0.5])
@pytest.mark.parametrize("chain", [{}, {"sample_hz": 8.0, "calcium_tau_s": 0.5}], ids=["frames", "calcium"])
def test_exact_snr_control_hits_the_explained_variance_of_every_neuron(simulate, target, chain):
    world = simulate(noise="exact_snr", explained_variance=target, behavior_gain=0.0, **chain)
    signal, noise = sahani_linden(world.repeats("data/responses"))
    measured = signal / (signal + noise)
    # 8 repeats x 600 frames; calcium leaves about 1 independent frame in 15
    tolerance = 0.15 if chain else 0.05
    np.testing.assert_allclose(measured, target, atol=tolerance)
    assert measured.mean() == pytest.approx(target, abs=tolerance / 3)
    assert world.repeats("data/responses").min() >= 0, "a reader would clamp negative responses"


def test_poisson_noise_and_signal_have_the_power_that_truth_states(still):
    signal, noise = sahani_linden(still.repeats("data/responses"))
    np.testing.assert_allclose(noise, still.neuron("noise_variance"), rtol=0.15)
    np.testing.assert_allclose(signal, still.neuron("signal_power"), rtol=0.15)


def test_expected_responses_are_the_mean_over_repeats(still):
    expected, responses = still.repeats("truth/expected"), still.repeats("data/responses")
    z = (responses.mean(1) - expected[:, 0]) / np.sqrt(expected[:, 0] / 8 + 1e-9)
    assert abs(z.mean()) < 0.03
    assert z.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kappa", [0.5, -0.5])
def test_coupling_has_the_norm_asked_for_no_diagonal_and_the_sign_of_kappa(simulate, kappa):
    world = simulate(coupling=0.4, like_to_like=kappa, repeats=2)
    assert np.linalg.svd(world.coupling, compute_uv=False)[0] == pytest.approx(0.4)
    assert not np.diagonal(world.coupling).any()
    distance = world.distance()
    hat = np.exp(-(distance**2) / (2 * 60**2)) - 0.6 * np.exp(-(distance**2) / (2 * 160**2))
    pairs = (world.coupling != 0) & (np.abs(hat) > 1e-3)
    slope = np.polyfit(world.tuning()[pairs], (world.coupling / hat)[pairs], 1)
    assert slope[0] / slope[1] == pytest.approx(kappa)  # (1 + kappa cos) up to the factor that sets the norm


def passed_on(world):
    """How strongly a neuron's noise shows in its targets one frame later, per unit of C; 1 is exactly C."""
    residuals = world.residuals() / world.neuron("scale")
    lagged = np.einsum("srti,srtj->ij", residuals[:, :, 1:], residuals[:, :, :-1])
    predicted = world.coupling * np.einsum("srtj,srtj->j", residuals[:, :, :-1], residuals[:, :, :-1])
    return (lagged * world.coupling).sum() / (predicted * world.coupling).sum()


@pytest.mark.slow
def test_spikes_pass_their_noise_on_to_coupled_neurons_and_rates_do_not(simulate):
    settings = {"coupling": 0.5, "behavior_gain": 0.0, "neurons": 32}
    assert passed_on(simulate(**settings, feeding="spikes")) > 0.3  # below 1 because rates are rectified
    assert abs(passed_on(simulate(**settings, feeding="rates"))) < 0.15


def noise_correlations(world):
    residuals = world.residuals().reshape(-1, len(world.positions))
    return np.corrcoef(residuals.T)


@pytest.mark.parametrize("confounder", [{"latent": 0.6}, {"neuropil": 0.5}], ids=["latent", "neuropil"])
def test_confounded_worlds_have_no_coupling_yet_noise_correlations_that_fall_with_distance(simulate, confounder):
    world = simulate(**confounder, behavior_gain=0.0, neurons=48)
    distance, correlation = world.distance(), noise_correlations(world)
    near, far = correlation[(distance > 0) & (distance < 100)], correlation[distance > 350]
    assert not world.coupling.any()
    assert near.mean() > 0.05
    assert near.mean() > far.mean() + 0.04


def test_without_confounders_noise_is_independent(still):
    off_diagonal = noise_correlations(still)[~np.eye(24, dtype=bool)]
    assert abs(off_diagonal.mean()) < 0.01


def test_duplicates_lie_beside_their_source_in_the_adjacent_plane_and_respond_alike(simulate):
    world = simulate(duplicate_rois=0.25, behavior_gain=0.0)
    second = np.flatnonzero(world.neuron("duplicate_of") >= 0)
    source = world.neuron("duplicate_of")[second]
    assert len(second) == 6
    apart = np.abs(world.positions[second] - world.positions[source])
    assert apart[:, :2].max() <= 6
    assert (apart[:, 2] == 50).all()
    assert not world.coupling.any()
    both = noise_correlations(world)[second, source]
    assert np.median(both) > 0.7


def test_the_snr_gradient_follows_azimuth(simulate):
    flat, steep = simulate(repeats=1), simulate(snr_gradient=1.0, repeats=1)
    change = np.log(steep.neuron("scale") / flat.neuron("scale"))
    azimuth = flat.neuron("azimuth_deg")
    np.testing.assert_allclose(change, (azimuth - azimuth.mean()) / azimuth.std())
    assert not steep.coupling.any()


def spline_autocorrelation(frames):
    """Of white noise at 8 Hz that is linearly interpolated: a cubic B-spline of the lag in visits."""
    u = np.asarray(frames) * 8 / 30
    return np.where(u < 1, (4 - 6 * u**2 + 3 * u**3) / 4, np.maximum(2 - u, 0) ** 3 / 4)


def own_past_r2(signal, lag, order=8):
    """Variance explained by a linear regression on frames t - lag, t - lag - 1, ..., over all repeats and neurons."""
    stacked = np.moveaxis(signal, 2, 0)  # time first
    target = stacked[lag + order :].ravel()
    past = np.stack([stacked[order - k : len(stacked) - lag - k].ravel() for k in range(order)], axis=1)
    weights, *_ = np.linalg.lstsq(past, target, rcond=None)
    return 1 - np.var(target - past @ weights) / np.var(target)


def test_interpolation_from_8_to_30_hz_lets_pure_noise_be_predicted_from_its_own_past(simulate):
    world = simulate(noise="exact_snr", explained_variance=0.1, sample_hz=8.0, behavior_gain=0.0)
    noise = world.residuals()[:, :, 10:190]
    noise = noise / noise.std((0, 1, 2))
    measured = [np.mean(noise[:, :, lag:] * noise[:, :, : noise.shape[2] - lag]) for lag in range(10)]
    np.testing.assert_allclose(measured, spline_autocorrelation(range(10)), atol=0.06)
    assert own_past_r2(noise, 1) > 0.85
    assert own_past_r2(noise, 1) > own_past_r2(noise, 2) > own_past_r2(noise, 3) > 0.2
    assert own_past_r2(noise, 8) < 0.02


def test_without_interpolation_noise_cannot_be_predicted_from_its_own_past(still):
    assert own_past_r2(still.residuals()[:, :, 10:190], 1) < 0.02


def test_planes_are_visited_at_phases_of_their_own_and_a_constant_stays_constant():
    operators = chain_operators(Recording(sample_hz=8.0), frames=60, planes=4)
    np.testing.assert_allclose(operators.sum(axis=2), 1)
    impulse = operators[:, :, 30]
    assert len({row.round(6).tobytes() for row in impulse}) == 4
    assert all(np.triu(operator, 1).any() for operator in operators), "interpolation looks ahead"


def test_calcium_decays_by_its_time_constant():
    (operator,) = chain_operators(Recording(calcium_tau_s=0.5), frames=40, planes=1)
    response = operator[:, 5]
    assert not response[:5].any()
    assert response[5 + 15] == pytest.approx(np.exp(-1))


def test_smoothing_is_symmetric_and_so_not_causal():
    (operator,) = chain_operators(Recording(smoothing_s=0.1), frames=61, planes=1)
    np.testing.assert_allclose(operator[30, 20:30], operator[30, 40:30:-1])
    assert operator[30, 33] == pytest.approx(operator[30, 30] * np.exp(-0.5))


@pytest.mark.slow
def test_the_default_world_is_learnable_from_its_training_clips(simulate):
    """Ridge regression on the true energies and pools reaches half of the best possible correlation."""
    world = simulate(train_clips=8, repeats=4, behavior_gain=0.1)
    tiers = np.load(world.folder / "meta/trials/tiers.npy")
    features, responses, best = {}, {}, {}
    for tier in ("train", "oracle"):
        clips = np.flatnonzero(tiers == tier)
        energy = np.concatenate([energy_from_pixels(world, i) for i in clips[:8]])
        features[tier] = np.log(np.concatenate([energy, energy @ world.pool.T], axis=1) + 0.05)
        responses[tier] = np.concatenate([world.clip("data/responses", i) for i in clips[:8]])
        best[tier] = np.concatenate([world.clip("truth/expected", i) for i in clips[:8]])
    mean, sd = features["train"].mean(0), features["train"].std(0)
    x, z = (features["train"] - mean) / sd, (features["oracle"] - mean) / sd
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(48), x.T @ (responses["train"] - responses["train"].mean(0)))
    reached = [np.corrcoef(z @ weights[:, i], responses["oracle"][:, i])[0, 1] for i in range(24)]
    possible = [np.corrcoef(best["oracle"][:, i], responses["oracle"][:, i])[0, 1] for i in range(24)]
    assert np.mean(reached) > 0.5 * np.mean(possible)
