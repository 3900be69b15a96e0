"""Opening by path: the reader is found by what the path looks like, and every way to go wrong has its message."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sensorium_folder import write_static

from neuroint.data.base import DataError
from neuroint.data.opening import find_faults, open_sessions
from neuroint.registry import UnknownNameError, readers

SPLIT = {"block_frames": 10, "gap_frames": 2}


def recording(folder: Path, name="rec.npz", **more) -> Path:
    rng = np.random.default_rng(len(name))
    np.savez(folder / name, video=rng.normal(size=(200, 3, 3)), responses=rng.poisson(2, (200, 4)), **more)
    return folder / name


def mapping(**more):
    return {"mapping": {"video": "video", "responses": "responses", "split": SPLIT} | more}


def test_an_npz_is_opened_by_the_arrays_reader(tmp_path):
    (session,) = open_sessions(recording(tmp_path), options=mapping())
    assert (session.name, session.facts.n_neurons) == ("rec", 4)


def test_a_path_may_be_text_and_the_reader_named(tmp_path):
    (session,) = open_sessions(str(recording(tmp_path)), "arrays", mapping())
    assert session.facts.stimulus_shape == (1, 3, 3)


def test_options_are_not_changed(tmp_path):
    options = mapping()
    open_sessions(recording(tmp_path), options=options)
    assert options == mapping()


def test_a_sensorium_folder_is_opened_by_its_own_reader(tmp_path):
    write_static(tmp_path)
    (session,) = open_sessions(tmp_path)
    assert session.name.startswith("static")
    assert find_faults(tmp_path) == []


def test_a_recording_of_another_format_than_the_reader_that_is_fixed_is_recognized(tmp_path):
    with pytest.raises(DataError, match=r"looks like reader arrays, and was read as 'sensorium2023': set data.reader"):
        open_sessions(recording(tmp_path), "sensorium2023")


def test_one_recording_under_the_names_of_two_animals_is_refused(tmp_path):
    folder = write_static(tmp_path)
    shutil.copytree(folder, tmp_path / folder.name.replace(folder.name.split("-")[0], "static90009"))
    with pytest.raises(DataError, match=r"hold the same recording, which would count as two; .* remove one of them"):
        open_sessions(tmp_path)


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere' does not exist; give the file or folder"):
        open_sessions(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_path_without_permission_is_refused(tmp_path, monkeypatch, kind):
    path = recording(tmp_path) if kind == "file" else tmp_path

    def forbid(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(*((Path, "open") if kind == "file" else ("os.scandir",)), forbid)  # tests may run as root
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); check its permissions"):
        open_sessions(path)


def test_a_remote_path_is_refused_with_what_to_do():
    with pytest.raises(DataError, match=r"s3://bucket/key' is not on this machine.*aws s3 sync"):
        open_sessions("s3://bucket/key")


def test_a_path_that_no_reader_recognizes_names_the_readers(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no reader recognizes .* 'reader': arrays"):
        open_sessions(tmp_path)


def test_a_path_that_several_readers_recognize_must_be_told_apart(tmp_path, monkeypatch):
    path = recording(tmp_path)
    monkeypatch.setattr("neuroint.data.opening._recognizes", lambda component, where: True)
    with pytest.raises(DataError, match=r"all recognize .* name the one that is meant"):
        open_sessions(path)


def test_an_unknown_reader_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'arrays'"):
        open_sessions(recording(tmp_path), "array")


def test_every_fault_of_the_options_is_said_at_once(tmp_path):
    with pytest.raises(DataError, match="options of reader 'arrays'") as caught:
        open_sessions(recording(tmp_path), options={"mapping": {"respnses": "r"}, "maping": 1})
    assert "'maping' is not a choice of reader 'arrays'. Did you mean 'mapping'?" in str(caught.value)
    assert "'respnses' is not known. Did you mean 'responses'?" in str(caught.value)


def test_sessions_of_the_same_name_are_refused(tmp_path):
    recording(tmp_path, "a.npz", who=np.array("M1"))
    recording(tmp_path, "b.npz", who=np.array("M2"))
    with pytest.raises(DataError, match="several sessions called same"):
        open_sessions(tmp_path, options=mapping(session="same", animal="who"))


def test_a_reader_that_finds_nothing_is_an_error(tmp_path, monkeypatch):
    path = recording(tmp_path)
    component = readers["arrays"]
    monkeypatch.setitem(readers._components, "arrays", _with(component, lambda path, *, mapping=None: []))
    with pytest.raises(DataError, match="holds no session that reader 'arrays' can read"):
        open_sessions(path, "arrays")


def _with(component, factory):
    return type(component)(component.kind, component.name, factory, component.facts, component.choices)


def test_faults_of_every_file_are_found_with_the_options_of_the_reader(tmp_path):
    recording(tmp_path, "a.npz")
    np.savez(tmp_path / "b.npz", responses=np.ones((200, 4)))
    np.savez(tmp_path / "c.npz", video=np.ones((200, 3, 3)), responses=np.ones((100, 4)))
    faults = find_faults(tmp_path, options=mapping(animal="x"))
    assert len(faults) == 2
    assert "has no array 'video'" in faults[0]
    assert "have 100 along 'time' and video 'video' has 200" in faults[1]


def test_a_reader_without_a_search_for_faults_is_tried(tmp_path, monkeypatch):
    path = recording(tmp_path)
    monkeypatch.delattr("neuroint.data.readers.arrays.faults")
    assert find_faults(path, options=mapping()) == []
    (fault,) = find_faults(path, options=mapping(video="vdeo"))
    assert "Did you mean 'video'?" in fault


def test_every_reader_can_be_found_by_what_a_path_looks_like(tmp_path):
    import sys

    for name in readers.names():
        looks_like = sys.modules[readers[name].factory.__module__].looks_like
        assert looks_like(tmp_path) is False
