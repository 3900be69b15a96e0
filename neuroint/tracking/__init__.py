"""Record a sweep on disk and show it in MLflow: the only importer of mlflow, and only when it is used."""

from neuroint.tracking.environment import provenance
from neuroint.tracking.journal import Journal, RunRecord, SweepRecord
from neuroint.tracking.server import TrackingError, check_reachable, default_uri, ui_command
from neuroint.tracking.uploader import Pending, Uploader

__all__ = [
    "Journal",
    "Pending",
    "RunRecord",
    "SweepRecord",
    "TrackingError",
    "Uploader",
    "check_reachable",
    "default_uri",
    "provenance",
    "ui_command",
]
