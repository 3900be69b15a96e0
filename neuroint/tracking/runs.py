"""Show one sweep in MLflow: a parent run, and a child for every trial and confirm run.

Every method may be repeated without effect: runs are found again by a tag, a metric carries its event's time so that
a second copy is identical and is dropped by the store, params and tags keep their values.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from neuroint.tracking.journal import Event, RunRecord, SweepRecord
from neuroint.tracking.server import (
    TrackingError,
    artifact_location,
    check_reachable,
    creating,
    import_mlflow,
    without_password,
)

# KILLED: ended before its time, but not by a crash.
_MLFLOW_STATUS = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
# MLflow's limits per request and per value.
_METRICS, _PAIRS, _KEY, _PARAM, _TAG = 1000, 100, 250, 6000, 8000
_SWEEP_FILES = ("sweep.yaml", "report.html")


class Refused(TrackingError):
    """An event that MLflow will never take, however often it is sent."""


def identity(first_event: Event) -> str:
    """Derive a sweep's lasting identifier from its first event, so that it needs no other record."""
    if first_event["kind"] != "sweep_started":
        raise ValueError(
            f"the journal begins with {first_event['kind']!r}; expected 'sweep_started'; append it before the uploader"
        )
    return hashlib.sha256(f"{first_event['sweep']} {first_event['time']!r}".encode()).hexdigest()[:16]


class SweepRuns:
    """The runs of one sweep in one store; ``record`` is what the events replayed so far amount to."""

    def __init__(self, client: Any, experiment: str, parent: str, sweep_id: str) -> None:
        self.client, self.experiment, self.parent, self.sweep_id = client, experiment, parent, sweep_id
        self.record = SweepRecord()
        self._ids: dict[str | None, str] = {None: parent}

    @classmethod
    def open(cls, tracking_uri: str, experiment: str, first_event: Event, parent: str | None = None) -> SweepRuns:
        """Create database, experiment and parent run, or find them again (``parent`` is preferred among twins).

        Raises:
            TrackingError: the store does not answer or refuses.
        """
        sweep_id = identity(first_event)
        check_reachable(tracking_uri)
        mlflow = import_mlflow()
        try:
            with creating(tracking_uri):
                client = mlflow.MlflowClient(tracking_uri)
                experiment_id = _experiment(client, experiment, artifact_location(tracking_uri))
                runs = cls(client, experiment_id, "", sweep_id)
                tags = {"neuroint.sweep_id": sweep_id, "neuroint.run_id": sweep_id}
                runs._ids[None] = runs.parent = runs._find_or_create(sweep_id, first_event, tags, prefer=parent)
        except mlflow.MlflowException as error:
            raise TrackingError(
                f"experiment {experiment!r} could not be opened: {_first_line(error)}; expected a store that "
                "accepts runs; check credentials, or restore or rename the experiment"
            ) from error
        return runs

    def replay(self, event: Event) -> None:
        """Show one event, then remember it.

        Raises:
            Refused: MLflow will never take it.
        """
        invalid = import_mlflow("mlflow.exceptions").MlflowException
        try:
            getattr(self, f"_{event['kind']}")(event)
        except invalid as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.remember(event)  # the run is there even if one of its values is not
            raise Refused(f"{event['kind']} of {event.get('run') or 'the sweep'}: {_first_line(error)}") from error
        self.remember(event)

    def remember(self, event: Event) -> None:
        """Take an event into the record, unless it belongs to a run that was never started (it was refused)."""
        if event["kind"] == "run_started" or event.get("run") in {None, *self.record.runs}:
            self.record.apply(event)

    def upload(self, run: str | None, paths: Iterable[Path], message: str | None) -> None:
        """Send a run's files (the sweep's own when ``run`` is None), and its message as ``message.txt``.

        Raises:
            Refused: a folder is not there.
        """
        run_id = self._id(run)
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(run_id, str(path))
            elif path.is_file():
                self.client.log_artifact(run_id, str(path))
            elif run is not None:
                raise Refused(f"files of {run}: {path} does not exist")
        if message:
            self.client.log_text(run_id, message, "message.txt")

    def _sweep_started(self, event: Event) -> None:
        if self.record.name is None:
            self._log(None, params=event["params"], tags=event["tags"])
        else:
            self.client.update_run(self.parent, status="RUNNING")

    def _run_started(self, event: Event) -> None:
        known = self.record.runs.get(event["run"])
        if known is not None:
            self.client.update_run(self._id(event["run"]), status="RUNNING")
            return
        tags = {
            **self.record.tags,
            **event["tags"],
            **{name: event[name] for name in ("arm", "phase", "seed")},
            "neuroint.run": event["run"],
            "neuroint.sweep_id": self.sweep_id,
            "mlflow.parentRunId": self.parent,
        }
        self._ids[event["run"]] = self._find_or_create(self._hash(event["run"]), event, tags)
        self._log(event["run"], params=event["params"], tags=tags)

    def _epoch(self, event: Event) -> None:
        if event["epoch"] not in self._run(event).epochs:  # a resumed worker repeats one
            self._log(event["run"], metrics=event["metrics"], step=event["epoch"], time_s=event["time"])

    def _run_finished(self, event: Event) -> None:
        key, run = event["run"], self._run(event)
        tags = _outcome(event, run.message)
        curves = {name for metrics in run.epochs.values() for name in metrics}
        last = {name: value for name, value in event["metrics"].items() if name in curves}
        scores = {name: value for name, value in event["metrics"].items() if name not in curves}
        self._log(key, last, step=max(run.epochs, default=0), time_s=event["time"])
        self._log(key, scores, tags=tags, time_s=event["time"])  # at step 0 alone, the UI compares runs by bars
        self._only_one(self._found(self._hash(key)), prefer=self._id(key))
        self._terminate(key, event)

    def _test_read(self, event: Event) -> None:
        before = sum((read["run"], read["tier"]) == (event["run"], event["tier"]) for read in self.record.test_reads)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
        name = f"neuroint.read.{event['tier']}.{before + 1}"
        self._log(event["run"], tags={name: f"{when} {event['reason']}"})

    def _sweep_finished(self, event: Event) -> None:
        self._log(None, tags=_outcome(event, self.record.message))
        for run in self.record.runs.values():
            if run.status == "running":  # until the sweep is resumed
                self._terminate(run.key, {**event, "status": "interrupted"})
        self._terminate(None, event)

    def _run(self, event: Event) -> RunRecord:
        try:
            return self.record.run(event["run"])
        except ValueError as error:
            raise Refused(str(error)) from error

    def _hash(self, key: str) -> str:
        return hashlib.sha256(f"{self.sweep_id} {key}".encode()).hexdigest()[:16]

    def _id(self, key: str | None) -> str:
        if key not in self._ids:
            found = self._only_one(self._found(self._hash(str(key))))
            if found is None:
                raise Refused(f"run {key!r} is no longer in MLflow; was it deleted there?")
            self._ids[key] = found
        return self._ids[key]

    def _found(self, run_id: str) -> list[Any]:
        return list(self.client.search_runs([self.experiment], f"tags.`neuroint.run_id` = '{run_id}'"))

    def _find_or_create(self, run_id: str, event: Event, tags: Mapping[str, Any], prefer: str | None = None) -> str:
        known = self._only_one(self._found(run_id), prefer)
        if known is not None:
            return known
        tags = {**_tags(tags), "neuroint.run_id": run_id}
        name = event["run"] if event["kind"] == "run_started" else event["sweep"]
        return self.client.create_run(self.experiment, _ms(event["time"]), tags, name).info.run_id

    def _only_one(self, twins: list[Any], prefer: str | None = None) -> str | None:
        """Keep the fullest of runs that are the same one, created twice because an answer was lost; delete the rest."""
        if not twins:
            return None
        best = max(
            twins, key=lambda r: (r.info.run_id == prefer, len(r.data.metrics), len(r.data.params), r.info.run_id)
        )
        for twin in twins:
            if twin is not best:
                self.client.delete_run(twin.info.run_id)
        return best.info.run_id

    def _log(
        self,
        run: str | None,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        step: int = 0,
        time_s: float = 0.0,
    ) -> None:
        """Send metrics, params and tags in batches of the size that MLflow takes."""
        e = import_mlflow("mlflow.entities")
        run_id = self._id(run)
        points = [e.Metric(_key(name), value, _ms(time_s), step) for name, value in (metrics or {}).items()]
        pairs = [e.Param(_key(name), _short(str(value), _PARAM)) for name, value in (params or {}).items()]
        labels = [e.RunTag(name, value) for name, value in _tags(tags or {}).items()]
        for kind, items, size in (("metrics", points, _METRICS), ("params", pairs, _PAIRS), ("tags", labels, _PAIRS)):
            for batch in _batches(items, size):
                self.client.log_batch(run_id, **{kind: batch}, synchronous=True)

    def _terminate(self, run: str | None, event: Event) -> None:
        self.client.set_terminated(self._id(run), _MLFLOW_STATUS[event["status"]], _ms(event["time"]))


def files_of(event: Event) -> dict[str, Any] | None:
    """Say what is to be uploaded when an event has been shown: a run, paths within the sweep folder, and a text."""
    if event["kind"] == "run_finished" and (event["folder"] or event["message"]):
        return {"run": event["run"], "paths": [event["folder"]] * bool(event["folder"]), "message": event["message"]}
    if event["kind"] in ("sweep_started", "sweep_finished"):
        return {"run": None, "paths": list(_SWEEP_FILES), "message": event.get("message")}
    return None


def _experiment(client: Any, name: str, location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(name, artifact_location=location)
    except import_mlflow().MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name).experiment_id  # another driver was faster


def _outcome(event: Event, message_before: str | None) -> dict[str, str]:
    """Tag status and message (a traceback's end is what matters; the UI shows ``mlflow.note.content``)."""
    tags = {"neuroint.status": event["status"]}
    if event["message"]:
        return tags | {"mlflow.note.content": f"```\n{event['message'][-_TAG + 100 :]}\n```"}
    return tags | {"mlflow.note.content": ""} if message_before else tags  # a note that a user wrote stays


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {_key(name): _short(str(value), _TAG) for name, value in tags.items()}


def _key(name: str) -> str:
    """Make a name that MLflow takes; one that had to be changed ends in a hash, so that no two become the same."""
    clean = re.sub(r"[^/\w.\- :]", "_", name)
    clean = "/".join(part if part.strip(".") else "_" for part in clean.split("/"))
    return clean if clean == name and len(name) <= _KEY else f"{clean[: _KEY - 9]}_{_digest(name)}"


def _short(value: str, limit: int) -> str:
    """Cut a long value; the hash of the whole keeps different values different."""
    return (
        value if len(value) <= limit else f"{value[: limit - 60]}… (cut, sha256 {_digest(value)}; whole in the journal)"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _ms(time_s: float) -> int:
    return round(time_s * 1000)


def _first_line(error: Exception) -> str:
    return without_password(str(error).strip().partition("\n")[0][:500])
