"""What runs inside a Ray Tune trial: one configuration on one worker, or on several through Ray Train."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from ray import tune

from neuroint.config import TrialConfig
from neuroint.evaluation import DivergedError
from neuroint.fit import STATE_FILE
from neuroint.recordings import open_for
from neuroint.runtime import LocalRuntime, Runtime, TrainWorkerRuntime, device_for, fit_on_workers
from neuroint.train import train_trial

LONGEST_END_S = 120  # for a stopped trial to free what it holds before its process takes the next; Tune's is 2 s
WORKERS_FOLDER = "workers"  # beside the experiments, so that a run finds its checkpoints again under its own name


def job_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the run's configuration, as plain data, out of what Tune hands around."""
    return json.loads(config["job"])


def run_trial(config: dict[str, Any]) -> None:
    """Train the configuration in ``config["job"]``; a trial of several workers launches Ray Train from here."""
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", str(LONGEST_END_S))
    job = TrialConfig.from_dict(job_of(config))
    if job.resources.workers > 1:
        _launch_workers(job)
        return
    with ExitStack() as stack:
        found = tune.get_checkpoint()
        last = stack.enter_context(found.as_directory()) if found else config.get("resume_from")
        device = device_for(job.resources.gpus_per_worker)
        fit_here(job, LocalRuntime(_report_to_tune, Path(last) if last else None, device))


def fit_here(job: TrialConfig, runtime: Runtime) -> None:
    """Open the data and train; a divergence is reported as an outcome."""
    torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
    if _had_finished(runtime):
        return
    try:
        train_trial(job, open_for(job), runtime)
    except DivergedError as error:
        nothing = float("nan")
        outcome = {"validation_score": nothing, "best_validation_score": nothing, "train_loss": nothing}
        runtime.report({"epoch": 0, **outcome, "finished": 1, "diverged": 1, "message": str(error)}, None)


def _had_finished(runtime: Runtime) -> bool:
    """Report the checkpoint's epoch once more, and tell whether it was the last.

    A driver that was killed may have kept the checkpoint, but not the report.
    """
    folder = runtime.checkpoint()
    if folder is None:
        return False
    last = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)["progress"]["last"]
    # Handing the files on again makes Tune drop those that are about to be read, unless nothing is left to train.
    runtime.report(last, folder if last["finished"] else None)
    return bool(last["finished"])


def _launch_workers(job: TrialConfig) -> None:
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = job.resources
    fit_on_workers(
        _worker,
        job.to_dict(),
        name=job.key,
        storage=str(Path(tune.get_context().get_storage().storage_fs_path) / WORKERS_FOLDER),
        workers=resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=resources.gpus_per_worker,
        callbacks=[TuneReportCallback()],
    )


def _worker(plain: dict[str, Any]) -> None:
    fit_here(TrialConfig.from_dict(plain), TrainWorkerRuntime())


def _report_to_tune(metrics: dict[str, Any], folder: Path | None) -> None:
    made = tune.Checkpoint.from_directory(str(folder)) if folder else None
    tune.report(metrics, checkpoint=made)
