"""Recordings without a stimulus: traces of any sign, positions in pixels, one animal per file, and the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.config import load_sweep
from neuroint.data.base import TRAIN, DataError
from neuroint.data.mapping import parse_mapping
from neuroint.data.opening import find_faults
from neuroint.data.readers.arrays import read_arrays
from neuroint.recordings import open_data

ROOT = Path(__file__).resolve().parents[2]
SPLIT = {"block_frames": 20, "gap_frames": 5, "final_test_at": "end"}
TRACES = {"responses": {"array": "traces", "axes": "neurons time"}, "split": SPLIT}


def write(folder, name="fish", neurons=4, frames=400, seed=0, **more):
    traces = np.random.default_rng(seed).normal(size=(neurons, frames)).astype(np.float32)
    np.savez(folder / f"{name}.npz", traces=traces, **more)
    return traces


def inspect(*arguments):
    done = CliRunner().invoke(app, ["data", "inspect", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


# --- responses


def test_traces_of_any_sign_are_read_as_they_are(tmp_path):
    traces = write(tmp_path)
    (session,) = read_arrays(tmp_path / "fish.npz", mapping=TRACES)
    np.testing.assert_array_equal(session.source.read(0, 0, 20).responses, traces[:, :20].T)
    assert session.facts.stimulus_shape is None
    frames = np.concatenate(
        [np.arange(session.source.rows[c], session.source.rows[c] + session.lengths[c]) for c in session.clips(TRAIN)]
    )
    np.testing.assert_allclose(session.facts.mean_responses, traces[:, frames].mean(1), rtol=1e-4, atol=1e-6)
    assert (session.facts.mean_responses < 0).any()


# --- positions


def test_positions_in_pixels_become_micrometers_and_a_missing_depth_is_zero(tmp_path):
    pixels = np.random.default_rng(1).uniform(0, 400, (4, 2)).astype(np.float32)
    write(tmp_path, xy=pixels)
    mapping = TRACES | {"positions_um": {"array": "xy", "um_per_unit": 0.5}}
    (session,) = read_arrays(tmp_path / "fish.npz", mapping=mapping)
    np.testing.assert_allclose(session.facts.positions_um[:, :2], pixels / 2)
    assert (session.facts.positions_um[:, 2] == 0).all()


def test_positions_named_alone_are_in_micrometers(tmp_path):
    pixels = np.ones((4, 3)) * np.arange(4)[:, None]
    write(tmp_path, xyz=pixels)
    (session,) = read_arrays(tmp_path / "fish.npz", mapping=TRACES | {"positions_um": "xyz"})
    np.testing.assert_array_equal(session.facts.positions_um, pixels)


@pytest.mark.parametrize("scale", [0, -1, "wide", float("nan")])
def test_a_scale_that_is_no_length_is_refused(scale):
    with pytest.raises(DataError, match=r"positions_um.um_per_unit: got"):
        parse_mapping(TRACES | {"positions_um": {"array": "xy", "um_per_unit": scale}})


def test_a_misspelled_scale_gets_the_nearest_word():
    with pytest.raises(DataError, match=r"'positions_um.um_per_px' is not known.*Known: array, um_per_unit"):
        parse_mapping(TRACES | {"positions_um": {"array": "xy", "um_per_px": 1}})


# --- several files


def test_each_file_can_be_of_an_animal_of_its_own(tmp_path):
    write(tmp_path, "w1")
    write(tmp_path, "w2", neurons=5)
    sessions = read_arrays(tmp_path, mapping=TRACES | {"animal": "worm {file}"})
    assert [(s.name, s.animal, s.facts.n_neurons) for s in sessions] == [("w1", "worm w1", 4), ("w2", "worm w2", 5)]
    named = read_arrays(tmp_path, mapping=TRACES | {"animal": "{file}", "session": "first {file}"})
    assert [(s.name, s.animal) for s in named] == [("first w1", "w1"), ("first w2", "w2")]


def test_files_of_unnamed_animals_are_refused_with_what_to_write(tmp_path):
    write(tmp_path, "w1")
    write(tmp_path, "w2")
    with pytest.raises(DataError, match=r"holds 2 recordings.*set 'animal'.* or to '\{file\}' if each is of another"):
        read_arrays(tmp_path, mapping=TRACES)


def test_a_pattern_says_which_files_of_a_folder_are_recordings(tmp_path):
    write(tmp_path, "2022-1")
    np.savez(tmp_path / "connectome.npz", names=np.array(["a"]))
    (session,) = read_arrays(tmp_path, mapping=TRACES, files="2022-*.npz")
    assert session.name == "2022-1"
    assert find_faults(tmp_path, "arrays", {"mapping": TRACES, "files": "2022-*.npz"}) == []
    assert "no array 'traces'" in find_faults(tmp_path, "arrays", {"mapping": TRACES})[0]


def test_a_pattern_that_fits_no_file_is_refused_with_those_there_are(tmp_path):
    write(tmp_path, "w1")
    with pytest.raises(DataError, match=r"fits files '2023-\*'; there are: w1.npz"):
        read_arrays(tmp_path, mapping=TRACES, files="2023-*")


# --- the command line


def test_inspect_reads_a_mapping_file_and_single_roles_over_it(tmp_path):
    write(tmp_path)
    (tmp_path / "mapping.yml").write_text(yaml.safe_dump(TRACES))
    done = inspect(tmp_path / "fish.npz", "--mapping", tmp_path / "mapping.yml", "--role", "bin_s=0.5")
    assert done.exit_code == 0
    assert "no stimulus" in done.stdout
    assert "500 ms" in done.stdout


def test_inspect_reads_the_data_section_of_a_search_space(tmp_path):
    write(tmp_path, "w1")
    np.savez(tmp_path / "connectome.npz", names=np.array(["a"]))
    options = {"mapping": TRACES, "files": "w*.npz"}
    (tmp_path / "space.yml").write_text(yaml.safe_dump({"name": "x", "data": {"reader": "arrays", "options": options}}))
    done = inspect(tmp_path, "--mapping", tmp_path / "space.yml", "--json")
    assert done.exit_code == 0
    assert [s["name"] for s in json.loads(done.stdout)["sessions"]] == ["w1"]


# --- real recordings

REAL = {
    "worm": ("worm_dag2023", [146, 141, 145], 3, 0.6016),
    "worm_others": ("worm_dag2023", [146, 141, 145], 3, 0.6016),
    "zebrafish": ("zebrafish_tectum_triplett2018/zf_20170215_f3.npz", [75], 1, None),
    "s1": ("s1_reaching_kording/s1.npz", [52], 1, 0.05),
    "s1_others": ("s1_reaching_kording/s1.npz", [52], 1, 0.05),
    "head_direction": ("head_direction_peyrache2015/head_direction.npz", [19], 1, 0.01),
}


def opened(recordings, name):
    return load_sweep(ROOT / f"search_spaces/{name}.yaml", (), str(recordings / REAL[name][0]))


@pytest.mark.recordings
@pytest.mark.parametrize("name", REAL)
def test_inspect_shows_a_real_recording_through_its_search_space(recordings, name):
    path, neurons, animals, bin_s = REAL[name]
    done = inspect(recordings / path, "--mapping", ROOT / f"search_spaces/{name}.yaml", "--json")
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert [s["neurons"] for s in card["sessions"]] == neurons
    assert len({s["animal"] for s in card["sessions"]}) == animals
    assert all(s["stimulus_shape"] is None for s in card["sessions"])
    assert all(s["bin_s"] == (None if bin_s is None else pytest.approx(bin_s, rel=1e-3)) for s in card["sessions"])
    assert all(
        {t["tier"] for t in s["tiers"]} == {"train", "validation", "dev_test", "final_test"} for s in card["sessions"]
    )


@pytest.mark.recordings
def test_a_worm_is_read_with_negative_values_and_a_lag_of_one_volume(recordings):
    sweep = opened(recordings, "worm")
    session = open_data(sweep.data)[0]
    read = session.source.read(0, 0, 20)
    assert (read.responses < 0).any()
    np.testing.assert_array_equal(read.observed, read.responses)
    assert session.facts.recorded.lag_bins == 1


@pytest.mark.recordings
def test_the_tectum_has_positions(recordings):
    (session,) = open_data(opened(recordings, "zebrafish").data)
    assert session.facts.positions_um.shape == (75, 3)
    assert session.source.read(0, 0, 20).responses.shape == (20, 75)
    assert any("pixel" in caution for caution in session.cautions)


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["s1_others", "worm_others"])
def test_half_of_the_neurons_are_held_in(recordings, name):
    for session in open_data(opened(recordings, name).data):
        held, predicted = session.facts.observed_channels, session.facts.n_neurons
        assert abs(held - predicted) <= 1
        assert not set(session.source.targets) & set(session.source.channels)
