"""A sweep as a Ray job, against a head that was started with ``ray start --head``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from sweeps import environment, write_question, write_recording

from neuroint.tracking import SweepRecord

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def program(*command: str, timeout_s: float, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    given = environment(PATH=path, PYTHONUNBUFFERED="1", **variables)
    return subprocess.run(command, capture_output=True, text=True, env=given, cwd=ROOT, timeout=timeout_s)


@pytest.fixture
def head():
    """Start a head on free ports; its processes, known by their session's folder, are ended afterwards."""
    folder = tempfile.mkdtemp(prefix="nj", dir="/tmp")  # sockets need a short path
    gcs, dashboard = free_port(), free_port()
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}"]
    run = program(
        "ray", "start", "--head", "--num-cpus=2", "--disable-usage-stats", f"--temp-dir={folder}", *ports, timeout_s=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    yield {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    own = [p for p in psutil.process_iter() if _belongs(p, folder, gcs)]
    for process in own:
        process.kill()
    psutil.wait_procs(own, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)


def _belongs(process: psutil.Process, folder: str, gcs: int) -> bool:
    try:
        line = " ".join(process.cmdline())
        return process.pid != os.getpid() and (folder in line or f"127.0.0.1:{gcs}" in line or f"port={gcs}" in line)
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_sweep_runs_as_a_job_and_its_log_shows_progress(head, tmp_path):
    data = write_recording(tmp_path / "data")
    file = write_question(tmp_path / "small.yaml")
    places = ["--data", str(data), "--results", str(tmp_path / "results"), "--name", "job"]
    run = program("cluster/jobs/submit.sh", str(file), *places, timeout_s=380, **head)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "epoch   1  loss" in run.stdout
    assert "sweep finished" in run.stdout
    record = SweepRecord.from_journal(tmp_path / "results" / "job" / "journal.jsonl")
    assert record.status == "finished"
    assert (tmp_path / "results" / "job" / "report.html").is_file()
