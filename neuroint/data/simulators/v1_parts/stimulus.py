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
    spectrum, ky, kx = _pink_spectrum(rng, 2 * preset.height, 2 * preset.width)
    shift = speed * FRAME_S / preset.degrees_per_pixel * np.arange(length)[:, None, None]  # pixels
    phase = np.exp(-2j * np.pi * shift * (kx * np.cos(heading) + ky * np.sin(heading)))
    torus = np.fft.ifft2(spectrum * phase).real  # twice the screen, so that both edges never show the same
    return contrast * torus[:, : preset.height, : preset.width]


def _pink_spectrum(
    rng: np.random.Generator, height: int, width: int
) -> tuple[Shaped[np.ndarray, "rows columns"], Float[np.ndarray, "rows 1"], Float[np.ndarray, "1 columns"]]:
    """Return the spectrum of a 1/f texture of variance 1, and its frequencies in cycles per pixel."""
    ky, kx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    frequency = np.hypot(ky, kx)
    frequency[0, 0] = np.inf  # no mean luminance
    amplitude = 1 / frequency
    spectrum = np.fft.fft2(rng.standard_normal((height, width))) * amplitude
    return spectrum / np.sqrt(np.mean(amplitude**2)), ky, kx
