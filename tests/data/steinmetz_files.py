"""Write small files in the two layouts of Steinmetz et al. (2019), with every key, shape and type of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

BINS = 250
AREAS = ("MOs", "VISp", "CA1", "root")


def neuromatch_session(seed: int, neurons: int = 12, active: int = 20, passive: int = 4) -> dict[str, Any]:
    """One entry of ``dat``, its keys in the order of the published files."""
    draw = np.random.default_rng(seed)

    def traces(rows: int, trials: int) -> np.ndarray:
        return draw.normal(size=(rows, trials, BINS))

    def times(trials: int) -> np.ndarray:
        return 0.5 + draw.uniform(0.2, 1, (trials, 1))

    def contrasts(trials: int) -> np.ndarray:
        return draw.choice([0.0, 0.25, 0.5, 1.0], trials)

    def counts(trials: int) -> np.ndarray:
        return draw.poisson(0.05, (neurons, trials, BINS)).astype(np.int8)

    return {
        "spks": counts(active),
        "wheel": np.rint(traces(1, active)).astype(np.int8),
        "pupil": traces(3, active),
        "response": draw.choice([-1.0, 0.0, 1.0], active),
        "response_time": times(active),
        "bin_size": 0.01,
        "stim_onset": 0.5,
        "contrast_right": contrasts(active),
        "contrast_left": contrasts(active),
        "brain_area": np.array([AREAS[i % len(AREAS)] for i in range(neurons)], dtype=object),
        "feedback_time": times(active),
        "feedback_type": draw.choice([-1.0, 1.0], active),
        "gocue": times(active),
        "mouse_name": ("Cori", "Richards")[seed % 2],
        "date_exp": f"2017-10-{30 + seed % 2}",
        "trough_to_peak": draw.integers(3, 30, neurons),
        "active_trials": np.arange(active + passive) < active,
        "contrast_left_passive": contrasts(passive),
        "contrast_right_passive": contrasts(passive),
        "spks_passive": counts(passive),
        "pupil_passive": traces(3, passive),
        "wheel_passive": np.rint(traces(1, passive)).astype(np.int8),
        "prev_reward": draw.choice([-1.0, 1.0], (active, 1)),
        "ccf": draw.uniform(0, 10000, (neurons, 3)),
        "ccf_axes": ["ap", "dv", "lr"],
        "cellid_orig": draw.permutation(neurons),
        "reaction_time": np.stack([draw.uniform(0, 500, active), draw.choice([-1.0, 0.0, 1.0], active)], axis=1),
        "face": traces(1, active),
        "face_passive": traces(1, passive),
        "licks": (traces(1, active) > 2).astype(np.int8),
        "licks_passive": (traces(1, passive) > 2).astype(np.int8),
    }


def write_parts(folder: Path, sessions: int = 3, **changes: Any) -> list[Path]:
    """Pickle sessions into two parts, as they are published; ``changes`` replace keys of the first one."""
    held = [neuromatch_session(seed, neurons=12 + seed) for seed in range(sessions)]
    held[0] |= changes
    parts = []
    for number, chosen in enumerate((held[:2], held[2:])):
        dat = np.empty(len(chosen), dtype=object)
        dat[:] = chosen
        parts.append(folder / f"steinmetz_part{number}.npz")
        np.savez_compressed(parts[-1], dat=dat)
    return parts


def trials_first(trials: int = 30, neurons: int = 10, bins: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a session that holds trials first, in bins of 10 ms from stimulus onset."""
    draw = np.random.default_rng(seed)
    areas = [AREAS[i % len(AREAS)] for i in range(neurons)]
    return {
        "spikes": draw.poisson(0.3, (trials, neurons, bins)).astype(np.uint8),
        "bin_start_s": np.sort(draw.uniform(0, 1000, trials))[:, None] + 0.01 * np.arange(bins),
        "contrast_left": draw.choice([0.0, 0.5], trials),
        "contrast_right": draw.choice([0.0, 1.0], trials),
        "feedback": draw.choice([-1, 1], trials).astype(np.int8),
        "brain_area": np.array(areas),
        "mouse": np.array("Cori"),
        "date": np.array("2016-12-14"),
    }
