"""Look at networks that a ring attractor was identified with: tuning, shifters, and how much of the wiring is found.

Matrices are [from, to]. Arrays of activity are ``trajectories time units``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuroint.seeding import generator

VELOCITY_BINS, HEADING_BINS = 40, 62
FASTEST = 5.0  # radians per second: the map's edge
TURNING = 1.5  # radians per second: below it the head counts as still
SHIFTER = 0.3  # index of velocity modulation from which a unit counts as a shifter
Square = Float[np.ndarray, "units units"]


def tuning_maps(
    rates: Float[np.ndarray, "trajectories time units"],
    velocity: Float[np.ndarray, "trajectories time"],
    heading: Float[np.ndarray, "trajectories time"],
    bins: tuple[int, int] = (VELOCITY_BINS, HEADING_BINS),
) -> Float[np.ndarray, "velocity heading units"]:
    """Average rates in bins of velocity (-5 to 5 radians per second) and heading (0 to 2 pi); NaN where none fell."""
    fast = np.floor((velocity + FASTEST) / (2 * FASTEST) * bins[0]).astype(int)
    turned = np.floor(heading % (2 * np.pi) / (2 * np.pi) * bins[1]).astype(int).clip(max=bins[1] - 1)
    inside = (fast >= 0) & (fast < bins[0])
    place = (fast * bins[1] + turned)[inside]
    total = np.zeros((bins[0] * bins[1], rates.shape[2]))
    np.add.at(total, place, rates[inside])
    count = np.bincount(place, minlength=len(total))[:, None]
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean.reshape(*bins, -1)


def velocity_modulation(
    rates: Float[np.ndarray, "trajectories time units"],
    velocity: Float[np.ndarray, "trajectories time"],
    heading: Float[np.ndarray, "trajectories time"],
) -> Float[np.ndarray, " units"]:
    r"""Say how much more a unit fires when the head turns one way than the other, all headings weighing the same.

    .. math:: (r_+ - r_-) / (r_+ + r_-)

    with :math:`r_\pm` the mean over 62 bins of heading of the mean rate at velocities above 1.5, or below -1.5, radians
    per second; bins where one of the two is unknown are left out. NaN for a unit that is silent in both.
    """
    turned = np.floor(heading % (2 * np.pi) / (2 * np.pi) * HEADING_BINS).astype(int).clip(max=HEADING_BINS - 1)
    ways = [_by_heading(rates, turned, chosen) for chosen in (velocity > TURNING, velocity < -TURNING)]
    known = np.isfinite(ways[0]).all(axis=1) & np.isfinite(ways[1]).all(axis=1)
    if not known.any():
        return np.full(rates.shape[2], np.nan)
    one, other = (way[known].mean(axis=0) for way in ways)
    silent = one + other == 0
    return np.where(silent, np.nan, (one - other) / np.where(silent, 1, one + other))


def _by_heading(rates: np.ndarray, turned: np.ndarray, chosen: np.ndarray) -> Float[np.ndarray, "heading units"]:
    total = np.zeros((HEADING_BINS, rates.shape[2]))
    np.add.at(total, turned[chosen], rates[chosen])
    count = np.bincount(turned[chosen], minlength=HEADING_BINS)[:, None]
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def sorted_by_heading(maps: Float[np.ndarray, "velocity heading units"]) -> Int[np.ndarray, " units"]:
    """Order units by the heading at which their map, summed over velocities, is largest; the last heading first."""
    preferred = np.nansum(maps, axis=0).argmax(axis=0)
    return np.argsort(-preferred, kind="stable")


def profile(matrix: Square) -> Float[np.ndarray, " units"]:
    """Average entries at equal distance around the ring: entry k is the mean over i of ``matrix[i, i + k]``."""
    units = len(matrix)
    around = (np.arange(units)[:, None] + np.arange(units)[None, :]) % units
    return np.take_along_axis(matrix, around, axis=1).mean(axis=0)


def circulant_r2(matrix: Square) -> float:
    """Share of the variance of the entries that their circular profile explains."""
    return float(profile(matrix).var() / matrix.var())


def correlation(found: Square, true: Square) -> float:
    """Pearson's correlation over all entries, the diagonal included."""
    return float(np.corrcoef(found.ravel(), true.ravel())[0, 1])


def profile_correlation(found: Square, true: Square) -> float:
    """Pearson's correlation of the circular profiles."""
    return float(np.corrcoef(profile(found), profile(true))[0, 1])


def gain_signed_product(
    to_hidden: Float[np.ndarray, "observed hidden"],
    gain: Float[np.ndarray, " hidden"],
    from_hidden: Float[np.ndarray, "hidden observed"],
) -> Float[np.ndarray, "observed observed"]:
    r"""Multiply the two steps through hidden units, weighed by what each gets from the input.

    .. math:: W_{cs}\, \mathrm{diag}(w_{in})\, W_{sc}

    The plain product tells nothing of the shift: shifters of opposite sign cancel in it.
    """
    return to_hidden @ (gain[:, None] * from_hidden)


@dataclass(frozen=True)
class Recovery:
    """A score of a found matrix against the true one, and the same for units with their names shuffled."""

    score: float
    null: Float[np.ndarray, " draws"]

    @property
    def p(self) -> float:
        """Share of draws that reach the score, one-sided; never below 1 / (draws + 1)."""
        return float((1 + (self.null >= self.score - 1e-12).sum()) / (1 + len(self.null)))

    @property
    def highest(self) -> float:
        """The largest score of a draw."""
        return float(self.null.max())


SCORES: Mapping[str, Callable[[Square, Square], float]] = {
    "correlation": correlation,
    "profile": profile_correlation,
    "circulant_r2": lambda found, true: circulant_r2(found),
}


def recovery(
    found: Float[np.ndarray, "sources targets"],
    true: Float[np.ndarray, "true_sources true_targets"],
    *,
    draws: int = 200,
    seed: int = 0,
) -> dict[str, Recovery]:
    """Score a found matrix in every way, each with a null: units renamed at random, rows and columns alike.

    The null keeps every entry and which entries share a unit; it forgets where on the ring a unit stands.

    Raises:
        ValueError: the matrices are not square, differ in size, or one is constant.
    """
    if found.shape != true.shape or found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ValueError(f"found is {found.shape} and true {true.shape}; give two square matrices over the same units")
    if found.std() == 0 or true.std() == 0:
        raise ValueError("a matrix has equal entries everywhere, so that nothing can be correlated with it")
    random = generator(seed, "ring", "shuffled")
    orders = [random.permutation(len(found)) for _ in range(draws)]
    return {
        name: Recovery(score(found, true), np.array([score(found[np.ix_(o, o)], true) for o in orders]))
        for name, score in SCORES.items()
    }


def connectivity_figure(pairs: Sequence[Mapping[str, Square]], file: Path) -> None:
    """Draw matrices side by side under their names, a row for each pair; every matrix has its own color range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6 * len(pairs)), layout="constrained")
    axes: Any = figure.subplots(len(pairs), 2, squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        for axis, (name, matrix) in zip(row, pair.items(), strict=True):
            limit = float(np.abs(matrix).max())
            image = axis.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axis.set(title=name, xlabel="to unit", ylabel="from unit")
            figure.colorbar(image, ax=axis, shrink=0.8)
    figure.savefig(file, dpi=100)


def tuning_figure(rows: Mapping[str, Float[np.ndarray, "velocity heading units"]], columns: int, file: Path) -> None:
    """Draw maps of some units of each kind: heading to the right, velocity upwards, one color range for all.

    Units are taken at equal steps of the order in which they are given; bins that nothing fell into stay white.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * columns + 1.2, 1.6 * len(rows) + 0.4), layout="constrained")
    axes: Any = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    highest = max(float(np.nanmax(maps)) for maps in rows.values())
    for row, (name, maps) in zip(axes, rows.items(), strict=True):
        for axis, unit in zip(row, np.linspace(0, maps.shape[2] - 1, columns).round().astype(int), strict=True):
            extent = (0, 360, -FASTEST, FASTEST)
            axis.imshow(maps[..., unit], origin="lower", aspect="auto", extent=extent, vmin=0, vmax=highest)
            axis.set(xticks=[0, 180, 360], yticks=[-4, 0, 4])
        row[0].set_ylabel(f"{name}\nvelocity (rad/s)", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("heading (deg)", fontsize=8)
    figure.colorbar(ScalarMappable(Normalize(0, highest)), ax=axes, shrink=0.6, label="rate")
    figure.savefig(file, dpi=110)
