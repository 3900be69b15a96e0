"""From rates to responses: noise, mixing between outlines, calcium, the slow microscope, smoothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from neuroint.data.simulators.v1_parts.settings import FRAME_S, Recording

_SHAPE = 4.0  # of gamma noise: skewed like activity, and never negative, so that no reader clamps it


@dataclass(frozen=True)
class Recorder:
    """Records a population; everything behind the noise is linear, so what is expected is known exactly.

    Attributes:
        scale: mean count per frame of a neuron whose rate is 1.
        mixing: which activity reaches which outline.
        plane: imaging plane of each neuron.
        operators: the whole chain from activity to responses in time, one per plane.
        noise_sd: standard deviation of additive noise; None draws Poisson counts instead.
    """

    scale: Float[np.ndarray, " neurons"]
    mixing: sparse.csr_array
    plane: Int[np.ndarray, " neurons"]
    operators: Float[np.ndarray, "planes time time"]
    noise_sd: Float[np.ndarray, " neurons"] | None = None

    def chain(self, activity: Float[np.ndarray, "time neurons"]) -> Float[np.ndarray, "time neurons"]:
        """Apply calcium, sampling and smoothing."""
        recorded = np.empty_like(activity)
        for plane, operator in enumerate(self.operators):
            members = self.plane == plane
            recorded[:, members] = operator @ activity[:, members]
        return recorded

    def expected(self, rates: Float[np.ndarray, "time neurons"]) -> Float[np.ndarray, "time neurons"]:
        """Mean response over noise, given the rates."""
        return self.record(self.scale * rates) + self._floor()

    def counts(
        self, rng: np.random.Generator, rates: Float[np.ndarray, "*time neurons"]
    ) -> Float[np.ndarray, "*time neurons"]:
        """Draw spikes."""
        return rng.poisson(self.scale * rates).astype(float)

    def respond(
        self, rng: np.random.Generator, rates: Float[np.ndarray, "time neurons"]
    ) -> Float[np.ndarray, "time neurons"]:
        """Draw one noisy response."""
        if self.noise_sd is None:
            return self.record(self.counts(rng, rates))
        noise = rng.gamma(_SHAPE, self.noise_sd / np.sqrt(_SHAPE), rates.shape) - np.sqrt(_SHAPE) * self.noise_sd
        return self.record(self.scale * rates) + self.chain(noise) + self._floor()

    def record(self, counts: Float[np.ndarray, "time neurons"]) -> Float[np.ndarray, "time neurons"]:
        """Record activity per frame: what outlines see of it, through the chain."""
        return self.chain((self.mixing @ counts.T).T)

    def noise_variance(self, rates: Float[np.ndarray, "time neurons"]) -> Float[np.ndarray, "time neurons"]:
        """Variance over repeats that independent noise alone causes."""
        if self.noise_sd is None:
            variance = (self.mixing.power(2) @ (self.scale * rates).T).T
        else:
            variance = np.broadcast_to(self.noise_sd**2, rates.shape)
        return replace(self, operators=self.operators**2).chain(np.ascontiguousarray(variance))

    def with_exact_noise(
        self, signal_power: Float[np.ndarray, " neurons"], explained: Float[np.ndarray, " neurons"]
    ) -> Recorder:
        """Add noise of variance ``SP (1 - EV) / EV`` after the chain, per neuron.

        The chain averages or spreads white noise by a known factor, which is divided out.
        """
        passed = (self.operators**2).sum(axis=2).mean(axis=1)[self.plane]
        return replace(self, noise_sd=np.sqrt(signal_power * (1 - explained) / (explained * passed)))

    def _floor(self) -> Float[np.ndarray, " neurons"] | float:
        """Constant that keeps additive noise from making a response negative; it carries no signal."""
        if self.noise_sd is None:
            return 0.0
        return np.sqrt(_SHAPE) * self.noise_sd * self.operators.sum(axis=2).max(axis=1)[self.plane]


def chain_operators(recording: Recording, frames: int, planes: int) -> Float[np.ndarray, "planes time time"]:
    """Build the matrix from activity to responses for every imaging plane; all off is the identity.

    Calcium: ``c(t) = gamma c(t-1) + S(t)``. Sampling: a plane is visited every ``1 / sample_hz`` s at a phase of its
    own, each sample is the mean since the visit before, and samples are interpolated linearly to 30 Hz, so a response
    holds activity of up to one visit in its future. Smoothing: a symmetric Gaussian, not causal either.
    """
    shared = _calcium(frames, recording.calcium_tau_s)
    smooth = _smoothing(frames, recording.smoothing_s)
    return np.stack([smooth @ _sampling(frames, recording.sample_hz, p / planes) @ shared for p in range(planes)])


def _calcium(frames: int, tau_s: float) -> Float[np.ndarray, "time time"]:
    if tau_s == 0:
        return np.eye(frames)
    lag = np.arange(frames)[:, None] - np.arange(frames)[None]
    return np.where(lag >= 0, np.exp(-np.maximum(lag, 0) * FRAME_S / tau_s), 0.0)


def _sampling(frames: int, sample_hz: float, phase: float) -> Float[np.ndarray, "time time"]:
    if sample_hz == 0 or sample_hz * FRAME_S >= 1:
        return np.eye(frames)
    frame_end = np.arange(1, frames + 1) * FRAME_S
    visit_of_frame = np.ceil(np.round(frame_end * sample_hz - phase, 9)).astype(int)  # the visit that first sees it
    visits = np.unique(visit_of_frame)
    since_last = (visit_of_frame[None] == visits[:, None]).astype(float)
    samples = since_last / since_last.sum(axis=1, keepdims=True)
    visited_s = (visits + phase) / sample_hz
    between = np.stack([np.interp(frame_end, visited_s, column) for column in np.eye(len(visits))], axis=1)
    return between @ samples


def _smoothing(frames: int, sd_s: float) -> Float[np.ndarray, "time time"]:
    if sd_s == 0:
        return np.eye(frames)
    lag_s = (np.arange(frames)[:, None] - np.arange(frames)[None]) * FRAME_S
    kernel = np.where(np.abs(lag_s) <= 4 * sd_s, np.exp(-(lag_s**2) / (2 * sd_s**2)), 0.0)
    return kernel / kernel.sum(axis=1, keepdims=True)
