"""Files of the Neural Latents Benchmark: HDF5 of counts, with held-in and held-out neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from neuroint.data.base import DEV_TEST, TRAIN, VALIDATION, DataError, Session
from neuroint.data.nlb.names import BinMs, DatasetName, group_name
from neuroint.data.observed import reconstructed
from neuroint.data.trials import trial_session
from neuroint.registry import Index, readers
from neuroint.seeding import generator

Share = Annotated[float, Field(gt=0, lt=1)]
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
    from neuroint.data.nlb.files import read_data  # which needs h5py

    inputs = {
        _file(path, given, name, bin_ms): None for given, name in ((train_file, TRAIN_INPUT), (eval_file, EVAL_INPUT))
    }
    target = path / (target_file or f"{TARGET}.h5")
    wanted = target if target_file or target.is_file() else None
    data = read_data(list(inputs), wanted, group_name(dataset, bin_ms))
    counts = np.concatenate([data.counts["train"], data.counts["eval"]])
    tiers = (*_training_tiers(len(data.counts["train"]), validation, seed), *[DEV_TEST] * len(data.counts["eval"]))
    conditions = [data.conditions(split) for split in ("train", "eval")]
    name = f"{dataset}_{bin_ms}ms"
    session = trial_session(name, name, counts, tiers, _stimulus_ids(conditions, len(counts)), bin_s=bin_ms / 1000)
    neurons = np.arange(counts.shape[2])
    return [reconstructed(session, neurons[: data.held_in], neurons[data.held_in :], data.forward_bins)]


def _file(folder: Path, given: str | None, name: str, bin_ms: int) -> Path:
    return folder / (given or f"{group_name(name, bin_ms)}.h5")


def _training_tiers(trials: int, validation: float, seed: int) -> list[str]:
    chosen = max(1, round(validation * trials))
    if chosen >= trials:
        raise DataError(f"{trials} training trials cannot be split with validation={validation}; give more trials")
    tiers = [TRAIN] * trials
    for trial in generator(seed, "nlb_validation").permutation(trials)[:chosen]:
        tiers[trial] = VALIDATION
    return tiers


def _stimulus_ids(conditions: list[np.ndarray | None], trials: int) -> np.ndarray:
    """Equal numbers for trials of one condition; a trial of none has a number of its own."""
    known = [found for found in conditions if found is not None]
    own = np.arange(trials) + 1_000_000
    if len(known) < len(conditions):
        return own
    found = np.concatenate(known)
    return np.where(found < 0, own, found)
