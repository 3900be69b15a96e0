"""Start Ray on this machine, or join the cluster that is named; leave nothing running behind."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from neuroint.config import Resources
from neuroint.sweep.interruption import interruptible
from neuroint.sweep.run import trials_at_once

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the phase at once; what is left follows from the journal
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own record of an experiment is never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def cluster(resources: Resources, cpus: int | None = None) -> Iterator[Mapping[str, float]]:
    """Join the cluster named by RAY_ADDRESS, or start one here; yields its CPUs and GPUs.

    A cluster that this process has joined before is used, and is not left at the end. Ctrl-C and SIGTERM end the body
    where it asks for them.

    Raises:
        ValueError: the cluster is too small for one trial.
        ConnectionError: nothing answers at RAY_ADDRESS.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.train"):  # a trial's traceback is in the journal
        logging.getLogger(name).setLevel(logging.CRITICAL)
    joined = ray.is_initialized()
    if not joined:
        _join_or_start(resources, cpus)
    try:
        with interruptible():
            capacity = ray.cluster_resources()
            trials_at_once(resources, capacity)
            yield capacity
    finally:
        if not joined:
            ray.shutdown()


def _join_or_start(resources: Resources, cpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    # A stopped trial of several workers gives its resources back through the State API: the dashboard's.
    dashboard = resources.workers > 1
    with _known_address():  # "local", or Ray joins whatever was started on this machine
        ray.init("local", num_cpus=cpus or os.cpu_count(), include_dashboard=dashboard, **quiet)


@contextmanager
def _known_address() -> Iterator[None]:
    """Let the processes of a Ray that is started now know its address.

    Without it, Ray Train asks the State API of the latest Ray on this machine, and where there are several, a stopped
    trial keeps the places of its workers for ever.
    """
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    named = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}"}
    os.environ.update(named)
    try:
        yield
    finally:
        for name in named:
            del os.environ[name]
