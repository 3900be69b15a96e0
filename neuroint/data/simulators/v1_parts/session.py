"""One simulated recording: draws its animal, and presents clips to it one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from jaxtyping import Float

from neuroint.data.simulators.v1_parts.behavior import (
    PUPIL_CENTER_PX,
    Behavior,
    behave,
    latent_gain,
    latent_loadings,
)
from neuroint.data.simulators.v1_parts.cells import PLANES_UM, Cells, draw_cells
from neuroint.data.simulators.v1_parts.circuit import EXPONENT, Circuit
from neuroint.data.simulators.v1_parts.drive import Filters, look_away
from neuroint.data.simulators.v1_parts.neighbors import coupling_weights, mixing_weights, pool_weights
from neuroint.data.simulators.v1_parts.plan import TRAIN_TIER, PlannedClip, plan_clips
from neuroint.data.simulators.v1_parts.recording import Recorder, chain_operators
from neuroint.data.simulators.v1_parts.settings import World
from neuroint.data.simulators.v1_parts.stimulus import texture_clip
from neuroint.data.simulators.v1_parts.streams import stream

CALIBRATION_CLIPS = 8
REPLAYS = 64  # over which spikes are averaged where they feed back


@dataclass(frozen=True)
class Presented:
    """One clip as recorded, and what is true about it.

    Attributes:
        rates: what the circuit did without noise (under spike feeding: the mean of 64 replays).
        expected: mean response over noise, given stimulus and behavior, with no shared fluctuation.
    """

    clip: PlannedClip
    video: Float[np.ndarray, "time height width"]
    behavior: Behavior
    responses: Float[np.ndarray, "time neurons"]
    rates: Float[np.ndarray, "time neurons"]
    expected: Float[np.ndarray, "time neurons"]


@dataclass(frozen=True)
class Animal:
    """Everything about a simulated animal that stays the same from clip to clip.

    Attributes:
        drive_rms: root mean square of each neuron's unnormalized drive over calibration clips.
        signal_power: variance of the expected response over the frames of all repeated stimuli, behavior at its mean.
        noise_variance: mean variance that independent noise adds to it.
        loadings: of the shared fluctuations.
    """

    world: World
    seed: int
    session: int
    cells: Cells
    filters: Filters
    drive_rms: Float[np.ndarray, " neurons"]
    circuit: Circuit
    recorder: Recorder
    loadings: Float[np.ndarray, "latents neurons"]
    signal_power: Float[np.ndarray, " neurons"] = field(default_factory=lambda: np.zeros(0))
    noise_variance: Float[np.ndarray, " neurons"] = field(default_factory=lambda: np.zeros(0))

    def clips(self) -> list[PlannedClip]:
        """What it is shown, repeats of a stimulus together."""
        return plan_clips(self.world.preset, self.seed, self.session)

    def video(self, stimulus: int) -> Float[np.ndarray, "time height width"]:
        """The same stimulus every time."""
        return texture_clip(stream(self.seed, self.session, "stimulus", stimulus), self.world.preset)

    def energy(self, video: Float[np.ndarray, "time height width"]) -> Float[np.ndarray, "time neurons"]:
        """Return ``(e / rms)^n``."""
        return (self.filters.envelope(video) / self.drive_rms) ** EXPONENT

    def present(self) -> Iterator[Presented]:
        """Show all clips, one in memory at a time."""
        for stimulus, repeats in groupby(self.clips(), key=lambda clip: clip.stimulus):
            video = self.video(stimulus)
            energy = self.energy(video)
            for clip in repeats:
                yield self._present(clip, video, energy)

    def noise_free(
        self, energy: Float[np.ndarray, "time neurons"], gain: Float[np.ndarray, "time neurons"], index: int
    ) -> Float[np.ndarray, "time neurons"]:
        """Return rates without noise; where spikes feed back, averaged over replays of them."""
        if not self.circuit.spiking:
            return self.circuit.rates(energy, gain)
        rng, ones = stream(self.seed, self.session, "replays", index), np.ones_like(gain)
        return self._emitting(rng, energy, gain, ones, REPLAYS)[0].mean(axis=0)

    def _present(
        self,
        clip: PlannedClip,
        video: Float[np.ndarray, "time height width"],
        energy: Float[np.ndarray, "time neurons"],
    ) -> Presented:
        frames = len(video)
        behavior = behave(stream(self.seed, self.session, "behavior", clip.presentation), frames)
        if self.world.behaving.gaze_deg:
            energy = self.energy(look_away(video, self._gaze_px(behavior)))
        gain = behavior.gain(self.cells)
        rates = self.noise_free(energy, gain, clip.presentation)
        shared = latent_gain(
            stream(self.seed, self.session, "latent", clip.presentation),
            frames,
            self.loadings,
            self.world.confounders.latent,
        )
        rng = stream(self.seed, self.session, "noise", clip.presentation)
        if self.circuit.spiking:
            responses = self.recorder.record(self._emitting(rng, energy, gain, shared, 1)[1][0])
        else:
            responses = self.recorder.respond(rng, rates * shared)
        return Presented(clip, video, behavior, responses, rates, self.recorder.expected(rates))

    def _emitting(
        self,
        rng: np.random.Generator,
        energy: Float[np.ndarray, "time neurons"],
        gain: Float[np.ndarray, "time neurons"],
        shared: Float[np.ndarray, "time neurons"],
        replays: int,
    ) -> tuple[Float[np.ndarray, "replays time neurons"], Float[np.ndarray, "replays time neurons"]]:
        """Run the circuit on its own spikes; return rates and counts."""
        counts = np.empty((replays, *energy.shape))

        def emit(t, rate):
            counts[:, t] = self.recorder.counts(rng, rate * shared[t])
            return counts[:, t] / self.recorder.scale

        return self.circuit.unroll(energy, gain, emit, replays), counts

    def _gaze_px(self, behavior: Behavior) -> Float[np.ndarray, "time 2"]:
        away = (behavior.center_px - PUPIL_CENTER_PX) * self.world.behaving.gaze_deg
        return away / self.world.preset.degrees_per_pixel


def draw_animal(world: World, seed: int, session: int) -> Animal:
    """Draw an animal and calibrate it: drive of variance known, noise of the strength asked for."""
    preset = world.preset
    cells = draw_cells(stream(seed, session, "cells"), preset, world.confounders, world.behaving.gain)
    filters = Filters.on_screen(cells, preset)
    animal = Animal(
        world=world,
        seed=seed,
        session=session,
        cells=cells,
        filters=filters,
        drive_rms=_drive_rms(filters, world, seed, session),
        circuit=_wire(world, cells, seed, session),
        recorder=_recorder(world, cells, seed, session),
        loadings=latent_loadings(stream(seed, session, "loadings"), cells),
    )
    return _calibrate(animal)


def _drive_rms(filters: Filters, world: World, seed: int, session: int) -> Float[np.ndarray, " neurons"]:
    squares = [
        np.mean(filters.envelope(texture_clip(stream(seed, session, "calibration", i), world.preset)) ** 2, axis=0)
        for i in range(CALIBRATION_CLIPS)
    ]
    return np.sqrt(np.mean(squares, axis=0))


def _wire(world: World, cells: Cells, seed: int, session: int) -> Circuit:
    mechanisms = world.mechanisms
    coupling = coupling_weights(stream(seed, session, "coupling"), cells, mechanisms.coupling, mechanisms.like_to_like)
    return Circuit(pool_weights(stream(seed, session, "pool"), cells), coupling, mechanisms)


def _recorder(world: World, cells: Cells, seed: int, session: int) -> Recorder:
    gradient = np.exp(world.confounders.snr_gradient * cells.azimuth_score())
    return Recorder(
        scale=world.recording.median_rate * cells.rate_factor * gradient,
        mixing=mixing_weights(stream(seed, session, "neuropil"), cells, world.confounders.neuropil),
        plane=cells.plane,
        operators=chain_operators(world.recording, world.preset.frames, len(PLANES_UM)),
    )


def _calibrate(animal: Animal) -> Animal:
    """Measure signal power over the repeated stimuli, and set exact noise by it where that is asked for."""
    recorder, recording = animal.recorder, animal.world.recording
    signal_power, noise_variance = _powers(animal)
    if recording.noise == "exact_snr":
        logit = np.log(recording.explained_variance / (1 - recording.explained_variance))
        logit = logit + animal.world.confounders.snr_gradient * animal.cells.azimuth_score()
        recorder = recorder.with_exact_noise(signal_power, 1 / (1 + np.exp(-logit)))
        noise_variance = signal_power * np.exp(-logit)
    known = {"recorder": recorder, "signal_power": signal_power, "noise_variance": noise_variance}
    return Animal(**{**vars(animal), **known})


def _powers(animal: Animal) -> tuple[Float[np.ndarray, " neurons"], Float[np.ndarray, " neurons"]]:
    """Stream over the repeated stimuli: variance over frames of the mean response, mean over frames of the noise's."""
    stimuli = sorted({clip.stimulus for clip in animal.clips() if clip.tier != TRAIN_TIER})
    frames = len(stimuli) * animal.world.preset.frames
    total, squares, noise = (np.zeros(animal.cells.count) for _ in range(3))
    for stimulus in stimuli:
        energy = animal.energy(animal.video(stimulus))
        rates = animal.noise_free(energy, np.ones_like(energy), stimulus)
        expected = animal.recorder.expected(rates)
        total += expected.sum(axis=0)
        squares += (expected**2).sum(axis=0)
        noise += animal.recorder.noise_variance(rates).sum(axis=0)
    return squares / frames - (total / frames) ** 2, noise / frames
