"""Shared by all tests: seeds, quiet libraries, the order of files, and where the real recordings are."""

import os

os.environ.update(
    {
        "RAY_AUTH_MODE": "disabled",  # a token would be written into the home folder
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MPLBACKEND": "Agg",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": "1",  # there is a process of tests per core, and threads that wait for each other spin
    }
)

from pathlib import Path

import numpy as np
import pytest
import torch

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that start Ray, then those with slow tests: the last file should not be one of minutes.

    What needs a CUDA device is skipped where there is none, in CI too, whose machines have none.
    """
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
    markers: dict[Path, set[str]] = {}
    for item in items:
        markers.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: ("ray" not in markers[item.path], "slow" not in markers[item.path]))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    assert torch.get_default_dtype() == dtype, "a test changed torch's default dtype"
    assert torch.get_num_threads() == threads, "a test changed torch's number of threads"


@pytest.fixture
def recordings() -> Path:
    """The folder of real recordings; absent in a user's clone, required where CI=true."""
    if not RECORDINGS.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{RECORDINGS} is missing, and CI=true requires it")
        pytest.skip(f"real recordings are not in this clone ({RECORDINGS})")
    return RECORDINGS
