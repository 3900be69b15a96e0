"""The reader of Steinmetz et al. (2019), in both layouts, and the conversion of the pickled one."""

import json

import numpy as np
import pytest
from steinmetz_files import neuromatch_session, trials_first, write_parts
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.data.base import DEV_TEST, FINAL_TEST, TIERS, TRAIN, VALIDATION, DataError
from neuroint.data.card import inspect, render
from neuroint.data.neuromatch import convert_steinmetz
from neuroint.data.opening import open_sessions
from neuroint.data.readers.steinmetz import TrialSplit, looks_like, read_steinmetz


@pytest.fixture
def written(tmp_path):
    def write(name="session07", **changes):
        arrays = trials_first() | changes
        np.savez(tmp_path / f"{name}.npz", **{key: held for key, held in arrays.items() if held is not None})
        return tmp_path / f"{name}.npz"

    return write


# --- trials first


def test_a_trial_is_a_clip_of_counts_and_time_comes_first(written):
    (session,) = read_steinmetz(written())
    arrays = trials_first()
    np.testing.assert_array_equal(session.source.read(4, 2, 3).responses, arrays["spikes"][4, :, 2:5].T)
    assert (session.name, session.animal, session.facts.bin_s) == ("session07", "Cori", 0.01)
    assert session.facts.areas == tuple(arrays["brain_area"])
    assert (session.facts.n_neurons, session.facts.shortest_clip) == (10, 8)


def test_a_pair_of_contrasts_is_a_condition(written):
    (session,) = read_steinmetz(written())
    arrays = trials_first()
    pairs = list(zip(arrays["contrast_left"], arrays["contrast_right"], strict=True))
    for one in range(30):
        for other in range(30):
            assert (session.stimulus_ids[one] == session.stimulus_ids[other]) == (pairs[one] == pairs[other])


def test_a_fifth_of_the_trials_is_the_final_test_and_the_committed_seed_says_which(written):
    (session,) = read_steinmetz(written())
    assert {tier: len(session.clips(tier)) for tier in TIERS} == {TRAIN: 18, VALIDATION: 3, DEV_TEST: 3, FINAL_TEST: 6}
    assert session.clips(FINAL_TEST).tolist() == [20, 24, 26, 27, 28, 29]
    (other,) = read_steinmetz(written(), split=TrialSplit(seed=2))
    assert other.clips(FINAL_TEST).tolist() != session.clips(FINAL_TEST).tolist()


def test_conditions_recur_in_all_tiers_without_being_a_fault_and_the_card_says_why(written):
    (session,) = read_steinmetz(written())
    trained = set(session.stimulus_ids[session.clips(TRAIN)])
    assert trained & set(session.stimulus_ids[session.clips(FINAL_TEST)])
    (card,) = inspect([session], []).sessions
    assert card.faults == ()
    assert any("whole trials" in caution for caution in card.cautions)
    assert "areas      CA1 2, MOs 3, VISp 3, root 2" in render(inspect([session], []))


def test_bins_are_added_up_and_the_bin_width_says_so(written):
    (session,) = read_steinmetz(written(), rebin=4)
    spikes = trials_first()["spikes"][5]
    expected = np.stack([spikes[:, :4].sum(1), spikes[:, 4:].sum(1)])
    np.testing.assert_array_equal(session.source.read(5, 0, 2).responses, expected)
    assert session.facts.bin_s == 0.04


def test_a_folder_holds_a_session_each_and_other_files_are_left_alone(written, tmp_path):
    written("session01")
    written("session02")
    np.savez(tmp_path / "else.npz", other=np.zeros(3))
    (tmp_path / "notes.txt").write_text("none of these")
    assert [session.name for session in read_steinmetz(tmp_path)] == ["session01", "session02"]
    assert looks_like(tmp_path)


@pytest.mark.parametrize("absent", ["spikes", "bin_start_s"])
def test_an_archive_without_what_marks_the_layout_is_not_recognized(written, absent):
    path = written(**{absent: None})
    assert not looks_like(path)
    with pytest.raises(DataError, match="no session that reader 'steinmetz' can read"):
        open_sessions(path, "steinmetz")


ARRAYS = trials_first()


@pytest.mark.parametrize(
    ("changes", "options", "match"),
    [
        ({"brain_area": None}, {}, "has no array 'brain_area'.*It has: bin_start_s"),
        ({"spikes": ARRAYS["spikes"][0]}, {}, r"spikes has shape \(10, 8\); expected three axes: trials"),
        ({"brain_area": ARRAYS["brain_area"][:9]}, {}, "30 trials and 10 neurons, but 30 contrasts and 9 areas"),
        ({"contrast_left": ARRAYS["contrast_left"][:9]}, {}, "9 contrasts on the left and 30 on the right"),
        ({"contrast_left": np.full(30, np.nan)}, {}, "contrasts hold NaN or infinite values"),
        ({"spikes": ARRAYS["spikes"] - 1.0}, {}, "spikes are negative or not whole, expected counts per bin"),
        ({"spikes": ARRAYS["spikes"] / 2}, {}, "spikes are negative or not whole"),
        ({"bin_start_s": 0 * ARRAYS["bin_start_s"]}, {}, "expected at least one neuron and bins longer than 0 s"),
        ({"spikes": ARRAYS["spikes"].astype(str)}, {}, "array 'spikes' .* has dtype <U.*expected real numbers"),
        ({"bin_start_s": ARRAYS["bin_start_s"] ** 1.1}, {}, "is not a row of equal steps for every trial"),
        ({}, {"rebin": 3}, "8 bins cannot be added up by 3; choose a divisor"),
        ({}, {"window_s": (-0.1, 0.05)}, r"window_s is \[-0.1, 0.05\], but bins span 0 to 0.08 s"),
        ({}, {"window_s": (0.05, 0.05)}, "give a window inside, its earlier end first"),
        (
            {},
            {"split": TrialSplit(final_test=0.9)},
            "trials cannot be split into .* or more trials",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(written, changes, options, match):
    with pytest.raises(DataError, match=match):
        read_steinmetz(written(**changes), **options)


# --- the Neuromatch layout


def test_every_key_shape_and_number_survives_the_conversion(tmp_path):
    folders = convert_steinmetz(write_parts(tmp_path), tmp_path / "plain")
    assert [folder.name for folder in folders] == ["00_Cori_2017-10-30", "01_Richards_2017-10-31", "02_Cori_2017-10-30"]
    for index, folder in enumerate(folders):
        for key, value in neuromatch_session(index, neurons=12 + index).items():
            plain = np.load(folder / f"{key}.npy", allow_pickle=False)
            np.testing.assert_array_equal(plain, np.asarray(value))
            assert plain.dtype == np.asarray(value).dtype or plain.dtype.kind == "U", key
    about = json.loads((folders[2] / "converted.json").read_text())
    assert (about["source"], about["index"], about["none"]) == ("steinmetz_part1.npz", 2, [])
    assert about["arrays"]["spks"] == {"shape": [14, 20, 250], "dtype": "int8"}
    assert about["means"]["spks"].startswith("n, K, time: counts per bin; bins of bin_size s, the first stim_onset s")
    assert about["means"]["spks_passive"].startswith("n, P, time")


def test_converted_sessions_are_read_with_the_stimulus_at_its_time(tmp_path):
    convert_steinmetz(write_parts(tmp_path), tmp_path / "plain")
    whole, cut = (read_steinmetz(tmp_path / "plain", window_s=window) for window in (None, (0.0, 0.4)))
    assert [session.name for session in whole] == ["00_Cori_2017-10-30", "01_Richards_2017-10-31", "02_Cori_2017-10-30"]
    spikes = neuromatch_session(1, neurons=13)["spks"]
    np.testing.assert_array_equal(whole[1].source.read(3, 0, 250).responses, spikes[:, 3].T)
    np.testing.assert_array_equal(cut[1].source.read(3, 0, 40).responses, spikes[:, 3, 50:90].T)
    assert cut[1].facts.shortest_clip == 40
    assert cut[1].animal == "Richards"
    assert cut[1].facts.areas[:4] == ("MOs", "VISp", "CA1", "root")
    assert looks_like(tmp_path / "plain" / "00_Cori_2017-10-30")


def test_ragged_lists_missing_numbers_and_none_are_written_without_objects(tmp_path):
    licks = [np.arange(3.0), np.zeros(0), np.array([7.0])]
    some = np.array([1.0, None, 2.0], dtype=object)
    rows = np.empty(2, dtype=object)
    rows[:] = [np.array([1, 2]), np.array([3, 4])]
    changes = {"lick_times": licks, "holes": some, "rows": rows, "face": None}
    folder, *_ = convert_steinmetz(write_parts(tmp_path, **changes), tmp_path / "plain")
    held = {file.stem: np.load(file, allow_pickle=False) for file in folder.glob("*.npy")}
    np.testing.assert_array_equal(held["lick_times.values"], [0, 1, 2, 7])
    np.testing.assert_array_equal(held["lick_times.lengths"], [3, 0, 1])
    np.testing.assert_array_equal(held["holes"], [1, np.nan, 2])
    np.testing.assert_array_equal(held["rows"], [[1, 2], [3, 4]])
    assert "face" not in held
    assert json.loads((folder / "converted.json").read_text())["none"] == ["face"]


def test_an_existing_folder_is_never_written_over(tmp_path):
    out = tmp_path / "plain"
    out.mkdir()
    with pytest.raises(DataError, match="exists, and nothing is written over it; give a new folder"):
        convert_steinmetz(write_parts(tmp_path), out)
    assert list(out.iterdir()) == []


def broken(folder, **arrays):
    np.savez(folder / "part.npz", **arrays)
    return [folder / "part.npz"]


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"other": np.zeros(2)}, "cannot be read .*expected a whole steinmetz_part.* with the array 'dat'"),
        ({"dat": np.zeros(2)}, r"'dat' has type float64 and shape \(2,\); expected a row of dicts"),
        ({"dat": np.array([3, None], dtype=object)}, "entry 0 of 'dat' is a int, expected a dict"),
        ({"dat": np.array([{"spks": 1, "bin_size": 2}], dtype=object)}, "session 0 lacks brain_area, contrast_left"),
    ],
)
def test_a_part_of_another_layout_is_refused_and_leaves_nothing_behind(tmp_path, arrays, match):
    with pytest.raises(DataError, match=match):
        convert_steinmetz(broken(tmp_path, **arrays), tmp_path / "plain")
    assert [file.name for file in tmp_path.iterdir()] == ["part.npz"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"strange": {"a": 1}}, "session 0: strange is a dict, expected numbers, text, or lists"),
        ({"strange": np.array([{}, 1], dtype=object)}, "strange holds something that is no number"),
        ({"../up": 1}, "has a key '../up', which cannot name a file"),
    ],
)
def test_a_value_that_is_neither_numbers_nor_text_is_refused(tmp_path, changes, match):
    with pytest.raises(DataError, match=match):
        convert_steinmetz(write_parts(tmp_path, **changes), tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_a_truncated_part_is_refused(tmp_path):
    part, *_ = write_parts(tmp_path)
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot be read .*download it again"):
        convert_steinmetz([part], tmp_path / "plain")


def test_the_command_says_that_it_unpickles_and_where_the_sessions_are(tmp_path):
    parts = [str(part) for part in write_parts(tmp_path)]
    done = CliRunner().invoke(app, ["data", "convert", "steinmetz", *parts, str(tmp_path / "plain")])
    assert done.exit_code == 0, done.output
    assert "this runs whatever code is in them" in done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "plain" / "00_Cori_2017-10-30")
    again = CliRunner().invoke(app, ["data", "convert", "steinmtz", *parts, str(tmp_path / "other")])
    assert again.exit_code == 2
    assert "'steinmtz' is not a layout that is converted. Did you mean 'steinmetz'?" in again.stderr


def test_pickled_parts_are_not_read_without_the_command(tmp_path):
    part, *_ = write_parts(tmp_path)
    with pytest.raises(DataError, match="no session that reader 'steinmetz' can read"):
        open_sessions(part, "steinmetz")


# --- the recordings


@pytest.mark.recordings
def test_the_real_sessions_are_read(recordings):
    sessions = {session.name: session for session in read_steinmetz(recordings / "steinmetz2019")}
    found = {
        name: (len(session.tiers), session.facts.n_neurons, session.facts.areas.count("MOs"))
        for name, session in sessions.items()
    }
    assert found == {
        "session01": (114, 734, 113),
        "session03": (228, 619, 0),
        "session08": (250, 1157, 113),
        "session12": (340, 698, 6),
    }
    assert {session.facts.bin_s for session in sessions.values()} == {0.01}
    assert len(sessions["session08"].clips(FINAL_TEST)) == 50
