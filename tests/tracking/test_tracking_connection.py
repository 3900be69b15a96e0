"""Where a tracking store is, what is wrong with it, and that talking about it costs nothing."""

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from neuroint.tracking import TrackingError, check_reachable, default_uri, ui_command
from neuroint.tracking.server import import_mlflow

ROOT = Path(__file__).resolve().parents[2]


def python(code, *arguments):
    """Run code in a new interpreter whose warnings are as a user's."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=150
    )


@pytest.fixture
def port():
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def answers():
    """Serve one fixed answer to everything; returns the address."""
    servers = []

    def serve(status, body):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_folder_mlflow_holds_no_python_and_the_package_is_the_real_one():
    assert list((ROOT / "mlflow").rglob("*.py")) == []
    assert import_mlflow().__version__ == version("mlflow")


def test_a_folder_in_place_of_the_package_is_told(tmp_path):
    (tmp_path / "mlflow").mkdir()
    blocked = "import sys; sys.path = [sys.argv[1], *(p for p in sys.path if 'site-packages' not in p)]\n"
    code = "from neuroint.tracking.server import import_mlflow\n" + blocked + "import_mlflow()"
    assert (
        "TrackingError: found a folder mlflow, expected the package; run: pip install -e ."
        in python(code, tmp_path).stderr
    )


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, neuroint.tracking; print(sorted({'mlflow', 'sqlalchemy', 'boto3'} & set(sys.modules)))"
    assert python(code).stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_creating_a_database_prints_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from neuroint.tracking import *\n"
        "sweep = Path(sys.argv[1]); Journal(sweep / 'journal.jsonl').append('sweep_started', sweep='s')\n"
        "uploader = Uploader(sweep, default_uri(sweep), 'e'); uploader.prepare(); print(bool(uploader.flush()))"
    )
    done = python(code, tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert (tmp_path / "mlflow.db").is_file()
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_drivers_that_create_one_database_at_once_do_not_break_each_other(tmp_path):
    code = (
        "import sys; from pathlib import Path; from neuroint.tracking import *\n"
        "sweep = Path(sys.argv[1]); sweep.mkdir()\n"
        "Journal(sweep / 'journal.jsonl').append('sweep_started', sweep='s')\n"
        "uploader = Uploader(sweep, default_uri(sweep.parent), 'e'); uploader.prepare(); print(bool(uploader.flush()))"
    )
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in ("a", "b", "c")
    ]
    assert [driver.communicate(timeout=150) for driver in drivers] == [(b"False\n", b"")] * 3


def test_the_default_store_is_a_database_in_the_results_folder_and_its_ui_command_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_uri("my results") == f"sqlite:///{tmp_path}/my results/mlflow.db"
    assert ui_command(f"sqlite:///{tmp_path}/r/mlflow.db") == (
        f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/r/mlflow.db --port 5000"
    )
    assert "'sqlite:////my results/mlflow.db'" in ui_command("sqlite:////my results/mlflow.db")
    assert ui_command("http://me:secret@lab:5000") == "python -m webbrowser http://lab:5000"


@pytest.mark.parametrize("uri", ["mlruns", "postgresql://me:secret@db/mlflow", "ftp://host", ""])
def test_another_scheme_is_refused_without_showing_a_password(uri):
    with pytest.raises(TrackingError, match=r"expected sqlite:///<absolute path>.*mlflow/server.sh") as refusal:
        check_reachable(uri)
    assert "secret" not in str(refusal.value)


def test_a_database_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").write_text("no database, and long enough to be one: " + "x" * 200)
    with pytest.raises(TrackingError, match="not a database; expected a SQLite file"):
        check_reachable(f"sqlite:///{tmp_path}/file")
    with pytest.raises(TrackingError, match=r"(File exists|Not a directory).*; expected a SQLite file in a folder"):
        check_reachable(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(TrackingError, match="an absolute path, so four slashes"):
        check_reachable("sqlite:///mlflow.db")


@pytest.mark.parametrize("name", ["why?", "50%20off", "run#3"])
def test_a_folder_whose_name_would_be_read_as_part_of_an_address_is_refused(tmp_path, name):
    with pytest.raises(TrackingError, match=r"would be read as part of an address; .*give another --results folder"):
        check_reachable(default_uri(tmp_path / name))
    assert not (tmp_path / name).exists()


def test_a_folder_without_permission_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # tests may run as root, who may do all
    with pytest.raises(TrackingError, match="no permission to write; expected a SQLite file in a folder that can be"):
        check_reachable(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_database_not_yet_made_is_fine_and_is_not_made_by_asking(tmp_path):
    check_reachable(default_uri(tmp_path / "results"))
    assert list((tmp_path / "results").iterdir()) == []


def test_a_port_where_nobody_listens_is_told_without_showing_a_password(port):
    with pytest.raises(
        TrackingError, match=rf"127.0.0.1:{port} does not answer .*ConnectionRefused.*start one with mlflow/server.sh"
    ) as told:
        check_reachable(f"http://me:secret@127.0.0.1:{port}")
    assert "secret" not in str(told.value)


def test_a_server_that_hangs_is_told_in_time():
    told = pytest.raises(TrackingError, match=r"does not answer within 0.5 s \(TimeoutError\)")
    with socket.create_server(("127.0.0.1", 0)) as silent, told:
        check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)


def test_something_else_on_the_port_is_told(answers):
    with pytest.raises(
        TrackingError, match=r"answers 200 '<html> a printer </html>'; expected an MLflow tracking server"
    ):
        check_reachable(answers(200, b"<html>\n a printer\n</html>"))
    with pytest.raises(
        TrackingError, match=r"answers 403 'Invalid Host header'; its --allowed-hosts must name this host"
    ):
        check_reachable(answers(403, b"Invalid Host header"))


def test_a_server_that_tells_its_version_is_fine(answers):
    check_reachable(answers(200, b"3.17.2"))


def test_the_server_script_refuses_a_port_in_use_in_one_line_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_server(tmp_path, PORT=str(port))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"server.sh: cannot listen on 127.0.0.1:{port} (Address already in use); expected a free port; "
        "stop what runs there, or set PORT to another one\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_the_server_script_refuses_what_is_no_port_in_one_line(tmp_path, port):
    refused = run_server(tmp_path, PORT=port)
    assert (refused.returncode, refused.stdout) == (1, "")
    said = f"PORT={port} is no port; expected a number from 1 to 65535; set PORT to one that is free"
    assert refused.stderr == f"server.sh: {said}\n"
    assert list(tmp_path.iterdir()) == []


def run_server(folder, **settings):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(ROOT / "mlflow" / "server.sh")]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path, **settings}, capture_output=True, text=True, timeout=30
    )
