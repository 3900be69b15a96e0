"""Drifting 1/f textures with cuts and contrast jumps: what the simulated animals see."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from neuroint.data.simulators.v1_parts.settings import FRAME_S, Preset

GREY = 128.0  # luminance of the blank screen, grey levels 0..255
_CONTRAST = 30.0  # grey levels, standard deviation of a texture of contrast 1
_CONTRAST_SPREAD = 0.6  # of log contrast, from scene to scene
_SPEED_DEG_S = 30.0  # median drift


def texture_clip(rng: np.random.Generator, preset: Preset) -> Float[np.ndarray, "time height width"]:
    """Draw one clip: textures that drift, replaced every 1 to 3 s by another one of another contrast.

    The jumps of contrast are what tells divisive normalization from subtraction and from a linear filter. Grey
    levels are whole numbers from 0 to 255.

    Source: Carandini and Heeger, Nat Rev Neurosci 2012 (contrast as the signature of normalization).
    """
    scenes, left = [], preset.frames
    while left > 0:
        length = min(left, int(rng.integers(round(1 / FRAME_S), round(3 / FRAME_S) + 1)))
        scenes.append(_scene(rng, preset, length))
        left -= length
    video = GREY + _CONTRAST * np.concatenate(scenes)
    return np.rint(np.clip(video, 0, 255)).astype(np.float32)


def _scene(rng: np.random.Generator, preset: Preset, length: int) -> Float[np.ndarray, "time height width"]:
    contrast = np.exp(_CONTRAST_SPREAD * rng.standard_normal())
    speed = _SPEED_DEG_S * np.exp(0.5 * rng.standard_normal())
    heading = rng.uniform(0, 2 * np.pi)
    height, width = 2 * preset.height, 2 * preset.width  # a torus, twice the screen: its edges never show the same
    spectrum, ky, kx = _pink_spectrum(rng, height, width)
    shift = -2j * np.pi * speed * FRAME_S / preset.degrees_per_pixel * np.arange(length)[:, None, None]
    moved = spectrum * np.exp(shift * np.sin(heading) * ky) * np.exp(shift * np.cos(heading) * kx)
    return contrast * np.fft.irfft2(moved, (height, width))[:, : preset.height, : preset.width]


def _pink_spectrum(
    rng: np.random.Generator, height: int, width: int
) -> tuple[Shaped[np.ndarray, "rows columns"], Float[np.ndarray, "rows 1"], Float[np.ndarray, "1 columns"]]:
    """Return the spectrum of a 1/f texture of variance 1, and its frequencies in cycles per pixel."""
    ky, kx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.hypot(ky, kx)
    frequency[0, 0] = np.inf  # no mean luminance
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
    return spectrum * np.sqrt(height * width / _power(1 / frequency, width)), ky, kx


def _power(amplitude: Float[np.ndarray, "rows columns"], width: int) -> float:
    """Sum of squares over the whole spectrum, of which a real transform keeps one half."""
    twice = np.full(amplitude.shape[1], 2.0)
    twice[[0, width // 2]] = 1.0
    return float((amplitude**2 * twice).sum())
