"""What a data set of the Neural Latents Benchmark holds, read and checked.

``<split>_spikes_heldin`` and ``_heldout`` are ``trials time neurons`` counts per bin for the splits ``train`` and
``eval``, with ``_forward`` bins after them. A target file adds what is scored, in the group ``<name>`` at 5 ms and
``<name>_20`` at 20 ms. A count that is NaN is not scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuroint.data.base import DataError
from neuroint.data.nlb.hdf5 import Array, read_arrays
from neuroint.data.nlb.names import PARTS, SPLITS


@dataclass(frozen=True)
class NlbData:
    """Counts of both splits, what is scored, and which trials share a condition.

    Attributes:
        counts: per split ``trials time neurons``, held-in neurons first, forward bins last; NaN where not known.
        held_in: number of held-in neurons.
        forward_bins: bins at the end that no model is shown.
        target: the target group; empty without a target file.
    """

    counts: Mapping[str, Float[np.ndarray, "trials time neurons"]]
    held_in: int
    forward_bins: int
    target: Mapping[str, Array] = field(default_factory=dict)

    def conditions(self, split: str) -> np.ndarray | None:
        """Condition of every trial of a split; None where the file does not say, -1 for a trial of none."""
        lists = self.target.get(f"{split}_cond_idx")
        if lists is None:
            return None
        found = np.full(len(self.counts[split]), -1)
        for condition, trials in enumerate(lists):
            found[trials] = condition
        return found


def read_data(inputs: list[Path], target: Path | None, group: str) -> NlbData:
    """Read input files (one per split, or both in one) and the target group, and check them against each other.

    Raises:
        DataError: a file or group is missing, arrays are missing, misshaped or not counts, or numbers of trials,
            bins or neurons disagree.
    """
    found: dict[str, Array] = {}
    for path in inputs:
        found |= read_arrays(path)
    scored = {} if target is None else read_arrays(target, group)
    return checked_data(found, scored, ", ".join(f"'{path.name}'" for path in inputs))


def checked_data(found: Mapping[str, Array], scored: Mapping[str, Array], where: str) -> NlbData:
    """Check arrays of input files and of a target group against each other; ``where`` is what messages begin with.

    Raises:
        DataError: as :func:`read_data`.
    """
    arrays = {key: _counts(key, x, where) for key, x in {**found, **scored}.items() if "_spikes_" in key}
    if lacking := [f"{split}_spikes_heldin" for split in SPLITS if f"{split}_spikes_heldin" not in arrays]:
        raise DataError(f"{where}: no {' and no '.join(lacking)}; there are: {', '.join(sorted(found)) or 'none'}")
    if "train_spikes_heldout" not in arrays:
        raise DataError(f"{where}: no train_spikes_heldout, so that nothing is known of neurons to predict")
    counts = {split: _joined(split, arrays, where) for split in SPLITS}
    _check_bins(counts, where)
    forward = arrays["train_spikes_heldin_forward"].shape[1] if "train_spikes_heldin_forward" in arrays else 0
    return NlbData(counts, arrays["train_spikes_heldin"].shape[2], forward, scored)


def _counts(name: str, array: Array, where: str) -> np.ndarray:
    """Refuse what is not a count per trial, bin and neuron."""
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.dtype.kind not in "fiu":
        shape = array.shape if isinstance(array, np.ndarray) else "lists"
        raise DataError(f"{where}: {name} is {shape}; expected numbers in trials x time x neurons")
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    if not np.isfinite(known).all() or (known < 0).any() or (known != np.round(known)).any():
        raise DataError(
            f"{where}: {name} holds numbers that are no counts (such as {known[(known < 0) | (known % 1 != 0)][:3]}); "
            "give spikes per bin, with NaN for what is not scored"
        )
    return array


def _joined(split: str, arrays: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """Put held-in and held-out side by side and forward bins behind; NaN stands for what a file leaves out."""
    sizes = [arrays[f"train_spikes_{part}"].shape[2] for part in PARTS]
    trials, bins = arrays[f"{split}_spikes_heldin"].shape[:2]
    last = arrays.get("train_spikes_heldin_forward")
    forward = 0 if last is None else last.shape[1]
    rows = []
    for tail, frames in (("", bins), ("_forward", forward)):
        expected = [(trials, frames, size) for size in sizes]
        keys = [f"{split}_spikes_{part}{tail}" for part in PARTS]
        given = [arrays.get(key, np.full(shape, np.nan)) for key, shape in zip(keys, expected, strict=True)]
        for key, array, shape in zip(keys, given, expected, strict=True):
            if array.shape != shape:
                raise DataError(
                    f"{where}: {key} is {array.shape}, expected {shape} (trials, time, neurons) by the other arrays; "
                    "give files of one data set at one bin width"
                )
        rows.append(np.concatenate([array.astype(np.float32) for array in given], axis=2))
    return np.concatenate(rows, axis=1)


def _check_bins(counts: Mapping[str, np.ndarray], where: str) -> None:
    bins = {split: array.shape[1] for split, array in counts.items()}
    if len(set(bins.values())) > 1:
        raise DataError(f"{where}: numbers of bins differ: {bins}; give both splits at one bin width")
