"""Attractor networks as ``neuroint data simulate ring`` writes them: trajectories are clips, velocity is behavior."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroint.data.base import DEV_TEST, FINAL_TEST, VALIDATION, DataError, Session
from neuroint.data.mapping import Share
from neuroint.data.npy import map_array, read_header
from neuroint.data.simulators.ring_parts.writing import ABOUT
from neuroint.data.splits import split_by_stimulus
from neuroint.data.trials import trial_session
from neuroint.registry import readers

FIRST_SCORED = 1  # the frame before is where an open-loop rollout starts from
AXES = "trajectories time channel"


def looks_like(path: Path) -> bool:
    """Say whether a path is a folder with a ``ring.json``, or holds such folders."""
    return bool(_folders(path))


@readers.register("ring")
def read_ring(
    path: Path, *, validation: Share = 0.08, dev_test: Share = 0.08, final_test: Share = 0.04, split_seed: int = 0
) -> list[Session]:
    """Read simulated attractor networks: rates are responses, velocity is behavior, each trajectory is one clip.

    Tiers are dealt out by trajectory from ``split_seed``; of the reference's 125 trajectories 100 are for training.
    Nothing is normalized: velocity stays in radians per second, rates without unit. Scores begin at the second frame,
    because an open-loop rollout starts from the first one: set ``data.observed: past`` and ``data.lag_s`` to one bin.

    Raises:
        DataError: a file is missing, truncated, has other axes or another number of trajectories or frames than the
            rates, holds NaN, ``ring.json`` does not say ``bin_s``, or there are too few trajectories for the shares.
    """
    shares = {FINAL_TEST: final_test, DEV_TEST: dev_test, VALIDATION: validation}
    folders = _folders(path)
    if not folders:
        raise DataError(
            f"'{path}' holds no folder with a {ABOUT}; give what `neuroint data simulate ring` or `torus` wrote"
        )
    return [_read(folder, shares, split_seed) for folder in folders]


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [folder for folder in (path, *sorted(path.iterdir())) if (folder / ABOUT).is_file()]


def _read(folder: Path, shares: dict[str, float], seed: int) -> Session:
    bin_s, about = _bin_s(folder / ABOUT)
    rates, velocity = _array(folder / "rates.npy"), _array(folder / "velocity.npy")
    if rates.shape[:2] != velocity.shape[:2]:
        raise DataError(
            f"{folder}: rates have {rates.shape[0]} trajectories of {rates.shape[1]} frames, velocity "
            f"{velocity.shape[0]} of {velocity.shape[1]}; expected the same numbers: write the folder again"
        )
    ids = np.arange(len(rates))
    tiers = split_by_stimulus(ids, shares, seed)
    cautions = (f"simulated: {about}",)
    session = trial_session(
        folder.name, folder.name, rates, tiers, ids, bin_s=bin_s, behavior=velocity, cautions=cautions
    )
    return replace(session, scored_from=FIRST_SCORED)


def _array(file: Path) -> np.ndarray:
    header, _ = read_header(file)
    if len(header.shape) != 3:
        raise DataError(f"{file} has shape {header.shape}, expected three axes: {AXES}; write it again")
    array = map_array(file, header)
    if not all(np.isfinite(clip).all() for clip in array):
        raise DataError(f"{file} holds NaN or infinite values; simulate it again with less noise or another seed")
    return array


def _bin_s(file: Path) -> tuple[float, str]:
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        bin_s = float(found["bin_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error!r}); expected JSON with bin_s in seconds") from error
    if not 0 < bin_s < float("inf"):
        raise DataError(f"{file}: bin_s is {bin_s}; expected a positive number of seconds")
    return bin_s, f"{found.get('simulator', 'ring')}, {found.get('nonlinearity', 'unknown nonlinearity')}"
