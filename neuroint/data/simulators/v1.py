"""Simulated mouse V1 with known truth, in the Sensorium 2023 layout."""

from __future__ import annotations

from pathlib import Path

from neuroint.data.simulators.v1_parts.session import draw_animal
from neuroint.data.simulators.v1_parts.settings import (
    PRESETS,
    Behaving,
    Confounders,
    Contraction,
    Feeding,
    Mechanisms,
    Noise,
    OpenFraction,
    PresetName,
    Recording,
    Tuning,
    World,
)
from neuroint.data.simulators.v1_parts.writing import write_session
from neuroint.registry import Count, Fraction, Index, NonNegative, Positive, simulators


@simulators.register("v1")
def simulate_v1(
    out: Path,
    *,
    preset: PresetName = "tiny",
    seed: Index = 0,
    sessions: Count | None = None,
    neurons: Count | None = None,
    train_clips: Count | None = None,
    stimuli: Count | None = None,
    repeats: Count | None = None,
    pool: NonNegative = 1.0,
    own_history: NonNegative = 0.0,
    coupling: Contraction = 0.0,
    like_to_like: Tuning = 0.5,
    feeding: Feeding = "rates",
    latent: NonNegative = 0.0,
    neuropil: NonNegative = 0.0,
    snr_gradient: float = 0.0,
    duplicate_rois: Fraction = 0.0,
    noise: Noise = "poisson",
    median_rate: Positive = 3.0,
    explained_variance: OpenFraction = 0.3,
    calcium_tau_s: NonNegative = 0.0,
    sample_hz: NonNegative = 0.0,
    smoothing_s: NonNegative = 0.0,
    behavior_gain: NonNegative = 0.1,
    gaze_deg: NonNegative = 0.0,
) -> Path:
    """Simulate sessions of mouse V1 whose normalization, coupling and noise are known, and write them with the truth.

    Every session is an animal of its own, in a folder ``dynamic<animal>-1-1-Video-<hash>`` with a folder ``truth``
    inside that readers ignore. By default the only interaction is a population pool. The same seed gives the same
    bytes, and the same cells, stimuli and behavior whatever is switched on: ``pool=0`` makes the none-truth twin. Sizes
    that are not given come from the preset: tiny (3 sessions of 48 neurons, 16 training clips of 200 frames at 18x32
    pixels, 2 stimuli x 4 repeats in each held-out tier), test (40 training clips, 4 stimuli), bench (5 sessions of 1000
    neurons, 300 frames at 36x64, 100 training clips, 6 stimuli x 10 repeats).

    ``truth/`` holds ``truth.json`` (settings and constants of the equation in ``v1_parts/circuit.py``), ``C.npz``,
    ``W_hat.npz`` and ``mixing.npz`` (scipy sparse), ``stimulus_ids.npy`` (equal for repeats), ``neurons/<name>.npy``
    (receptive fields, ``scale`` in counts per frame, ``signal_power``, ``noise_variance``) and per clip, without
    padding, ``rates`` (neurons time; the circuit without noise, no unit), ``expected`` (neurons time; mean response
    over noise, in the units of the responses) and ``state`` (arousal and pupil, standard deviations). Bench keeps the
    last three for held-out tiers only. Videos of repeats are hard links to one file where the disk can do that.

    The statistics of the layout keep time. Over few training clips the standard deviation of a frame is a poor
    estimate, and 0 for a quiet neuron: on tiny, normalize responses per neuron.

    Args:
        out: folder to write to; it must be empty or absent.
        preset: sizes that are not given below.
        seed: of everything.
        sessions: number of animals.
        neurons: per session.
        train_clips: clips of the training tier, all of different stimuli.
        stimuli: different stimuli in each of oracle, live_test_main and final_test_main.
        repeats: of each of them.
        pool: alpha, strength of division by the population pool; 0 is none.
        own_history: beta, strength of division by the neuron's own past (time constant .2 s).
        coupling: rho, spectral norm of the coupling matrix C, below 1.
        like_to_like: kappa, above 0 similarly tuned neurons are coupled more, below 0 less.
        feeding: what C passes on: rates, or emitted spikes.
        latent: confounder: SD of shared fluctuations of log rate (1 s, smooth over the cortex).
        neuropil: confounder: share of surrounding activity in a neuron's signal.
        snr_gradient: confounder: change of log rate (or logit of explained variance) per SD of azimuth.
        duplicate_rois: confounder: fraction of neurons outlined twice.
        noise: Poisson counts, or independent additive noise that makes the explained variance exact.
        median_rate: median mean count per frame of 1/30 s; sets the SNR under Poisson noise.
        explained_variance: SP / (SP + noise variance) of every neuron under ``exact_snr``, over the frames of all
            repeated stimuli, with the behavior held fixed: its gain comes on top unless ``behavior_gain=0``.
        calcium_tau_s: decay of calcium in seconds; 0 records activity itself.
        sample_hz: rate of the microscope (8 is usual), every plane at its own phase, interpolated to 30 Hz; 0 is off.
        smoothing_s: SD in seconds of symmetric, hence not causal, smoothing; 0 is off.
        behavior_gain: effect of arousal and of pupil on log rate, per standard deviation.
        gaze_deg: degrees that receptive fields move per camera pixel of the pupil; 0 keeps them on the screen.

    Raises:
        ValueError: ``out`` is not an empty folder, or settings are out of range or contradict one another.
    """
    sizes = {
        "sessions": sessions,
        "neurons": neurons,
        "train_clips": train_clips,
        "stimuli": stimuli,
        "repeats": repeats,
    }
    world = World(
        PRESETS[preset].resized(**sizes),
        Mechanisms(pool, own_history, coupling, like_to_like, feeding),
        Confounders(latent, neuropil, snr_gradient, duplicate_rois),
        Recording(noise, median_rate, explained_variance, calcium_tau_s, sample_hz, smoothing_s),
        Behaving(behavior_gain, gaze_deg),
    )
    _refuse(world, out)
    for session in range(world.preset.sessions):
        write_session(out, draw_animal(world, seed, session))
    return out


def _refuse(world: World, out: Path) -> None:
    """Raise before anything is written."""
    faults = world.faults()
    if out.exists() and not out.is_dir():
        faults.append(f"{out} is a file; give a folder that is empty or does not exist")
    elif out.is_dir() and any(out.iterdir()):
        faults.append(f"{out} is not empty; give a folder that is empty or does not exist")
    if faults:
        raise ValueError("simulator 'v1': " + "; ".join(faults))
