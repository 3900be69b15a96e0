"""Whatever happens to an experanto session, it is either read or refused with a ``DataError``."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experanto_folder import BLANK, Shown, movie, read_everything, write_experanto
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_sensorium_fuzz import NUMERIC, remove, remove_folder, scramble, truncate

from neuroint.data.base import DataError
from neuroint.data.readers.experanto import faults

ACCIDENTS = (truncate, scramble, remove, remove_folder, *NUMERIC)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    tiers = ("train", "train", "oracle", "train", "test")
    trials = [part for seed, tier in enumerate(tiers) for part in (Shown(movie(seed, 6, (4, 8)), tier), BLANK)]
    trials = [replace(shown, kind="invalid") if shown.pixels is None else shown for shown in trials]
    shifts = {"shifts_s": np.linspace(0, 0.1, 5)}
    return write_experanto(tmp_path_factory.mktemp("fuzz"), trials=trials, devices={"responses": shifts}, meta={})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # numpy, of a scrambled header that still means something
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_folder_is_read_or_refused(small, data):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        folder = shutil.copytree(small, Path(place) / small.name)
        accident = data.draw(st.sampled_from(ACCIDENTS))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        accident(
            data.draw(st.sampled_from([f for f in files if accident not in NUMERIC or f.suffix == ".npy"])), data.draw
        )
        try:
            read_everything(folder)
            refused = False
        except DataError:
            refused = True
        assert faults(folder) or not refused
