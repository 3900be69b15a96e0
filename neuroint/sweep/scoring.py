"""Read a test tier: for one configuration of each arm, every seed, per neuron; each read is in the journal."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray

from neuroint import registry
from neuroint.analysis.snr import snr_quintiles
from neuroint.config import SweepConfig, TrialConfig
from neuroint.data.base import DEV_TEST, VALIDATION
from neuroint.evaluation import DivergedError
from neuroint.fit import WEIGHTS_FILE
from neuroint.metrics.moments import Moments
from neuroint.results import write_moments
from neuroint.runtime import LocalRuntime, device_for
from neuroint.sweep.interruption import stop_if_asked
from neuroint.sweep.selection import ArmError, best_runs, representatives
from neuroint.tracking.journal import Journal, RunRecord, SweepRecord

POLL_S = 0.5


def score_arms(sweep: SweepConfig, folder: Path, tier: str, reason: str) -> None:
    """Score every arm's representative on a tier (validation comes with dev-test); each read is journaled beforehand.

    Runs that were scored already are left alone, so an interrupted phase goes on.

    Raises:
        ArmError: arms that nothing represents, or whose rates are not finite; the others have been scored.
    """
    journal = Journal(folder / "journal.jsonl")
    record = SweepRecord.from_journal(journal.path)
    tiers = (VALIDATION, DEV_TEST) if tier == DEV_TEST else (tier,)
    chosen, faults = _chosen(record, list(sweep.arms))
    runs = [run for run in chosen if not is_scored(run, tier)]
    known = {read["run"] for read in record.test_reads if read["tier"] == tier}
    for run in runs:
        if run.key not in known:
            journal.append("test_read", run=run.key, tier=tier, reason=reason)
    for run, found in _predict(sweep, folder, runs, tiers):
        if isinstance(found, DivergedError):
            faults.append(f"{run.key} cannot be scored on {' and '.join(tiers)}: {found}")
        else:
            keep_scores(journal, folder, run, found)
    if faults:
        raise ArmError("; ".join(faults))


def keep_scores(
    journal: Journal, folder: Path, run: RunRecord, found: Mapping[str, Mapping[str, Moments]], **more: float
) -> None:
    """Write a run's sufficient statistics, by tier, beside its other files; their means, and more, into the journal."""
    metrics = more
    for tier, moments in found.items():
        write_moments(folder / "runs" / run.key, tier, moments)
        metrics |= summary(tier, moments)
    journal.append(
        "run_finished",
        run=run.key,
        status="finished",
        metrics=metrics,
        folder=f"runs/{run.key}",
        message=run.message,
    )


def is_scored(run: RunRecord, tier: str) -> bool:
    """Tell whether a run's scores on a tier are in the journal."""
    return any(name.startswith(f"{tier}/") for name in run.metrics)


def _chosen(record: SweepRecord, arms: list[str]) -> tuple[list[RunRecord], list[str]]:
    """The runs that represent the arms, and why some arms have none."""
    chosen, faults = [], []
    for arm in arms:
        try:
            best_runs(record, arm)
            chosen += representatives(record, [arm])[arm]
        except ArmError as fault:
            faults.append(str(fault))
    return chosen, faults


def _predict(
    sweep: SweepConfig, folder: Path, runs: list[RunRecord], tiers: tuple[str, ...]
) -> Iterator[tuple[RunRecord, dict[str, dict[str, Moments]] | DivergedError]]:
    """Predict tiers for every run, on whatever node is free; a run that cannot be scored says why."""
    resources = sweep.resources
    remote = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(_score)
    waiting = {remote.remote(_job(folder, run), _weights(folder, run), tiers): run for run in runs}
    while waiting:
        stop_if_asked()
        for ready in ray.wait(list(waiting), timeout=POLL_S)[0]:
            yield waiting.pop(ready), _outcome(ready)


def _outcome(ready: Any) -> dict[str, dict[str, Moments]] | DivergedError:
    try:
        return cast(dict[str, dict[str, Moments]], ray.get(ready))
    except DivergedError as error:  # Ray raises what was raised there, as its own kind, too
        return error


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

    from neuroint.recordings import open_for
    from neuroint.train import score_weights

    config = TrialConfig.from_dict(plain)
    torch.set_num_threads(max(1, int(config.resources.cpus_per_worker)))
    with tempfile.TemporaryDirectory(prefix="neuroint-") as folder:
        file = Path(folder) / WEIGHTS_FILE
        file.write_bytes(weights)
        runtime = LocalRuntime(device=device_for(config.resources.gpus_per_worker))
        return {tier: score_weights(config, open_for(config), file, runtime, tier) for tier in tiers}
