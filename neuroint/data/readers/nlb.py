"""Files of the Neural Latents Benchmark: HDF5 of counts, with held-in and held-out neurons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroint.data.base import Session
from neuroint.data.nlb.names import BinMs, DatasetName, Share, group_name
from neuroint.registry import Index, readers

if TYPE_CHECKING:
    from neuroint.data.nlb.files import NlbData

TRAIN_INPUT, EVAL_INPUT, TARGET = "train_input", "eval_input", "target"


def looks_like(path: Path) -> bool:
    """Say whether a folder holds a file called ``train_input*.h5``."""
    return path.is_dir() and any(path.glob(f"{TRAIN_INPUT}*.h5"))


@readers.register("nlb")
def read_nlb(
    path: Path,
    *,
    dataset: DatasetName = "mc_maze",
    bin_ms: BinMs = 5,
    train_file: str | None = None,
    eval_file: str | None = None,
    target_file: str | None = None,
    validation: Share = 0.1,
    seed: Index = 0,
) -> list[Session]:
    """Read a folder of the Neural Latents Benchmark: held-in neurons are shown, all are predicted, held-out scored.

    Held-in neurons come first. A share of the training trials becomes the validation tier, the benchmark's evaluation
    split is dev-test; where its held-out counts are not in any file (phase "test"), they are NaN and cannot be scored.
    Forward bins stand at the end of each clip: no model is shown what held-in neurons do there, training predicts it,
    and scores of the sweep leave it out (:func:`neuroint.metrics.nlb_evaluation.evaluate_nlb` has fp-bps). Trials of a
    condition are repeats where the target file names conditions. Behavior is for decoding, and never an input.

    Args:
        path: the folder.
        dataset: the benchmark's name; its group in the target file is this, or this and ``_20``.
        bin_ms: bin width of the files, which do not say it themselves.
        train_file: by default ``train_input.h5``, at 20 ms ``train_input_20.h5``.
        eval_file: by default ``eval_input.h5`` or ``eval_input_20.h5``.
        target_file: by default ``target.h5``, where there is one.
        validation: share of training trials that tune.
        seed: of that share.

    Raises:
        DataError: a file, group or array is missing or misshaped, or holds no counts; too few trials.
    """
    from neuroint.data.nlb.session import benchmark_session

    files = {"train_file": train_file, "eval_file": eval_file, "target_file": target_file}
    data = read_folder(path, {"dataset": dataset, "bin_ms": bin_ms, **files})
    return [benchmark_session(data, dataset, bin_ms, validation, seed)]


def choice_of(options: Mapping[str, Any], name: str) -> Any:
    """Look up a choice of reader ``nlb``, or its default."""
    return options.get(name, readers["nlb"].choices[name].default)


def read_folder(path: Path, options: Mapping[str, Any]) -> NlbData:
    """Read the files that options of :func:`read_nlb` name, without making a session of them."""
    from neuroint.data.nlb.files import read_data  # which needs h5py

    bin_ms, target_file = choice_of(options, "bin_ms"), choice_of(options, "target_file")
    given = (choice_of(options, "train_file"), TRAIN_INPUT), (choice_of(options, "eval_file"), EVAL_INPUT)
    inputs = {_file(path, file, name, bin_ms): None for file, name in given}
    target = path / (target_file or f"{TARGET}.h5")
    wanted = target if target_file or target.is_file() else None
    return read_data(list(inputs), wanted, group_name(choice_of(options, "dataset"), bin_ms))


def _file(folder: Path, given: str | None, name: str, bin_ms: int) -> Path:
    return folder / (given or f"{group_name(name, bin_ms)}.h5")
