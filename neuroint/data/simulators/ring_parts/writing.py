"""The files of a simulated attractor network: plain arrays, and a folder of truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroint.data.simulators.ring_parts.network import Network

ABOUT = "ring.json"


def refuse_occupied(name: str, out: Path) -> None:
    """Raise before anything is computed when the folder cannot be written to.

    Raises:
        ValueError: the folder is a file, or is not empty.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"simulator '{name}': {out} is a file; give a folder that is empty or does not exist")
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"simulator '{name}': {out} is not empty; give a folder that is empty or does not exist")


def write_network(folder: Path, arrays: Mapping[str, np.ndarray], network: Network, about: Mapping[str, Any]) -> None:
    """Write recordings as float32 arrays, ``ring.json``, and the connectivity in ``truth``."""
    (folder / "truth").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32))
    np.save(folder / "truth" / "W.npy", network.recurrent)
    np.save(folder / "truth" / "Wv.npy", network.shifting)
    (folder / "truth" / "constants.json").write_text(json.dumps(dict(about), indent=1) + "\n")
    told = {key: about[key] for key in ("bin_s", "simulator", "nonlinearity")}
    (folder / ABOUT).write_text(json.dumps(told, indent=1) + "\n")
