"""Identify recorded head-direction cells while awake; ask whether the couplings know the ring, and hold in REM sleep.

``python benchmarks/ring_cells.py FILE --write-docs``, with FILE the arrays of 19 cells (``wake_counts``,
``wake_angle_rad``, ``rem_counts``, ``preferred_angle_rad``, bins of 10 ms): 3 seeds of ``input_separated_rnn`` in bins
of 50 ms; 1 thread, minutes. Couplings among observed units are held against the cosine of the difference of preferred
directions, and against correlations one bin apart in REM sleep, in which nothing was trained; the null renames neurons.
The network then goes on from every REM frame without velocity for 250 ms, as it is and with its units given to other
neurons.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pages
import torch
from jaxtyping import Float
from ring_parts.fitting import model_with, windows
from scipy.ndimage import gaussian_filter1d
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from neuroint.analysis.structure import Agreement, agreement, relabeled
from neuroint.data.base import TRAIN, Inputs, Session
from neuroint.data.observed import observe_past
from neuroint.data.trials import trial_session
from neuroint.seeding import generator

BIN_S, BINS_IN_ONE, SMOOTHING_BINS, CLIP_BINS, HELD_OUT_EVERY = 0.05, 5, 2, 200, 5
HIDDEN, LEARNING_RATE, AHEAD_BINS = 40, 1e-3, 5


class Cells(NamedTuple):
    """Recorded cells in bins of 50 ms: rates between 0 and 1, velocity in radians per second."""

    session: Session
    rates: Float[np.ndarray, "clips time neurons"]
    velocity: Float[np.ndarray, "clips time 1"]
    rem: Float[np.ndarray, "time neurons"]
    preferred: Float[np.ndarray, " neurons"]


def smoothed(counts: np.ndarray, scale: Float[np.ndarray, " neurons"] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sum counts to bins of 50 ms, smooth them with an SD of 100 ms, and divide by each neuron's 99.5th percentile."""
    whole = len(counts) // BINS_IN_ONE * BINS_IN_ONE
    binned = counts[:whole].reshape(-1, BINS_IN_ONE, counts.shape[1]).sum(axis=1).astype(np.float64)
    smooth = gaussian_filter1d(binned, SMOOTHING_BINS, axis=0)
    scale = np.quantile(smooth, 0.995, axis=0) if scale is None else scale
    return (smooth / scale).clip(max=1).astype(np.float32), scale


def turning(angle: Float[np.ndarray, " time"]) -> Float[np.ndarray, " bins"]:
    """Radians per second in bins of 50 ms, smoothed like the rates."""
    whole = len(angle) // BINS_IN_ONE * BINS_IN_ONE
    heading = np.unwrap(angle.astype(np.float64))[:whole].reshape(-1, BINS_IN_ONE).mean(axis=1)
    return gaussian_filter1d(np.gradient(heading, BIN_S), SMOOTHING_BINS).astype(np.float32)


def read(file: Path) -> Cells:
    """Cut the waking record into clips of 10 s, of which every fifth is held out."""
    with np.load(file, allow_pickle=False) as found:
        rates, scale = smoothed(found["wake_counts"])
        rem, _ = smoothed(found["rem_counts"], scale)
        velocity, preferred = turning(found["wake_angle_rad"]), np.array(found["preferred_angle_rad"])
    clips = len(rates) // CLIP_BINS
    cut = [x[: clips * CLIP_BINS].reshape(clips, CLIP_BINS, -1) for x in (rates, velocity)]
    tiers = ["validation" if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else TRAIN for i in range(clips)]
    session = trial_session("cells", "cells", cut[0], tiers, np.arange(clips), bin_s=BIN_S, behavior=cut[1])
    return Cells(observe_past(session, BIN_S), cut[0], cut[1], rem, preferred)


def fit(cells: Cells, seed: int, updates: int) -> Any:
    """Train on windows of all training clips."""
    model = model_with({"hidden": HIDDEN}, cells.session, seed)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    clips = cells.session.clips(TRAIN)
    arrays = [torch.from_numpy(x[clips]) for x in (cells.rates, cells.velocity)]
    for number in range(updates):
        rates, velocity = windows(arrays, generator(seed, "cells", "windows", number))
        optimizer.zero_grad(set_to_none=True)
        found = model(Inputs(behavior=velocity, observed=rates), "cells")
        functional.mse_loss(found[:, 1:], rates[:, 1:]).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def ahead(model: Any, rem: Float[np.ndarray, "time neurons"], names: np.ndarray) -> float:
    """Mean over neurons of the correlation of REM activity with what the network makes of that 250 ms before.

    ``names`` says which neuron each observed unit is given.
    """
    starts = torch.from_numpy(rem[:-AHEAD_BINS, names])
    observed = starts[:, None].expand(-1, AHEAD_BINS + 1, -1)
    still = torch.zeros(len(starts), AHEAD_BINS + 1, 1)
    made = model(Inputs(behavior=still, observed=observed), "cells")[:, -1]
    return float(_correlations(made, torch.from_numpy(rem[AHEAD_BINS:, names])).mean())


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return (a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-12)


def next_bin_correlation(rates: Float[np.ndarray, "time neurons"]) -> Float[np.ndarray, "target source"]:
    """Correlation of each neuron with each neuron one bin before."""
    n = rates.shape[1]
    return np.corrcoef(rates[1:].T, rates[:-1].T)[:n, n:]


def scores(model: Any, cells: Cells, seed: int, draws: int) -> dict[str, Any]:
    """Held-out error, and what the couplings among observed units agree with."""
    n = cells.rates.shape[2]
    coupling = model.core.connectivity().detach().double().numpy()[:n, :n].T
    near = np.cos(cells.preferred[:, None] - cells.preferred[None, :])
    held = cells.session.clips("validation")
    with torch.no_grad():
        given = Inputs(behavior=torch.from_numpy(cells.velocity[held]), observed=torch.from_numpy(cells.rates[held]))
        made = model(given, "cells")[:, 1:].numpy()
    true = cells.rates[held, 1:]
    random = generator(seed, "cells", "names")
    null = np.array([ahead(model, cells.rem, random.permutation(n)) for _ in range(draws)])
    as_it_is = ahead(model, cells.rem, np.arange(n))
    p = (1 + (null >= as_it_is).sum()) / (1 + draws)
    return {
        "seed": seed,
        "open_loop_mse": float(np.mean((made - true) ** 2)),
        "open_loop_mse_of_constant": float(np.mean((true - true.mean(axis=(0, 1))) ** 2)),
        "preferred": _told(agreement(coupling, near, relabeled, draws=draws, seed=seed)),
        "rem": _told(agreement(coupling, next_bin_correlation(cells.rem), relabeled, draws=draws, seed=seed)),
        "rem_ahead": {
            "score": as_it_is,
            "null_max": float(null.max()),
            "p": float(p),
        },
    }


def baselines(cells: Cells) -> dict[str, float]:
    """What needs no network: correlations awake in place of couplings, and REM activity that stays as it was.

    Rank correlation off the diagonal of next-bin correlations awake with the two matrices, and mean correlation of REM
    activity with that 250 ms before.
    """
    off = ~np.eye(cells.rates.shape[2], dtype=bool)
    awake = next_bin_correlation(cells.rates.reshape(-1, cells.rates.shape[2]))
    near = np.cos(cells.preferred[:, None] - cells.preferred[None, :])
    asleep = next_bin_correlation(cells.rem)
    found = {name: spearmanr(awake[off], other[off])[0] for name, other in (("preferred", near), ("rem", asleep))}
    stays = _correlations(torch.from_numpy(cells.rem[:-AHEAD_BINS]), torch.from_numpy(cells.rem[AHEAD_BINS:])).mean()
    return {**{name: float(np.asarray(value)) for name, value in found.items()}, "rem_ahead": float(stays)}


def _told(found: Agreement) -> dict[str, float]:
    return {"score": found.correlation, "null_max": float(found.null.max()), "p": found.p}


def markdown(rows: list[dict[str, Any]], without: dict[str, float]) -> str:
    """A line for each seed, and one for what needs no network."""
    names = {
        "preferred": "cos of preferred directions",
        "rem": "REM correlations",
        "rem_ahead": "REM, 250 ms on",
    }
    lines = ["| seed | open-loop MSE / constant's | " + " | ".join(names.values()) + " |", "|---" * 5 + "|"]
    for row in rows:
        cells = [f"{row[k]['score']:.3f} (p {row[k]['p']:.3g}; largest null {row[k]['null_max']:.3f})" for k in names]
        share = row["open_loop_mse"] / row["open_loop_mse_of_constant"]
        lines.append(f"| {row['seed']} | {share:.3f} | " + " | ".join(cells) + " |")
    lines.append("| without a network | | " + " | ".join(f"{without[k]:.3f}" for k in names) + " |")
    return "\n".join(lines)


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, help="file to write the results to, JSON")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/ring.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells, rows = read(options.file), []
    for seed in range(options.seeds):
        rows.append(scores(fit(cells, seed, options.updates), cells, seed, options.draws))
        print(f"{time.strftime('%H:%M:%S')} {json.dumps(rows[-1])}", flush=True)
    table = markdown(rows, baselines(cells))
    print(table)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    if options.write_docs:
        command = f"python benchmarks/ring_cells.py head_direction.npz --updates {options.updates}"
        pages.put(pages.DOCS / "ring.md", "cells", command, table)


if __name__ == "__main__":
    main()
