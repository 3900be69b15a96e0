"""Run a sweep from its question to its report: check everything first, then cluster, phases, tracking."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from neuroint.config import SweepConfig, dump, load_sweep
from neuroint.data.base import DEV_TEST, FINAL_TEST, Session
from neuroint.recordings import open_data
from neuroint.report import write_neurons, write_report
from neuroint.sweep.planning import ArmSummary, summarize_arms
from neuroint.sweep.progress import follow
from neuroint.sweep.run import InterruptedSweepError, Sweeper, trials_at_once
from neuroint.sweep.scoring import score_arms
from neuroint.sweep.selection import representatives, unlocked
from neuroint.tracking import Journal, Pending, SweepRecord, Uploader, check_reachable, default_uri, provenance

log = logging.getLogger(__name__)
QUIET_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: ``status`` (finished, interrupted, failed), failed runs, and what MLflow has not received."""

    folder: Path
    status: str
    message: str
    failed: tuple[str, ...]
    report: Path | None
    pending: Pending


def run_sweep(
    sweep: SweepConfig,
    folder: Path,
    *,
    tracking_uri: str | None = None,
    resume: bool = False,
    cpus: int | None = None,
    style: str = "lines",
) -> Outcome:
    """Search, confirm and score every arm, and write the report.

    Args:
        sweep: the question.
        folder: of this sweep's results; must not exist unless ``resume``.
        tracking_uri: MLflow's; by default SQLite beside the folder.
        resume: go on with what an interrupted sweep left in the folder.
        cpus: CPUs of a local cluster; by default all of this machine. A cluster named by RAY_ADDRESS is joined.
        style: how progress is shown (``bars``, ``lines``, ``json``, ``quiet``).

    Raises:
        ConfigError, DataError, TrackingError, ValueError: before any training time is spent.
    """
    uri = tracking_uri or default_uri(folder.parent)
    sessions = open_data(sweep.data)
    arms = summarize_arms(sweep, sessions)
    check_reachable(uri)
    _claim(folder, sweep, resume)
    write_neurons(folder, sessions)
    journal = Journal(folder / "journal.jsonl")
    journal.append("sweep_started", sweep=sweep.name, tags=sweep_tags(sweep, sessions), params=_sweep_params(sweep))
    uploader = Uploader(folder, uri, sweep.name)
    uploader.prepare()
    uploader.start()
    with follow(journal.path, style, sweep), _cluster(sweep, cpus) as capacity:
        tags = {arm.name: arm_tags(arm, sessions) for arm in arms}
        status, message = _phases(Sweeper(sweep, folder, tags, capacity))
        failed = _failures(folder)
        journal.append("sweep_finished", status=status, message=message)
    report = write_report(folder)
    return Outcome(folder, status, message, failed, report, _send_rest(uploader))


def unlock(folder: Path, reason: str, *, tracking_uri: str | None = None, cpus: int | None = None) -> Path:
    """Read the final test of a finished sweep, once; the reason and every read are in the journal.

    Raises:
        ValueError: no reason, a final test that was read before, or a sweep that is not finished.
    """
    record = SweepRecord.from_journal(folder / "journal.jsonl")
    if not reason.strip():
        raise ValueError("unlock needs --reason: one sentence that says why the final test is read now")
    if record.status != "finished":
        raise ValueError(f"the sweep is {record.status}; finish it with --resume before its final test is read")
    if unlocked(record):
        reads = [r for r in record.test_reads if r["tier"] == FINAL_TEST]
        raise ValueError(f"the final test was read already ({reads[0]['reason']!r}); it is unlocked once in a sweep")
    sweep = load_sweep(folder / "sweep.yaml")
    missing = [s.name for s in open_data(sweep.data) if not len(s.clips(FINAL_TEST))]
    if missing:
        raise ValueError(f"sessions without final test clips: {', '.join(missing)}; there is nothing to unlock")
    journal = Journal(folder / "journal.jsonl")
    uploader = Uploader(folder, tracking_uri or default_uri(folder.parent), sweep.name)
    uploader.prepare()
    with _cluster(sweep, cpus):
        score_arms(sweep, folder, FINAL_TEST, reason)
    journal.append("sweep_finished", status="finished", message=f"final test unlocked: {reason}")
    report = write_report(folder)
    uploader.flush()
    return report


def upload(folder: Path, tracking_uri: str | None = None) -> Pending:
    """Send what MLflow has not received of a sweep."""
    sweep = load_sweep(folder / "sweep.yaml")
    uploader = Uploader(folder, tracking_uri or default_uri(folder.parent), sweep.name)
    uploader.prepare()
    return uploader.flush()


def sweep_tags(sweep: SweepConfig, sessions: list[Session]) -> dict[str, str]:
    """What identifies a sweep: question, data, program."""
    return {
        "question": sweep.question,
        "reference": sweep.reference,
        "sessions": ",".join(session.name for session in sessions),
        "data_hash": ",".join(session.fingerprint[:16] for session in sessions),
        "cautions": " | ".join(dict.fromkeys(c for session in sessions for c in session.cautions)),
        "score_metric": sweep.score.metric,
        **provenance(),
    }


def arm_tags(arm: ArmSummary, sessions: list[Session]) -> dict[str, str]:
    """What every run of an arm is tagged with."""
    return {
        "information": arm.information,
        "causal": str(arm.causal),
        "parameters": str(arm.parameters),
        "sessions": ",".join(session.name for session in sessions),
        "data_hash": ",".join(session.fingerprint[:16] for session in sessions),
        **provenance(),
    }


def _sweep_params(sweep: SweepConfig) -> dict[str, object]:
    sections = {key: vars(getattr(sweep, key)) for key in ("data", "search", "confirm", "score", "resources")}
    return {f"{key}.{name}": value for key, values in sections.items() for name, value in values.items()}


def _claim(folder: Path, sweep: SweepConfig, resume: bool) -> None:
    """Make a sweep's folder its own, or make sure that a resumed one holds the same question."""
    file = folder / "sweep.yaml"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(dump(sweep), encoding="utf-8")
        return
    if not resume:
        raise ValueError(f"{folder} holds a sweep already; add --resume to go on with it, or give another --name")
    if load_sweep(file).raw != sweep.raw:
        raise ValueError(
            f"{file} asks something else than the file given; resume with that file, or give another --name"
        )


def _phases(sweeper: Sweeper) -> tuple[str, str]:
    try:
        sweeper.search()
        sweeper.confirm()
        score_arms(sweeper.sweep, sweeper.folder, DEV_TEST, "comparison of arms")
        representatives(sweeper.record(), list(sweeper.sweep.arms))
    except (InterruptedSweepError, KeyboardInterrupt) as stop:
        return "interrupted", f"{stop or 'stopped by Ctrl-C'}; go on with --resume"
    except (ValueError, OSError) as fault:
        return "failed", str(fault)
    return "finished", ""


def _failures(folder: Path) -> tuple[str, ...]:
    runs = SweepRecord.from_journal(folder / "journal.jsonl").runs.values()
    counts = Counter(run.status for run in runs)
    log.info("runs: %s", dict(counts))
    return tuple(run.key for run in runs if run.status == "failed")


def _send_rest(uploader: Uploader) -> Pending:
    return uploader.stop(timeout_s=60.0)


@contextmanager
def _cluster(sweep: SweepConfig, cpus: int | None) -> Iterator[Mapping[str, float]]:
    """Join the cluster named by RAY_ADDRESS, or start one here; yields its CPUs and GPUs."""
    for name, value in QUIET_RAY.items():
        os.environ.setdefault(name, value)
    shared = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**shared)
    else:
        # A stopped trial of several workers gives its resources back through the State API: the dashboard's.
        ray.init(num_cpus=cpus or os.cpu_count(), include_dashboard=sweep.resources.workers > 1, **shared)
    try:
        capacity = ray.cluster_resources()
        trials_at_once(sweep, capacity)
        yield capacity
    finally:
        ray.shutdown()
