"""A sweep submitted as a Ray job to a head started by ``ray start --head``, by the scripts of ``cluster/``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from sweeps import environment, mlflow_runs, record_of, survivors, write_question, write_recording

from neuroint.tracking import default_uri

ROOT = Path(__file__).resolve().parents[1]
HEAD, SUBMIT = ROOT / "cluster" / "local" / "head.sh", ROOT / "cluster" / "jobs" / "submit.sh"
OTHER_PORTS = ("ray-client-server", "dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export")
COMMIT = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def programs(**more: str) -> dict[str, str]:
    """An environment in which the programs of this Python are found first."""
    return environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [found.getsockname()[1] for found in sockets]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a head on free ports; its processes end with it."""
    port, dashboard, *others = free_ports(2 + len(OTHER_PORTS))
    ports = [f"--{name}-port={found}" for name, found in zip(OTHER_PORTS, others, strict=True)]
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [HEAD, "--num-cpus=1", *ports],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=programs(PORT=str(port), DASHBOARD_PORT=str(dashboard)),
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_for(address, process, log)
        yield address
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
        try:
            process.wait(10)  # a shell that starts its command with & makes it deaf to SIGINT
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        survivors(family, 10)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until jobs can be submitted."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"the head does not answer (exit code {process.poll()}):\n{log.read_text()}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_submitted_as_a_job_leaves_results_runs_and_progress_lines(head, tmp_path):
    data = write_recording(tmp_path / "recording")
    file = write_question(tmp_path / "small.yaml", train={"epochs": 2})
    results = tmp_path / "results"
    options = ["--data", data, "--results", results, "--name", "job"]
    done = subprocess.run(
        [SUBMIT, file, *options],
        capture_output=True,
        text=True,
        env=programs(RAY_API_SERVER_ADDRESS=head),
        timeout=500,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "arm-own_past-0000            epoch   2" in done.stdout
    assert "sweep finished" in done.stdout
    record = record_of(results / "job")
    assert record.status == "finished"
    assert set(record.runs) == {f"{start}-{arm}-{end}" for arm in ("none", "own_past") for start, end in RUNS}
    assert record.tags["git_commit"] == COMMIT, "the commit travels with the job"
    assert (results / "job" / "report.html").exists()
    assert set(mlflow_runs(default_uri(results), "small")) == {"sweep", *record.runs}


RUNS = (("arm", "0000"), ("confirm", "c0-s0"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_with_bad_input_fails_with_the_message(head, tmp_path):
    done = subprocess.run(
        [SUBMIT, "search_spaces/quickstart.yaml", "--data", "/nowhere", "--name", "bad"],
        capture_output=True,
        text=True,
        env=programs(RAY_API_SERVER_ADDRESS=head),
        timeout=300,
    )
    assert done.returncode == 1
    assert "error: '/nowhere' does not exist" in done.stdout + done.stderr


def refusal(**ports: str) -> str:
    """What the head's script says on ports that it cannot have: one line, and nothing else."""
    free = dict(zip(("PORT", "DASHBOARD_PORT"), map(str, free_ports(2)), strict=True))
    done = subprocess.run([HEAD], capture_output=True, text=True, env=programs(**(free | ports)), timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize("name", ["PORT", "DASHBOARD_PORT"])
def test_a_head_on_a_port_that_is_taken_says_so_in_one_line_before_anything_starts(name):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        said = refusal(**{name: port})
    assert said == (
        f"head.sh: {name}={port} cannot be listened on (Address already in use); expected a free port; "
        f"stop what runs there (another Ray?), or set {name} to another one\n"
    )


@pytest.mark.parametrize("port", ["http", "0", "65536"])
def test_a_head_refuses_what_is_no_port(port):
    assert refusal(PORT=port) == (
        f"head.sh: PORT={port} is no port; expected a number from 1 to 65535; set PORT to one that is free\n"
    )


def test_a_head_refuses_one_port_for_two_uses():
    (port,) = map(str, free_ports(1))
    assert refusal(PORT=port, DASHBOARD_PORT=port) == (
        f"head.sh: PORT and DASHBOARD_PORT are both {port}; expected two ports; set one of them to another one\n"
    )
