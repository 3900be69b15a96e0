"""NWB files of the benchmark: counts worked out by hand, windows, sessions, behavior, and every kind of bad file."""

import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from nwb_files import HELD_IN, HELD_OUT, TEST_NAME, TRAIN_NAME, Signal, hidden_trials, intervals, reaches, write

from neuroint.data.base import DataError
from neuroint.data.nlb.hdf5 import read_arrays
from neuroint.data.nwb.arrays import cut, find_files, input_arrays, target_arrays, write_benchmark_files
from neuroint.data.nwb.bins import counts_of, first_bins
from neuroint.data.nwb.files import Unit
from neuroint.data.nwb.series import decimated, read_series
from neuroint.data.nwb.tasks import TASKS
from neuroint.data.nwb.trials import Grid
from neuroint.data.opening import open_sessions
from neuroint.metrics.nlb_evaluation import evaluate_nlb

CONTENTS = reaches()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("nwb")
    write(out / TRAIN_NAME, CONTENTS)
    write(out / TEST_NAME, hidden_trials(CONTENTS))
    return out


def cut_out(path, dataset="mc_maze", bin_ms=5, phase="val", forward_ms=200, **changed):
    task = replace(TASKS[dataset], **changed)
    return cut(find_files(path, phase), task, Grid(bin_ms, forward_ms), 0)


# --- bins


def unit_of(spikes_s, observed_s=((0.0, 10.0),)):
    return Unit(0, np.array(spikes_s, np.float64), np.array(observed_s), held_out=False)


def test_a_spike_is_counted_in_the_millisecond_it_falls_into_in_spite_of_floating_point():
    assert np.float64(4.015) * 1000 < 4015, "which would be one bin too early"
    spikes = unit_of([4.015, 4.0159, 4.016, 4.0249999])
    assert counts_of(spikes, 10_000, 1)[[4014, 4015, 4016, 4024, 4025]].tolist() == [0, 2, 1, 1, 0]
    assert counts_of(spikes, 2000, 5)[[802, 803, 804, 805]].tolist() == [0, 3, 1, 0]


def test_outside_observed_intervals_is_nan_and_spikes_there_are_not_counted():
    counts = counts_of(unit_of([0.0101, 0.0115, 0.0122, 0.0161, 0.0211], [[0.0004, 0.0125], [0.0205, 0.04]]), 8, 5)
    # known: 1 to 11 ms and 21 to 39 ms; a bin is known if its first millisecond is
    np.testing.assert_array_equal(counts, [np.nan, 0, 2, np.nan, np.nan, 0, 0, 0])


def test_overlapping_intervals_are_one():
    counts = counts_of(unit_of([0.012], [[0.0, 0.02], [0.01, 0.015], [0.02, 0.03]]), 8, 5)
    np.testing.assert_array_equal(counts, [0, 0, 1, 0, 0, 0, np.nan, np.nan])


@pytest.mark.parametrize(("event_s", "first"), [(1.0, 201), (1.0007, 202), (1.005, 202), (4.015, 804)])
def test_a_window_begins_with_the_first_bin_at_or_after_its_start(event_s, first):
    assert first_bins(np.array([event_s]), 5, 5).tolist() == [first]


def test_counts_of_a_window_equal_a_histogram_between_its_edges(folder):
    found = cut_out(folder, bin_ms=20)
    counts = input_arrays(found)["eval_spikes_heldout"]
    trial = np.flatnonzero(np.array(CONTENTS.trials["split"]) == "val")[2]
    first = np.ceil((CONTENTS.trials["move_onset_time"][trial] - 0.25) / 0.02)
    edges = (first + np.arange(36)) * 0.02
    expected = [np.histogram(CONTENTS.units["spike_times"][unit], edges)[0] for unit in (1, 4, 7)]
    np.testing.assert_array_equal(counts[2].T, expected)


# --- the session


def test_the_session_shows_held_in_units_and_scores_held_out_ones(folder):
    (session,) = open_sessions(folder)
    counts = input_arrays(cut_out(folder))
    clip = session.source.read(0, 0, 180)
    np.testing.assert_array_equal(clip.observed[:140], counts["train_spikes_heldin"][0])
    np.testing.assert_array_equal(clip.responses[:140, HELD_IN:], counts["train_spikes_heldout"][0])
    assert not clip.observed[140:].any()
    assert clip.unseen == 40
    assert (session.name, session.facts.bin_s, session.facts.n_neurons) == ("mc_maze_5ms", 0.005, HELD_IN + HELD_OUT)
    assert [len(session.clips(tier)) for tier in ("train", "validation", "dev_test")] == [21, 2, 7]
    kinds = {CONTENTS.trials["trial_type"][k] for k, split in enumerate(CONTENTS.trials["split"]) if split == "val"}
    assert len(session.repeats("dev_test")) == len(kinds) == 2
    assert session.cautions == ()


def test_a_file_alone_is_a_recording_and_windows_may_be_chosen(folder):
    options = {"align": "start_time", "window_ms": [0, 400], "forward_ms": 0, "conditions": [], "bin_ms": 20}
    (session,) = open_sessions(folder / TRAIN_NAME, options=options)
    assert session.source.read(0, 0, 20).responses.shape == (20, 8)
    assert len(session.repeats("dev_test")) == 7


def test_phase_test_trains_on_both_splits_and_knows_nothing_of_held_out_units(folder):
    (session,) = open_sessions(folder, options={"phase": "test"})
    assert [len(session.clips(tier)) for tier in ("train", "validation", "dev_test")] == [27, 3, 8]
    clip = session.source.read(int(session.clips("dev_test")[0]), 0, 140)
    assert np.isnan(clip.responses).all()
    assert clip.observed.sum() > 0


def test_trials_without_the_event_are_left_out_and_counted(tmp_path):
    onset = CONTENTS.trials["move_onset_time"].copy()
    onset[[0, 4, 3]] = np.nan
    write(tmp_path / TRAIN_NAME, CONTENTS.with_trials(move_onset_time=onset))
    (session,) = open_sessions(tmp_path)
    assert session.cautions == (
        "split train: 2 trials without move_onset_time are left out",
        "split eval: 1 trials without move_onset_time are left out",
    )
    assert len(session.clips("dev_test")) == 6


def test_reader_nlb_reads_the_same_from_the_files_that_are_written(folder, tmp_path):
    for bin_ms in (5, 20):
        found = cut_out(folder, bin_ms=bin_ms, psth_sd_ms=0)
        write_benchmark_files(tmp_path / "out", found, "mc_maze", bin_ms)
        (direct,) = open_sessions(folder, options={"bin_ms": bin_ms})
        (written,) = open_sessions(tmp_path / "out", options={"bin_ms": bin_ms})
        assert direct.tiers == written.tiers
        assert direct.fingerprint == written.fingerprint
        np.testing.assert_array_equal(direct.stimulus_ids, written.stimulus_ids)
        for clip in (0, 29):
            frames = int(direct.lengths[clip])
            one, other = (session.source.read(clip, 0, frames).responses for session in (direct, written))
            np.testing.assert_array_equal(one, other)
    with pytest.raises(DataError, match="already; write to a new file"):
        write_benchmark_files(tmp_path / "out", found, "mc_maze", 20)


def test_the_files_have_the_benchmarks_names_and_can_be_scored(folder, tmp_path):
    out = write_benchmark_files(tmp_path, cut_out(folder, bin_ms=20), "mc_maze", 20)
    with h5py.File(out / "train_input_20.h5") as train, h5py.File(out / "eval_input_20.h5") as shown:
        assert len(train) == 4
        assert set(shown) == {"eval_spikes_heldin", "eval_spikes_heldout"}
    target = read_arrays(out / "target.h5", "mc_maze_20")
    assert target["psth"].shape == (2, 35, 8)
    inputs = read_arrays(out / "train_input_20.h5")
    rates = {f"train_rates_{side}": inputs[f"train_spikes_{side}"] + 0.1 for side in ("heldin", "heldout")}
    mean = {f"eval_rates_{side}": np.full((7, 35, n), 0.4) for side, n in (("heldin", 5), ("heldout", 3))}
    assert evaluate_nlb(target, rates | mean)["co-bps"].value == pytest.approx(0, abs=0.05)


def test_a_test_file_makes_no_target(folder, tmp_path):
    out = write_benchmark_files(tmp_path, cut_out(folder, phase="test"), "mc_maze", 5)
    assert sorted(file.name for file in out.iterdir()) == ["eval_input.h5", "train_input.h5"]


# --- intervals of dmfc_rsg


def test_windows_are_shifted_by_whole_bins_and_scored_between_set_and_go_alone(tmp_path):
    tp_ms = np.array([1200.0, 1500.0, 1400.0, 1000.0, 1600.0, np.nan, 1499.0, 1450.0])
    contents = intervals(tp_ms)
    write(tmp_path / TRAIN_NAME, contents)
    found = cut_out(tmp_path, "dmfc_rsg", bin_ms=20)
    target = target_arrays(found, input_arrays(found))
    most = np.array([15, 0, 5, 15, 0, 0, 0, 2])  # of floor(clip(1500 - tp, 0, 300) / 20)
    jitter = np.empty(8, np.int64)
    jitter[[0, 1, 2, 4, 5, 6]], jitter[[3, 7]] = target["train_jitter"], target["eval_jitter"]
    assert ((jitter >= 0) & (jitter <= most)).all()
    assert jitter[3] > 0
    known = ~np.isnan(target["eval_spikes_heldout"][0, :, 0])
    assert known.sum() == 40, "800 ms"
    assert np.flatnonzero(known)[-1] == 74 - jitter[3]
    np.testing.assert_array_equal(target["train_behavior"][0], [0, 0, 1, 800, 1200])
    assert np.isnan(target["train_behavior"][1]).all(), "the outlier"
    assert sorted(np.concatenate(target["train_cond_idx"])) == [0, 2, 3, 4, 5], "the outlier is of no condition"
    assert "psth" not in target


# --- behavior


def behavior(tmp_path, signal, dataset="mc_maze", bin_ms=5):
    write(tmp_path / TRAIN_NAME, replace(CONTENTS, signals=(signal,)))
    found = cut_out(tmp_path, dataset, bin_ms, psth_sd_ms=0)
    return target_arrays(found, input_arrays(found)).get("eval_behavior")


TIMES = CONTENTS.signals[0].times_s


def ramp(**changed):
    """A signal that says what time it is, in seconds."""
    return replace(Signal("hand_vel", np.stack([TIMES, -TIMES], axis=1), TIMES), **changed)


@pytest.mark.parametrize("clock", [{}, {"times_s": None}], ids=["timestamps", "rate"])
def test_behavior_is_read_a_lag_after_the_counts(tmp_path, clock):
    found = behavior(tmp_path, ramp(**clock))
    onset = CONTENTS.trials["move_onset_time"][3]
    first = np.ceil((onset - 0.25 + 0.1) * 200) / 200
    np.testing.assert_allclose(found[0, :, 0], first + 0.005 * np.arange(140), atol=1e-4)
    np.testing.assert_allclose(found[0, :, 1], -found[0, :, 0])


def test_decimation_keeps_slow_waves_and_removes_what_bins_cannot_hold():
    times = np.arange(4000) / 1000
    slow, fast = np.sin(2 * np.pi * 3 * times), np.sin(2 * np.pi * 180 * times)
    found = decimated(np.stack([slow, slow + fast], axis=1), 5)
    inner = slice(100, 700)
    np.testing.assert_allclose(found[inner], np.stack([slow[::5][inner]] * 2, axis=1), atol=0.01)
    assert np.abs(fast[::5]).max() > 0.5, "which sampling alone would have kept"


def test_gaps_of_a_signal_stay_gaps_and_spread_nowhere():
    values = np.linspace(0, 1, 4000)[:, None].copy()
    values[2000:2100] = np.nan
    found = decimated(values, 20)[:, 0]
    assert np.flatnonzero(np.isnan(found)).tolist() == [100, 101, 102, 103, 104]
    np.testing.assert_allclose(found[[99, 105]], values[[1980, 2100], 0], atol=0.01)
    assert decimated(values, 1) is values
    with pytest.raises(DataError, match="a series has no sample in the recording; check its timestamps"):
        decimated(values * np.nan, 5)


def test_columns_are_named_by_comments_or_numbered(tmp_path):
    named, plain = ramp(), ramp(name="plain", comments="no comments", values=TIMES)
    write(tmp_path / TRAIN_NAME, replace(CONTENTS, signals=(named, plain, ramp(name="eye", container="gaze"))))
    assert read_series(tmp_path / TRAIN_NAME, "hand_vel", 45.2).columns == ("x", "y")
    assert read_series(tmp_path / TRAIN_NAME, "plain", 45.2).columns == ("0",)
    assert read_series(tmp_path / TRAIN_NAME, "gaze_eye", 45.2).values[7].tolist() == [0.007, -0.007]


@pytest.mark.parametrize("shift_s", [0.0002, 100.0], ids=["between milliseconds", "after the recording"])
def test_a_signal_off_the_grid_is_left_out_with_a_warning(tmp_path, shift_s):
    with pytest.warns(
        UserWarning, match=r"series 'hand_vel' is left out, because its timestamps do not all fall on the"
    ):
        assert behavior(tmp_path, ramp(times_s=TIMES + shift_s)) is None


def test_a_missing_signal_and_wrong_column_names_are_told(tmp_path):
    with pytest.raises(DataError, match=r"has no series 'hand_vel'. Did you mean 'hand_vell'\? Series: hand_vell"):
        behavior(tmp_path, ramp(name="hand_vell"))
    with pytest.raises(DataError, match=r"series 'hand_vel' name 3 columns \(x, y, z\), its data have 2; mend the"):
        behavior(tmp_path, ramp(comments="columns=[x, y, z]"))


# --- bad files

SHORT = reaches(trials=8)


def spikes_with(unit, spikes):
    return [spikes if k == unit else one for k, one in enumerate(SHORT.units["spike_times"])]


BAD = {
    "no trials": (replace(SHORT, trials=None), r"has no trials table; expected one with start_time, stop_time, split"),
    "no units": (replace(SHORT, units=None), r"has no units table; expected one with spike_times, obs_intervals, hel"),
    "no heldout": (
        SHORT.with_units(heldout=None),
        r"the units table has no heldout; columns: .*Expected a file of the",
    ),
    "no intervals": (SHORT.with_units(obs_intervals=None), r"the units table has no obs_intervals; columns: "),
    "empty intervals": (
        SHORT.with_units(obs_intervals=[np.zeros((0, 2)) if k == 2 else np.array([[0.0, 9.0]]) for k in range(8)]),
        r"unit 2 has obs_intervals \[\]; expected at least one from and to in seconds",
    ),
    "no split": (SHORT.with_trials(split=None), r"the trials table has no split; columns: start_time, stop_time"),
    "unknown split": (
        SHORT.with_trials(split=["train"] * 7 + ["vla"]),
        "splits are called vla; expected train, val, test, none",
    ),
    "no val": (
        SHORT.with_trials(split=["train"] * 8),
        r"has no trial of split val, but \{'train': 8, 'val': 0, 'test': 0, 'none': 0\}; give the file that has them",
    ),
    "no event": (
        SHORT.with_trials(move_onset_time=None, move_onset=SHORT.trials["move_onset_time"]),
        r"the trials table has no column 'move_onset_time'. Did you mean 'move_onset'\?",
    ),
    "all NaN": (
        SHORT.with_trials(move_onset_time=np.full(8, np.nan)),
        r"none of the 6 trials of split train has a move_onset_time; set align to another column",
    ),
    "event of words": (
        SHORT.with_trials(move_onset_time=["early"] * 8),
        r"column 'move_onset_time' of the trials table is <U5, expected seconds",
    ),
    "window": (
        SHORT.with_trials(move_onset_time=SHORT.trials["start_time"] + 1.4),
        r"the window of trial 7 spans 11.85 to 12.55 s, the recording 0 to 12.2 s \(1 such trials\); choose another",
    ),
    "early": (
        SHORT.with_trials(move_onset_time=SHORT.trials["start_time"]),
        r"the window of trial 0 spans -0.05 to 0.65 s, the recording 0 to",
    ),
    "negative": (
        SHORT.with_units(spike_times=spikes_with(4, np.array([-0.25, 1.0]))),
        r"unit 4 has spike times such as \[-0.25\]; expected seconds from the beginning of the recording",
    ),
    "NaN": (
        SHORT.with_units(spike_times=spikes_with(4, np.array([1.0, np.nan]))),
        r"unit 4 has spike times such as \[nan\]",
    ),
    "unsorted": (
        SHORT.with_units(spike_times=spikes_with(6, np.array([2.0, 1.0]))),
        r"unit 6: spike times are not in order; sort them",
    ),
    "nobody held out": (
        SHORT.with_units(heldout=np.zeros(8, bool)),
        r"no unit is heldout; column 'heldout' must be true for some, false for others",
    ),
    "no condition": (
        SHORT.with_trials(trial_version=None),
        r"the trials table has no column 'trial_version'. Did you mean 'trial_type'\?",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(tmp_path, case):
    contents, message = BAD[case]
    path = write(tmp_path / TRAIN_NAME, replace(contents, signals=()))
    with pytest.raises(DataError, match=message):
        open_sessions(path)


def test_what_is_not_nwb_is_refused(tmp_path):
    path = tmp_path / "one.nwb"
    path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"one.nwb' is no NWB file \(.*\); copy or download it again"):
        open_sessions(path)
    with h5py.File(path, "w") as file:
        file["train_spikes_heldin"] = np.ones((2, 2, 2))
    with pytest.raises(DataError, match="no NWB file: HDF5 without 'nwb_version'; reader 'nlb' reads the benchmark's"):
        open_sessions(path)
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
    with pytest.raises(DataError, match=r"one.nwb' cannot be read as NWB \(.*copy or download the file again"):
        open_sessions(path)
    with pytest.raises(DataError, match=r"two.nwb' does not exist; give an NWB file of the Neural Latents Benchmark"):
        open_sessions(tmp_path, options={"train_file": "two.nwb"})


def test_without_pynwb_the_message_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(DataError, match=r"needs pynwb; run `pip install neuroint\[nwb\]`"):
        open_sessions(folder)


def test_the_file_that_is_meant_must_be_clear(folder, tmp_path):
    (tmp_path / "one.nwb").touch()
    with pytest.raises(DataError, match=r"holds 0 files called \*desc-test\*.nwb \(one.nwb\); name one with test_file"):
        find_files(tmp_path, "test")
    (tmp_path / "two.nwb").touch()
    with pytest.raises(
        DataError, match=r"0 files called \*desc-train\*.nwb \(one.nwb, two.nwb\); name one with train_f"
    ):
        find_files(tmp_path, "val")
    assert find_files(tmp_path, "test", "two.nwb", "one.nwb").test == tmp_path / "one.nwb"


def test_files_of_two_recordings_do_not_go_together(tmp_path):
    write(tmp_path / TRAIN_NAME, SHORT)
    other = hidden_trials(SHORT)
    write(tmp_path / TEST_NAME, other.with_units(id=other.units["id"] + 1))
    with pytest.raises(
        DataError, match=r"holds units \[0, 2, 3, 5, 6\].. in \(5\) and .* units \[1, 3, 4, 6, 7\].. \(5\)"
    ):
        open_sessions(tmp_path, options={"phase": "test"})


@pytest.mark.parametrize("options", [{"window_ms": [0, 333]}, {"window_ms": [100, 0]}, {"forward_ms": 7}])
def test_windows_are_whole_numbers_of_bins(folder, options):
    with pytest.raises(DataError, match=r"expected whole numbers of bins of 5 ms, the earlier end first"):
        open_sessions(folder, options=options)
