"""Make the arrays of the Neural Latents Benchmark out of NWB files: what is shown, and what is scored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from neuroint.data.base import DataError
from neuroint.data.nlb.hdf5 import Array, write_arrays
from neuroint.data.nlb.names import SPLITS, BinMs, DatasetName, group_name
from neuroint.data.nwb.bins import first_bins, windows_of
from neuroint.data.nwb.files import Recording, Unit, read_recording
from neuroint.data.nwb.series import decimated, read_series, windows_of_series
from neuroint.data.nwb.tasks import Phase, Task
from neuroint.data.nwb.trials import Chosen, Grid, behavior_rows, choose, conditions_of, known_bins, sided

TRUNCATE = 3  # standard deviations of the PSTH's kernel


@dataclass(frozen=True)
class Files:
    """The file with training trials, and that with test trials, if it is to be read."""

    train: Path
    test: Path | None = None

    @property
    def phase(self) -> Phase:
        """Which trials are scored: those of split ``val`` or ``test``."""
        return "val" if self.test is None else "test"


@dataclass(frozen=True)
class Cut:
    """Trials to train on and to evaluate, with what was left out on the way."""

    task: Task
    grid: Grid
    parts: Mapping[str, Chosen]  # by SPLITS
    files: Files

    @property
    def remarks(self) -> tuple[str, ...]:
        """One sentence per kind of trial that is left out."""
        found = {split: part.remarks(self.task) for split, part in self.parts.items()}
        return tuple(f"split {split}: {remark}" for split, remarks in found.items() for remark in remarks)


def find_files(path: Path, phase: Phase, train_file: str | None = None, test_file: str | None = None) -> Files:
    """Find the file with training trials in a folder, and for phase ``test`` the other one.

    Raises:
        DataError: there is none, or several may be meant.
    """
    folder = path if path.is_dir() else path.parent
    named = {"train": train_file if path.is_dir() else path.name, "test": test_file}
    wanted = ("train",) if phase == "val" else ("train", "test")
    return Files(*(folder / (named[kind] or _only(folder, kind)) for kind in wanted))


def cut(files: Files, task: Task, grid: Grid, seed: int) -> Cut:
    """Read files and choose trials: ``val`` is scored, or, with a test file, ``test``, after ``train`` and ``val``.

    Raises:
        DataError: as :func:`neuroint.data.nwb.files.read_recording` and :func:`neuroint.data.nwb.trials.choose`; no
            unit is held in or out; the held-in units of the files differ.
    """
    training = read_recording(files.train)
    for part, units in sided(training.units).items():
        if not units:
            raise DataError(
                f"'{training.name}': no unit is {part}; column 'heldout' must be true for some, false for others"
            )
    if files.test is None:
        parts = choose(training, ("train",), task, grid, seed), choose(training, ("val",), task, grid, seed)
    else:
        tested = read_recording(files.test)
        _same_units(training, tested)
        parts = choose(training, ("train", "val"), task, grid, seed), choose(tested, ("test",), task, grid, seed)
    return Cut(task, grid, dict(zip(SPLITS, parts, strict=True)), files)


def input_arrays(found: Cut) -> dict[str, Array]:
    """Counts of held-in and held-out units in windows and in the bins after them, under the benchmark's names.

    A test file has no held-out units; nothing is made of them.
    """
    bins, forward = _lengths(found)
    arrays: dict[str, Array] = {}
    for split, part in found.parts.items():
        for side, units in sided(part.recording.units).items():
            if not units:
                continue
            counts = windows_of(part.recording, units, part.first, bins + forward, found.grid.bin_ms)
            arrays[f"{split}_spikes_{side}"] = counts[:, :bins]
            if forward:
                arrays[f"{split}_spikes_{side}_forward"] = counts[:, bins:]
    return arrays


def condition_arrays(found: Cut) -> dict[str, Array]:
    """Indices of the trials of every condition, per split; nothing where trials are not alike or are tested."""
    if not found.task.conditions or found.files.phase == "test":
        return {}
    lists = conditions_of(found.task, *found.parts.values())[1]
    return {f"{split}_cond_idx": of_split for split, of_split in zip(SPLITS, lists, strict=True)}


def scored_arrays(found: Cut, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What is scored beside the counts themselves: which of them, conditions and shifts. A test file has none of it."""
    if found.files.phase == "test":
        return {}
    evaluated = found.parts["eval"]
    held_out = np.array(inputs["eval_spikes_heldout"])
    held_out[~known_bins(evaluated, found.task, found.grid.bin_ms)] = np.nan
    forward = {name: array for name, array in inputs.items() if name.startswith("eval") and name.endswith("_forward")}
    shifts = {f"{split}_jitter": part.jitter for split, part in found.parts.items() if found.task.jitter}
    return {"eval_spikes_heldout": held_out, **forward, **condition_arrays(found), **shifts}


def target_arrays(found: Cut, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """All that a target file holds: :func:`scored_arrays`, behavior, decode masks and PSTHs.

    A signal that is not on the grid of 1 ms is left out with a warning.

    Raises:
        DataError: the signal or a column does not exist.
    """
    arrays = scored_arrays(found, inputs)
    if not arrays:
        return {}
    if found.task.mask is not None:
        for split, part in found.parts.items():
            arrays[f"{split}_decode_mask"] = np.equal.outer(part.column(found.task.mask), [0, 1])
    if found.task.psth_sd_ms and found.task.conditions:
        arrays["psth"] = _psth(found)
    return arrays | _behavior(found)


def write_benchmark_files(out: Path, found: Cut, dataset: DatasetName, bin_ms: BinMs) -> Path:
    """Write ``train_input``, ``eval_input`` and, unless tested, ``target.h5``, as reader ``nlb`` takes them.

    ``out`` may hold the files of another bin width.

    Raises:
        DataError: a file of this bin width is there already, or as :func:`target_arrays`.
    """
    inputs = input_arrays(found)
    target = target_arrays(found, inputs)
    out.mkdir(parents=True, exist_ok=True)
    hidden = {name for name in inputs if name.startswith("eval") and name.endswith("_forward")}
    for split in SPLITS:
        shown = {name: x for name, x in inputs.items() if name.startswith(split) and name not in hidden}
        write_arrays(out / f"{group_name(f'{split}_input', bin_ms)}.h5", shown)
    if target:
        write_arrays(out / "target.h5", target, group_name(dataset, bin_ms))
    return out


def _only(folder: Path, kind: str) -> str:
    names = sorted(file.name for file in folder.glob("*.nwb"))
    fitting = [name for name in names if f"desc-{kind}" in name]
    if kind == "train" and len(names) == 1:
        fitting = names
    if len(fitting) != 1:
        found = ", ".join(fitting or names) or "no .nwb file"
        raise DataError(
            f"'{folder}' holds {len(fitting)} files called *desc-{kind}*.nwb ({found}); name one with {kind}_file"
        )
    return fitting[0]


def _same_units(training: Recording, tested: Recording) -> None:
    known, given = ([u.number for u in sided(one.units)["heldin"]] for one in (training, tested))
    if known != given:
        raise DataError(
            f"'{training.name}' holds units {known[:5]}.. in ({len(known)}) and '{tested.name}' units {given[:5]}.. "
            f"({len(given)}); give the two files of one recording"
        )


def _lengths(found: Cut) -> tuple[int, int]:
    return found.parts["train"].bins, found.grid.forward_ms // found.grid.bin_ms


def _behavior(found: Cut) -> dict[str, Array]:
    task = found.task
    if task.columns:
        return {f"{split}_behavior": behavior_rows(part, task) for split, part in found.parts.items()}
    if task.series is None:
        return {}
    signal = read_series(found.files.train, task.series, found.parts["train"].recording.end_s)
    if signal is None:
        warnings.warn(
            f"'{found.files.train.name}': series '{task.series}' is left out, because its timestamps do not all fall "
            "on the grid of 1 ms inside the recording; without it behavior is not scored",
            stacklevel=2,
        )
        return {}
    values = decimated(signal.values, found.grid.bin_ms)
    arrays: dict[str, Array] = {}
    for split, part in found.parts.items():
        offset = task.window_ms[0] + task.lag_ms
        first = first_bins(part.recording.times(task.align)[part.trials], offset, found.grid.bin_ms) + part.jitter
        arrays[f"{split}_behavior"] = windows_of_series(values, first, part.bins)
    return arrays


def _psth(found: Cut) -> Float[np.ndarray, "conditions bins units"]:
    """Average smoothed counts over all trials of a condition, of both splits."""
    lists = conditions_of(found.task, *found.parts.values())[1]
    training, evaluated = found.parts["train"], found.parts["eval"]
    first = np.concatenate([training.first, evaluated.first])
    groups = [np.concatenate([one, other + len(training.first)]) for one, other in zip(*lists, strict=True)]
    sides = sided(training.recording.units)
    smooth = [_smoothed(found, unit, first) for unit in (*sides["heldin"], *sides["heldout"])]
    return np.stack([[_mean_of_known(one[group]) for group in groups] for one in smooth], axis=-1)


def _mean_of_known(counts: Float[np.ndarray, "trials bins"]) -> Float[np.ndarray, " bins"]:
    """Mean over trials; NaN where nothing is known of any."""
    known = (~np.isnan(counts)).sum(axis=0)
    return np.divide(np.nansum(counts, axis=0), known, out=np.full(counts.shape[1], np.nan), where=known > 0)


def _smoothed(found: Cut, unit: Unit, first: np.ndarray) -> Float[np.ndarray, "trials bins"]:
    """Counts at 1 ms under a Gaussian, of what is known alone, summed to bins."""
    part, width, sd_ms = found.parts["train"], found.grid.bin_ms, found.task.psth_sd_ms
    margin = TRUNCATE * sd_ms
    counts = windows_of(part.recording, [unit], first * width - margin, part.bins * width + 2 * margin, 1)[..., 0]
    known = ~np.isnan(counts)
    total, weight = (
        gaussian_filter1d(x.astype(np.float64), sd_ms, axis=1, truncate=TRUNCATE, mode="constant")
        for x in (np.nan_to_num(counts), known)
    )
    smooth = np.divide(total, weight, out=np.zeros_like(total), where=known)
    inner = slice(margin, margin + part.bins * width)
    bins = smooth[:, inner].reshape(len(first), part.bins, width).sum(axis=2)
    bins[~known[:, inner][:, ::width]] = np.nan
    return bins
