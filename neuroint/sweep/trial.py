"""What runs inside a Ray Tune trial: one configuration on one worker, or on several through Ray Train."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from ray import tune

from neuroint.config import TrialConfig
from neuroint.evaluation import DivergedError
from neuroint.recordings import open_data
from neuroint.runtime import LocalRuntime, Runtime, TrainWorkerRuntime, fit_on_workers
from neuroint.train import train_trial

TRIAL_WORKER_FAILURES = 2


def run_trial(config: dict[str, Any]) -> None:
    """Train the configuration in ``config["job"]``; a trial of several workers launches Ray Train from here."""
    job = TrialConfig.from_dict(json.loads(config["job"]))
    resources = job.resources
    if resources.workers == 1:
        fit_here(job, LocalRuntime(on_report=_report_to_tune, resume_from=_resume_folder()))
        return
    from ray.tune.integration.ray_train import TuneReportCallback

    fit_on_workers(
        _worker,
        job.to_dict(),
        name=f"train-{tune.get_context().get_trial_id()}",
        storage=str(Path(tune.get_context().get_storage().storage_fs_path).parent / "workers"),
        workers=resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=resources.gpus_per_worker,
        callbacks=[TuneReportCallback()],
        max_failures=TRIAL_WORKER_FAILURES,
    )


def fit_here(job: TrialConfig, runtime: Runtime) -> None:
    """Open the data and train; a divergence is reported as an outcome."""
    torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
    try:
        train_trial(job, open_data(job.data), runtime)
    except DivergedError as error:
        nothing = float("nan")
        outcome = {"validation_score": nothing, "best_validation_score": nothing, "train_loss": nothing}
        runtime.report({"epoch": 0, **outcome, "finished": 1, "diverged": 1, "message": str(error)}, None)


def _worker(plain: dict[str, Any]) -> None:
    fit_here(TrialConfig.from_dict(plain), TrainWorkerRuntime())


def _report_to_tune(metrics: dict[str, Any], folder: Path | None) -> None:
    made = tune.Checkpoint.from_directory(str(folder)) if folder else None
    tune.report(metrics, checkpoint=made)


def _resume_folder() -> Path | None:
    found = tune.get_checkpoint()
    return Path(found.to_directory(tempfile.mkdtemp(prefix="neuroint-"))) if found else None
