"""Draw every neuron: an arm's score against the reference's, and where in the brain the gain is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap
from matplotlib.ticker import MaxNLocator

from neuroint.report.contrasts import Pair, neuron_gain, pair_runs
from neuroint.report.evidence import TIER_WORDS, Evidence, ScoredRun
from neuroint.report.figures import axes, short
from neuroint.report.findings import Findings
from neuroint.report.svg import INK, Panel, panel, styled
from neuroint.report.wording import counted, signed

RASTERIZED_FROM = 600  # neurons: more would make the page heavy as vectors
MOST_MAPS = 12
Neurons = Float[np.ndarray, " neurons"]

# Both ends of viridis vanish on dark or light ground; the middle of the map of gains is visible on both.
SNR_COLORS: Colormap = ListedColormap(colormaps["viridis"](np.linspace(0.22, 0.93, 256))).with_extremes(bad="#808080")
GAIN_COLORS: Colormap = LinearSegmentedColormap.from_list("gain", ["#D55E00", "#9a9a9a", "#0072B2"])


def draw_neurons(evidence: Evidence, findings: Findings, tier: str) -> dict[str, list[Panel]]:
    """Draw a scatter of every contrast, and maps where positions are known (at most ``MOST_MAPS``)."""
    names = [contrast.arm for contrast in findings.of_tier(tier) if contrast.neurons]
    pairs = {name: pair_runs(evidence, name, tier).pairs for name in names}
    with styled():
        scatters = [scatter(findings, tier, name, found, k) for k, (name, found) in enumerate(pairs.items())]
        return {"scatter": scatters, "maps": _maps(evidence, findings, pairs)}


def scatter(findings: Findings, tier: str, arm: str, pairs: Sequence[Pair], index: int) -> Panel:
    """Draw the score of every neuron under an arm against the reference, mean over seeds, colored by SNR."""
    metric = findings.metric
    ours, theirs = (_mean_over_seeds([pair[side] for pair in pairs], metric) for side in (0, 1))
    snr = np.concatenate([session.snr for session in pairs[0][1].sessions.values()])
    keep = np.isfinite(ours) & np.isfinite(theirs)
    figure, ax = axes(height=3.1)
    limits = _limits(np.concatenate([ours[keep], theirs[keep]]))
    ax.plot(limits, limits, color=INK, lw=0.8)
    marks = ax.scatter(theirs[keep], ours[keep], **_dots(snr[keep]))
    if np.isfinite(snr[keep]).any():
        figure.colorbar(marks, ax=ax, label="SNR (no unit)", shrink=0.85, extend="both")
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(f"{short(findings.reference)}: {metric}\n{TIER_WORDS[tier]}, {counted(int(keep.sum()), 'neuron')}")
    ax.set_ylabel(short(arm))
    above = float((ours[keep] > theirs[keep]).mean())
    alt = f"{metric} of every neuron, {arm} against {findings.reference}, mean over seeds"
    return panel(figure, f"scatter-{index}", f"{alt}: {above:.0%} lie above the diagonal.")


def _mean_over_seeds(runs: Sequence[ScoredRun], metric: str) -> Neurons:
    return np.mean([np.concatenate([s.values[metric] for s in run.sessions.values()]) for run in runs], axis=0)


def _limits(values: Neurons) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _dots(snr: Neurons) -> dict[str, Any]:
    """Size, color and kind of the dots; colors saturate at the 2nd and 98th percentile of SNR."""
    size = float(np.clip(4000 / max(1, snr.size), 1.5, 16))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.85, "rasterized": snr.size > RASTERIZED_FROM}
    if not np.isfinite(snr).any():
        return style | {"color": "#808080"}
    low, high = np.nanquantile(snr, (0.02, 0.98))
    return style | {"c": snr, "cmap": SNR_COLORS, "vmin": low, "vmax": high, "plotnonfinite": True}


def _maps(evidence: Evidence, findings: Findings, pairs: Mapping[str, Sequence[Pair]]) -> list[Panel]:
    """Draw the gain of every neuron at its position, one map per arm and session, one color scale for all."""
    gains = {
        (arm, name): gain for arm, found in pairs.items() for name, gain in neuron_gain(found, findings.metric).items()
    }
    placed = {key: gain for key, gain in gains.items() if _fits(evidence, key[1], gain)}
    if not placed:
        return []
    finite = np.concatenate([gain[np.isfinite(gain)] for gain in placed.values()])
    reach = float(np.quantile(np.abs(finite), 0.95)) if finite.size else 1.0
    shown = list(placed.items())[:MOST_MAPS]
    return [
        _map(evidence.neurons.positions_um[session], gain, reach or 1.0, findings, arm, session, k)
        for k, ((arm, session), gain) in enumerate(shown)
    ]


def _fits(evidence: Evidence, session: str, gain: Neurons) -> bool:
    positions = evidence.neurons.positions_um.get(session)
    return positions is not None and positions.shape[0] == gain.size


def _map(
    positions_um: Float[np.ndarray, "neurons 3"],
    gain: Neurons,
    reach: float,
    findings: Findings,
    arm: str,
    session: str,
    index: int,
) -> Panel:
    keep = np.isfinite(gain)
    figure, ax = axes(height=3.0)
    style = _dots(gain[keep]) | {"cmap": GAIN_COLORS, "vmin": -reach, "vmax": reach, "c": gain[keep]}
    style.pop("color", None)
    marks = ax.scatter(positions_um[keep, 0], positions_um[keep, 1], **style)
    figure.colorbar(marks, ax=ax, label=f"gain in {findings.metric}", shrink=0.85, extend="both")
    ax.set(aspect="equal", xlabel="x (µm)", ylabel="y (µm)")
    ax.set_title(f"{short(arm)}\n{short(session, 18)}: {counted(int(keep.sum()), 'neuron')}")
    mean = float(gain[keep].mean()) if keep.any() else float("nan")
    alt = f"Gain of {arm} over {findings.reference} at the neurons' positions in {session}: mean {signed(mean)}."
    return panel(figure, f"map-{index}", alt)
