"""Read a test tier: for one configuration of each arm, every seed, per neuron; each read is in the journal."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray

from neuroint import registry
from neuroint.analysis.snr import snr_quintiles
from neuroint.config import SweepConfig, TrialConfig
from neuroint.data.base import DEV_TEST, VALIDATION
from neuroint.fit import WEIGHTS_FILE
from neuroint.metrics.moments import Moments
from neuroint.results import write_moments
from neuroint.runtime import LocalRuntime
from neuroint.sweep.selection import representatives
from neuroint.tracking.journal import Journal, RunRecord, SweepRecord


def score_arms(sweep: SweepConfig, folder: Path, tier: str, reason: str) -> None:
    """Score every arm's representative on a tier (validation comes with dev-test) and journal each read.

    Runs that were scored already are left alone, so an interrupted phase goes on.
    """
    journal = Journal(folder / "journal.jsonl")
    record = SweepRecord.from_journal(journal.path)
    tiers = (VALIDATION, DEV_TEST) if tier == DEV_TEST else (tier,)
    done = {read["run"] for read in record.test_reads if read["tier"] == tier}
    runs = [run for runs in representatives(record, list(sweep.arms)).values() for run in runs if run.key not in done]
    resources = sweep.resources
    remote = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(_score)
    waiting = {remote.remote(_job(folder, run), _weights(folder, run), tiers): run for run in runs}
    while waiting:
        (ready,), _ = ray.wait(list(waiting))
        run = waiting.pop(ready)
        found: dict[str, dict[str, Moments]] = ray.get(ready)
        metrics = {}
        for name, moments in found.items():
            write_moments(folder / "runs" / run.key, name, moments)
            metrics |= summary(name, moments)
        journal.append("test_read", run=run.key, tier=tier, reason=reason)
        journal.append("run_finished", run=run.key, status="finished", metrics=metrics, folder=f"runs/{run.key}")


def summary(tier: str, moments: Mapping[str, Moments]) -> dict[str, float]:
    """Means over neurons: ``tier/metric``, per session, and per SNR quintile formed within each session."""
    found: dict[str, float] = {}
    bins = {name: snr_quintiles(registry.metrics["snr"].factory(m)) for name, m in moments.items()}
    for metric in registry.metrics.names():
        values = {name: registry.metrics[metric].factory(m) for name, m in moments.items()}
        found |= _means(f"{tier}/{metric}", values, bins)
    return found


def _means(prefix: str, values: Mapping[str, np.ndarray], bins: Mapping[str, np.ndarray]) -> dict[str, float]:
    pooled, labels = np.concatenate(list(values.values())), np.concatenate(list(bins.values()))
    parts = {prefix: pooled}
    parts |= {f"{prefix}/snr_q{q}": pooled[labels == q] for q in range(1, 6)}
    if len(values) > 1:
        parts |= {f"{prefix}/{session}": found for session, found in values.items()}
    return {name: float(np.nanmean(part)) for name, part in parts.items() if np.isfinite(part).any()}


def _job(folder: Path, run: RunRecord) -> dict[str, Any]:
    import yaml

    return yaml.safe_load((folder / str(run.folder) / "config.yaml").read_text())


def _weights(folder: Path, run: RunRecord) -> bytes:
    return (folder / str(run.folder) / WEIGHTS_FILE).read_bytes()


def _score(plain: dict[str, Any], weights: bytes, tiers: tuple[str, ...]) -> dict[str, dict[str, Moments]]:
    """Predict tiers on some node of the cluster."""
    import torch

    from neuroint.recordings import open_data
    from neuroint.train import score_weights

    config = TrialConfig.from_dict(plain)
    torch.set_num_threads(max(1, int(config.resources.cpus_per_worker)))
    with tempfile.TemporaryDirectory(prefix="neuroint-") as folder:
        file = Path(folder) / WEIGHTS_FILE
        file.write_bytes(weights)
        return {tier: score_weights(config, open_data(config.data), file, LocalRuntime(), tier) for tier in tiers}
