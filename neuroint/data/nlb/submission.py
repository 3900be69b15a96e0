"""Write predicted rates as the Neural Latents Benchmark takes them, and refuse rates in the wrong unit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuroint.data.base import DataError
from neuroint.data.nlb.files import NlbData
from neuroint.data.nlb.hdf5 import write_arrays
from neuroint.data.nlb.names import PARTS, SPLITS, BinMs, DatasetName, group_name

Rates = Mapping[str, Float[np.ndarray, "trials time neurons"]]


def split_rates(data: NlbData, rates: Rates) -> dict[str, np.ndarray]:
    """Cut rates of all neurons and bins into the arrays of a submission.

    Args:
        data: says which neurons are held in and which bins are forward ones.
        rates: per split ``trials time neurons`` in spikes per bin, ordered as ``data.counts``.

    Raises:
        DataError: a split is missing or shapes differ from the counts.
    """
    found = {}
    for split in SPLITS:
        if split not in rates or rates[split].shape != data.counts[split].shape:
            shape = rates[split].shape if split in rates else "missing"
            raise DataError(f"rates of split '{split}' are {shape}, expected {data.counts[split].shape}; predict all")
        window = rates[split].shape[1] - data.forward_bins
        for part, neurons in zip(PARTS, (slice(data.held_in), slice(data.held_in, None)), strict=True):
            found[f"{split}_rates_{part}"] = rates[split][:, :window, neurons]
            if data.forward_bins and split == "eval":
                found[f"{split}_rates_{part}_forward"] = rates[split][:, window:, neurons]
    return found


def write_submission(path: Path, dataset: DatasetName, bin_ms: BinMs, data: NlbData, rates: Rates) -> Path:
    """Write the group of a data set into a submission; what is handed in is not changed.

    Args:
        path: an HDF5 file, new or with other groups.
        dataset: name the benchmark knows.
        bin_ms: bin width of the rates.
        data: what the rates are held against.
        rates: per split ``trials time neurons`` in spikes per **bin**.

    Raises:
        DataError: shapes differ, rates are negative, NaN or infinite, or they are of the size of spikes per second.
    """
    arrays = split_rates(data, rates)
    usual = data.counts["train"].reshape(-1, data.counts["train"].shape[2])
    usual = np.nansum(usual, axis=0) / np.maximum((~np.isnan(usual)).sum(axis=0), 1)
    for split in SPLITS:  # where counts are withheld, a neuron's mean in training stands for them
        check_unit(rates[split], np.where(np.isnan(data.counts[split]), usual, data.counts[split]), bin_ms)
    write_arrays(path, arrays, group_name(dataset, bin_ms))
    return path


def check_unit(rates: np.ndarray, counts: np.ndarray, bin_ms: BinMs) -> None:
    """Refuse rates that are not numbers of spikes per bin.

    The mean rate is held against the mean count where it is known: nearer (in its logarithm) to counts per second than
    to counts per bin, it is in Hz.

    Raises:
        DataError: says which.
    """
    if not np.isfinite(rates).all() or (rates < 0).any():
        raise DataError(
            f"{int((~np.isfinite(rates)).sum())} rates are NaN or infinite and {int((rates < 0).sum())} negative; give "
            "spikes per bin, not logarithms"
        )
    known = ~np.isnan(counts)
    mean, count, bins_per_s = float(rates[known].mean()), float(counts[known].mean()), 1000 / bin_ms
    if mean > count * np.sqrt(bins_per_s) > 0:
        raise DataError(
            f"rates are {mean:.3g} on average where {count:.3g} spikes per bin of {bin_ms} ms were counted: they look "
            f"like Hz; divide them by {bins_per_s:g}"
        )
