"""What a simulated world may be set to, in groups, and the three sizes it comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from neuroint.registry import Fraction, NonNegative, Positive

FRAME_S = 1 / 30  # one stored frame, seconds

PresetName = Literal["tiny", "test", "bench"]
Feeding = Literal["rates", "spikes"]
Noise = Literal["poisson", "exact_snr"]
Contraction = Annotated[float, Field(ge=0, lt=1)]
Tuning = Annotated[float, Field(gt=-1, lt=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Preset:
    """Sizes of a simulated data set.

    Attributes:
        sessions: sessions, each of an animal of its own.
        neurons: neurons per session.
        height, width: pixels of the video.
        degrees_per_pixel: visual degrees that a pixel covers.
        frames: valid frames per clip (30 Hz).
        stored_frames: frames per stored array; those after ``frames`` are NaN.
        train_clips: clips of the training tier, each of a stimulus of its own.
        stimuli: different stimuli in each of the three held-out tiers.
        repeats: presentations of each of them.
        rates_of_training: whether ``truth/`` also holds the rates of training clips.
    """

    sessions: int
    neurons: int
    height: int
    width: int
    degrees_per_pixel: float
    frames: int
    stored_frames: int
    train_clips: int
    stimuli: int
    repeats: int
    rates_of_training: bool = True

    def resized(self, **sizes: int | None) -> Preset:
        """Replace the sizes that are given."""
        return replace(self, **{name: size for name, size in sizes.items() if size is not None})


PRESETS: dict[str, Preset] = {
    "tiny": Preset(3, 48, 18, 32, 3.5, 200, 216, train_clips=16, stimuli=2, repeats=4),
    "test": Preset(3, 48, 18, 32, 3.5, 200, 216, train_clips=40, stimuli=4, repeats=4),
    "bench": Preset(5, 1000, 36, 64, 1.75, 300, 324, 100, stimuli=6, repeats=10, rates_of_training=False),
}


@dataclass(frozen=True)
class Mechanisms:
    """What neurons really do to one another; every strength 0 switches its mechanism off.

    Attributes:
        pool: alpha, weight of the population pool in the denominator.
        own_history: beta, weight of the neuron's own recent rate in the denominator.
        coupling: rho, spectral norm of the coupling matrix C.
        like_to_like: kappa, how much more (or, below 0, less) similarly tuned neurons are coupled.
        feeding: whether C is fed with rates or with emitted spikes.
    """

    pool: NonNegative = 1.0
    own_history: NonNegative = 0.0
    coupling: Contraction = 0.0
    like_to_like: Tuning = 0.5
    feeding: Feeding = "rates"


@dataclass(frozen=True)
class Confounders:
    """What looks like interaction in recordings and is none; none of them touches C.

    Attributes:
        latent: standard deviation of a shared fluctuation of log rates (time constant 1 s, smooth over the cortex).
        neuropil: share of the surrounding neurons' activity that is added to a neuron's signal.
        snr_gradient: change of log rate (or of the logit of explained variance) per standard deviation of azimuth.
        duplicate_rois: fraction of neurons that are a second outline of their neighbor.
    """

    latent: NonNegative = 0.0
    neuropil: NonNegative = 0.0
    snr_gradient: float = 0.0
    duplicate_rois: Fraction = 0.0


@dataclass(frozen=True)
class Recording:
    """How activity becomes responses.

    Attributes:
        noise: Poisson counts, or independent additive noise of exactly known strength.
        median_rate: median over neurons of the mean count per frame.
        explained_variance: SP / (SP + noise variance) under ``exact_snr``.
        calcium_tau_s: decay of calcium, seconds; 0 records activity itself.
        sample_hz: rate of the microscope; 0 records every frame.
        smoothing_s: standard deviation of a symmetric smoothing kernel, seconds; 0 is off.
    """

    noise: Noise = "poisson"
    median_rate: Positive = 3.0
    explained_variance: OpenFraction = 0.3
    calcium_tau_s: NonNegative = 0.0
    sample_hz: NonNegative = 0.0
    smoothing_s: NonNegative = 0.0


@dataclass(frozen=True)
class Behaving:
    """What behavior does.

    Attributes:
        gain: mean effect on log rate of one standard deviation of the animal's state.
        gaze_deg: degrees that receptive fields move per camera pixel of the pupil; 0 keeps them fixed.
    """

    gain: NonNegative = 0.1
    gaze_deg: NonNegative = 0.0


@dataclass(frozen=True)
class World:
    """All settings of a simulated data set."""

    preset: Preset
    mechanisms: Mechanisms
    confounders: Confounders
    recording: Recording
    behaving: Behaving

    def faults(self) -> list[str]:
        """List every value out of range and every combination that would not be what it claims."""
        groups = (self.mechanisms, self.confounders, self.recording, self.behaving)
        return [fault for group in groups for fault in _range_faults(group)] + self._combination_faults()

    def _combination_faults(self) -> list[str]:
        exact, shared = self.recording.noise == "exact_snr", _shared_noise(self.confounders)
        spikes = self.mechanisms.feeding == "spikes" and self.mechanisms.coupling > 0
        checks = {
            f"neurons={self.preset.neurons}: a population needs at least 2": self.preset.neurons < 2,
            "feeding='spikes' needs spikes: set noise='poisson'": exact and spikes,
            f"noise='exact_snr' makes all noise independent, but {', '.join(shared)} would share it: set "
            "them to 0 or use noise='poisson'": exact and bool(shared),
        }
        return [text for text, wrong in checks.items() if wrong]


def _shared_noise(confounders: Confounders) -> list[str]:
    return [name for name in ("latent", "neuropil", "duplicate_rois") if getattr(confounders, name) > 0]


def _range_faults(group: object) -> list[str]:
    """Check a group against its annotations with pydantic, strictly enough for calls from Python."""
    try:
        TypeAdapter(type(group)).validate_python(dict(vars(group)))
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg'].lower()}" for e in error.errors()]
    return []
