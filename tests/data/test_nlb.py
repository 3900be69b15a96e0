"""The layout of the Neural Latents Benchmark: simulated files, the reader, the submission, and bad input."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from neuroint.data.base import DataError, Recorded, collate
from neuroint.data.nlb.files import read_data
from neuroint.data.nlb.hdf5 import read_arrays, write_arrays
from neuroint.data.nlb.submission import split_rates, write_submission
from neuroint.data.opening import open_sessions
from neuroint.data.simulators.nlb import simulate_nlb
from neuroint.metrics.nlb_evaluation import evaluate_nlb

HELD_IN, HELD_OUT, BINS, FORWARD = 12, 4, 40, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return simulate_nlb(tmp_path_factory.mktemp("nlb") / "files")


def data_of(folder, group="mc_maze", suffix=""):
    inputs = [folder / f"{name}{suffix}.h5" for name in ("train_input", "eval_input")]
    return read_data(inputs, folder / "target.h5", group)


# --- the files


def test_the_files_have_the_layout_of_the_benchmark(folder):
    train, scored = h5py.File(folder / "train_input.h5"), h5py.File(folder / "target.h5")
    assert {name: (x.shape, x.dtype.name) for name, x in train.items()} == {
        "train_spikes_heldin": ((40, 40, 12), "int32"),
        "train_spikes_heldout": ((40, 40, 4), "int32"),
        "train_spikes_heldin_forward": ((40, 8, 12), "int32"),
        "train_spikes_heldout_forward": ((40, 8, 4), "int32"),
    }
    assert set(scored) == {"mc_maze", "mc_maze_20"}
    assert scored["mc_maze/psth"].shape == (4, 40, 16)
    assert scored["mc_maze_20/eval_spikes_heldout_forward"].shape == (16, 2, 4)
    assert scored["mc_maze/eval_behavior"].dtype == np.float32
    assert np.isnan(scored["mc_maze/train_behavior"][1]).all(), "an outlier trial"
    assert [len(found) for found in scored["mc_maze/eval_cond_idx"]] != [0, 0, 0, 0]


def test_counts_at_20_ms_are_sums_of_those_at_5_ms(folder):
    fine, coarse = (h5py.File(folder / f"eval_input{s}.h5")["eval_spikes_heldin"][()] for s in ("", "_20"))
    np.testing.assert_array_equal(fine.reshape(16, 10, 4, 12).sum(2), coarse)


def test_the_truth_is_the_rate_of_the_counts(folder):
    truth, data = read_arrays(folder / "truth.h5", "mc_maze"), data_of(folder)
    rates, counts = truth["train_rates_heldin"], data.counts["train"][:, :BINS, :HELD_IN]
    assert rates.mean() == pytest.approx(12 * 0.005, rel=0.35)
    deviation = (counts - rates).sum() / np.sqrt(rates.sum())
    assert abs(deviation) < 4
    assert np.corrcoef(rates.mean(1).ravel(), counts.mean(1).ravel())[0, 1] > 0.5


@pytest.mark.parametrize("world", ["lorenz", "chaotic"])
def test_one_seed_gives_one_world_and_another_seed_another(tmp_path, world):
    made = [simulate_nlb(tmp_path / str(k), world=world, seed=seed) for k, seed in enumerate((3, 3, 4))]
    spikes = [read_arrays(out / "train_input.h5")["train_spikes_heldin"] for out in made]
    np.testing.assert_array_equal(spikes[0], spikes[1])
    assert (spikes[0] != spikes[2]).any()


def test_area2_has_two_masks_and_phase_test_hides_held_out_counts(tmp_path):
    out = simulate_nlb(tmp_path / "area2", layout="area2_bump", phase="test")
    target = read_arrays(out / "target.h5", "area2_bump")
    assert target["eval_decode_mask"].shape == (16, 2)
    assert (target["eval_decode_mask"].sum(1) == 1).all()
    assert set(read_arrays(out / "eval_input.h5")) == {"eval_spikes_heldin"}


def test_a_folder_in_use_is_refused(folder):
    with pytest.raises(ValueError, match=r"simulator 'nlb': .* is not empty; give a folder that is empty"):
        simulate_nlb(folder)


# --- against the benchmark's own tool


@pytest.mark.parametrize(("layout", "group"), [("mc_maze", "mc_maze_20"), ("area2_bump", "area2_bump_20")])
def test_every_score_of_a_submission_equals_the_tool(tmp_path, layout, group):
    tool = pytest.importorskip("nlb_tools.evaluation")
    out = simulate_nlb(tmp_path / "files", layout=layout)
    truth, target = read_arrays(out / "truth.h5", group), read_arrays(out / "target.h5", group)
    write_arrays(tmp_path / "submission.h5", {k: v * np.float32(1.1) for k, v in truth.items()}, group)
    (expected,) = tool.evaluate(str(out / "target.h5"), str(tmp_path / "submission.h5"))
    found = evaluate_nlb(target, read_arrays(tmp_path / "submission.h5", group))
    assert found.keys() == expected[f"{group}_split"].keys() == {"co-bps", "vel R2", "psth R2", "fp-bps"}
    for name, value in expected[f"{group}_split"].items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name


def test_intervals_are_scored_where_behavior_is_a_row_per_trial():
    draw = np.random.default_rng(0)
    rates = {f"eval_rates_{part}": draw.gamma(1, 1, (8, 6, 2)) for part in ("heldin", "heldout")}
    behavior = np.concatenate([np.zeros((8, 3)), draw.uniform(500, 900, (8, 2))], axis=1)
    found = evaluate_nlb({"eval_spikes_heldout": np.ones((8, 6, 2)), "eval_behavior": behavior}, rates)
    assert found.keys() == {"co-bps", "tp corr"}


def test_scores_need_held_out_rates(folder):
    target = read_arrays(folder / "target.h5", "mc_maze")
    with pytest.raises(ValueError, match="rates: no 'eval_rates_heldout' among nothing; co-bps needs it"):
        evaluate_nlb(target, {})


# --- the reader


def test_a_session_shows_held_in_counts_and_nothing_of_forward_bins(folder):
    (session,) = open_sessions(folder)
    data, clip = data_of(folder), session.source.read(0, 0, BINS + FORWARD)
    np.testing.assert_array_equal(clip.observed[:BINS], data.counts["train"][0, :BINS, :HELD_IN])
    assert not clip.observed[BINS:].any()
    assert clip.unseen == FORWARD
    assert session.facts.recorded == Recorded("recorded_others", 0, 0, reconstructs=True)
    assert (session.facts.n_neurons, session.facts.observed_channels, session.facts.bin_s) == (16, 12, 0.005)
    assert [len(session.clips(tier)) for tier in ("train", "validation", "dev_test")] == [36, 4, 16]


@pytest.mark.parametrize(("start", "frames", "unseen"), [(0, 40, 0), (0, 41, 1), (41, 4, 4), (30, 18, 8)])
def test_a_crop_knows_how_many_of_its_bins_are_forward_ones(folder, start, frames, unseen):
    (session,) = open_sessions(folder, "nlb")
    clip = session.source.read(0, start, frames)
    assert clip.unseen == unseen
    assert collate("one", [0, 0], [clip, clip]).unseen is None or unseen


def test_outside_training_only_held_out_neurons_inside_the_window_are_scored(folder):
    (session,) = open_sessions(folder)
    for tier in ("validation", "dev_test"):
        clip = int(session.clips(tier)[0])
        known = ~np.isnan(session.source.read(clip, 0, BINS + FORWARD).responses)
        assert known[:BINS, HELD_IN:].all()
        assert not known[:BINS, :HELD_IN].any()
        assert not known[BINS:].any()
    training = session.source.read(int(session.clips("train")[0]), 0, BINS + FORWARD)
    assert not np.isnan(training.responses).any()


def test_trials_of_a_condition_are_repeats(folder):
    (session,) = open_sessions(folder)
    assert len(session.repeats("dev_test")) == 4


def test_without_a_target_held_out_evaluation_counts_are_not_scored(tmp_path):
    out = simulate_nlb(tmp_path / "test", phase="test")
    (out / "target.h5").unlink()
    (session,) = open_sessions(out, "nlb", {"bin_ms": 20})
    assert np.isnan(session.source.read(int(session.clips("dev_test")[0]), 0, 10).responses).all()
    assert session.facts.bin_s == 0.02


def rewritten(folder, out, **changed):
    """A copy of the input files with some arrays changed; None leaves one out."""
    for name in ("train_input", "eval_input"):
        arrays = {key: changed.get(key, x) for key, x in read_arrays(folder / f"{name}.h5").items()}
        write_arrays(out / f"{name}.h5", {key: x for key, x in arrays.items() if x is not None})
    return out


BAD = {
    "no held-in": ({"eval_spikes_heldin": None}, "no eval_spikes_heldin; there are: eval_spikes_heldout, train_spikes"),
    "no held-out": ({"train_spikes_heldout": None}, "no train_spikes_heldout, so that nothing is known of neurons to"),
    "flat": (
        {"train_spikes_heldin": np.ones((4, 3))},
        r"train_spikes_heldin is \(4, 3\); expected numbers in trials x",
    ),
    "rates": ({"train_spikes_heldin": np.full((40, 40, 12), 0.3)}, r"holds numbers that are no counts .*0.3"),
    "negative": ({"train_spikes_heldout": np.full((40, 40, 4), -1)}, "holds numbers that are no counts"),
    "trials": (
        {"train_spikes_heldout": np.ones((39, 40, 4), np.int32)},
        r"train_spikes_heldout is \(39, 40, 4\), expected \(40, 40, 4\)",
    ),
    "bins": (
        {"eval_spikes_heldin": np.ones((16, 10, 12), np.int32), "eval_spikes_heldout": np.ones((16, 10, 4), np.int32)},
        r"numbers of bins differ: \{'train': 48, 'eval': 18\}",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_named(folder, tmp_path, case):
    changed, message = BAD[case]
    with pytest.raises(DataError, match=message):
        open_sessions(rewritten(folder, tmp_path, **changed), "nlb")


def test_a_count_that_is_nan_is_not_scored_and_shown_as_zero(folder, tmp_path):
    spikes = read_arrays(folder / "train_input.h5")["train_spikes_heldin"].astype(np.float32)
    spikes[0, 3] = np.nan
    (session,) = open_sessions(rewritten(folder, tmp_path, train_spikes_heldin=spikes), "nlb")
    clip = session.source.read(0, 0, BINS)
    assert np.isnan(clip.responses[3, :HELD_IN]).all()
    assert not clip.observed[3].any()


def test_missing_and_damaged_files_and_groups_are_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"train_input.h5' does not exist; give a file in the layout"):
        open_sessions(tmp_path, "nlb")
    (tmp_path / "train_input.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"train_input.h5' cannot be read as HDF5 .*copy or download"):
        open_sessions(tmp_path, "nlb")
    with pytest.raises(DataError, match=r"has no group 'mc_maze_large'. Did you mean 'mc_maze'\?"):
        read_arrays(folder / "target.h5", "mc_maze_large")
    with pytest.raises(DataError, match="'mc_maze/psth' is a data set, not a group"):
        read_arrays(folder / "target.h5", "mc_maze/psth")


def test_a_share_that_leaves_no_training_trial_is_refused(folder):
    with pytest.raises(DataError, match=r"40 training trials cannot be split with validation=0.999"):
        open_sessions(folder, "nlb", {"validation": 0.999})


# --- the submission


def rates_of(folder):
    truth = read_arrays(folder / "truth.h5", "mc_maze")
    joined = {}
    for split in ("train", "eval"):
        parts = [[truth[f"{split}_rates_{part}{tail}"] for part in ("heldin", "heldout")] for tail in ("", "_forward")]
        joined[split] = np.concatenate([np.concatenate(part, axis=2) for part in parts], axis=1)
    return joined


def test_a_submission_holds_what_the_benchmark_asks_for_and_its_input_is_left_alone(folder, tmp_path):
    rates, data = rates_of(folder), data_of(folder)
    rates["eval"][0, 0, 0] = 0.0
    before = {split: array.copy() for split, array in rates.items()}
    found = read_arrays(write_submission(tmp_path / "s.h5", "mc_maze", 5, data, rates), "mc_maze")
    assert {name: x.shape for name, x in found.items()} == {
        "train_rates_heldin": (40, 40, 12),
        "train_rates_heldout": (40, 40, 4),
        "eval_rates_heldin": (16, 40, 12),
        "eval_rates_heldout": (16, 40, 4),
        "eval_rates_heldin_forward": (16, 8, 12),
        "eval_rates_heldout_forward": (16, 8, 4),
    }
    for split in rates:
        np.testing.assert_array_equal(rates[split], before[split])
    assert evaluate_nlb(read_arrays(folder / "target.h5", "mc_maze"), found)["co-bps"].value > 0
    with pytest.raises(DataError, match=r"holds /mc_maze/\w+ already; write to a new file"):
        write_submission(tmp_path / "s.h5", "mc_maze", 5, data, rates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 200, r"rates are \d+\S* on average where 0.0\d+ spikes per bin of 5 ms .* divide them by 200"),
        (np.log, r"0 rates are NaN or infinite and \d+ negative; give spikes per bin, not logarithms"),
        (lambda x: x * np.nan, r"30720 rates are NaN or infinite and 0 negative"),
        (lambda x: x[:, :40], r"rates of split 'train' are \(40, 40, 16\), expected \(40, 48, 16\); predict all"),
    ],
    ids=["Hz", "log", "nan", "shape"],
)
def test_rates_in_another_unit_are_refused(folder, tmp_path, change, message):
    rates = {split: change(array) for split, array in rates_of(folder).items()}
    with pytest.raises(DataError, match=message):
        write_submission(tmp_path / "s.h5", "mc_maze", 5, data_of(folder), rates)
    assert not (tmp_path / "s.h5").exists()


def test_hz_in_counts_that_are_withheld_are_told_by_those_of_training(folder, tmp_path):
    data, rates = data_of(folder), rates_of(folder)
    counts = {split: array.copy() for split, array in data.counts.items()}
    counts["eval"][..., data.held_in :] = np.nan
    rates["eval"][..., data.held_in :] *= 200
    with pytest.raises(DataError, match="they look like Hz; divide them by 200"):
        write_submission(tmp_path / "s.h5", "mc_maze", 5, replace(data, counts=counts), rates)


def test_scores_refuse_hz_and_leave_out_what_has_no_rates(folder):
    target, data = read_arrays(folder / "target.h5", "mc_maze"), data_of(folder)
    rates = split_rates(data, rates_of(folder))
    with pytest.raises(ValueError, match=r"spikes per bin were counted: they look like Hz; give spikes per bin"):
        evaluate_nlb(target, rates | {"eval_rates_heldout": 200 * rates["eval_rates_heldout"]})
    assert evaluate_nlb(target, {"eval_rates_heldout": rates["eval_rates_heldout"]}).keys() == {"co-bps"}
    without = {name: array for name, array in rates.items() if name != "train_rates_heldout"}
    assert "vel R2" not in evaluate_nlb(target, without)


def test_a_missing_split_is_named(folder):
    with pytest.raises(DataError, match="rates of split 'eval' are missing"):
        split_rates(data_of(folder), {"train": rates_of(folder)["train"]})
