"""What the simulator writes: the Sensorium 2023 layout, the same bytes every time, and refusals before anything."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from neuroint.data.simulators.v1 import simulate_v1
from neuroint.data.simulators.v1_parts import neighbors, writing
from neuroint.data.simulators.v1_parts.behavior import behave
from neuroint.data.simulators.v1_parts.cells import draw_cells
from neuroint.data.simulators.v1_parts.drive import look_away
from neuroint.data.simulators.v1_parts.settings import PRESETS, Confounders
from neuroint.data.simulators.v1_parts.stimulus import texture_clip
from neuroint.registry import readers, simulators

SMALL = {"sessions": 1, "neurons": 6, "train_clips": 3, "stimuli": 1, "repeats": 2}
SIZES = {"videos": (18, 32, 216), "responses": (6, 216), "behavior": (2, 216), "pupil_center": (2, 216)}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return only_session(simulate_v1(tmp_path_factory.mktemp("v1") / "out", **SMALL))


def only_session(out):
    (folder,) = out.iterdir()
    return folder


def tiers(folder):
    return np.load(folder / "meta/trials/tiers.npy", allow_pickle=False)


def stacked(folder, modality, clips):
    return np.stack([np.load(folder / f"data/{modality}/{i}.npy", allow_pickle=False) for i in clips])


def digests(out):
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*.*"))
        if p.is_file()
    }


def test_a_session_has_every_file_of_the_layout_with_time_last(small):
    assert small.name.startswith("dynamic90001-1-1-Video-")
    assert len(small.name.removeprefix("dynamic90001-1-1-Video-")) == 32
    assert json.loads((small / "config.json").read_text()) == {"links": {}}
    for modality, size in SIZES.items():
        assert stacked(small, modality, range(9)).shape == (9, *size)
        for name in ("mean", "std", "min", "max", "median"):
            assert np.load(small / f"meta/statistics/{modality}/all/{name}.npy").shape == size
    coordinates = np.load(small / "meta/neurons/cell_motor_coordinates.npy")
    assert coordinates.shape == (6, 3)
    assert coordinates.dtype == np.int64
    assert np.load(small / "meta/neurons/unit_ids.npy").tolist() == [1, 2, 3, 4, 5, 6]


def test_clips_are_valid_for_200_frames_and_nan_behind(small):
    for modality in SIZES:
        clips = stacked(small, modality, range(9))
        assert np.isfinite(clips[..., :200]).all()
        assert np.isnan(clips[..., 200:]).all()


def test_training_stimuli_are_unique_and_held_out_ones_are_repeated_within_their_tier(small):
    labels, shown = tiers(small), np.load(small / "truth/stimulus_ids.npy")
    assert sorted(labels) == sorted(["train"] * 3 + ["oracle", "live_test_main", "final_test_main"] * 2)
    assert len(set(shown[labels == "train"])) == 3
    for tier in ("oracle", "live_test_main", "final_test_main"):
        first, second = np.flatnonzero(labels == tier)
        assert shown[first] == shown[second]
        videos = stacked(small, "videos", [first, second])
        np.testing.assert_array_equal(videos[0], videos[1])
    assert len({np.load(p)[..., :200].tobytes() for p in (small / "data/videos").iterdir()}) == 6


def test_statistics_are_those_of_the_training_clips_alone_and_keep_time(small):
    train = np.flatnonzero(tiers(small) == "train")
    for modality in SIZES:
        clips = stacked(small, modality, train).astype(float)
        expected = {
            "mean": clips.sum(0) / 3,
            "std": np.sqrt(((clips - clips.sum(0) / 3) ** 2).sum(0) / 3),
            "min": np.sort(clips, 0)[0],
            "max": np.sort(clips, 0)[2],
            "median": np.sort(clips, 0)[1],
        }
        for name, value in expected.items():
            written = np.load(small / f"meta/statistics/{modality}/all/{name}.npy")
            np.testing.assert_allclose(written, value, rtol=1e-5, atol=1e-5, err_msg=f"{modality} {name}")


def test_statistics_read_a_few_rows_at_a_time_are_the_same(small, monkeypatch):
    before = np.load(small / "meta/statistics/responses/all/median.npy")
    monkeypatch.setattr(writing, "_BLOCK_BYTES", 1)
    rows = [block.shape[1] for block in writing._blocks(small, "responses", [0, 1])]
    assert rows == [1] * 6
    writing.write_statistics(small, np.flatnonzero(tiers(small) == "train").tolist())
    np.testing.assert_array_equal(np.load(small / "meta/statistics/responses/all/median.npy"), before)


def test_the_reader_opens_what_the_simulator_writes(small):
    (session,) = readers["sensorium2023"].factory(small.parent)
    assert session.animal == "90001"
    assert [len(group) for group in session.repeats("validation")] == [2]
    assert len(session.clips("train")) == 3
    assert session.source.read(0, 0, 200).responses.shape == (200, 6)


def test_behavior_has_the_mean_the_spread_and_the_ranges_of_the_recordings():
    clip = behave(np.random.default_rng(0), 100_000)  # 670 time constants: standard errors of 5 % of the spread
    assert clip.dilation.min() >= 20.8
    assert clip.dilation.max() <= 88
    assert (clip.dilation.mean(), clip.dilation.std()) == (pytest.approx(53.6, abs=2.5), pytest.approx(14.8, abs=2))
    assert clip.running.min() == 0
    assert clip.running.max() <= 47
    assert (clip.running.mean(), clip.running.std()) == (pytest.approx(5.55, abs=1.5), pytest.approx(8.7, abs=1.5))
    np.testing.assert_allclose(clip.center_px.mean(0), 119.9, atol=1.2)
    np.testing.assert_allclose(clip.center_px.std(0), [4.9, 6.9], rtol=0.15)


def test_arousal_forgets_with_a_time_constant_of_5_s():
    state = behave(np.random.default_rng(1), 100_000).state
    assert np.corrcoef(state[150:], state[:-150])[0, 1] == pytest.approx(np.exp(-1), abs=0.08)
    assert state.std() == pytest.approx(1, abs=0.08)


def test_textures_jump_in_contrast_between_scenes_of_1_to_3_s():
    clips = [texture_clip(np.random.default_rng(i), PRESETS["tiny"]) for i in range(12)]
    change = [np.abs(np.diff(clip, axis=0)).mean((1, 2)) / clip[1:].std((1, 2)) for clip in clips]
    cuts = [np.flatnonzero(c > 0.7) + 1 for c in change]
    lengths = np.concatenate([np.diff(np.concatenate([[0], c])) for c in cuts])
    assert lengths.min() >= 30
    assert lengths.max() <= 90
    contrasts = np.concatenate(
        [[scene.std() for scene in np.split(clip, c)] for clip, c in zip(clips, cuts, strict=True)]
    )
    assert np.log(contrasts).std() > 0.35
    assert np.mean(clips) == pytest.approx(128, abs=5)
    assert all(clip.min() >= 0 and clip.max() <= 255 and (clip == np.rint(clip)).all() for clip in clips)


def test_the_same_seed_writes_the_same_bytes_in_another_process_with_one_thread(small, tmp_path):
    script = "import sys, json, pathlib; from neuroint.data.simulators.v1 import simulate_v1 as simulate; "
    script += "simulate(pathlib.Path(sys.argv[1]), **json.loads(sys.argv[2]))"
    command = [sys.executable, "-c", script, str(tmp_path / "out"), json.dumps(SMALL)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "5"}
    subprocess.run(command, check=True, env={**os.environ, **threads}, cwd=Path(__file__).parents[2])
    assert digests(tmp_path / "out") == digests(small.parent)


def test_another_seed_writes_other_videos_and_responses(small, tmp_path):
    other = only_session(simulate_v1(tmp_path / "out", **SMALL, seed=1))
    assert other.name != small.name
    assert not np.array_equal(stacked(other, "videos", [0])[..., :200], stacked(small, "videos", [0])[..., :200])


def test_a_session_does_not_depend_on_how_many_others_are_written(small, tmp_path):
    out = simulate_v1(tmp_path / "out", **{**SMALL, "sessions": 2})
    alone, among = digests(small.parent), digests(out)
    assert len(list(out.iterdir())) == 2
    assert alone.items() <= among.items()


def test_more_training_clips_leave_held_out_clips_as_they_were(small, tmp_path):
    more = only_session(simulate_v1(tmp_path / "out", **{**SMALL, "train_clips": 5}))

    def held_out(folder):
        clips = np.flatnonzero(tiers(folder) != "train")
        return {(folder / f"data/responses/{i}.npy").read_bytes() for i in clips}

    assert held_out(more) == held_out(small)


def test_the_twin_without_a_pool_sees_the_same_and_behaves_the_same_but_responds_otherwise(small, tmp_path):
    twin = only_session(simulate_v1(tmp_path / "out", **SMALL, pool=0.0))
    for modality in ("videos", "behavior", "pupil_center"):
        np.testing.assert_array_equal(stacked(twin, modality, range(9)), stacked(small, modality, range(9)))
    assert not np.array_equal(np.load(twin / "truth/rates/0.npy"), np.load(small / "truth/rates/0.npy"))


def test_truth_describes_the_world(small):
    truth = json.loads((small / "truth/truth.json").read_text())
    assert truth["mechanisms"] == {
        "pool": 1.0, "own_history": 0.0, "coupling": 0.0, "like_to_like": 0.5, "feeding": "rates"
    }  # fmt: skip
    assert truth["equation"]["sigma_to_the_n"] == 0.5
    assert truth["equation"]["tau_s"] == 0.2
    assert sparse.load_npz(small / "truth/C.npz").nnz == 0
    positions = np.load(small / "meta/neurons/cell_motor_coordinates.npy")
    near = np.linalg.norm(positions[:, None] - positions[None], axis=2) <= 450
    has_neighbors = near.sum(axis=1) > 1
    np.testing.assert_allclose(sparse.load_npz(small / "truth/W_hat.npz").sum(axis=1), has_neighbors)
    np.testing.assert_array_equal(sparse.load_npz(small / "truth/mixing.npz").toarray(), np.eye(6))


def test_bench_stores_300_frames_at_324_and_rates_of_held_out_clips_only(tmp_path):
    folder = only_session(simulate_v1(tmp_path / "out", preset="bench", **{**SMALL, "train_clips": 1, "repeats": 1}))
    assert stacked(folder, "videos", [0]).shape == (1, 36, 64, 324)
    assert np.isfinite(stacked(folder, "responses", range(4))[..., :300]).all()
    assert np.isnan(stacked(folder, "responses", range(4))[..., 300:]).all()
    stored = {int(p.stem) for p in (folder / "truth/rates").iterdir()}
    assert stored == set(np.flatnonzero(tiers(folder) != "train"))


def test_the_presets_are_as_described():
    assert (PRESETS["tiny"].sessions, PRESETS["tiny"].neurons, PRESETS["tiny"].frames) == (3, 48, 200)
    assert PRESETS["test"].train_clips == 40
    assert (PRESETS["bench"].sessions, PRESETS["bench"].stimuli, PRESETS["bench"].repeats) == (5, 6, 10)


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; give a folder that is empty or does not exist"):
        simulate_v1(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        simulate_v1(tmp_path / "out", **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coupling": 1.5}, "coupling=1.5: input should be less than 1"),
        ({"pool": -1.0}, "pool=-1.0: input should be greater than or equal to 0"),
        ({"neurons": 1}, "neurons=1: a population needs at least 2"),
        ({"noise": "exact_snr", "coupling": 0.4, "feeding": "spikes"}, "feeding='spikes' needs spikes"),
        ({"noise": "exact_snr", "latent": 0.2, "neuropil": 0.1}, "but latent, neuropil would share it"),
    ],
)
def test_settings_that_would_not_be_what_they_claim_are_refused_before_writing(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        simulate_v1(tmp_path / "out", **{**SMALL, **settings})
    assert not (tmp_path / "out").exists()


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"pool=-1.0.*like_to_like=2.0.*sample_hz=-8.0"):
        simulate_v1(tmp_path / "out", **SMALL, pool=-1.0, like_to_like=2.0, sample_hz=-8.0)


def test_choices_are_checked_by_the_registry():
    coerced, faults = simulators["v1"].validate({"preset": "tiny", "coupling": "1e-1", "kappa": 0.5, "feeding": "rate"})
    assert coerced == {"preset": "tiny", "coupling": 0.1}
    assert len(faults) == 2


def test_an_eye_that_looks_right_and_down_sees_the_screen_moved_left_and_up():
    frame = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    seen = look_away(frame, np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(seen[0], [[5, 6, 7, 128], [9, 10, 11, 128], [128, 128, 128, 128]])


def many_cells(neurons=600):
    return draw_cells(np.random.default_rng(0), PRESETS["tiny"].resized(neurons=neurons), Confounders(), 0.1)


def test_in_a_dense_population_a_pool_keeps_256_random_neighbors_and_rows_still_sum_to_1():
    pool = neighbors.pool_weights(np.random.default_rng(1), many_cells())
    assert np.diff(pool.indptr).max() == 256
    np.testing.assert_allclose(pool.sum(axis=1), 1)
    assert not pool.diagonal().any()


def test_the_sparse_spectral_norm_equals_the_dense_one(monkeypatch):
    kernel = neighbors.pool_weights(np.random.default_rng(1), many_cells(100))
    dense = np.linalg.svd(kernel.toarray(), compute_uv=False)[0]
    assert neighbors.spectral_norm(kernel) == pytest.approx(dense)
    monkeypatch.setattr(neighbors, "_DENSE", 0)
    assert neighbors.spectral_norm(kernel) == pytest.approx(dense)


def test_two_neurons_too_far_apart_to_be_coupled_are_told(tmp_path):
    far = many_cells(2)
    far.positions_um[:] = [[0, 0, 200], [600, 600, 350]]
    with pytest.raises(ValueError, match="simulate more neurons or set coupling=0"):
        neighbors.coupling_weights(np.random.default_rng(0), far, 0.4, 0.5)
