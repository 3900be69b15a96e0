"""Where the training loop runs: one process, a Tune trial, or Ray Train workers. The only importer of ``ray.train``.

The loop knows five words: rank, world size, device, report, checkpoint.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

Report = Callable[[dict[str, Any], Path | None], None]


@runtime_checkable
class Runtime(Protocol):
    """What the training loop may ask of its surroundings."""

    @property
    def rank(self) -> int:
        """Which of the workers this is."""
        ...

    @property
    def world_size(self) -> int:
        """How many workers share every step."""
        ...

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        ...

    def report(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Hand over an epoch's metrics and, from rank 0, the folder of a checkpoint."""
        ...

    def checkpoint(self) -> Path | None:
        """Folder of the last checkpoint, if this run was interrupted."""
        ...


def device_for(gpus: float) -> torch.device:
    """The device of a worker that was given a card, or a part of one, or none."""
    return torch.device("cuda" if gpus else "cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch as many threads as a worker has, at least one, and then back what it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class LocalRuntime:
    """One process: alone, or inside a Tune trial whose ``report`` is handed in.

    Args:
        on_report: receives metrics and checkpoint folder of every epoch.
        resume_from: folder of a checkpoint to go on from.
        device: where tensors live.
    """

    on_report: Report = lambda metrics, folder: None
    resume_from: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rank: int = 0
    world_size: int = 1

    def report(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Pass metrics and folder on."""
        self.on_report(metrics, folder)

    def checkpoint(self) -> Path | None:
        """Folder given at the start."""
        return self.resume_from


class TrainWorkerRuntime:
    """One of several Ray Train workers, joined in a torch process group."""

    def __init__(self) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._fetched = tempfile.TemporaryDirectory(prefix="neuroint-")

    def report(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Wait for all workers; rank 0's metrics and checkpoint count."""
        import ray.train

        made = ray.train.Checkpoint.from_directory(str(folder)) if folder and self.rank == 0 else None
        ray.train.report(metrics, checkpoint=made)

    def checkpoint(self) -> Path | None:
        """Download the last checkpoint, if there is one."""
        import ray.train

        found = ray.train.get_checkpoint()
        return Path(found.to_directory(self._fetched.name)) if found else None


def fit_on_workers(
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    name: str,
    storage: str,
    workers: int,
    cpus: float,
    gpus: float,
    callbacks: list[Any],
    max_failures: int = 2,
) -> None:
    """Run a loop on several workers with Ray Train; called inside a Tune trial that itself holds no CPU.

    ``name`` is stable per trial, so that a restarted trial goes on from its last checkpoint. A cluster that can never
    hold the workers ends in an error instead of waiting for ever.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    for variable, value in WORKER_GROUP_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    per_worker = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    TorchTrainer(
        loop,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus), resources_per_worker=per_worker),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            callbacks=callbacks,
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=1),
            checkpoint_config=CheckpointConfig(num_to_keep=2),  # a stopped trial's last one must outlive the next
        ),
    ).fit()


# Ray Train's defaults poll once a second and wait for ever; these halve what a short fit costs (ARCHITECTURE.md).
WORKER_GROUP_DEFAULTS: Mapping[str, str] = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
}
