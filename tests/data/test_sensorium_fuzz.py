"""Whatever happens to a folder, it is either read or refused with a ``DataError``."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sensorium_folder import write_dynamic, write_static

from neuroint.data.base import DataError
from neuroint.data.readers import sensorium2022, sensorium2023

TYPES = ["f2", ">f8", "i1", "u8", "c8", "?", "U3", "M8[s]", "O", "f4,f4"]
VALUES = [np.nan, np.inf, -np.inf, -1e3, 1e300, 1e-320, 0.0]


def truncate(path: Path, draw) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])


def scramble(path: Path, draw) -> None:
    content = bytearray(path.read_bytes())
    at = draw(st.integers(0, min(len(content), 160) - 1))
    new = draw(st.binary(min_size=1, max_size=4))
    content[at : at + len(new)] = new
    path.write_bytes(content)


def retype(path: Path, draw) -> None:
    array = np.load(path)
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    np.save(path, np.ones(array.shape, dtype) if dtype.kind == "V" else np.nan_to_num(array).astype("i8").astype(dtype))


def reshape(path: Path, draw) -> None:
    array = np.load(path)
    ways = [array.T, array[None], array[..., None], array.ravel(), array[:1], array[..., :-1], array[:0], np.array(1.0)]
    np.save(path, ways[draw(st.integers(0, len(ways) - 1))])


def poison(path: Path, draw) -> None:
    array = np.load(path).astype(np.float64)
    flat = array.reshape(-1)
    start = draw(st.integers(0, flat.size - 1))
    flat[start : start + draw(st.sampled_from([1, 3, flat.size]))] = draw(st.sampled_from(VALUES))
    np.save(path, array)


def remove(path: Path, draw) -> None:
    path.unlink()
    if draw(st.booleans()):
        path.mkdir()


def remove_folder(path: Path, draw) -> None:
    shutil.rmtree(path.parent)
    if draw(st.booleans()):
        path.parent.write_bytes(b"")


NUMERIC = (retype, reshape, poison)
ACCIDENTS = (truncate, scramble, remove, remove_folder, *NUMERIC)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("fuzz")
    dynamic = ("train", "train", "train", "oracle", "live_test_main", "final_test_main")
    static = ("train", "train", "train", "validation", "test", "final_test")
    size = {"neurons": 3, "size": (4, 8)}
    return {
        "dynamic": write_dynamic(root, tiers=dynamic, frames=7, padded=9, **size),
        "static": write_static(root, tiers=static, **size),
    }


def read_everything(reader, folder: Path) -> None:
    for session in reader(folder):
        for clip, length in enumerate(session.lengths):
            if length:
                read = session.source.read(clip, 0, int(length))
                assert all(np.isfinite(array).all() for array in vars(read).values() if array is not None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # numpy, of a scrambled header that still means something
@pytest.mark.parametrize(
    ("kind", "module", "read"),
    [
        ("dynamic", sensorium2023, sensorium2023.read_sensorium2023),
        ("static", sensorium2022, sensorium2022.read_sensorium2022),
    ],
)
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # shrinking copies folders for minutes and tells little more than the draws do
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_folder_is_read_or_refused(originals, kind, module, read, data):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        folder = shutil.copytree(originals[kind], Path(place) / originals[kind].name)
        accident = data.draw(st.sampled_from(ACCIDENTS))
        files = sorted(path for path in folder.rglob("*.npy") if accident not in NUMERIC or path.stem != "tiers")
        accident(data.draw(st.sampled_from(files)), data.draw)
        try:
            read_everything(read, folder)
            refused = False
        except DataError:
            refused = True
        found = module.faults(folder)
        assert found or not refused
