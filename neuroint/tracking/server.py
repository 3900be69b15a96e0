"""Reach a tracking store: where it is, whether it answers, how its UI is opened."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # "1" is not honored
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow retries POST too, which doubles runs when an answer is lost; the uploader looks before it repeats.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # s
}


class TrackingError(ValueError):
    """A tracking store that cannot be used as it is: what was given, what was expected, what to do."""


def default_uri(results: Path | str) -> str:
    """Name the embedded store of a results folder: SQLite, with artifacts in ``mlartifacts`` beside it."""
    return f"sqlite:///{Path(results).resolve() / 'mlflow.db'}"


def artifact_location(tracking_uri: str) -> str | None:
    """Say where a new experiment keeps its artifacts: beside a SQLite file; a server decides by itself (None)."""
    path = _database(tracking_uri)
    return (path.parent / "mlartifacts").as_uri() if path else None


def ui_command(tracking_uri: str) -> str:
    """Spell out the command that opens the runs in a browser."""
    if _database(tracking_uri) is None:
        return f"python -m webbrowser {shlex.quote(without_password(tracking_uri))}"
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)} --port 5000"


def without_password(uri: str) -> str:
    """Drop user and password from a URI, for messages and files."""
    return re.sub(r"//[^/@]*@", "//", uri)


def import_mlflow(module: str = "mlflow") -> Any:
    """Import MLflow quietly and make sure it is the real one.

    Without the package, ``import mlflow`` succeeds on the repository's folder of that name, as an empty namespace.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    found = importlib.import_module("mlflow")
    if not hasattr(found, "__version__"):
        raise TrackingError("found a folder mlflow, expected the package; run: pip install -e .")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints what it also raises
    return importlib.import_module(module)


def check_reachable(tracking_uri: str, timeout_s: float = 5.0) -> None:
    """Fail now, with one message, if a tracking store cannot be used.

    Raises:
        TrackingError: a scheme that is not served, a folder or file that cannot be written, no answer, an answer that
            is not MLflow's.
    """
    scheme = tracking_uri.partition(":")[0]
    if scheme not in _CHECKS:
        raise TrackingError(
            f"tracking URI {without_password(tracking_uri)!r}: expected sqlite:///<absolute path>/mlflow.db, or "
            "http(s)://host:port of a server (mlflow/server.sh starts one on any database)"
        )
    _CHECKS[scheme](tracking_uri, timeout_s)


def _database(tracking_uri: str) -> Path | None:
    return Path(tracking_uri.removeprefix("sqlite:///")) if tracking_uri.startswith("sqlite:///") else None


def _check_sqlite(tracking_uri: str, timeout_s: float) -> None:
    path = _database(tracking_uri)
    if path is None or not path.is_absolute():
        raise TrackingError(f"tracking URI {tracking_uri!r}: expected sqlite:/// and an absolute path, so four slashes")
    if odd := sorted(set("?#%") & set(str(path))):
        raise TrackingError(
            f"tracking database {path}: {' and '.join(odd)} in its path would be read as part of an address; expected "
            "a path without them; give another --results folder"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError("no permission to write")
        if path.exists():  # connecting would create it
            with contextlib.closing(sqlite3.connect(path, timeout=timeout_s)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking database {path}: {error}; expected a SQLite file in a folder that can be written; free it, or "
            "give another results folder or tracking URI"
        ) from error


def _check_http(tracking_uri: str, timeout_s: float) -> None:
    rest = import_mlflow("mlflow.utils.rest_utils")
    credentials = import_mlflow("mlflow.tracking._tracking_service.utils").get_default_host_creds(tracking_uri)
    shown = without_password(tracking_uri)
    expected = "expected an MLflow tracking server; start one with mlflow/server.sh, or give another tracking URI"
    try:
        answer = rest.http_request(credentials, "/version", "GET", timeout=timeout_s, max_retries=0)
    except Exception as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # MLflow and requests wrap it several times
            cause = cause.__context__
        raise TrackingError(
            f"tracking server {shown} does not answer within {timeout_s:g} s ({type(cause).__name__}); {expected}"
        ) from error
    if answer.status_code != 200 or not re.fullmatch(r"\d+\.\d+\S*", answer.text.strip()):
        said = " ".join(answer.text.split())[:120]
        hint = "; its --allowed-hosts must name this host" if answer.status_code == 403 else ""
        raise TrackingError(f"tracking server {shown} answers {answer.status_code} {said!r}{hint}; {expected}")


_CHECKS = {"sqlite": _check_sqlite, "http": _check_http, "https": _check_http}


@contextlib.contextmanager
def creating(tracking_uri: str) -> Iterator[None]:
    """Keep other drivers out while a SQLite database is created; two at once break each other's migrations."""
    path = _database(tracking_uri)
    with contextlib.nullcontext() if path is None else alone(path.with_name(path.name + ".lock")):
        yield


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process or thread is inside with the same lock file; a killed one is out."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
