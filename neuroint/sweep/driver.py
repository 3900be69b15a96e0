"""Run a sweep from its question to its report: check everything first, then cluster, phases, tracking."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

from neuroint.config import SweepConfig, load_sweep
from neuroint.data.base import DEV_TEST, FINAL_TEST, Session
from neuroint.data.hashing import fingerprint
from neuroint.data.opening import read_through
from neuroint.recordings import open_data
from neuroint.report import write_neurons, write_report
from neuroint.sweep.claim import check_claim, claimed, rooted
from neuroint.sweep.cluster import cluster
from neuroint.sweep.planning import ArmSummary, summarize_arms, untestable
from neuroint.sweep.progress import follow
from neuroint.sweep.run import Sweeper
from neuroint.sweep.scoring import is_scored, score_arms
from neuroint.sweep.selection import ArmError, representatives
from neuroint.tracking import Journal, Pending, SweepRecord, Uploader, check_reachable, default_uri, provenance

log = logging.getLogger(__name__)

LAST_UPLOAD_S = {"finished": 60.0, "failed": 20.0, "interrupted": 10.0}


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
        folder: of this sweep's results; must not hold a sweep unless ``resume``.
        tracking_uri: MLflow's; by default SQLite beside the folder.
        resume: go on with what an interrupted sweep left in the folder.
        cpus: CPUs of a local cluster; by default all of this machine. A cluster named by RAY_ADDRESS is joined.
        style: how progress is shown (``bars``, ``lines``, ``json``, ``quiet``).

    Raises:
        ConfigError, DataError, TrackingError, ValueError: before any training time is spent.
    """
    sweep, uri = rooted(sweep), tracking_uri or default_uri(folder.parent)
    check_claim(folder, sweep, resume)
    sessions = open_data(sweep.data)
    check_data(folder, sessions)
    read_through(sessions)
    arms = summarize_arms(sweep, sessions)
    warn_of_untestable(sessions)
    check_reachable(uri)
    with cluster(sweep.resources, cpus) as capacity, claimed(folder, sweep):
        uploader = _prepare(sweep, folder, sessions, uri)
        tags = {arm.name: arm_tags(arm, sessions) for arm in arms}
        with follow(folder / "journal.jsonl", style, sweep):
            status, message = _phases(Sweeper(sweep, folder, tags, capacity))
        return _end(folder, status, message, uploader)


def warn_of_untestable(sessions: list[Session]) -> None:
    """Say before hours are spent that the report will hold no verdict; the scores may be all that is wanted."""
    if warning := untestable(sessions):
        log.warning("%s", warning)


def check_data(folder: Path, sessions: list[Session]) -> None:
    """Refuse to go on with other recordings than those a sweep began with, whose scores cannot be compared.

    Raises:
        ValueError: says what both are.
    """
    file = folder / "journal.jsonl"
    began = SweepRecord.from_journal(file).tags.get("data_hash") if file.exists() else None
    if began not in (None, now := _data_hash(sessions)):
        raise ValueError(
            f"{folder} began with recordings of hash {began}, and those under the same path have {now} now; "
            "put the former ones back, or start anew with another --name"
        )


def _data_hash(sessions: list[Session]) -> str:
    """Identify recordings, which of their clips are trained on and scored, and which neurons are matched."""
    return ",".join(fingerprint(_marks(session))[:16] for session in sessions)


def _marks(session: Session) -> list[bytes]:
    arrays = [session.lengths, session.stimulus_ids, session.facts.match_ids]
    known = [array.tobytes() for array in arrays if array is not None]
    return [session.fingerprint.encode(), repr(session.tiers).encode(), *known]


def _prepare(sweep: SweepConfig, folder: Path, sessions: list[Session], uri: str) -> Uploader:
    """Begin the journal and make MLflow's database, experiment and parent run before any worker starts."""
    write_neurons(folder, sessions)
    journal = Journal(folder / "journal.jsonl")
    journal.append("sweep_started", sweep=sweep.name, tags=sweep_tags(sweep, sessions), params=_sweep_params(sweep))
    uploader = Uploader(folder, uri, sweep.name)
    uploader.prepare()
    uploader.start()
    return uploader


def _phases(sweeper: Sweeper) -> tuple[str, str]:
    """Carry the sweep as far as it goes; returns how it ended, and why if it is not finished."""
    try:
        sweeper.fit()
        score_arms(sweeper.sweep, sweeper.folder, DEV_TEST, "comparison of arms")
    except KeyboardInterrupt:
        return "interrupted", "stopped from outside"
    except ArmError as fault:
        return "failed", str(fault)
    except OSError as fault:
        return "failed", f"a disk or folder refused: {fault}"
    except Exception:  # a bug ends the sweep, not its record: journal, report and exit code tell its traceback
        return "failed", traceback.format_exc()
    return "finished", ""


def _end(folder: Path, status: str, message: str, uploader: Uploader) -> Outcome:
    """Record the end, write the report, and send the rest; what goes wrong here costs the report, no record."""
    report = None
    try:
        with uploader.paused():  # so that the report is there when the end is sent
            Journal(folder / "journal.jsonl").append("sweep_finished", status=status, message=message)
            report = write_report(folder)
    except OSError as fault:
        status, message = "failed", message or str(fault)
    except Exception:  # a bug in the report: what was trained and recorded is there
        status, message = "failed", message or traceback.format_exc()
    runs = SweepRecord.from_journal(folder / "journal.jsonl").runs.values()
    failed = tuple(run.key for run in runs if run.status == "failed")
    return Outcome(folder, status, message, failed, report, uploader.stop(LAST_UPLOAD_S[status]))


def unlock(folder: Path, reason: str, *, tracking_uri: str | None = None, cpus: int | None = None) -> Path:
    """Read the final test of a finished sweep, once; the reason and every read are in the journal.

    An unlock that was interrupted is completed by the next one, under its first reason.

    Raises:
        ValueError: no reason, a final test that was read before, or a sweep that is not finished.
    """
    record = SweepRecord.from_journal(folder / "journal.jsonl")
    if not reason.strip():
        raise ValueError("unlock needs --reason: one sentence that says why the final test is read now")
    if record.status != "finished":
        raise ValueError(f"the sweep is {record.status}; finish it with --resume before its final test is read")
    sweep = load_sweep(folder / "sweep.yaml")
    reads = [read for read in record.test_reads if read["tier"] == FINAL_TEST]
    chosen = [run for runs in representatives(record, list(sweep.arms)).values() for run in runs]
    if reads and all(is_scored(run, FINAL_TEST) for run in chosen):
        raise ValueError(f"the final test was read already ({reads[0]['reason']!r}); it is unlocked once in a sweep")
    check_data(folder, sessions := open_data(sweep.data))
    missing = [s.name for s in sessions if not len(s.clips(FINAL_TEST))]
    if missing:
        raise ValueError(f"sessions without final test clips: {', '.join(missing)}; there is nothing to unlock")
    uri = tracking_uri or default_uri(folder.parent)
    check_reachable(uri)
    with cluster(sweep.resources, cpus), claimed(folder, sweep):
        score_arms(sweep, folder, FINAL_TEST, reason)
        Journal(folder / "journal.jsonl").append(
            "sweep_finished", status="finished", message=f"final test unlocked: {reason}"
        )
        report = write_report(folder)
    upload(folder, uri)
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
        "data_hash": _data_hash(sessions),
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
        "data_hash": _data_hash(sessions),
        **provenance(),
    }


def _sweep_params(sweep: SweepConfig) -> dict[str, object]:
    sections = {key: vars(getattr(sweep, key)) for key in ("data", "search", "confirm", "score", "resources")}
    return {f"{key}.{name}": value for key, values in sections.items() for name, value in values.items()}
