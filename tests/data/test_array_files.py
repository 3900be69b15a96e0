"""The arrays reader: files, mappings, and the message of every bad one."""

from __future__ import annotations

import multiprocessing
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from array_recordings import MOVIE, PICTURES, movie, pictures, read, refused, saved

from neuroint.data.base import DataError
from neuroint.data.mapping import ArrayMapping, parse_mapping
from neuroint.data.readers import arrays
from neuroint.data.readers.arrays import read_arrays

# --- files


def test_a_folder_of_npy_and_both_kinds_of_npz_give_the_same_session(tmp_path):
    contents = movie()
    (tmp_path / "folder").mkdir()
    for name, array in contents.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    paths = [
        tmp_path / "folder",
        saved(tmp_path, contents, "plain.npz"),
        saved(tmp_path, contents, "packed.npz", compressed=True),
    ]
    sessions = [read_arrays(path, mapping=MOVIE)[0] for path in paths]
    first = sessions[0].source.read(2, 1, 6)
    for session in sessions[1:]:
        assert session.tiers == sessions[0].tiers
        np.testing.assert_array_equal(session.source.read(2, 1, 6).stimulus, first.stimulus)
        np.testing.assert_array_equal(session.source.read(2, 1, 6).responses, first.responses)


def test_plain_files_are_mapped_and_a_compressed_array_is_loaded_once(tmp_path):
    plain = read_arrays(saved(tmp_path, movie(), "plain.npz"), mapping=MOVIE)[0].source.store
    packed = read_arrays(saved(tmp_path, movie(), "packed.npz", compressed=True), mapping=MOVIE)[0].source.store
    assert isinstance(plain["movie"], np.memmap)
    assert not isinstance(packed["movie"], np.memmap)
    assert packed["movie"] is packed["movie"]
    assert packed["movie"].dtype == np.int8


def test_a_fortran_ordered_array_in_a_plain_npz_is_mapped_right(tmp_path):
    contents = movie()
    session = read(tmp_path, {"movie": np.asfortranarray(contents["movie"]), "spikes": contents["spikes"]}, MOVIE)
    np.testing.assert_array_equal(session.source.store["movie"], contents["movie"])


def test_a_pickled_source_leaves_arrays_behind_and_reads_the_same(tmp_path):
    path = saved(tmp_path, movie(4000), compressed=True)
    (session,) = read_arrays(path, mapping=MOVIE)
    content = pickle.dumps(session.source)
    assert len(content) < 10_000
    np.testing.assert_array_equal(pickle.loads(content).read(0, 0, 9).responses, session.source.read(0, 0, 9).responses)


@pytest.mark.slow
def test_a_spawned_process_reads_the_same(tmp_path):
    session = read(tmp_path, movie(), MOVIE)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(session.source.read, (1, 0, 9))
    np.testing.assert_array_equal(there.stimulus, session.source.read(1, 0, 9).stimulus)


def test_nothing_is_written_beside_the_data(tmp_path):
    session = read(tmp_path, movie(), MOVIE)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    for clip, length in enumerate(session.lengths):
        session.source.read(clip, 0, int(length))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    assert list(before) == [tmp_path / "rec.npz"]


def test_a_folder_of_npz_files_holds_a_session_each_whose_animals_must_be_named(tmp_path):
    for name, mouse in (("a", "M1"), ("b", "M2")):
        saved(tmp_path, movie() | {"mouse": np.array(mouse)}, f"{name}.npz")
    with pytest.raises(DataError, match="animal is the unit of inference"):
        read_arrays(tmp_path, mapping=MOVIE)
    sessions = read_arrays(tmp_path, mapping=MOVIE | {"animal": "mouse"})
    assert [(session.name, session.animal) for session in sessions] == [("a", "M1"), ("b", "M2")]


def test_the_fingerprint_follows_the_numbers_and_the_mapping(tmp_path):
    one = read(tmp_path, movie(), MOVIE)
    assert read(tmp_path, movie(), MOVIE).fingerprint == one.fingerprint
    assert read(tmp_path, movie(seed=1), MOVIE).fingerprint != one.fingerprint
    assert read(tmp_path, movie(), MOVIE | {"response_normalization": "per_neuron"}).fingerprint != one.fingerprint


def test_a_recording_looks_like_arrays_by_its_file_endings(tmp_path):
    (tmp_path / "empty").mkdir()
    path = saved(tmp_path, movie())
    assert [arrays.looks_like(p) for p in (path, tmp_path, tmp_path / "empty")] == [True, True, False]


# --- the mapping


def test_a_mapping_can_be_a_yaml_file_or_lie_beside_the_data(tmp_path):
    path = saved(tmp_path, movie())
    (tmp_path / "other.yml").write_text(yaml.safe_dump(MOVIE))
    given = read_arrays(path, mapping=str(tmp_path / "other.yml"))[0]
    (tmp_path / "rec.yaml").write_text(yaml.safe_dump(MOVIE))
    assert read_arrays(path)[0].tiers == given.tiers


def test_without_a_mapping_arrays_called_like_roles_are_taken(tmp_path):
    (session,) = read_arrays(saved(tmp_path, pictures()))
    assert session.facts.stimulus_shape == (1, 6, 6)
    with pytest.raises(
        DataError,
        match=r"no array called 'responses' and no mapping.*in a file mapping.yaml beside it.*It has: movie, spikes",
    ):
        read_arrays(saved(tmp_path, movie(), "other.npz"))


def test_every_fault_of_a_mapping_is_said_at_once():
    raw = {
        "vidoe": "movie",
        "images": {"array": "images", "axis": "x"},
        "video": "movie",
        "bin_s": "-3",
        "split": {"seeed": 1, "final_test": 0.9},
    }
    with pytest.raises(ValueError, match="mapping: ") as caught:
        parse_mapping(raw)
    for part in (
        "responses is missing",
        "'vidoe' is not known. Did you mean 'video'?",
        "'images.axis' is not known. Did you mean 'axes'?",
        "'split.seeed' is not known. Did you mean 'seed'?",
        "video and images are both given",
        "bin_s",
        "sum to 1.1",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        ({"responses": {"array": "r", "axes": "tme neurons"}}, "axes 'tme neurons' are not understood"),
        ({"responses": "r", "bin_s": True}, "bin_s"),
        ({"responses": "r", "bin_s": "-1"}, "expected a positive number of seconds"),
        (["responses"], "'role: array' pairs"),
        ("nowhere.yaml", r"'nowhere.yaml' cannot be read \(No such file"),
    ],
)
def test_a_wrong_mapping_is_refused(raw, match):
    with pytest.raises(ValueError, match=match):
        parse_mapping(raw)


def test_a_mapping_file_that_is_no_yaml_is_refused(tmp_path):
    (tmp_path / "m.yaml").write_text("{a: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        parse_mapping(str(tmp_path / "m.yaml"))


def test_yaml_numbers_that_look_like_text_are_numbers():
    assert parse_mapping({"responses": "r", "bin_s": "1e-3"}).bin_s == 0.001


def test_a_mapping_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        ArrayMapping(responses={"array": "r"}).animal = "x"


# --- bad files


def test_object_arrays_are_refused_and_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "unpickled",))

    trap = np.array([[Trap()]], dtype=object)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "spikes.npy", trap)
    for path in (
        saved(tmp_path, {"spikes": trap}, "a.npz"),
        saved(tmp_path, {"spikes": trap}, "b.npz", compressed=True),
        tmp_path / "folder",
    ):
        with pytest.raises(DataError, match="never unpickled"):
            read_arrays(path, mapping={"responses": "spikes"})
    assert not (tmp_path / "unpickled").exists()


def test_a_truncated_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "spikes.npy", movie()["spikes"])
    packed = saved(tmp_path, movie())
    for file in (tmp_path / "folder" / "spikes.npy", packed):
        file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"array 'spikes' in .* cannot be read .*truncated"):
        read_arrays(tmp_path / "folder", mapping={"responses": "spikes"})
    with pytest.raises(DataError, match=r"expected a whole \.npz file"):
        read_arrays(packed, mapping=MOVIE)


def test_a_damaged_compressed_member_is_refused(tmp_path):
    path = saved(tmp_path, movie(), compressed=True)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("spikes.npy").header_offset
    content[offset + 150 : offset + 200] = b"\0" * 50
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"array 'spikes' .* cannot be read"):
        read_arrays(path, mapping=MOVIE)


def test_missing_arrays_are_all_named_with_the_nearest_match(tmp_path):
    said = refused(tmp_path, movie(), {"video": "move", "responses": "spike"}, "has no array 'move'")
    assert "Did you mean 'movie'?" in said
    assert "Did you mean 'spikes'?" in said


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_arrays(tmp_path / "nothing.npz", mapping=MOVIE)


def test_responses_with_swapped_axes_are_refused_with_both_numbers(tmp_path):
    contents = movie()
    contents["spikes"] = contents["spikes"].T
    said = refused(tmp_path, contents, MOVIE, "have 3 along 'time' and video 'movie' has 400")
    assert "'spikes' (3, 400) was read as (time, neurons)" in said


def change(**arrays_by_name):
    return lambda contents: contents | {k: f(contents) for k, f in arrays_by_name.items()}


@pytest.mark.parametrize(
    ("changed", "mapping", "match"),
    [
        (change(movie=lambda c: c["movie"][:, 0]), {}, r"shape \(400, 5\); expected 'time height width'"),
        (change(movie=lambda c: c["movie"][:-1]), {}, "have 400 along 'time' and video 'movie' has 399"),
        (change(movie=lambda c: c["movie"].astype(complex)), {}, "expected real numbers"),
        (change(movie=lambda c: c["movie"] * 0), {}, "video 'movie' is constant in the training tier"),
        (change(movie=lambda c: c["movie"][:0], spikes=lambda c: c["spikes"][:0]), {}, "is empty"),
        (change(spikes=lambda c: np.where(c["spikes"] == 3, np.inf, c["spikes"])), {}, "infinite or too large"),
        (change(spikes=lambda c: c["spikes"] * [1, np.nan, 1]), {}, "neurons 1 have nothing but NaN"),
        (change(xyz=lambda c: np.zeros((3, 4))), {"positions_um": "xyz"}, r"shape \(3, 4\); expected \(3, 3\)"),
        (change(xyz=lambda c: np.full((3, 3), np.nan)), {"positions_um": "xyz"}, "give every neuron a position"),
        (change(dt=lambda c: np.zeros(1)), {"bin_s": "dt"}, "one positive number of seconds"),
        (change(who=lambda c: np.zeros(2)), {"animal": "who"}, "expected one text"),
        (change(run=lambda c: np.r_[np.nan, np.zeros(399)]), {"behavior": "run"}, "behavior 'run' has NaN"),
        (change(run=lambda c: np.zeros(400)), {"behavior": "run"}, "behavior 'run' is constant"),
        (change(run=lambda c: np.zeros(99)), {"behavior": "run"}, "behavior 'run' has 99"),
        (
            change(),
            {"responses": {"array": "spikes", "axes": "stimulus neurons"}},
            "expected an axis 'time'",
        ),
        (
            change(),
            {"responses": {"array": "movie", "axes": "time neurons"}},
            r"shape \(400, 4, 5\), but axes 'time neurons' name 2",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changed, mapping, match):
    refused(tmp_path, changed(movie()), MOVIE | mapping, match)


def test_nan_in_behavior_is_refused_over_time_even_where_responses_are_nan_too(tmp_path):
    contents = movie() | {"run": np.r_[np.zeros(200), np.full(9, np.nan), np.ones(191)]}
    contents["spikes"] = np.where(np.isnan(contents["run"])[:, None], np.nan, contents["spikes"])
    refused(tmp_path, contents, MOVIE | {"behavior": "run"}, "behavior 'run' has NaN.* first in row 200; .*interpolate")


def test_nan_in_behavior_of_an_image_that_was_not_shown_is_read(tmp_path):
    contents = pictures() | {"run": np.random.default_rng(0).normal(size=(20, 3, 1))}
    contents["responses"][4, 2] = contents["run"][4, 2] = np.nan
    assert len(read(tmp_path, contents, PICTURES | {"behavior": "run"}).tiers) == 59


def test_nan_in_the_video_is_refused_and_the_frame_is_named(tmp_path):
    contents = movie()
    contents["movie"] = contents["movie"].astype(np.float32)
    contents["movie"][17, 0, 0] = np.nan
    refused(tmp_path, contents, MOVIE, "video 'movie' has NaN.* first in row 17")


def test_images_without_any_response_are_refused(tmp_path):
    contents = pictures()
    contents["responses"][:] = np.nan
    refused(tmp_path, contents, PICTURES, "nothing but NaN")


def test_a_scored_tier_whose_responses_are_all_zero_is_refused(tmp_path):
    contents = movie()
    contents["spikes"][320:] = 0  # the last fifth is the final test
    told = r"rec.npz.*\(4 of 4 of the tier final_test\) are all zero and would be scored; leave out"
    refused(tmp_path, contents, MOVIE, told)
    contents["spikes"][399, 1] = 1
    read(tmp_path, contents, MOVIE)


def test_images_whose_scored_responses_are_all_zero_are_refused(tmp_path):
    contents = pictures()
    session = read(tmp_path, contents, PICTURES)
    contents["responses"][:, 0] = np.nan
    contents["responses"][session.source.rows[session.clips("dev_test")]] = 0
    refused(tmp_path, contents, PICTURES, r"\(6 of 6 of the tier dev_test\) are all zero and would be scored")


def test_faults_lists_what_is_wrong_with_each_file(tmp_path):
    saved(tmp_path, movie() | {"who": np.array("x")}, "good.npz")
    saved(tmp_path, {"spikes": movie()["spikes"]}, "bad.npz")
    (fault,) = arrays.faults(tmp_path, mapping=MOVIE | {"animal": "who"})
    assert "bad.npz" in fault
    assert "has no array 'movie'" in fault
