"""Write what Tune's trials do into the journal, and keep the files of finished runs."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from ray.tune import Callback

from neuroint.config import TrialConfig
from neuroint.results import NOT_KEPT
from neuroint.tracking.journal import Journal

log = logging.getLogger(__name__)

EPOCH_METRICS = (
    "train_loss",
    "validation_score",
    "best_validation_score",
    "gradient_norm",
    "learning_rate",
    "seconds",
    "clips_per_s",
    "peak_memory_mb",
)


class Watch(Callback):
    """Journal every start, epoch and end; holds paths only, because Tune pickles its callbacks.

    Args:
        folder: of the sweep.
        tags: put on every run, by arm.
    """

    def __init__(self, folder: Path, tags: dict[str, dict[str, str]]) -> None:
        self.folder = folder
        self.tags = tags
        self.journal = Journal(folder / "journal.jsonl")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the configuration of a run."""
        job = TrialConfig.from_dict(json.loads(trial.config["job"]))
        start_run(self.journal, job, self.tags[job.arm])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch."""
        metrics = {name: result[name] for name in EPOCH_METRICS if name in result}
        key = run_key(trial.config)
        self.journal.append("epoch", run=key, epoch=int(result["epoch"]), metrics=metrics)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record how a run ended; files that cannot be kept now are fetched when the phase ends."""
        try:
            finish_run(self.folder, run_key(trial.config), trial.last_result, trial.checkpoint)
        except OSError as error:
            log.warning("files of %s are not kept yet: %s", trial.trial_id, error)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a crash with its traceback."""
        fail_run(self.folder, run_key(trial.config), trial.error_file)


def run_key(config: dict[str, Any]) -> str:
    """Name of the run that a trial trains."""
    return json.loads(config["job"])["key"]


def start_run(journal: Journal, job: TrialConfig, tags: dict[str, str]) -> None:
    """Record the resolved configuration of a run."""
    journal.append(
        "run_started", run=job.key, phase=job.phase, arm=job.arm, seed=job.seed, params=job.flat(), tags=tags
    )


def finish_run(folder: Path, key: str, result: dict[str, Any], checkpoint: Any) -> None:
    """Keep a run's files and record its status."""
    status = "diverged" if result.get("diverged") else "finished" if result.get("finished") else "stopped"
    source = checkpoint.to_directory if checkpoint else None
    kept = folder / "runs" / key
    if source is None and result.get("checkpoint_path"):
        source = _from_path(result["checkpoint_path"])
    if source is not None:
        _keep(source, kept)
    certificate = _certificate_tags(kept)
    Journal(folder / "journal.jsonl").append(
        "run_finished",
        run=key,
        status=status,
        metrics={"epochs": result.get("epoch", 0), "best_validation_score": result["best_validation_score"]},
        folder=f"runs/{key}" if source is not None else None,
        message=result.get("message") or certificate,
    )


def fail_run(folder: Path, key: str, error_file: str | None) -> None:
    """Record a crash; a crash is not a score."""
    message = Path(error_file).read_text() if error_file and Path(error_file).exists() else "no traceback was left"
    Journal(folder / "journal.jsonl").append("run_finished", run=key, status="failed", metrics={}, message=message)


def _from_path(path: str) -> Any:
    from ray.tune import Checkpoint

    return Checkpoint(path).to_directory


def _keep(fetch: Any, kept: Path) -> None:
    """Copy a checkpoint's files, all or nothing, without the optimizer's state."""
    partial = kept.with_name(kept.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    fetch(str(partial))
    for name in NOT_KEPT:
        (partial / name).unlink(missing_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    partial.rename(kept)


def _certificate_tags(kept: Path) -> str | None:
    """Say in one line what the leak certificate found."""
    file = kept / "leak_certificate.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return f"leak certificate: {found['information']}, causal={found['causal']}, passed={found['passed']}"
