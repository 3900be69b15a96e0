"""The arrays reader: any names and axes, tiers of continuous recordings and images."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import yaml
from array_recordings import MOVIE, PICTURES, SPLIT, movie, pictures, read, read_frames, refused, saved, scored_frames

from neuroint.data.base import DataError
from neuroint.data.readers.arrays import faults, read_arrays

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


def test_ids_of_matched_neurons_are_whole_numbers_one_each(tmp_path):
    named = MOVIE | {"match_ids": "cell"}
    facts = read(tmp_path, movie() | {"cell": np.array([4.0, -1.0, 12.0])}, named).facts
    assert facts.match_ids.tolist() == [4, -1, 12]
    with pytest.raises(DataError, match=r"match_ids 'cell' holds uint64 that are not all ids.*below 2\^53"):
        read(tmp_path, movie() | {"cell": np.array([1, 2, 2**63 + 5], np.uint64)}, named)
    with pytest.raises(DataError, match=r"match_ids 'cell' has shape \(2,\); expected \(3,\), one id per neuron"):
        read(tmp_path, movie() | {"cell": np.arange(2)}, named)
    with pytest.raises(
        DataError,
        match=r"match_ids 'cell' holds float64 that are not all ids.*-1 for one",
    ):
        read(tmp_path, movie() | {"cell": np.array([0.0, 0.5, np.nan])}, named)


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
