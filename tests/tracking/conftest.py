"""Sweep folders, an MLflow database made once, and a look into MLflow that does not go through the project."""

import contextlib
import resource
import shutil

import pytest

from neuroint.tracking import Journal, Uploader, default_uri

STARTED_S = 1_700_000_000.25


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Migrations take seconds, so they run once and the file is copied."""
    sweep = tmp_path_factory.mktemp("template") / "sweep"
    sweep.mkdir()
    journal = Journal(sweep / "journal.jsonl")
    journal.append("sweep_started", sweep="template", time=STARTED_S)
    Uploader(sweep, default_uri(sweep.parent), "template").prepare()
    return sweep.parent / "mlflow.db"


@pytest.fixture
def sweep(tmp_path, empty_database):
    """A sweep folder whose journal has begun, beside a database without its experiment."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("question: which arm?\n")
    tags, params = {"git_commit": "abc", "data_hash": "d1"}, {"epochs": 3}
    Journal(folder / "journal.jsonl").append(
        "sweep_started", sweep="which_arm", tags=tags, params=params, time=STARTED_S
    )
    return folder


@pytest.fixture
def make(sweep):
    """Make prepared uploaders of the sweep folder."""

    def make_one(**options):
        uploader = Uploader(sweep, default_uri(sweep.parent), "experiment", **{"poll_s": 0.02, **options})
        uploader.prepare()
        return uploader

    return make_one


@pytest.fixture
def runs(sweep):
    """Read the child runs of all sweeps by their key with MLflow's own client."""
    import mlflow

    client = mlflow.MlflowClient(default_uri(sweep.parent))

    def read():
        experiment = client.get_experiment_by_name("experiment").experiment_id
        found = client.search_runs([experiment], order_by=["attributes.start_time"])
        keys = [run.data.tags.get("neuroint.run", "sweep") for run in found]
        assert len(set(keys)) == len(keys), f"runs appear twice: {keys}"
        return dict(zip(keys, found, strict=True))

    read.client = client
    return read


@pytest.fixture
def no_space():
    """Let no file of this process grow beyond a number of bytes, as on a full disk."""

    @contextlib.contextmanager
    def limited(n_bytes):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def journal(sweep):
    """The journal of the sweep."""
    return Journal(sweep / "journal.jsonl")
