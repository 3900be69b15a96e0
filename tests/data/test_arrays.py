"""The arrays reader: any names and axes, tiers of continuous recordings and images, faults, real recordings."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neuroint.data.base import TRAIN, DataError
from neuroint.data.mapping import ArrayMapping, parse_mapping
from neuroint.data.readers import arrays
from neuroint.data.readers.arrays import faults, read_arrays

SPLIT = {"block_frames": 20, "gap_frames": 5, "final_test_at": "end"}
MOVIE = {"video": "movie", "responses": "spikes", "split": SPLIT}
PICTURES = {"images": "images", "responses": "responses"}


def movie(frames=400, neurons=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "movie": rng.integers(-16, 17, (frames, 4, 5)).astype(np.int8),
        "spikes": rng.poisson(1.0, (frames, neurons)).astype(np.uint8),
    }


def pictures(images=20, repeats=3, neurons=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (images, 6, 6)).astype(np.uint8),
        "responses": rng.poisson(3.0, (images, repeats, neurons)).astype(np.float32),
    }


def saved(folder: Path, contents: dict, name="rec.npz", compressed=False) -> Path:
    (np.savez_compressed if compressed else np.savez)(folder / name, **contents)
    return folder / name


def read(folder, contents, mapping):
    (session,) = read_arrays(saved(folder, contents), mapping=mapping)
    return session


def refused(folder, contents, mapping, match):
    path = saved(folder, contents)
    with pytest.raises(DataError, match=match) as caught:
        read_arrays(path, mapping=mapping)
    return str(caught.value)


def scored_frames(session, tier):
    """Frames of the recording that are scored in a tier (all frames of training clips)."""
    lead = 0 if tier == TRAIN else session.scored_from
    clips = session.clips(tier)
    return [f for c in clips for f in range(session.source.rows[c] + lead, session.source.rows[c] + session.lengths[c])]


def read_frames(session, tier):
    clips = session.clips(tier)
    return {f for c in clips for f in range(session.source.rows[c], session.source.rows[c] + session.lengths[c])}


# --- continuous recordings


def test_the_last_fifth_of_the_frames_is_the_final_test_and_every_frame_of_it_is_scored_once(tmp_path):
    session = read(tmp_path, movie(403), MOVIE)
    assert scored_frames(session, "final_test") == list(range(403 - 81, 403))  # round(.2 * 403) = 81


@pytest.mark.parametrize("at", ["end", "scattered"])
def test_no_scored_frame_is_read_by_another_tier_not_even_as_context(tmp_path, at):
    session = read(tmp_path, movie(700), MOVIE | {"split": SPLIT | {"final_test_at": at}})
    for tier in ("validation", "dev_test", "final_test"):
        scored = set(scored_frames(session, tier))
        assert scored
        for other in {"train", "validation", "dev_test", "final_test"} - {tier}:
            assert not scored & read_frames(session, other)
    assert not set(scored_frames(session, "train")) & read_frames(session, "dev_test")


def test_training_frames_keep_a_gap_on_both_sides_of_scored_ones(tmp_path):
    session = read(tmp_path, movie(700), MOVIE | {"split": SPLIT | {"final_test_at": "scattered"}})
    training = np.array(scored_frames(session, "train"))
    scored = np.array([f for t in ("validation", "dev_test", "final_test") for f in scored_frames(session, t)])
    assert np.abs(training[:, None] - scored[None]).min() > 5


def test_shares_of_frames_are_what_was_asked_for_to_within_a_block(tmp_path):
    session = read(tmp_path, movie(2000), MOVIE)
    frames = {tier: len(scored_frames(session, tier)) for tier in ("validation", "dev_test", "final_test")}
    assert frames["final_test"] == 400
    assert abs(frames["validation"] - 200) <= 20
    assert abs(frames["dev_test"] - 200) <= 20
    assert session.facts.shortest_clip == min(session.lengths)
    assert all(session.lengths >= 20)


def test_neighboring_training_cells_are_one_long_clip(tmp_path):
    session = read(tmp_path, movie(2000), MOVIE)
    assert max(session.lengths[session.clips("train")]) > 3 * 25


def test_the_same_seed_splits_alike_and_another_seed_does_not(tmp_path):
    path = saved(tmp_path, movie(2000))
    one, again, other = (
        read_arrays(path, mapping=MOVIE | {"split": SPLIT | {"seed": seed}})[0].tiers for seed in (0, 0, 1)
    )
    assert one == again
    assert one != other


def test_a_crop_is_the_recording_z_scored_by_its_training_frames(tmp_path):
    contents = movie()
    session = read(tmp_path, contents, MOVIE)
    training = contents["movie"][scored_frames(session, "train")].astype(float)
    clip = int(session.clips("dev_test")[0])
    first = session.source.rows[clip] + 7
    part = session.source.read(clip, 7, 10)
    expected = (contents["movie"][first : first + 10] - training.mean()) / training.std()
    np.testing.assert_allclose(part.stimulus[:, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(part.responses, contents["spikes"][first : first + 10])
    assert part.stimulus.dtype == part.responses.dtype == np.float32


def test_mean_responses_are_those_of_training_frames_after_normalization(tmp_path):
    contents = movie()
    plain = read(tmp_path, contents, MOVIE)
    scaled = read(tmp_path, contents, MOVIE | {"response_normalization": "per_neuron"})
    training = contents["spikes"][scored_frames(plain, "train")].astype(float)
    np.testing.assert_allclose(plain.facts.mean_responses, training.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scaled.facts.mean_responses, training.mean(0) / training.std(0), rtol=1e-6)
    np.testing.assert_allclose(
        scaled.source.read(0, 0, 5).responses, contents["spikes"][:5] / training.std(0), rtol=1e-6
    )


def test_a_silent_neuron_is_not_divided_by_zero(tmp_path):
    contents = movie()
    contents["spikes"][:, 1] = 0
    session = read(tmp_path, contents, MOVIE | {"response_normalization": "per_neuron"})
    assert np.all(session.source.read(0, 0, 5).responses[:, 1] == 0)


def test_axes_may_be_stored_in_any_order(tmp_path):
    contents = movie()
    turned = {"movie": contents["movie"].transpose(1, 2, 0), "spikes": contents["spikes"].T}
    named = {
        "video": {"array": "movie", "axes": "height width time"},
        "responses": {"array": "spikes", "axes": "neurons time"},
        "split": SPLIT,
    }
    expected = read(tmp_path, contents, MOVIE).source.read(0, 3, 9)
    part = read(tmp_path, turned, named).source.read(0, 3, 9)
    np.testing.assert_array_equal(part.stimulus, expected.stimulus)
    np.testing.assert_array_equal(part.responses, expected.responses)


def test_color_channels_are_z_scored_apart(tmp_path):
    contents = movie()
    contents["movie"] = np.stack([contents["movie"], 3.0 * contents["movie"] + 50], axis=1)
    named = MOVIE | {"video": {"array": "movie", "axes": "time channel height width"}}
    session = read(tmp_path, contents, named)
    part = session.source.read(0, 0, 10).stimulus
    assert session.facts.stimulus_shape == (2, 4, 5)
    np.testing.assert_allclose(part[:, 0], part[:, 1], atol=1e-5)


def test_behavior_pupil_positions_bin_and_animal_are_read(tmp_path):
    rng = np.random.default_rng(1)
    extra = {
        "speed": rng.normal(size=400),
        "eye": rng.normal(size=(400, 2)),
        "xy": np.arange(6.0).reshape(3, 2),
        "dt": np.float64(0.04),
        "mouse": np.array("M7"),
    }
    roles = {"behavior": "speed", "pupil": "eye", "positions_um": "xy", "bin_s": "dt", "animal": "mouse"}
    session = read(tmp_path, movie() | extra, MOVIE | roles | {"cautions": ["pooled: no coupling"]})
    facts = session.facts
    assert (facts.behavior_channels, facts.pupil_channels, facts.bin_s) == (1, 2, 0.04)
    np.testing.assert_array_equal(facts.positions_um, [[0, 1, 0], [2, 3, 0], [4, 5, 0]])
    assert (session.animal, session.name, session.cautions) == ("M7", "rec", ("pooled: no coupling",))
    training = extra["speed"][scored_frames(session, "train")]
    part = session.source.read(0, 0, 4)
    np.testing.assert_allclose(part.behavior[:, 0], (extra["speed"][:4] - training.mean()) / training.std(), rtol=1e-5)
    assert part.pupil.shape == (4, 2)


def test_activity_without_a_stimulus_is_a_recording_too(tmp_path):
    session = read(tmp_path, movie(), {"responses": "spikes", "split": SPLIT})
    assert session.facts.stimulus_shape is None
    assert session.source.read(0, 0, 5).stimulus is None
    assert len(set(session.stimulus_ids)) == len(session.tiers)


def test_responses_that_are_partly_nan_stay_nan(tmp_path):
    contents = movie()
    contents["spikes"] = contents["spikes"].astype(np.float32)
    contents["spikes"][2, 1] = np.nan
    part = read(tmp_path, contents, MOVIE).source.read(0, 0, 5)
    assert np.argwhere(np.isnan(part.responses)).tolist() == [[2, 1]]


def test_a_crop_outside_its_clip_is_refused(tmp_path):
    session = read(tmp_path, movie(), MOVIE)
    for where in [(0, -1, 5), (0, 0, 10_000), (0, 0, 0), (10_000, 0, 5)]:
        with pytest.raises(ValueError, match="do not exist"):
            session.source.read(*where)


def test_video_repeated_across_tiers_is_refused_and_may_be_reported(tmp_path):
    contents = movie(600)
    contents["movie"][-70:-5] = contents["movie"][3:68]
    match = "are in train and in final_test"
    refused(tmp_path, contents, MOVIE, match)
    session = read(tmp_path, contents, MOVIE | {"leakage": "report"})
    assert any("in train and in final_test" in caution for caution in session.cautions)


def two_recordings(folder, first, second, mapping, **other):
    """Save two animals' recordings with a mapping each, which differ in ``other``; returns their folder."""
    for name, contents, more in (("a", first, {}), ("b", second, other)):
        saved(folder, contents, f"{name}.npz")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(mapping | {"animal": "who"} | more))
    return folder


def test_video_that_one_recording_trains_on_and_another_scores_is_refused_and_may_be_reported(tmp_path):
    first, second = (movie(600, seed=seed) | {"who": np.array(f"M{seed}")} for seed in (1, 2))
    second["movie"][-70:-5] = first["movie"][3:68]
    folder = two_recordings(tmp_path, first, second, MOVIE)
    match = r"session 'a' trains on what session 'b' scores: \d+ stretches of \d+ frames of video in final_test"
    with pytest.raises(DataError, match=match):
        read_arrays(folder)
    assert [bool(re.search(match, fault)) for fault in faults(folder)] == [True]
    two_recordings(tmp_path, first, second, MOVIE | {"leakage": "report"})
    trained, scored = read_arrays(folder)
    assert (trained.cautions, len(scored.cautions)) == ((), 1)
    assert scored.cautions[0].endswith("scores there are too high")


def test_two_recordings_of_the_same_images_need_the_same_split(tmp_path):
    first, second = (pictures(seed=1) | {"who": np.array(name)} for name in ("M1", "M2"))
    assert len(read_arrays(two_recordings(tmp_path, first, second, PICTURES))) == 2
    folder = two_recordings(tmp_path, first, second, PICTURES, split={"seed": 5})
    with pytest.raises(DataError, match=r"session 'b' trains on what session 'a' scores: .*give .* the same split"):
        read_arrays(folder)


def test_a_gray_screen_in_every_tier_is_no_leakage(tmp_path):
    contents = movie(600)
    for start in range(0, 600, 50):
        contents["movie"][start : start + 30] = 0
    assert read(tmp_path, contents, MOVIE).cautions == ()


def test_a_recording_too_short_for_its_split_is_refused(tmp_path):
    refused(tmp_path, movie(60), MOVIE, "60 frames is too short for blocks of 20 with gaps of 5")
    refused(tmp_path, movie(8), MOVIE, "too short")


# --- images


def test_every_presentation_is_a_clip_of_one_frame_and_an_absent_repeat_is_none(tmp_path):
    contents = pictures()
    contents["responses"][3, 1] = np.nan
    contents["responses"][4, 2, 0] = np.nan
    session = read(tmp_path, contents, PICTURES)
    assert len(session.tiers) == 20 * 3 - 1
    assert (session.scored_from, session.facts.shortest_clip) == (0, 1)
    clips = np.flatnonzero(session.stimulus_ids == 3)
    responses = [session.source.read(int(clip), 0, 1).responses[0] for clip in clips]
    np.testing.assert_array_equal(responses, contents["responses"][3, [0, 2]])
    assert np.isnan(session.source.read(int(np.flatnonzero(session.stimulus_ids == 4)[2]), 0, 1).responses[0, 0])


def test_tiers_are_dealt_out_by_image(tmp_path):
    session = read(tmp_path, pictures(), PICTURES)
    groups = {tier: {int(i) for i in session.stimulus_ids[session.clips(tier)]} for tier in set(session.tiers)}
    assert {tier: len(group) for tier, group in groups.items()} == {
        "train": 12, "validation": 2, "dev_test": 2, "final_test": 4
    }  # fmt: skip
    assert set.union(*groups.values()) == set(range(20))
    assert all(len(group) == 3 for tier in groups for group in session.repeats(tier))


def test_equal_images_are_repeats_in_one_tier_wherever_they_are_stored(tmp_path):
    contents = pictures(repeats=1)
    contents["images"][[5, 11]] = contents["images"][2]
    flat = {"images": contents["images"], "responses": contents["responses"][:, 0]}
    session = read(tmp_path, flat, PICTURES)
    assert session.stimulus_ids[[2, 5, 11]].tolist() == [2, 2, 2]
    assert len({session.tiers[clip] for clip in (2, 5, 11)}) == 1


def test_the_last_images_can_be_the_final_test(tmp_path):
    session = read(tmp_path, pictures(), PICTURES | {"split": {"final_test_at": "end"}})
    assert sorted(set(session.stimulus_ids[session.clips("final_test")])) == [16, 17, 18, 19]
    assert Counter(session.tiers) == {"train": 36, "validation": 6, "dev_test": 6, "final_test": 12}


def test_the_tier_of_an_image_does_not_depend_on_its_place_in_the_file(tmp_path):
    contents = pictures()
    order = np.random.default_rng(5).permutation(20)
    one = read(tmp_path, contents, PICTURES)
    other = read(tmp_path, {key: value[order] for key, value in contents.items()}, PICTURES)
    tier_one = {int(i): tier for i, tier in zip(one.stimulus_ids, one.tiers, strict=True)}
    tier_other = {int(order[i]): tier for i, tier in zip(other.stimulus_ids, other.tiers, strict=True)}
    assert tier_one == tier_other


def test_images_are_z_scored_by_training_images(tmp_path):
    contents = pictures()
    session = read(tmp_path, contents, PICTURES)
    training = contents["images"][sorted(set(session.stimulus_ids[session.clips("train")]))].astype(float)
    clip = int(session.clips("final_test")[0])
    image = contents["images"][session.stimulus_ids[clip]]
    part = session.source.read(clip, 0, 1).stimulus
    np.testing.assert_allclose(part[0, 0], (image - training.mean()) / training.std(), atol=1e-5)


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


# --- fuzz: whatever comes in, a session or a DataError comes out, never another exception

TEXT = st.text(max_size=8)
WORDS = st.sampled_from(["movie", "spikes", "xyz", "dt", "nothing", ""]) | TEXT
AXES = st.permutations(["time", "height", "width"]).map(" ".join) | TEXT | st.none()
NAMED = WORDS | st.fixed_dictionaries({"array": WORDS}, optional={"axes": AXES}) | st.integers()
RAW = st.fixed_dictionaries(
    {"responses": st.just("spikes") | NAMED},
    optional={
        "video": NAMED,
        "images": NAMED,
        "behavior": NAMED,
        "positions_um": WORDS,
        "bin_s": WORDS | st.floats() | st.booleans(),
        "animal": WORDS,
        "split": st.dictionaries(
            st.sampled_from(["block_frames", "gap_frames", "seed", "validation", "final_test_at"]),
            st.integers(-1, 9) | st.floats(0, 0.5) | st.sampled_from(["end", "scattered", "start"]),
            max_size=2,
        ),
        "cautions": st.lists(TEXT, max_size=2) | TEXT,
    },
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=RAW)
def test_any_mapping_gives_a_session_or_a_data_error(tmp_path, raw):
    path = saved(tmp_path, movie(100) | {"xyz": np.zeros((3, 3)), "dt": np.float64(0.1)})
    with contextlib.suppress(DataError):
        (session,) = read_arrays(path, mapping={"split": SPLIT} | raw)
        assert session.source.read(0, 0, 1).responses.shape == (1, session.facts.n_neurons)


FLAWS = {
    "type": lambda made, rng: made | {"movie": made["movie"].astype(rng.choice(["f8", ">i2", "f2", "?", "U3", "c8"]))},
    "scale": lambda made, rng: made | {"movie": made["movie"] * rng.choice([0.0, 1e-42, 1e-30, 1e30, 1e300])},
    "shape": lambda made, rng: made | {"movie": np.resize(made["movie"], rng.integers(0, 4, rng.integers(0, 6)))},
    "count": lambda made, rng: made | {"spikes": made["spikes"][: rng.integers(0, 99)]},
    "neurons": lambda made, rng: made | {"spikes": made["spikes"][:, : rng.integers(0, 3)]},
    "holes": lambda made, rng: made | {"spikes": np.where(rng.random(made["spikes"].shape) < 0.3, np.nan, 1.0)},
    "values": lambda made, rng: made | {"spikes": made["spikes"] * rng.choice([np.inf, np.nan, -1e38, 1e-30])},
}


@st.composite
def recording(draw):
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    frames, neurons, *sides = (draw(st.integers(low, high)) for low, high in [(25, 99), (1, 4), (1, 3), (1, 3)])
    made = {"movie": rng.normal(size=(frames, *sides)), "spikes": rng.poisson(2, (frames, neurons)).astype("f4")}
    for flaw in sorted(draw(st.sets(st.sampled_from(sorted(FLAWS)), max_size=2))):
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            made = FLAWS[flaw](made, rng)
    return made


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=recording(), scaled=st.sampled_from(["none", "per_neuron"]))
def test_any_arrays_give_a_session_that_can_be_read_or_a_data_error(tmp_path, made, scaled):
    path = saved(tmp_path, made)
    split = {"block_frames": 4, "gap_frames": 1}
    mapping = {"video": "movie", "responses": "spikes", "split": split}
    with contextlib.suppress(DataError):
        (session,) = read_arrays(path, mapping=mapping | {"response_normalization": scaled})
        for clip, length in enumerate(session.lengths):
            part = session.source.read(clip, 0, int(length))
            assert part.responses.shape == (length, session.facts.n_neurons)
            assert np.isfinite(part.stimulus).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(compressed=True, where=0.0390625, damage=b"\0" * 13, cut=False)
@given(
    compressed=st.booleans(),
    where=st.floats(0, 1, exclude_max=True),
    damage=st.binary(min_size=1, max_size=40),
    cut=st.booleans(),
)
def test_a_damaged_file_becomes_a_session_or_a_data_error(tmp_path, compressed, where, damage, cut):
    path = saved(tmp_path, movie(200), compressed=compressed)
    whole = path.read_bytes()
    place = int(where * len(whole))
    path.write_bytes(whole[:place] + (b"" if cut else damage + whole[place + len(damage) :]))
    with contextlib.suppress(DataError):
        read_arrays(path, mapping=MOVIE)


# --- real recordings


@pytest.mark.recordings
def test_the_retina_is_split_with_exactly_its_last_fifth_as_final_test(recordings):
    mapping = {
        "video": "video",
        "responses": "responses",
        "cautions": ["cells pooled over several retinas: no coupling"],
        "split": {"final_test_at": "end"},
    }
    (session,) = read_arrays(recordings / "retina_liu2017" / "retina.npz", mapping=mapping)
    assert scored_frames(session, "final_test") == list(range(24_000, 30_000))
    assert (session.facts.n_neurons, session.facts.stimulus_shape, session.facts.bin_s) == (177, (1, 24, 26), None)
    assert session.scored_from == 60
    assert max(read_frames(session, "train") | read_frames(session, "dev_test")) < 24_000 - 60
    for tier in ("validation", "dev_test"):
        assert 3000 <= len(scored_frames(session, tier)) <= 3100
    assert session.facts.shortest_clip >= 500
    assert session.cautions == ("cells pooled over several retinas: no coupling",)
    assert session.repeats("dev_test")
    with np.load(recordings / "retina_liu2017" / "retina.npz", allow_pickle=False) as raw:
        clip = int(session.clips("final_test")[3])
        first = int(session.source.rows[clip])
        part = session.source.read(clip, 60, 20)
        np.testing.assert_array_equal(part.responses, raw["responses"][first + 60 : first + 80])
        np.testing.assert_allclose(np.corrcoef(part.stimulus.ravel(), raw["video"][first + 60 : first + 80].ravel()), 1)


@pytest.mark.recordings
def test_v4_has_640_images_with_six_to_ten_repeats_and_a_fifth_of_them_as_final_test(recordings):
    (session,) = read_arrays(
        recordings / "v4_cowley2026" / "v4_210325.npz", mapping={"images": "images", "responses": "responses"}
    )
    tiers = {tier: session.repeats(tier) for tier in ("train", "validation", "dev_test", "final_test")}
    assert {tier: len(groups) for tier, groups in tiers.items()} == {
        "train": 384, "validation": 64, "dev_test": 64, "final_test": 128
    }  # fmt: skip
    repeats = [len(group) for groups in tiers.values() for group in groups]
    assert (min(repeats), max(repeats), sum(repeats)) == (6, 10, 6400 - 1560)
    with np.load(recordings / "v4_cowley2026" / "v4_210325.npz", allow_pickle=False) as raw:
        group = tiers["final_test"][0]
        mean = np.mean([session.source.read(int(clip), 0, 1).responses[0] for clip in group], axis=0)
        np.testing.assert_allclose(mean, raw["responses_mean"][session.stimulus_ids[group[0]]], rtol=1e-5)
