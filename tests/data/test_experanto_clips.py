"""Which clips an experanto session has: images, runs, spikes, tiers, several sessions, and what it leaves alone."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experanto_folder import (
    BLANK,
    Shown,
    default_trials,
    images,
    movie,
    numbered,
    picture,
    responses,
    squares,
    write_experanto,
    write_spikes,
)

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, DataError, Session
from neuroint.data.opening import find_faults, open_sessions
from neuroint.data.readers import arrays, sensorium2022, sensorium2023
from neuroint.data.readers.experanto import faults, looks_like, read_experanto


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_experanto(tmp_path_factory.mktemp("experanto"))


@pytest.fixture(scope="module")
def session(folder) -> Session:
    (session,) = read_experanto(folder)
    return session


def test_an_image_is_a_clip_of_as_many_bins_as_it_lasts(tmp_path):
    trials = images(["train"] * 4, between=replace(BLANK, frame_s=0.3))
    (session,) = read_experanto(write_experanto(tmp_path, trials=trials), withheld_fraction=0.0)
    assert session.lengths.tolist() == [4] * 4
    assert (session.source.read(1, 0, 4).stimulus == session.source.read(1, 0, 1).stimulus).all()
    assert session.scored_from == 0


def test_an_image_whose_end_is_not_recorded_makes_no_clip(tmp_path):
    (session,) = read_experanto(write_experanto(tmp_path, trials=images(["train"] * 4)), withheld_fraction=0.0)
    assert len(session.tiers) == 3
    assert any(caution.startswith("1 of 4 presentations lie outside") for caution in session.cautions)


def test_a_time_after_the_last_frame_is_its_end(tmp_path):
    folder = write_experanto(tmp_path, trials=images(["train"] * 4))
    times = np.load(folder / "screen/timestamps.npy")
    np.save(folder / "screen/timestamps.npy", np.append(times, times[-1] + 0.25))
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert session.lengths.tolist() == [4, 4, 4, 2]


def test_a_videos_last_frame_lasts_as_long_as_its_others(tmp_path):
    trials = [numbered(), numbered(offset=40)]
    recorded = {"responses": {"values": squares(80)}, "treadmill": None, "eye_tracker": None}
    folder = write_experanto(tmp_path, trials=trials, devices=recorded)
    times = np.load(folder / "screen/timestamps.npy")
    times[30:] += 5.0  # nothing was shown in between
    np.save(folder / "screen/timestamps.npy", times)
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert session.lengths.tolist() == [8, 8]


def test_runs_join_presentations_of_a_tier_through_blanks(tmp_path):
    trials = images(["train", "train", "test", "train", "train", "train"], between=replace(BLANK, frame_s=0.25))
    trials[9] = replace(trials[9], kind="invalid")  # between the fifth and the sixth image
    folder = write_experanto(tmp_path, trials=trials)
    (session,) = read_experanto(folder, clips="runs", withheld_fraction=0.0)
    assert list(session.tiers) == [TRAIN, DEV_TEST, TRAIN, TRAIN]
    assert session.lengths.tolist() == [10, 4, 10, 4], "0.5 s, blank for 0.25 s, 0.5 s"
    shown = session.source.read(0, 0, 10).stimulus
    assert np.ptp(shown[4:6]) == 0, "the blank screen"
    assert (shown[3] != shown[6]).any()
    (single,) = read_experanto(folder, withheld_fraction=0.0)
    np.testing.assert_allclose(shown[6], single.source.read(1, 0, 1).stimulus[0], rtol=1e-6)


def test_runs_of_the_same_images_in_the_same_order_are_repeats(tmp_path):
    two, invalid = images(["train"] * 2), replace(BLANK, kind="invalid")
    trials = [*two, invalid, *two, invalid, *two[::-1], BLANK]
    (session,) = read_experanto(write_experanto(tmp_path, trials=trials), clips="runs", withheld_fraction=0.0)
    assert [group.tolist() for group in session.repeats(TRAIN)] == [[0, 1], [2]]


def test_scores_begin_after_the_burn_in_where_clips_are_longer(folder):
    assert read_experanto(folder, burn_in_s=0.5)[0].scored_from == 4
    assert read_experanto(folder, burn_in_s=1.0)[0].scored_from == 0, "no clip is longer than a second"


def test_a_clip_ends_where_a_device_does(tmp_path):
    trials = default_trials()
    folder = write_experanto(tmp_path, trials=trials, devices={"treadmill": {"values": np.ones((100, 1))}})
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert session.lengths.tolist() == [8], "the treadmill ends at 3.3 s, and the second video begins at 3.5 s"
    assert any(caution.startswith("14 of 15 presentations lie outside") for caution in session.cautions)
    devices = {"treadmill": {"values": np.ones((84, 1))}}
    (session,) = read_experanto(write_experanto(tmp_path, name="b", devices=devices), withheld_fraction=0.0)
    assert session.lengths.tolist() == [7], "it ends at 83 / 30 = 2.77 s, after bins 0 to 6"


@pytest.mark.parametrize(("shift_s", "lengths"), [(0.0, [8, 8]), (0.0625, [8])])
def test_a_clip_that_begins_before_the_last_neuron_is_left_out(tmp_path, shift_s, lengths):
    device = {"values": squares(40, 2), "start_s": 2.0, "shifts_s": np.array([0.0, shift_s])}
    trials = [numbered(), BLANK, numbered(offset=9), BLANK]
    folder = write_experanto(tmp_path, trials=trials, devices={"responses": device})
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert session.lengths.tolist() == lengths


def test_a_clip_ends_with_the_first_neuron_that_ends(tmp_path):
    device = {"values": squares(23, 2), "shifts_s": np.array([0.0, -0.125])}  # the last samples: 2.75 and 2.625 s
    folder = write_experanto(tmp_path, trials=[numbered(), BLANK], devices={"responses": device})
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert session.lengths.tolist() == [6]


def test_spikes_are_counted_in_bins(tmp_path):
    for plain in (True, False):
        folder = write_experanto(tmp_path, name=f"s{plain}", trials=[numbered(), BLANK], devices={"responses": None})
        write_spikes(folder / "responses", [[1.9, 2.0, 2.05, 2.1, 2.4], [], [2.99, 3.0]], end_s=5.0, plain=plain)
        (session,) = read_experanto(folder, rate_hz=10.0, withheld_fraction=0.0, response_normalization="none")
        counts = responses(session)
        assert counts[:, 0].tolist() == [2, 1, 0, 0, 1, 0, 0, 0, 0, 0]
        assert counts[:, 1].sum() == 0
        assert counts[:, 2].tolist() == [0] * 9 + [1]
        assert session.facts.bin_s == 0.1


def test_spikes_without_a_rate_are_refused(tmp_path):
    folder = write_experanto(tmp_path, trials=[numbered(), BLANK], devices={"responses": None})
    write_spikes(folder / "spikes", [[2.1]], end_s=5.0)
    with pytest.raises(ValueError, match=r"spikes, which have no sampling rate of their own; set rate_hz"):
        read_experanto(folder)


def test_the_eye_tracker_may_be_left_out_or_its_signals_named(tmp_path):
    folder = write_experanto(tmp_path)
    (without,) = open_sessions(folder, options={"eye": {}})
    assert (without.facts.behavior_channels, without.facts.pupil_channels) == (1, 0)
    assert without.source.read(0, 0, 1).pupil is None
    (named,) = open_sessions(folder, options={"eye": {"behavior": [1], "position": [3, 2]}})
    whole = read_experanto(folder)[0].source.read(0, 0, 8)
    np.testing.assert_array_equal(named.source.read(0, 0, 8).pupil, whole.pupil[:, ::-1])
    np.testing.assert_array_equal(named.source.read(0, 0, 8).behavior, whole.behavior[:, 1:])


def test_a_session_without_treadmill_and_eye_tracker_is_read(tmp_path):
    folder = write_experanto(tmp_path, devices={"treadmill": None, "eye_tracker": None})
    (session,) = read_experanto(folder)
    clip = session.source.read(0, 0, 8)
    assert clip.behavior is clip.pupil is None


def test_trials_may_be_described_in_one_file(folder, tmp_path):
    together = write_experanto(tmp_path, combined=True)
    (session,) = read_experanto(together)
    np.testing.assert_array_equal(
        session.source.read(5, 0, 8).stimulus, read_experanto(folder)[0].source.read(5, 0, 8).stimulus
    )


def test_without_tiers_stimuli_are_dealt_out_by_seed(tmp_path):
    trials = [replace(trial, tier=None) for trial in default_trials()]
    folder = write_experanto(tmp_path, trials=trials)
    one, two = (read_experanto(folder, split_seed=seed)[0] for seed in (0, 1))
    assert [len(one.repeats(tier)) for tier in (TRAIN, VALIDATION, DEV_TEST, FINAL_TEST)] == [8, 1, 1, 1]
    assert one.tiers != two.tiers
    for stimulus in set(one.stimulus_ids):
        assert len({tier for tier, i in zip(one.tiers, one.stimulus_ids, strict=True) if i == stimulus}) == 1


def test_a_tier_whose_responses_are_withheld_is_replaced(tmp_path):
    values = np.random.default_rng(0).gamma(1, 1, (300, 3))
    trials = default_trials()
    for at, trial in enumerate(trials[::2]):
        if trial.tier == "final_test":
            first = round((2 + 1.5 * at) * 8)
            values[first : first + 9] = 0
    (session,) = read_experanto(write_experanto(tmp_path, trials=trials, devices={"responses": {"values": values}}))
    assert [session.tiers[clip] for clip in (7, 13)] == [UNUSED, UNUSED]
    assert len(session.repeats(FINAL_TEST)) == 1


def test_other_names_of_tiers_may_be_given(tmp_path):
    trials = [replace(trial, tier={"test": "live_main"}.get(str(trial.tier), trial.tier)) for trial in default_trials()]
    (session,) = open_sessions(write_experanto(tmp_path, trials=trials), options={"tiers": {"live_main": "dev_test"}})
    assert len(session.clips(DEV_TEST)) == 2


def test_a_folder_may_hold_several_sessions_of_several_animals(tmp_path):
    write_experanto(tmp_path, name="one", meta={"data_key": "17797-4-7"})
    key = {"animal_id": 17797, "session": 8, "scan_idx": 5}
    write_experanto(tmp_path, name="two", meta={"scan_key": key})
    write_experanto(tmp_path, name="three")
    (tmp_path / "notes").mkdir()
    found = read_experanto(tmp_path)
    assert [(s.name, s.animal) for s in found] == [("17797-4-7", "17797"), ("three", "three"), ("17797-8-5", "17797")]
    assert len({session.fingerprint for session in found}) == 1, "the same numbers"


def test_positions_are_read_where_there_are_three_coordinates(tmp_path):
    folder = write_experanto(
        tmp_path, devices={"responses": {"neuron_properties": {"cell_motor_coordinates": "meta/xyz.npy"}}}
    )
    np.save(folder / "responses/meta/xyz.npy", np.arange(15).reshape(5, 3))
    assert read_experanto(folder)[0].facts.positions_um.tolist() == np.arange(15.0).reshape(5, 3).tolist()
    np.save(folder / "responses/meta/xyz.npy", np.arange(10).reshape(5, 2))
    (session,) = read_experanto(folder)
    assert session.facts.positions_um is None
    assert any("two coordinates per neuron" in caution for caution in session.cautions)


def test_pixels_may_be_kept_under_the_names_of_images(tmp_path):
    folder = write_experanto(tmp_path, combined=True, trials=images(["train", "train"], between=BLANK))
    (folder / "screen/meta.yml").write_text("modality: screen\nimage_names: true\n")
    described = json.loads((folder / "screen/combined_meta.json").read_text())
    for key in ("00000", "00002"):
        described[key]["image_name"] = "im1"
    (folder / "screen/combined_meta.json").write_text(json.dumps(described))
    (folder / "screen/data/00000.npy").rename(folder / "screen/data/im1.npy")
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert [len(group) for group in session.repeats(TRAIN)] == [2]


def test_a_stimulus_in_two_tiers_is_refused_dropped_or_reported(tmp_path):
    trials = [Shown(movie(seed), tier) for seed, tier in [(0, "train"), (1, "train"), (0, "test"), (2, "train")]]
    folder = write_experanto(tmp_path, trials=[part for shown in trials for part in (shown, BLANK)])
    with pytest.raises(DataError, match=r"the same stimulus was shown in train \(clips 0\) and dev_test \(clips 2\)"):
        read_experanto(folder)
    assert any("the same stimulus" in fault for fault in faults(folder))
    (dropped,) = read_experanto(folder, leakage="drop", withheld_fraction=0.0)
    assert list(dropped.tiers) == [UNUSED, TRAIN, DEV_TEST, TRAIN]
    (reported,) = read_experanto(folder, leakage="report", withheld_fraction=0.0)
    assert any("scores there are too high" in caution for caution in reported.cautions)


def test_runs_do_not_hide_a_stimulus_that_leaks(tmp_path):
    pictures = [(0, "train"), (1, "train"), (2, "test"), (1, "test"), (3, "train")]
    trials = [Shown(picture(seed), tier, frame_s=0.5) for seed, tier in pictures]
    folder = write_experanto(tmp_path, trials=[*trials, BLANK])
    with pytest.raises(DataError, match=r"the same stimulus was shown in train \(clips 1\) and dev_test \(clips 3\)"):
        read_experanto(folder, clips="runs")
    (session,) = read_experanto(folder, clips="runs", leakage="drop", withheld_fraction=0.0)
    assert list(session.tiers) == [TRAIN, UNUSED, DEV_TEST, TRAIN]


def test_a_stimulus_that_one_session_trains_on_and_another_scores_is_refused(tmp_path):
    for name, tiers in (("a", ("train", "test")), ("b", ("test", "train"))):
        trials = [Shown(movie(seed), tier) for seed, tier in zip((0, 1), tiers, strict=True)]
        trials += [Shown(movie(2), "train")]
        write_experanto(tmp_path, name=name, trials=[part for shown in trials for part in (shown, BLANK)])
    with pytest.raises(
        DataError, match=r"session 'a' trains on a stimulus \(clip 0\) that session 'b' scores in dev_test"
    ):
        read_experanto(tmp_path, withheld_fraction=0.0)
    assert any("session 'a' trains on a stimulus" in fault for fault in faults(tmp_path))


def test_a_source_can_be_pickled_and_holds_no_data(session):
    packed = pickle.dumps(session.source)
    assert len(packed) < 30_000, "the videos alone have 43,200 bytes"
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.read(2, 1, 5).stimulus, session.source.read(2, 1, 5).stimulus)


def test_bins_outside_of_a_clip_are_refused(session):
    with pytest.raises(ValueError, match=r"clip 3 has 8 bins; bins 5 to 9 were asked for"):
        session.source.read(3, 5, 4)


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_size,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def test_nothing_is_written_into_the_folder(tmp_path):
    write_experanto(tmp_path)
    before = state(tmp_path)
    (session,) = open_sessions(tmp_path)
    for clip in range(len(session.tiers)):
        session.source.read(clip, 0, 8)
    assert find_faults(tmp_path) == []
    assert state(tmp_path) == before


def test_only_this_reader_recognizes_it_also_under_a_name_of_sensorium(folder):
    for path in (folder, folder.parent):
        assert looks_like(path)
        assert not any(module.looks_like(path) for module in (sensorium2022, sensorium2023, arrays))
    assert not looks_like(folder / "screen")
    assert not looks_like(folder / "screen/timestamps.npy")
    assert faults(folder) == []
