"""Files that a run leaves behind, and where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuroint.config import dump
from neuroint.evaluation import Scores
from neuroint.fit import STATE_FILE, Fit
from neuroint.metrics.moments import Moments

VALIDATION_FILE = "validation_per_neuron.parquet"
CERTIFICATE_FILE = "leak_certificate.json"
CONFIG_FILE = "config.yaml"
NOT_KEPT = (STATE_FILE,)  # optimizer state: only a resumed trial needs it, and Ray keeps it


def write_outcome(folder: Path, fit: Fit) -> None:
    """Write what is known of a run after an epoch: configuration, leak certificate, validation score per neuron."""
    (folder / CONFIG_FILE).write_text(dump(fit.config))
    if fit.certificate is not None:
        (folder / CERTIFICATE_FILE).write_text(json.dumps(fit.certificate.as_dict(), indent=2))
    write_validation(folder, fit.config.score.metric, fit.best_scores)


def write_validation(folder: Path, metric: str, scores: Scores) -> None:
    """Write a validation score per neuron, sessions behind one another."""
    counts = [len(values) for values in scores.values()]
    table = pa.table(
        {
            "session": pa.array(np.repeat(list(scores), counts)).dictionary_encode(),
            "neuron": np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
            metric: np.concatenate(list(scores.values())).astype(np.float32),
        }
    )
    pq.write_table(table, folder / VALIDATION_FILE)


def moments_file(tier: str, session: str) -> str:
    """Name of the file with a run's sufficient statistics of one session."""
    return f"moments_{tier}_{session}.parquet"


def write_moments(folder: Path, tier: str, moments: Mapping[str, Moments]) -> None:
    """Write one wide table per session."""
    for session, found in moments.items():
        pq.write_table(found.to_table(), folder / moments_file(tier, session))


def read_moments(folder: Path, tier: str) -> dict[str, Moments]:
    """Read the tables of a tier, by session; empty when the tier was not read for this run."""
    start = f"moments_{tier}_"
    files = sorted(folder.glob(f"{start}*.parquet"))
    return {file.stem[len(start) :]: Moments.from_table(pq.read_table(file)) for file in files}
