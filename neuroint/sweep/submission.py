"""Write what an arm predicts of a data set of the Neural Latents Benchmark as a submission; nothing is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from jaxtyping import Float

from neuroint.config import TrialConfig, load_sweep
from neuroint.data.base import Inputs
from neuroint.data.nlb.files import NlbData
from neuroint.data.nlb.submission import write_submission
from neuroint.data.readers.nlb import choice_of, read_folder
from neuroint.fit import WEIGHTS_FILE
from neuroint.prediction import Predictor
from neuroint.recordings import open_data, open_for
from neuroint.registry import nearest
from neuroint.results import CONFIG_FILE
from neuroint.runtime import LocalRuntime
from neuroint.sweep.driver import check_data
from neuroint.sweep.ensembling import CHOSEN
from neuroint.sweep.selection import ENSEMBLE, ArmError, finished_runs
from neuroint.tracking.journal import RunRecord, SweepRecord
from neuroint.train import finished_predictor

TRIALS = 64  # predicted at a time


def write_arm(folder: Path, arm: str, out: Path) -> list[str]:
    """Predict both splits with an arm's ensemble, or with its best run by validation where none was made.

    Rates are spikes per bin of all trials, bins and neurons; those of an ensemble are the mean of its runs' rates.

    Args:
        folder: of a finished sweep on reader ``nlb``.
        arm: which.
        out: an HDF5 file, new or with other groups.

    Returns:
        the runs whose rates are in the file.

    Raises:
        ValueError: the data are no files of the benchmark or have changed, the sweep is not finished, or no arm has
            that name.
        ArmError: no run of the arm is finished with its weights.
        DataError: the rates are not those of all bins, or no spikes per bin.
    """
    sweep = load_sweep(folder / "sweep.yaml")
    if sweep.data.reader != "nlb":
        raise ValueError(
            f"{folder} was run with reader '{sweep.data.reader}', expected 'nlb', whose files a submission answers; "
            "run the sweep on a folder of the Neural Latents Benchmark"
        )
    record = SweepRecord.from_journal(folder / "journal.jsonl")
    if record.status != "finished":
        raise ValueError(f"the sweep is {record.status}; finish it with --resume before an arm of it predicts")
    if arm not in sweep.arms:
        raise ValueError(f"'{arm}' is not an arm.{nearest(arm, sweep.arms)} Arms: {', '.join(sweep.arms)}")
    check_data(folder, open_data(sweep.data))
    runs = _members(folder, record, arm, list(sweep.arms[arm].distributions))
    data = read_folder(Path(str(sweep.data.path)), sweep.data.options)
    rates = [_rates(folder / str(run.folder), data) for run in runs]
    mean = {split: np.mean([each[split] for each in rates], axis=0) for split in data.counts}
    dataset, bin_ms = (choice_of(sweep.data.options, name) for name in ("dataset", "bin_ms"))
    write_submission(out, dataset, bin_ms, data, mean)
    return [run.key for run in runs]


def _members(folder: Path, record: SweepRecord, arm: str, searched: list[str]) -> list[RunRecord]:
    """The runs of the arm's ensemble, or its best one."""
    ensembles = [run for run in record.runs.values() if run.phase == ENSEMBLE and run.arm == arm]
    if ensembles:
        return [record.runs[key] for key in ensembles[-1].params[CHOSEN]]
    kept = [r for r in finished_runs(record, arm, searched) if (folder / str(r.folder) / WEIGHTS_FILE).is_file()]
    if not kept:
        raise ArmError(f"arm '{arm}' has no finished run with its weights, runs/NAME/{WEIGHTS_FILE}; put them back")
    return kept[:1]


def _rates(run: Path, data: NlbData) -> dict[str, Float[np.ndarray, "trials time neurons"]]:
    config = TrialConfig.from_dict(yaml.safe_load((run / CONFIG_FILE).read_text()))
    sessions = open_for(config)
    predictor = finished_predictor(config, sessions, run / WEIGHTS_FILE, LocalRuntime(device=torch.device("cpu")))
    return predicted_splits(predictor, data, sessions[0].name)


@torch.no_grad()
def predicted_splits(
    predictor: Predictor, data: NlbData, session: str
) -> dict[str, Float[np.ndarray, "trials time neurons"]]:
    """Predict all trials of both splits from held-in counts; in forward bins these are hidden, as in training."""
    found = {}
    for split, counts in data.counts.items():
        shown = np.nan_to_num(counts[..., : data.held_in]).astype(np.float32)
        shown[:, shown.shape[1] - data.forward_bins :] = 0
        parts = torch.from_numpy(shown).split(TRIALS)
        rates = [predictor(Inputs(observed=part), session) for part in parts]
        found[split] = torch.cat(rates).numpy().astype(np.float64)
    return found
