"""A recording with something to learn, questions about it, and ``neuroint`` as a program, for tests of sweeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from data.sensorium_folder import statistics, write_dynamic

from neuroint.config import SweepConfig, parse_sweep
from neuroint.tracking import Journal, SweepRecord

PROGRAM = [sys.executable, "-m", "neuroint.cli"]
TIERS = ("train",) * 12 + ("oracle",) * 4 + ("live_test_main",) * 4 + ("final_test_main",) * 4
STIMULI = (*range(12), *(20, 21, 20, 21), *(22, 23, 22, 23), *(24, 25, 24, 25))
NEURONS = 6
RATE = "optimizer.learning_rate"

FRAGILE = '''
"""A Poisson objective that does what it is told to its process."""

import os
import signal
import time
from pathlib import Path

from neuroint.modules.objective.poisson import Poisson
from neuroint.registry import Index, NonNegative, objectives


@objectives.register("fragile")
class Fragile(Poisson):
    """Sum the Poisson loss, slowly; raise, or kill the process once."""

    def __init__(
        self, *, pause_s: NonNegative = 0.0, raises: bool = False, kill_at: Index = 0, marker: str = ""
    ) -> None:
        super().__init__()
        self.pause_s, self.raises, self.kill_at, self.marker = pause_s, raises, kill_at, marker
        self.calls = 0

    def forward(self, *arguments):
        """Count the steps."""
        self.calls += 1
        time.sleep(self.pause_s)
        if self.raises and self.calls == 3:
            raise RuntimeError("the objective was told to raise")
        if self.calls == self.kill_at and not Path(self.marker).exists():
            Path(self.marker).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(*arguments)
'''


def write_recording(root: Path) -> Path:
    """Write a session whose neurons follow the brightness of a patch each, with Poisson noise; returns ``root``."""
    rng = np.random.default_rng(7)
    folder = write_dynamic(
        root, tiers=TIERS, stimuli=STIMULI, neurons=NEURONS, frames=80, padded=84, size=(8, 10), dtype=np.float32
    )
    clips = []
    for clip in range(len(TIERS)):
        video = np.load(folder / f"data/videos/{clip}.npy").astype(np.float64)
        patches = np.stack([video[i : i + 3, i : i + 4].mean(axis=(0, 1)) for i in range(NEURONS)])
        rates = np.maximum((patches - 127.5) / 20 + 0.5, 0.05)
        counts = np.where(np.isnan(rates), np.nan, rng.poisson(np.nan_to_num(rates))).astype(np.float32)
        np.save(folder / f"data/responses/{clip}.npy", counts)
        clips.append(counts)
    train = [counts for counts, tier in zip(clips, TIERS, strict=True) if tier == "train"]
    for name, values in statistics(train).items():
        np.save(folder / f"meta/statistics/responses/all/{name}.npy", values.astype(np.float32))
    return root


def question(**changes: Any) -> dict[str, Any]:
    """A sweep of two arms on small models; sections are laid over it, other keys replaced."""
    raw: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "core": {
            "name": "factorized_conv3d",
            "channels": [2, 3],
            "spatial_kernels": [3, 3],
            "temporal_kernels": [3, 2],
        },
        "readout": {"name": "gaussian"},
        "optimizer": {"name": "adamw", "learning_rate": 0.02},
        "train": {"epochs": 3, "frames": 40, "batch_size": 4, "patience": 9},
        "reference": "none",
        "arms": {"none": {}, "own_past": {"interaction": {"name": "linear_autoregressive"}}},
        "search": {"trials": 1},
        "confirm": {"top": 1, "seeds": 1},
    }
    sections = ("train", "search", "confirm", "data", "resources")
    return raw | {k: {**raw.get(k, {}), **v} if k in sections else v for k, v in changes.items()}


def write_question(file: Path, **changes: Any) -> Path:
    """Write a question as YAML."""
    file.write_text("# Which arm?\n" + yaml.safe_dump(question(**changes), sort_keys=False))
    return file


def small(**changes: Any) -> SweepConfig:
    """Parse a question."""
    return parse_sweep(question(**changes))


def entering(file: Path) -> Any:
    """Begin a journal; returns a function that enters whole runs, and whose ``record()`` says what is in it."""
    journal = Journal(file)
    journal.append("sweep_started", sweep="small")

    def enter(key, status, scored, phase="tune", arm="none", params=None):
        journal.append("run_started", run=key, phase=phase, arm=arm, seed=1, params=params or {RATE: 0.01})
        for epoch, score in enumerate(scored, 1):
            scores = dict.fromkeys(("best_validation_score", "validation_score"), score)
            journal.append("epoch", run=key, epoch=epoch, metrics={"train_loss": 1.0, **scores})
        if status:
            journal.append("run_finished", run=key, status=status, metrics={"best_validation_score": max(scored)})

    enter.record = lambda: SweepRecord.from_journal(journal.path)
    return enter


def write_plugin(folder: Path) -> Path:
    """Install the objective ``fragile`` into a folder for PYTHONPATH, as pip would."""
    info = folder / "fragile-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[neuroint.objective]\nfragile = fragile_of_tests:Fragile\n")
    (folder / "fragile_of_tests.py").write_text(FRAGILE)
    return folder


def environment(**more: str) -> dict[str, str]:
    """Variables for programs under test: quiet, and never joined to another cluster."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return {**kept, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", **more}


def neuroint(*arguments: object, timeout_s: float = 400, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [*PROGRAM, *_frugal(arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**more), timeout=timeout_s)


def _frugal(arguments: tuple[object, ...]) -> list[str]:
    """Let a sweep have one CPU: each more is a process that imports torch for a few small trials."""
    words = [str(argument) for argument in arguments]
    return [*words, "--cpus", "1"] if words[0] == "run" and "--cpus" not in words else words


@contextmanager
def started(log: Path, *arguments: object, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program in a process group of its own; whatever of it is left at the end is killed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAM, *_frugal(arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**more),
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        family = [psutil.Process(process.pid)]
        yield process
    finally:
        if process.poll() is None:
            family += family[0].children(recursive=True)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(30)


def family_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that a program has started."""
    return psutil.Process(process.pid).children(recursive=True)


def survivors(family: list[psutil.Process], timeout_s: float = 30) -> list[str]:
    """Wait for processes to end; names those that do not, and kills them."""
    _, alive = psutil.wait_procs(family, timeout_s)
    names = []
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            names.append(member.name())
            member.kill()
    return names


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, timeout_s: float = 240
) -> None:
    """Wait for something that a running program does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"never seen (exit code {process.poll()}):\n{log.read_text()}")
        time.sleep(0.02)


def events(folder: Path) -> list[dict[str, Any]]:
    """The journal's whole lines, read without the package."""
    file = folder / "journal.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def epochs_of(folder: Path, start: str) -> int:
    """Number of epochs in the journal of runs whose key begins so."""
    return sum(event["kind"] == "epoch" and event["run"].startswith(start) for event in events(folder))


def record_of(folder: Path) -> SweepRecord:
    """What the journal says."""
    return SweepRecord.from_journal(folder / "journal.jsonl")


def learned(record: SweepRecord) -> dict[str, Any]:
    """What a sweep found out, without what differs from one execution to the next."""
    timing = ("seconds", "clips_per_s", "peak_memory_mb")
    return {
        key: (
            run.status,
            {e: {n: v for n, v in m.items() if n not in timing} for e, m in run.epochs.items()},
            run.metrics,
        )
        for key, run in sorted(record.runs.items())
    }


def assert_nothing_twice(folder: Path) -> None:
    """Every epoch of every run, and every read of a test, stands in the journal once."""
    found = events(folder)
    epochs = Counter((e["run"], e["epoch"]) for e in found if e["kind"] == "epoch")
    reads = Counter((e["run"], e["tier"]) for e in found if e["kind"] == "test_read")
    assert [one for one, count in (epochs + reads).items() if count > 1] == []
    record = record_of(folder)
    assert all(sorted(run.epochs) == list(range(1, len(run.epochs) + 1)) for run in record.runs.values())


def mlflow_runs(uri: str, experiment: str) -> dict[str, Any]:
    """Runs by their key (the parent's is ``sweep``), with MLflow's own client."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    keys = [run.data.tags.get("neuroint.run", "sweep") for run in found]
    assert len(set(keys)) == len(keys), f"runs appear twice: {keys}"
    return dict(zip(keys, found, strict=True))


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C: a terminal signals every process of the group."""
    os.killpg(process.pid, signal.SIGINT)
