"""Arrays made of NWB files against those that the benchmark's own tool makes of them, where it is installed."""

from dataclasses import replace

import numpy as np
import pytest
from nwb_files import TEST_NAME, TRAIN_NAME, hidden_trials, intervals, reaches, write

from neuroint.data.nwb.arrays import cut, find_files, input_arrays, target_arrays
from neuroint.data.nwb.tasks import TASKS
from neuroint.data.nwb.trials import Grid

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # pandas 3 warns of the tool's keywords


@pytest.fixture
def tool(monkeypatch):
    """The tool, with copies where pandas 3 hands out read-only arrays that it writes into, and in one process."""
    pandas = pytest.importorskip("pandas")
    interface = pytest.importorskip("nlb_tools.nwb_interface")
    tensors = pytest.importorskip("nlb_tools.make_tensors")
    handed_out = pandas.DataFrame.to_numpy
    monkeypatch.setattr(pandas.DataFrame, "to_numpy", lambda self, *a, **k: handed_out(self, *a, **k).copy())
    monkeypatch.setattr(interface, "_poolmap", lambda function, items: list(map(function, items)))

    def loaded(folder, prefix, bin_ms):
        found = interface.NWBDataset(str(folder), prefix)
        found.resample(bin_ms)
        return found, tensors

    return loaded


def ours(folder, dataset, bin_ms, phase="val"):
    found = cut(find_files(folder, phase), TASKS[dataset], Grid(bin_ms, 200), 0)
    inputs = input_arrays(found)
    return inputs | target_arrays(found, inputs)


def theirs(tool, folder, dataset, bin_ms, psth=False):
    data, tensors = tool(folder, "*train", bin_ms)
    kept = {"save_file": False}
    inputs = tensors.make_train_input_tensors(data, dataset, include_forward_pred=True, **kept)
    inputs |= tensors.make_eval_input_tensors(data, dataset, **kept)
    (target,) = tensors.make_eval_target_tensors(data, dataset, include_psth=psth, **kept).values()
    return inputs | target


def assert_equal(found, expected, **tolerance):
    for name, array in expected.items():
        if name.endswith("_idx"):
            assert [list(one) for one in found[name]] == [list(one) for one in array], name
        else:
            np.testing.assert_allclose(found[name], array, err_msg=name, **tolerance)


def test_counts_splits_behavior_and_conditions_of_a_maze_equal_the_tools_and_psths_nearly(tool, tmp_path):
    write(tmp_path / TRAIN_NAME, reaches(trials=16))
    expected = theirs(tool, tmp_path, "mc_maze", 5, psth=True)
    found = ours(tmp_path, "mc_maze", 5)
    assert expected["train_spikes_heldin"].shape == (12, 140, 5)
    psth = expected.pop("psth")
    assert_equal(found, expected, atol=1e-9)
    assert len(expected) == 12
    np.testing.assert_allclose(found["psth"], psth, atol=1e-3)  # an even kernel, half precision
    assert psth.std() > 1e-2


def test_masks_of_area2_bump_and_counts_at_20_ms_equal_the_tools(tool, tmp_path):
    contents = reaches(trials=16)
    columns = {"cond_dir": np.tile([0.0, 90.0], 8), "ctr_hold_bump": np.repeat([0, 1], 8)}
    write(tmp_path / TRAIN_NAME, contents.with_trials(**columns))
    expected = theirs(tool, tmp_path, "area2_bump", 20)
    assert expected["eval_decode_mask"].shape == (4, 2)
    assert_equal(ours(tmp_path, "area2_bump", 20), expected, atol=1e-9)


def test_intervals_of_dmfc_rsg_that_leave_no_room_for_a_shift_equal_the_tools(tool, tmp_path):
    write(tmp_path / TRAIN_NAME, intervals(np.full(12, 1500.0)))
    expected = theirs(tool, tmp_path, "dmfc_rsg", 20)
    assert np.isnan(expected["eval_spikes_heldout"]).any()
    assert_equal(ours(tmp_path, "dmfc_rsg", 20), expected, atol=1e-9)


def test_unobserved_bins_and_test_trials_equal_the_tools(tool, tmp_path):
    """A gap from between two milliseconds to between two others goes through the window of every trial."""
    contents = reaches(trials=12)
    hidden = hidden_trials(contents)
    onset = hidden.trials["move_onset_time"]
    edges = np.concatenate([[0.0], np.stack([onset + 0.0813, onset + 0.1377], axis=1).ravel(), [12.2]])
    write(tmp_path / TRAIN_NAME, replace(contents, signals=()))
    write(tmp_path / TEST_NAME, replace(hidden, signals=()).with_units(obs_intervals=[edges.reshape(-1, 2)] * 5))
    data, tensors = tool(tmp_path, "", 20)
    expected = tensors.make_eval_input_tensors(data, "mc_maze", "test", save_file=False)
    found = ours(tmp_path, "mc_maze", 20, "test")
    assert expected["eval_spikes_heldin"].shape == (8, 35, 5)
    assert 8 * 2 * 5 <= np.isnan(expected["eval_spikes_heldin"]).sum() <= 8 * 4 * 5
    assert_equal(found, expected, atol=0)
