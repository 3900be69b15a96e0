"""Behavior of a simulated animal, its gain on the neurons, and fluctuations that neurons share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuroint.data.simulators.v1_parts.cells import WINDOW_UM, Cells
from neuroint.data.simulators.v1_parts.settings import FRAME_S

STATE_TAU_S, PUPIL_TAU_S, LATENT_TAU_S = 5.0, 1.0, 1.0
PUPIL_CENTER_PX = 119.9
_LATENTS = 8
_LATENT_UM = 150.0


@dataclass(frozen=True)
class Behavior:
    """What an animal does during a clip.

    Attributes:
        state: arousal, unit variance, time constant 5 s.
        pupil: the state smoothed over 1 s, unit variance.
        dilation: pupil dilation, raw units (about 54, SD 15).
        running: running speed, raw units (about 5, SD 9, half of the time 0).
        center_px: pupil center in camera pixels, x and y.
    """

    state: Float[np.ndarray, " time"]
    pupil: Float[np.ndarray, " time"]
    dilation: Float[np.ndarray, " time"]
    running: Float[np.ndarray, " time"]
    center_px: Float[np.ndarray, "time 2"]

    def gain(self, cells: Cells) -> Float[np.ndarray, "time neurons"]:
        """Return ``exp(a_i s(t) + c_i p(t))``."""
        return np.exp(np.outer(self.state, cells.gain_state) + np.outer(self.pupil, cells.gain_pupil))


def behave(rng: np.random.Generator, frames: int) -> Behavior:
    """Draw the behavior of one clip, in the units and ranges of the public mouse recordings."""
    state = wander(rng, frames, STATE_TAU_S, 1)[:, 0]
    decay = np.exp(-FRAME_S / PUPIL_TAU_S)
    smooth = leaky_sum(np.concatenate([state[:1], (1 - decay) * state[1:]])[:, None], decay)[:, 0]
    pupil = smooth * np.sqrt((STATE_TAU_S + PUPIL_TAU_S) / STATE_TAU_S)  # smoothing took this much of the SD
    return Behavior(
        state=state,
        pupil=pupil,
        dilation=np.clip(53.6 + 14.8 * pupil, 20.8, 88.0),
        running=np.clip(19.0 * (state - 0.3), 0.0, 47.0),
        center_px=PUPIL_CENTER_PX + wander(rng, frames, STATE_TAU_S, 2) * (4.9, 6.9),
    )


def wander(rng: np.random.Generator, frames: int, tau_s: float, channels: int) -> Float[np.ndarray, "time channels"]:
    """Draw stationary Ornstein-Uhlenbeck noise of unit variance."""
    decay = np.exp(-FRAME_S / tau_s)
    noise = rng.standard_normal((frames, channels))
    noise[1:] *= np.sqrt(1 - decay**2)
    return leaky_sum(noise, decay)


def leaky_sum(inputs: Float[np.ndarray, "time channels"], decay: float) -> Float[np.ndarray, "time channels"]:
    """Sum over time with forgetting: ``x(t) = decay x(t-1) + input(t)``."""
    summed = inputs.copy()
    for t in range(1, len(inputs)):
        summed[t] += decay * summed[t - 1]
    return summed


def latent_loadings(rng: np.random.Generator, cells: Cells) -> Float[np.ndarray, "latents neurons"]:
    """Load neurons on shared fluctuations that each cover a patch of cortex; squares sum to 1 in every neuron."""
    centers = rng.uniform(0, WINDOW_UM, (_LATENTS, 2))
    squared = ((centers[:, None] - cells.positions_um[None, :, :2]) ** 2).sum(axis=2)
    loadings = np.exp(-squared / (2 * _LATENT_UM**2))
    return loadings / np.linalg.norm(loadings, axis=0)


def latent_gain(
    rng: np.random.Generator, frames: int, loadings: Float[np.ndarray, "latents neurons"], strength: float
) -> Float[np.ndarray, "time neurons"]:
    """Draw ``exp(g - strength^2 / 2)``, mean 1, with g of standard deviation ``strength`` shared by near neurons."""
    if strength == 0:
        return np.ones((frames, loadings.shape[1]))
    log_gain = strength * wander(rng, frames, LATENT_TAU_S, len(loadings)) @ loadings
    return np.exp(log_gain - strength**2 / 2)
