"""What neurons compute from a video before they interact: spatiotemporal Gabors, simple and complex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from neuroint.data.simulators.v1_parts.cells import Cells
from neuroint.data.simulators.v1_parts.settings import FRAME_S, Preset
from neuroint.data.simulators.v1_parts.stimulus import GREY

KERNEL_FRAMES = 12
_KERNEL_PEAK_S = 0.06


@dataclass(frozen=True)
class Filters:
    """Receptive fields on the pixels of a screen, in two phases a quarter cycle apart."""

    cells: Cells
    even: Float[np.ndarray, "neurons pixels"]
    odd: Float[np.ndarray, "neurons pixels"]

    @classmethod
    def on_screen(cls, cells: Cells, preset: Preset) -> Filters:
        """Evaluate the Gabors at the centers of the pixels."""
        y = (np.arange(preset.height) - (preset.height - 1) / 2) * preset.degrees_per_pixel
        x = (np.arange(preset.width) - (preset.width - 1) / 2) * preset.degrees_per_pixel
        dy, dx = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
        even, odd = (np.empty((cells.count, dx.size), np.float32) for _ in range(2))
        for i in range(cells.count):  # neuron by neuron, so that memory stays at two filter banks
            even[i], odd[i] = _gabor(cells, i, dx, dy)
        return cls(cells, even, odd)

    def envelope(self, video: Float[np.ndarray, "time height width"]) -> Float[np.ndarray, "time neurons"]:
        """Turn a video into the unnormalized drive ``e >= 0`` of every neuron.

        ``e = (1 - m) relu(u) + m sqrt((u^2 + v^2) / 2)`` with complexity m, and u, v the responses of the Gabor and its
        quadrature partner, both filtered by ``(tau / .06 s)^2 exp(-2 tau / .06 s)`` (12 frames) while their phase
        advances at the preferred temporal frequency. Before the clip the screen is grey.

        Source: Adelson and Bergen, J Opt Soc Am A 1985 (motion energy).
        """
        pixels = ((video - GREY) / GREY).reshape(len(video), -1).astype(np.float32)
        u, v = self._in_time((pixels @ self.even.T).astype(float), (pixels @ self.odd.T).astype(float))
        m = self.cells.complexity
        return (1 - m) * np.maximum(u, 0) + m * np.sqrt((u**2 + v**2) / 2)

    def _in_time(
        self, even: Float[np.ndarray, "time neurons"], odd: Float[np.ndarray, "time neurons"]
    ) -> tuple[Float[np.ndarray, "time neurons"], Float[np.ndarray, "time neurons"]]:
        u, v = np.zeros_like(even), np.zeros_like(even)
        for lag, weight in enumerate(temporal_kernel()[: len(even)]):
            angle = 2 * np.pi * self.cells.temporal_hz * lag * FRAME_S
            cosine, sine = weight * np.cos(angle), weight * np.sin(angle)
            past = slice(0, len(even) - lag)
            u[lag:] += cosine * even[past] + sine * odd[past]
            v[lag:] += cosine * odd[past] - sine * even[past]
        return u, v


def temporal_kernel() -> Float[np.ndarray, " lags"]:
    """Return the temporal envelope of receptive fields, sum 1, one value per frame of delay."""
    delay = np.arange(KERNEL_FRAMES) * FRAME_S / _KERNEL_PEAK_S
    kernel = delay**2 * np.exp(-2 * delay)
    return kernel / kernel.sum()


def look_away(
    video: Float[np.ndarray, "time height width"], gaze_px: Float[np.ndarray, "time 2"]
) -> Float[np.ndarray, "time height width"]:
    """Return the video as a moving eye sees it: ``seen[y, x] = video[y + gaze_y, x + gaze_x]``, grey outside."""
    rows, columns = np.meshgrid(*(np.arange(size) for size in video.shape[1:]), indexing="ij")
    seen = [
        map_coordinates(frame, [rows + dy, columns + dx], order=1, cval=GREY)
        for frame, (dx, dy) in zip(video, gaze_px, strict=True)
    ]
    return np.stack(seen).astype(np.float32)


def _gabor(
    cells: Cells, i: int, dx: Float[np.ndarray, " pixels"], dy: Float[np.ndarray, " pixels"]
) -> tuple[Float[np.ndarray, " pixels"], Float[np.ndarray, " pixels"]]:
    x, y = dx - cells.azimuth_deg[i], dy - cells.elevation_deg[i]
    along = x * np.cos(cells.direction_rad[i]) + y * np.sin(cells.direction_rad[i])
    angle = 2 * np.pi * cells.spatial_cpd[i] * along + cells.phase_rad[i]
    envelope = np.exp(-(x**2 + y**2) / (2 * cells.size_deg[i] ** 2))
    return envelope * np.cos(angle), envelope * np.sin(angle)
