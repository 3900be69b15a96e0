"""Draw neurons: where they lie in the cortex, and what they see."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from neuroint.data.simulators.v1_parts.settings import Confounders, Preset

WINDOW_UM = 600  # side of the imaged square
PLANES_UM = (200, 250, 300, 350)  # depths of the imaging planes
_UM_PER_DEG = 20.0  # retinotopic magnification


@dataclass(frozen=True)
class Cells:
    """Neurons of one session and their receptive fields.

    Attributes:
        positions_um: x, y and depth, whole micrometers.
        plane: index of the imaging plane.
        azimuth_deg, elevation_deg: receptive-field center from the middle of the screen (elevation grows downwards).
        size_deg: standard deviation of the Gaussian envelope.
        direction_rad: preferred direction of motion; orientation is its remainder by pi.
        spatial_cpd: preferred spatial frequency, cycles per degree.
        temporal_hz: preferred temporal frequency.
        phase_rad: phase of the Gabor.
        complexity: 0 for a simple cell, 1 for a complex cell.
        rate_factor: mean rate over the median one.
        gain_state, gain_pupil: effect of the animal's state and pupil on log rate, per standard deviation.
        duplicate_of: neuron whose second outline this one is, or -1.
    """

    positions_um: Float[np.ndarray, "neurons 3"]
    plane: Int[np.ndarray, " neurons"]
    azimuth_deg: Float[np.ndarray, " neurons"]
    elevation_deg: Float[np.ndarray, " neurons"]
    size_deg: Float[np.ndarray, " neurons"]
    direction_rad: Float[np.ndarray, " neurons"]
    spatial_cpd: Float[np.ndarray, " neurons"]
    temporal_hz: Float[np.ndarray, " neurons"]
    phase_rad: Float[np.ndarray, " neurons"]
    complexity: Float[np.ndarray, " neurons"]
    rate_factor: Float[np.ndarray, " neurons"]
    gain_state: Float[np.ndarray, " neurons"]
    gain_pupil: Float[np.ndarray, " neurons"]
    duplicate_of: Int[np.ndarray, " neurons"]

    @property
    def count(self) -> int:
        """Number of neurons."""
        return len(self.plane)

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def azimuth_score(self) -> Float[np.ndarray, " neurons"]:
        """Azimuth in standard deviations from its mean."""
        return (self.azimuth_deg - self.azimuth_deg.mean()) / self.azimuth_deg.std()


def draw_cells(rng: np.random.Generator, preset: Preset, confounders: Confounders, gain: float) -> Cells:
    """Draw the neurons of one session.

    Positions are uniform in a square of 600 um at four depths; receptive fields follow them at 20 um per degree with
    4 degrees of scatter; orientation is salt and pepper, as in the mouse.
    """
    n = preset.neurons
    duplicate_of = _duplicates(rng, n, confounders.duplicate_rois)
    positions, plane = _positions(rng, n, duplicate_of)
    center = (positions[:, :2] - WINDOW_UM / 2) / _UM_PER_DEG + 4.0 * rng.standard_normal((n, 2))
    return Cells(
        positions_um=positions,
        plane=plane,
        azimuth_deg=center[:, 0],
        elevation_deg=center[:, 1],
        size_deg=rng.uniform(4, 14, n),
        direction_rad=rng.uniform(0, 2 * np.pi, n),
        spatial_cpd=np.clip(0.04 * np.exp(0.4 * rng.standard_normal(n)), 0.01, 0.3 / preset.degrees_per_pixel),
        temporal_hz=1.5 * np.exp(0.5 * rng.standard_normal(n)),
        phase_rad=rng.uniform(0, 2 * np.pi, n),
        complexity=rng.beta(2, 2, n),
        rate_factor=np.exp(0.8 * rng.standard_normal(n)),
        gain_state=gain * (1 + 0.5 * rng.standard_normal(n)),
        gain_pupil=gain * (1 + 0.5 * rng.standard_normal(n)),
        duplicate_of=duplicate_of,
    )


def _duplicates(rng: np.random.Generator, n: int, fraction: float) -> Int[np.ndarray, " neurons"]:
    """Make a random fraction of the neurons (at most half) second outlines of other ones."""
    order, count = rng.permutation(n), min(round(fraction * n), n // 2)
    duplicate_of = np.full(n, -1)
    duplicate_of[order[:count]] = order[n - count :]
    return duplicate_of


def _positions(
    rng: np.random.Generator, n: int, duplicate_of: Int[np.ndarray, " neurons"]
) -> tuple[Float[np.ndarray, "neurons 3"], Int[np.ndarray, " neurons"]]:
    lateral = rng.integers(0, WINDOW_UM + 1, (n, 2))
    plane = rng.integers(0, len(PLANES_UM), n)
    nearby, next_plane = rng.integers(-6, 7, (n, 2)), np.where(plane == 0, 1, -1)
    second = duplicate_of >= 0
    source = duplicate_of[second]
    lateral[second] = np.clip(lateral[source] + nearby[second], 0, WINDOW_UM)
    plane[second] = plane[source] + next_plane[source]  # the same cell cut by the adjacent plane
    return np.column_stack([lateral, np.asarray(PLANES_UM)[plane]]).astype(float), plane
