"""Draw a card: example responses, how reliable neurons are, how much there is of each tier, where neurons lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION, Session
from neuroint.data.card import Card, SessionCard

TIER_COLORS = {TRAIN: "#0072B2", VALIDATION: "#E69F00", DEV_TEST: "#009E73", FINAL_TEST: "#CC79A7"}  # Okabe and Ito
INK = "#444444"
ROWS = 6  # sessions drawn; more do not fit on a page
RASTER_FRAMES, RASTER_NEURONS = 300, 60
PANEL_INCHES = (3.1, 2.9)

Panel = Callable[[Axes, SessionCard, Session], None]


def draw(card: Card, sessions: Sequence[Session], out_png: str | Path) -> Path:
    """Draw one row of panels per session (the first ``ROWS`` of them) and write a PNG.

    Args:
        card: what ``inspect`` found in these sessions.
        sessions: read once more for the example responses, which are from the training tier.
        out_png: where the figure goes; its folder exists.
    """
    pairs = list(zip(card.sessions, sessions, strict=True))[:ROWS]
    chosen = [_panels(*pair) for pair in pairs]
    columns = max(len(panels) for panels in chosen)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * (columns + 0.9), height * len(pairs) + 0.3), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(pairs), columns, squeeze=False, width_ratios=[1.9] + [1] * (columns - 1))
    for axes, panels, (one, session) in zip(grid, chosen, pairs, strict=True):
        for ax, panel in zip(axes, panels, strict=False):
            panel(ax, one, session)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
    if len(card.sessions) > ROWS:
        figure.supxlabel(f"{len(card.sessions) - ROWS} more sessions are not drawn", fontsize=8, color=INK)
    figure.savefig(out_png)
    return Path(out_png)


def _panels(card: SessionCard, session: Session) -> list[Panel]:
    """What can be drawn of a session, in order."""
    there: list[tuple[object, Panel]] = [
        (card.responses and len(session.clips(TRAIN)), _raster),
        (card.responses, _mean_responses),
        (card.snr, _snr),
        (card.tiers, _tiers),
        (card.extent_um and card.responses, _positions),
    ]
    return [panel for what, panel in there if what]


def _raster(ax: Axes, card: SessionCard, session: Session) -> None:
    """Responses of the most active neurons in a stretch of training, or to training images; NaN is drawn as 0."""
    responses, unit = _example(session)
    responses = np.nan_to_num(responses)
    order = np.argsort(-responses.mean(axis=0), kind="stable")[:RASTER_NEURONS]
    top = np.quantile(responses[:, order], 0.995)
    scale = card.bin_s if card.bin_s and unit == "frame" else 1.0
    image = ax.imshow(
        responses[:, order].T,
        aspect="auto",
        cmap="gray_r",
        interpolation="nearest",
        vmin=min(0.0, float(responses[:, order].min())),
        vmax=float(top) if top > 0 else 1.0,
        extent=(0, len(responses) * scale, len(order) + 0.5, 0.5),
    )
    _label(ax, f"{card.name}: example responses", "time (s)" if scale != 1.0 else f"training {unit}", "neuron, by mean")
    _colorbar(ax, image, "response")


def _example(session: Session) -> tuple[Float[np.ndarray, "time neurons"], str]:
    clips = session.clips(TRAIN)
    longest = int(clips[np.argmax(session.lengths[clips])])
    if session.lengths[longest] > 1:
        frames = min(RASTER_FRAMES, int(session.lengths[longest]))
        return session.source.read(longest, 0, frames).responses, "frame"
    first = [session.source.read(int(clip), 0, 1).responses for clip in clips[:RASTER_FRAMES]]
    return np.concatenate(first), "presentation"


def _mean_responses(ax: Axes, card: SessionCard, session: Session) -> None:
    means = card.responses.mean_per_neuron if card.responses else ()
    values = np.array([value for value in means if value is not None])
    positive = values[values > 0]
    if len(positive) == len(values) and len(values) and positive.max() > 20 * positive.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        bins = np.geomspace(positive.min(), positive.max() * 1.0001, _bins(values) + 1)
    else:
        bins = np.histogram_bin_edges(values, _bins(values))
    ax.hist(values, bins=bins.tolist(), color="#56B4E9", edgecolor="white", linewidth=0.4)
    _label(ax, "mean response", "mean over frames", "neurons")


def _snr(ax: Axes, card: SessionCard, session: Session) -> None:
    snr = card.snr
    if snr is None:
        return
    values = np.array([value for value in snr.per_neuron if value is not None])
    low, high = min(0.0, *np.quantile(values, [0.002, 0.998])), np.quantile(values, 0.998)
    ax.hist(np.clip(values, low, high), bins=_bins(values), color="#56B4E9", edgecolor="white", linewidth=0.4)
    ax.axvline(0, color=INK, linewidth=1)
    ax.axvline(snr.median, color="#D55E00", linewidth=1.5)
    _label(ax, f"SNR, median {snr.median:.2g}", "signal power / noise variance", "neurons")


def _tiers(ax: Axes, card: SessionCard, session: Session) -> None:
    names = [tier.tier for tier in card.tiers]
    frames = [tier.frames for tier in card.tiers]
    ax.barh(names, frames, color=[TIER_COLORS[name] for name in names], height=0.65)
    for place, tier in enumerate(card.tiers):
        repeated = f"\n {tier.stimuli} stimuli" if tier.stimuli < tier.clips else ""
        ax.text(tier.frames, place, f" {tier.clips} clips{repeated}", va="center", fontsize=7, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.45 * max(frames))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    _label(ax, "tiers", "presentations" if card.scored_from == 0 and max(session.lengths) == 1 else "frames", "")


def _positions(ax: Axes, card: SessionCard, session: Session) -> None:
    positions = session.facts.positions_um
    if positions is None or card.responses is None:
        return
    mean = np.array([np.nan if value is None else value for value in card.responses.mean_per_neuron])
    order = np.argsort(mean)
    top = float(np.nanquantile(mean, 0.95)) or 1.0
    points = ax.scatter(
        positions[order, 0],
        positions[order, 1],
        c=mean[order],
        s=8,
        cmap="cividis",
        vmin=min(0.0, np.nanmin(mean)),
        vmax=top,
    )
    ax.set_aspect("equal", adjustable="datalim")
    _label(ax, "positions", "x (µm)", "y (µm)")
    _colorbar(ax, points, "mean response")


def _bins(values: np.ndarray) -> int:
    """Some four neurons per bar."""
    return int(np.clip(len(values) // 4, 8, 30))


def _colorbar(ax: Axes, image: ScalarMappable, label: str) -> None:
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, extend="max", ticks=MaxNLocator(4))
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=9, loc="left")
    ax.set_xlabel(x, fontsize=8, color=INK)
    ax.set_ylabel(y, fontsize=8, color=INK)
    ax.tick_params(labelsize=7, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
