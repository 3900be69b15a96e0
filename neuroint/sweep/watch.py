"""Write what Tune's trials do into the journal, and keep the files of runs that ended."""

from __future__ import annotations

import glob
import json
import shutil
from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint

from neuroint.config import TrialConfig
from neuroint.results import CERTIFICATE_FILE, NOT_KEPT
from neuroint.sweep.interruption import stop_if_asked
from neuroint.sweep.outcome import refusal_in, status_of
from neuroint.sweep.selection import METRIC
from neuroint.sweep.trial import WORKERS_FOLDER, job_of
from neuroint.tracking.journal import Journal, SweepRecord

EPOCH_METRICS = (
    "train_loss",
    "validation_score",
    METRIC,
    "gradient_norm",
    "learning_rate",
    "seconds",
    "clips_per_s",
    "peak_memory_mb",
)


class RunFiles:
    """Where a sweep keeps the files of its runs: ``runs/<key>`` when they ended, ``ray/`` until then.

    What refuses to be written raises ``OSError`` and ends the sweep, which can be resumed: a run whose files are lost
    must not be recorded as ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.ray = folder, folder / "ray"

    def remember(self, key: str, checkpoint: Checkpoint) -> None:
        """Note where the last whole checkpoint of a run is."""
        draft = self._note(key).with_suffix(".tmp")
        draft.write_text(checkpoint.path)
        draft.replace(self._note(key))

    def resume_from(self, key: str) -> str | None:
        """Find the last whole checkpoint of a run that did not end."""
        note = self._note(key)
        return note.read_text() if note.exists() and Path(note.read_text()).is_dir() else None

    def keep(self, key: str, checkpoint: Checkpoint | None) -> str | None:
        """Copy a checkpoint's files, all or nothing, without the optimizer's state; returns their folder."""
        if checkpoint is None:
            return None
        kept = self.folder / "runs" / key
        partial = kept.with_name(f"{key}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        checkpoint.to_directory(str(partial))
        for name in NOT_KEPT:
            (partial / name).unlink(missing_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        partial.rename(kept)
        return f"runs/{key}"

    def forget(self, key: str) -> None:
        """Drop what only an unfinished run needs."""
        for used in (self.ray / WORKERS_FOLDER / key, *self.ray.glob(f"*.tune/{glob.escape(key)}/checkpoint_*")):
            shutil.rmtree(used, ignore_errors=True)
        self._note(key).unlink(missing_ok=True)

    def _note(self, key: str) -> Path:
        return self.ray / f"{key}.checkpoint"


class Watch(Callback):
    """Journal every start, epoch and end.

    Args:
        folder: of the sweep.
        tags: put on every run, by arm.
        record: epochs that it knows are not written again when a run repeats them.
    """

    def __init__(self, folder: Path, tags: dict[str, dict[str, str]], record: SweepRecord) -> None:
        self.tags, self.files = tags, RunFiles(folder)
        self.journal = Journal(folder / "journal.jsonl")
        self.known = {run.key: max(run.epochs, default=0) for run in record.runs.values()}
        self.begun, self.ended = set(record.runs), set[str]()
        self.fault: OSError | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Let Ctrl-C through, several times a second, and what Tune would not.

        Raises:
            OSError: the files of a run could not be kept. Tune takes what is raised there for a failure of the run.
            RuntimeError: Tune gave a run up and told nobody, so that the search would wait for it for ever.
        """
        stop_if_asked()
        if self.fault is not None:
            raise self.fault
        lost = [job_of(trial.config)["key"] for trial in trials if trial.status == "ERROR"]
        if untold := set(lost) - self.ended:
            raise RuntimeError(f"Ray Tune gave up {', '.join(sorted(untold))} before it began; go on with --resume")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the configuration of a run."""
        job = TrialConfig.from_dict(job_of(trial.config))
        about = {"phase": job.phase, "arm": job.arm, "seed": job.seed, "params": job.flat(), "tags": self.tags[job.arm]}
        self.journal.append("run_started", run=job.key, **about)
        self.begun.add(job.key)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch, once."""
        key, epoch = job_of(trial.config)["key"], int(result["epoch"])
        if result.get("checkpoint_path"):  # Ray Train's, of a trial of several workers
            self.files.remember(key, Checkpoint(result["checkpoint_path"]))
        if epoch <= self.known.get(key, 0):
            return
        metrics = {name: result[name] for name in EPOCH_METRICS if name in result}
        self.journal.append("epoch", run=key, epoch=epoch, metrics=metrics)
        self.known[key] = epoch

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Checkpoint, **info: Any) -> None:
        """Note where a run can be taken up again; Tune logs what is raised here and goes on, so it is raised later."""
        try:
            self.files.remember(job_of(trial.config)["key"], checkpoint)
        except OSError as error:
            self.fault = error

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep a run's files and record how it ended."""
        try:
            self._complete(trial)
        except OSError as error:
            self.fault = error

    def _complete(self, trial: Any) -> None:
        if self.fault is not None:  # a run whose last checkpoint may be lost must not be recorded as ended
            return
        key, result = job_of(trial.config)["key"], trial.last_result
        last = self.files.resume_from(key)
        kept = self.files.keep(key, Checkpoint(last) if last else None)
        scores = {METRIC: result[METRIC]} if status_of(result) != "diverged" else {}
        self._end(
            key,
            status=status_of(result),
            metrics={"epochs": self.known.get(key, 0), **scores},
            folder=kept,
            message=result.get("message") or _certificate(self.files.folder / "runs" / key),
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a crash with its traceback: it is not a score.

        Raises:
            OSError: the trial could not read or write its files, which says nothing about its configuration.
        """
        key, file = job_of(trial.config)["key"], Path(trial.error_file or "")
        traceback = file.read_text() if file.is_file() else "no traceback was left"
        refused = refusal_in(traceback)
        if refused is not None:
            raise OSError(f"run {key} failed: {refused}")
        if key not in self.begun:  # its process could not be started
            self.on_trial_start(iteration, trials, trial)
        self._end(key, status="failed", metrics={}, message=traceback)

    def _end(self, key: str, **how: Any) -> None:
        self.journal.append("run_finished", run=key, **how)
        self.ended.add(key)
        self.files.forget(key)


def _certificate(kept: Path) -> str | None:
    """Say in one line what the leak certificate found."""
    file = kept / CERTIFICATE_FILE
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return f"leak certificate: {found['information']}, causal={found['causal']}, passed={found['passed']}"
