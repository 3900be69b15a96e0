"""Draw where a fitted transformer looks: over the video with the pupil, and along a clip beside what the animal did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from neuroint.modules.places import PlaceGrid

MODEL, ANIMAL = "#D55E00", "#0072B2"  # Okabe and Ito: told apart with any color vision
FRAMES = 6  # of the strip on top
DOUBLINGS = 2  # of the usual rollout, at which colors end


@dataclass(frozen=True)
class ShownClip:
    """One clip, frame by frame, as it is drawn.

    Attributes:
        video: frames that the features belong to.
        spatial: rollout over the grid of places.
        usual: the rollout's mean over all frames and clips, which every frame is compared with.
        grid: where places lie.
        center_px: x and y of the rollout's middle of mass.
        pupil_px: x and y of the pupil where it is drawn on the frame.
        temporal: how much later frames look at each frame, 1 for uniform attention; None where there is none.
        running: running speed.
        bin_s: seconds of a frame.
        begins_s: time of the first frame in the clip.
    """

    video: Float[np.ndarray, "time height width"]
    spatial: Float[np.ndarray, "time rows columns"]
    usual: Float[np.ndarray, "rows columns"]
    grid: PlaceGrid
    center_px: Float[np.ndarray, "time 2"]
    pupil_px: Float[np.ndarray, "time 2"]
    temporal: Float[np.ndarray, " time"] | None
    running: Float[np.ndarray, " time"]
    bin_s: float
    begins_s: float = 0.0

    @property
    def time_s(self) -> Float[np.ndarray, " time"]:
        """Time of every frame in the clip."""
        return self.begins_s + np.arange(len(self.video)) * self.bin_s


def draw_attention(clip: ShownClip, file: Path, *, title: str, running_unit: str = "SD") -> Path:
    """Draw frames of a clip with rollout and pupil on them, and below them attention and behavior over time, as a PNG.

    Colors are the rollout over its usual value at the place, in factors of two, because places differ in all frames
    alike and every token keeps half of itself in every block. A pupil beyond the frame is drawn at its edge. A core
    without attention over time has no lowest panel.
    """
    rows = 4 if clip.temporal is not None else 3
    figure = Figure(figsize=(11, 1.9 + 1.5 * (rows - 1)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.add_gridspec(rows, FRAMES, height_ratios=[1.0] + [1] * (rows - 1))
    chosen = np.linspace(0, len(clip.video) - 1, FRAMES + 2).round().astype(int)[1:-1]
    strip = [figure.add_subplot(grid[0, k]) for k in range(FRAMES)]
    image = _strip(strip, clip, chosen)
    bar = figure.colorbar(image, ax=strip, ticks=np.arange(-DOUBLINGS, DOUBLINGS + 1), aspect=8, pad=0.01)
    bar.ax.set_yticklabels([f"{2.0**k:g}" for k in range(-DOUBLINGS, DOUBLINGS + 1)], fontsize=8)
    bar.set_label("rollout\nover usual", fontsize=8)
    figure.legend(*strip[0].get_legend_handles_labels(), loc="upper left", fontsize=8, frameon=False)
    traces = [figure.add_subplot(grid[row, :]) for row in range(1, rows)]
    _traces(traces, clip, running_unit)
    for ax in traces:
        for time in clip.time_s[chosen]:
            ax.axvline(time, color="0.75", lw=0.8, zorder=0)
        ax.sharex(traces[-1])
        ax.label_outer()
    traces[-1].set_xlabel("time in the clip (s); gray lines: the frames above")
    figure.savefig(file, dpi=130)
    return file


def _strip(strip: list[Axes], clip: ShownClip, chosen: np.ndarray) -> AxesImage:
    """Frames in gray, the rollout in color, pupil and middle of mass as marks; returns what the colors mean."""
    doublings = np.log2(clip.spatial / clip.usual)
    half = clip.grid.stride_px / 2
    x, y = clip.grid.columns_px(), clip.grid.rows_px()
    extent = (x[0] - half, x[-1] + half, y[-1] + half, y[0] - half)
    dark, bright = np.quantile(clip.video, [0.02, 0.98])
    height, width = clip.video.shape[1:]
    image = None
    for ax, frame in zip(strip, chosen, strict=True):
        ax.imshow(clip.video[frame], cmap="gray", vmin=dark, vmax=bright)
        look = {"cmap": "PuOr_r", "vmin": -DOUBLINGS, "vmax": DOUBLINGS, "alpha": 0.6}
        image = ax.imshow(doublings[frame], extent=extent, interpolation="bilinear", **look)
        pupil = np.clip(clip.pupil_px[frame], 0, [width - 1, height - 1])
        ax.plot(*pupil, "o", ms=9, color=ANIMAL, mec="white", mew=1.2, clip_on=False, label="pupil")
        middle = {"ms": 9, "color": MODEL, "mec": "white", "mew": 1.0, "clip_on": False}
        ax.plot(*clip.center_px[frame], "X", **middle, label="middle of the rollout")
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        ax.set_title(f"{clip.time_s[frame]:.1f} s", fontsize=8)
    return image  # pyright: ignore[reportReturnType]  there is a frame


def _traces(traces: list[Axes], clip: ShownClip, running_unit: str) -> None:
    for ax, axis, name in zip(traces, (0, 1), ("x, rightward", "y, downward"), strict=False):
        _beside(ax, clip, clip.center_px[:, axis], clip.pupil_px[:, axis], f"{name}\nrollout (px)", "pupil (px)")
    if clip.temporal is not None:
        _beside(traces[2], clip, clip.temporal, clip.running, "attention\nover time (1)", f"running ({running_unit})")


def _beside(ax: Axes, clip: ShownClip, model: np.ndarray, animal: np.ndarray, left: str, right: str) -> None:
    """Two traces over one time axis, each with a scale of its own."""
    other = ax.twinx()
    ax.set_zorder(1)
    ax.patch.set_visible(False)
    other.plot(clip.time_s, animal, color=ANIMAL, lw=1.4)
    ax.plot(clip.time_s, model, color=MODEL, lw=1.4)
    ax.set_ylabel(left, color=MODEL, fontsize=8)
    other.set_ylabel(right, color=ANIMAL, fontsize=8)
    for one in (ax, other):
        one.spines["top"].set_visible(False)
        one.tick_params(labelsize=8)
