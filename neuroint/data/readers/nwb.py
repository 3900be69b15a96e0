"""NWB files of the Neural Latents Benchmark: spike times of held-in and held-out units, and a table of trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neuroint.data.base import Session
from neuroint.data.nlb.names import BinMs, DatasetName, Share
from neuroint.data.nwb.tasks import FORWARD_MS, TASKS, Phase, WindowMs
from neuroint.registry import Index, readers


def looks_like(path: Path) -> bool:
    """Say whether a path is an ``.nwb`` file, or a folder with one in it."""
    return path.suffix == ".nwb" or (path.is_dir() and any(path.glob("*.nwb")))


@readers.register("nwb")
def read_nwb(
    path: Path,
    *,
    dataset: DatasetName = "mc_maze",
    bin_ms: BinMs = 5,
    phase: Phase = "val",
    align: str | None = None,
    window_ms: WindowMs | None = None,
    forward_ms: Index = FORWARD_MS,
    conditions: tuple[str, ...] | None = None,
    train_file: str | None = None,
    test_file: str | None = None,
    validation: Share = 0.1,
    seed: Index = 0,
) -> list[Session]:
    """Read NWB files of the Neural Latents Benchmark: spikes are binned around an event, held-out units are scored.

    The session is the one that reader ``nlb`` makes of the benchmark's HDF5 files: see there for tiers, forward bins
    and repeats. Bins lie on a grid that begins with the recording (:func:`neuroint.data.nwb.bins.counts_of`), windows
    begin at its first bin at or after the event plus ``window_ms[0]``. What lies outside a unit's ``obs_intervals`` is
    NaN.

    pynwb is needed (``pip install neuroint[nwb]``), and every process reads the spike times again: of a long recording
    make HDF5 files once (:func:`neuroint.data.nwb.arrays.write_benchmark_files`).

    Args:
        path: a folder with ``*desc-train*.nwb`` and perhaps ``*desc-test*.nwb``, or the file to train on.
        dataset: the benchmark's name, which says what ``align``, ``window_ms`` and ``conditions`` are by default.
        bin_ms: bin width.
        phase: ``val`` trains on split ``train`` and evaluates ``val``; ``test`` trains on both and evaluates ``test``,
            of which held-out counts are NaN.
        align: column of the trials table with the time of the event, in seconds.
        window_ms: from and to, after the event.
        forward_ms: forward bins after the window.
        conditions: columns of the trials table; trials that agree in them are repeats. ``[]`` for none.
        train_file: by default the folder's one file with ``desc-train`` in its name, or its only file.
        test_file: by default the folder's one file with ``desc-test`` in its name.
        validation: share of training trials that tune.
        seed: of that share and of the shifts of ``dmfc_rsg``.

    Raises:
        DataError: no file or several, a file is not NWB or lacks a table, column, split or interval, spike times are
            not times, a window leaves the recording, or pynwb is missing.

    Source: Pei et al. (2021), Neural Latents Benchmark, NeurIPS Datasets and Benchmarks; dandisets 000127 to 000140.
    """
    from neuroint.data.nlb.files import checked_data  # which need h5py
    from neuroint.data.nlb.session import benchmark_session
    from neuroint.data.nwb.arrays import cut, find_files, input_arrays, scored_arrays
    from neuroint.data.nwb.trials import Grid

    given = {"align": align, "window_ms": window_ms, "conditions": conditions}
    task = replace(TASKS[dataset], **{key: value for key, value in given.items() if value is not None})
    files = find_files(path, phase, train_file, test_file)
    found = cut(files, task, Grid(bin_ms, forward_ms), seed)
    inputs = input_arrays(found)
    data = checked_data(inputs, scored_arrays(found, inputs), f"'{files.train.name}'")
    return [benchmark_session(data, dataset, bin_ms, validation, seed, found.remarks)]
