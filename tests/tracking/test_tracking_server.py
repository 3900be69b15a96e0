"""A real tracking server with S3 artifacts: many trials at once, killed in the middle, frozen."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

from neuroint.tracking import Journal, TrackingError, Uploader, check_reachable

SCRIPT = Path(__file__).resolve().parents[2] / "mlflow" / "server.sh"
TRIALS, EPOCHS = 32, 6
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Server:
    """The tracking server that mlflow/server.sh starts, on one port and one database for life."""

    def __init__(self, folder, environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri, self.database = f"http://127.0.0.1:{self.port}", folder / "mlflow.db"
        self.folder, self.processes = folder, []
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings = {"PORT": str(self.port), "BACKEND": f"sqlite:///{self.database}", "ARTIFACTS": "s3://lab/mlflow"}
        self.environment = {**os.environ, "PATH": path, **environment, **settings}

    def start(self):
        with (self.folder / "server.log").open("a") as log:
            command = [str(SCRIPT), "--workers", "1"]
            started = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.processes = [started]
        self.wait()

    def wait(self):
        """Wait until it answers."""
        for _ in range(600):
            with contextlib.suppress(TrackingError):
                check_reachable(self.uri, timeout_s=1.0)
                return
            assert self.processes[0].poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.2)
        pytest.fail("the server does not answer")

    def send(self, signum):
        """Signal the server and all that it started."""
        for parent in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [*psutil.Process(parent.pid).children(recursive=True), psutil.Process(parent.pid)]:
                    process.send_signal(signum)

    def kill(self):
        self.send(signal.SIGKILL)
        for process in self.processes:
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    bucket = boto3.resource(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    ).create_bucket(Bucket="lab")
    server = Server(
        tmp_path_factory.mktemp("server"), {**credentials, "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}"}
    )
    server.bucket = bucket
    with pytest.MonkeyPatch.context() as environment:
        for name in credentials:  # the driver needs none: files pass through the server
            environment.delenv(name, raising=False)
        environment.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        server.start()
        yield server
        server.kill()
    s3.stop()


def start_sweep(server, folder):
    folder.mkdir()
    journal = Journal(folder / "journal.jsonl")
    journal.append("sweep_started", sweep=folder.name)
    uploader = Uploader(folder, server.uri, "served", poll_s=0.05, longest_wait_s=1.0)
    uploader.prepare()
    uploader.start()
    return journal, uploader


def run_trial(journal, i, pause_s):
    """One trial as the driver tells it; its files lie on disk when its end is told."""
    key = f"{journal.path.parent.name}-{i:02d}"
    folder = journal.path.parent / "runs" / key
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"trial: {i}\n")
    journal.append("run_started", run=key, phase="tune", arm=f"arm{i % 2}", seed=i, params={"lr": i})
    for epoch in range(EPOCHS):
        time.sleep(pause_s)
        journal.append("epoch", run=key, epoch=epoch, metrics={"loss": i + 1 / (1 + epoch)})
    journal.append("run_finished", run=key, status="finished", metrics={"score": float(i)}, folder=f"runs/{key}")


def stored(server, query, *values):
    """Read the server's database directly."""
    with contextlib.closing(sqlite3.connect(server.database)) as database:
        return database.execute(query, values).fetchall()


def check_everything_is_there_once(server, sweep):
    keys = [f"{sweep}-{i:02d}" for i in range(TRIALS)]
    curves = stored(
        server,
        "select name, step, value from metrics join runs using (run_uuid) where name like ? and key = 'loss' "
        "order by name, metrics.rowid",
        f"{sweep}-%",
    )
    assert curves == [(key, epoch, i + 1 / (1 + epoch)) for i, key in enumerate(keys) for epoch in range(EPOCHS)]
    found = stored(server, "select name, status, run_uuid from runs where name like ? order by name", f"{sweep}-%")
    assert [(name, status) for name, status, _ in found] == [(key, "FINISHED") for key in keys]
    for i, (_, _, run_id) in enumerate(found):
        assert stored(server, "select key, value from params where run_uuid = ?", run_id) == [("lr", str(i))]
        prefix = f"mlflow/1/{run_id}/artifacts/"
        files = {file.key: file.get()["Body"].read() for file in server.bucket.objects.filter(Prefix=prefix)}
        assert files == {f"{prefix}config.yaml": f"trial: {i}\n".encode()}


def test_trials_that_report_at_once_lose_nothing_though_the_server_is_killed_in_the_middle(server, tmp_path):
    journal, uploader = start_sweep(server, tmp_path / "killed")
    with ThreadPoolExecutor(TRIALS) as pool:
        trials = [pool.submit(run_trial, journal, i, 0.1) for i in range(TRIALS)]
        while not stored(server, "select 1 from metrics limit 1"):
            time.sleep(0.02)
        server.kill()
        for trial in trials:
            trial.result()
    assert uploader.pending.events > 0
    server.start()
    left = uploader.stop(200.0)
    assert not left, left.message
    check_everything_is_there_once(server, "killed")


def test_a_frozen_server_holds_up_nobody_and_what_is_left_is_sent_later(server, tmp_path):
    journal, uploader = start_sweep(server, tmp_path / "frozen")
    server.send(signal.SIGSTOP)
    began = time.monotonic()
    with ThreadPoolExecutor(TRIALS) as pool:
        list(pool.map(lambda i: run_trial(journal, i, 0.0), range(TRIALS)))
    left = uploader.stop(1.0)
    assert time.monotonic() - began < 30
    assert left.events >= TRIALS * (EPOCHS + 2)
    assert f"neuroint upload {tmp_path / 'frozen'}" in left.message
    server.send(signal.SIGCONT)
    server.wait()
    later = Uploader(tmp_path / "frozen", server.uri, "served")
    later.prepare()
    later.start()
    left = later.stop(200.0)
    assert not left, left.message
    check_everything_is_there_once(server, "frozen")
