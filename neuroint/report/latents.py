"""Draw latents of a fitted core by condition of the experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from neuroint.analysis.latents import Separation

COLUMNS = 3
Means = Mapping[float, Float[np.ndarray, "time latents"]]


def draw_latents(
    means: Means, time_s: Float[np.ndarray, " time"], separation: Separation, file: Path, *, most: int = 6, key: str
) -> Path:
    """Draw the latents that tell conditions apart best, one panel each and one line per condition, into a PNG.

    Args:
        means: mean latents by condition; conditions are numbers, which color the lines.
        time_s: time of every bin.
        separation: share of variance between conditions, with its null; both stand above each panel.
        file: where to.
        most: panels.
        key: what the numbers of conditions are.
    """
    order = np.argsort(separation.share)[::-1][:most]
    rows = -(-len(order) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS + 1, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    largest = max(abs(name) for name in means) or 1.0
    norm, colors = Normalize(-largest, largest), colormaps["coolwarm"]
    for ax, latent in zip(axes, order, strict=False):
        for name in sorted(means):
            ax.plot(time_s, means[name][:, latent], color=colors(norm(name)), lw=1.6)
        chance = np.quantile(separation.null[:, latent], 0.95)
        ax.set_title(
            f"latent {latent}: {separation.share[latent]:.2f} between conditions\n"
            f"(95 % of chance below {chance:.2f}, p = {separation.p[latent]:.3f})",
            fontsize=8,
        )
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(order) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(order) - COLUMNS) : len(order)]:
        ax.set_xlabel("time after stimulus onset (s)")
    for row in range(rows):
        axes[row * COLUMNS].set_ylabel("mean latent (no unit)")
    figure.colorbar(ScalarMappable(norm, colors), ax=axes.tolist(), label=key, shrink=0.8)
    figure.savefig(file, dpi=130)
    return file
