"""Dynamic Sensorium sessions are read as the benchmark normalizes them."""

import multiprocessing
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sensorium_folder import DYNAMIC_NAME, DYNAMIC_TIERS, write_dynamic

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, Session
from neuroint.data.readers.sensorium2023 import faults, looks_like, read_sensorium2023
from neuroint.data.splits import stimuli_in_several_tiers
from neuroint.registry import readers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_dynamic(tmp_path_factory.mktemp("dynamic"))


@pytest.fixture(scope="module")
def session(folder) -> Session:
    (session,) = read_sensorium2023(folder)
    return session


def official(folder: Path, clip: int) -> dict[str, np.ndarray]:
    """The benchmark's transform on whole arrays in float64, cut at the first NaN of any modality."""
    whole = {}
    for modality in ("videos", "responses", "behavior", "pupil_center"):
        raw = np.load(folder / "data" / modality / f"{clip}.npy").astype(np.float64)
        mean = np.load(folder / "meta/statistics" / modality / "all/mean.npy").astype(np.float64)
        std = np.load(folder / "meta/statistics" / modality / "all/std.npy").astype(np.float64)
        if modality == "responses":
            small = 0.01 * np.nanmean(std)
            precision = np.ones_like(std) / small
            precision[std > small] = 1 / std[std > small]
            whole[modality] = raw * precision
        elif modality == "behavior":
            whole[modality] = raw / std
        else:
            whole[modality] = (raw - mean) / std
    end = min(np.argwhere(np.isnan(array))[:, -1].min(initial=array.shape[-1]) for array in whole.values())
    return {modality: array[..., :end] for modality, array in whole.items()}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_crop_equals_the_official_transform_of_the_whole_clip(tmp_path, dtype):
    folder = write_dynamic(tmp_path, dtype=dtype)
    (session,) = read_sensorium2023(folder)
    for clip in (0, 1, 5, 14):
        part, whole = session.source.read(clip, 13, 31), official(folder, clip)
        crop = {modality: array[..., 13:44] for modality, array in whole.items()}
        np.testing.assert_allclose(part.stimulus[:, 0], np.moveaxis(crop["videos"], -1, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(part.responses, crop["responses"].T.clip(min=0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(part.behavior, crop["behavior"].T, rtol=1e-5)
        np.testing.assert_allclose(part.pupil, crop["pupil_center"].T, rtol=1e-4, atol=1e-5)


def test_clips_come_time_first_in_float32(session):
    clip = session.source.read(2, 10, 20)
    arrays = {name: found for name, found in vars(clip).items() if isinstance(found, np.ndarray)}
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == {"responses": (20, 12), "stimulus": (20, 1, 8, 12), "behavior": (20, 2), "pupil": (20, 2)}
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_facts_come_from_the_folder(session):
    assert (session.name, session.animal) == ("dynamic29515-10-12", "29515")
    facts = session.facts
    assert (facts.n_neurons, facts.stimulus_shape, facts.shortest_clip) == (12, (1, 8, 12), 60)
    assert (facts.behavior_channels, facts.pupil_channels, facts.bin_s) == (2, 2, 1 / 30)
    assert facts.positions_um.dtype == np.float32
    assert set(facts.positions_um[:, 2]) <= set(range(200, 450, 25))


def test_mean_responses_are_the_mean_of_what_training_reads(session):
    train = [session.source.read(int(clip), 0, 60).responses for clip in session.clips(TRAIN)]
    np.testing.assert_allclose(session.facts.mean_responses, np.concatenate(train).mean(axis=0), rtol=1e-5)


def test_oracle_is_validation_and_bonus_tiers_are_unused(session):
    names = {"train": TRAIN, "oracle": VALIDATION, "live_test_main": DEV_TEST, "final_test_main": FINAL_TEST}
    assert session.tiers == tuple(names.get(tier, UNUSED) for tier in DYNAMIC_TIERS)


def test_repeats_are_found_by_their_pixels(session):
    assert [group.tolist() for group in session.repeats(VALIDATION)] == [[1, 7]]
    assert [group.tolist() for group in session.repeats(DEV_TEST)] == [[3, 9]]
    assert len(session.repeats(TRAIN)) == 6


def test_the_padding_is_cut_where_the_first_nan_is(tmp_path):
    frames = [60, 55, 60, 57, *[60] * (len(DYNAMIC_TIERS) - 4)]
    (session,) = read_sensorium2023(write_dynamic(tmp_path, frames=frames))
    assert session.lengths.tolist() == frames
    assert session.facts.shortest_clip == 55


def test_the_padding_may_be_absent(tmp_path):
    (session,) = read_sensorium2023(write_dynamic(tmp_path, frames=64, padded=64))
    assert set(session.lengths) == {64}


def test_a_clip_longer_than_the_statistics_is_cut_where_they_end(tmp_path):
    frames = [60] * (len(DYNAMIC_TIERS) - 1) + [64]
    folder = write_dynamic(tmp_path, frames=frames)
    (session,) = read_sensorium2023(folder)
    assert session.lengths[-1] == 60 == official(folder, len(frames) - 1)["videos"].shape[-1]


def test_frames_beyond_the_valid_ones_cannot_be_read(session):
    with pytest.raises(ValueError, match=r"clip 0 has 60 valid frames; frames 50 to 61 were asked for"):
        session.source.read(0, 50, 11)


def test_scores_count_from_frame_50_unless_a_clip_is_no_longer_than_that(tmp_path, session):
    assert session.scored_from == 50
    (short,) = read_sensorium2023(write_dynamic(tmp_path, frames=50))
    assert short.scored_from == 0


def test_per_neuron_normalization_makes_the_variance_over_training_one(folder):
    (session,) = read_sensorium2023(folder, response_normalization="per_neuron")
    raw = np.concatenate([np.load(folder / f"data/responses/{c}.npy")[:, :60].T for c in session.clips(TRAIN)])
    read = np.concatenate([session.source.read(int(c), 0, 60).responses for c in session.clips(TRAIN)])
    np.testing.assert_allclose(read, (raw / raw.std(axis=0)).clip(min=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(session.facts.mean_responses, read.mean(axis=0), rtol=1e-5)


def test_official_normalization_is_the_servers_by_the_deviation_over_train_trials_of_each_neuron_and_frame(folder):
    (session,) = read_sensorium2023(folder, response_normalization="official")
    raw = lambda clip: np.load(folder / f"data/responses/{clip}.npy")[:, :60].T  # noqa: E731
    std = np.stack([raw(clip) for clip in session.clips(TRAIN)]).std(axis=0)  # frames x neurons, train trials only
    loud = std > 0.01 * std.mean()  # what is below is divided by this hundredth instead
    assert (~loud).sum() <= 5
    for clip in (0, *session.clips(VALIDATION)):
        read = session.source.read(int(clip), 0, 60).responses
        np.testing.assert_allclose(read[loud], (raw(clip) / std).clip(min=0)[loud], rtol=1e-5, atol=1e-7)


def test_responses_may_keep_their_units(folder):
    (session,) = read_sensorium2023(folder, response_normalization="none")
    raw = np.load(folder / "data/responses/4.npy")[:, 5:9]
    np.testing.assert_allclose(session.source.read(4, 5, 4).responses, raw.T.clip(min=0), rtol=1e-6)


def test_tiny_negative_responses_become_zero(session, folder):
    assert np.load(folder / "data/responses/0.npy")[:, :60].min() < 0
    assert session.source.read(0, 0, 60).responses.min() == 0


def test_a_silent_neuron_is_scaled_by_a_hundredth_of_the_mean_deviation(tmp_path):
    folder = write_dynamic(tmp_path)
    for file in folder.glob("data/responses/*.npy"):
        responses = np.load(file)
        responses[3] = np.where(np.isnan(responses[3]), np.nan, 2.0)
        np.save(file, responses)
    std = np.load(folder / "meta/statistics/responses/all/std.npy")
    std[3] = 0
    np.save(folder / "meta/statistics/responses/all/std.npy", std)
    (session,) = read_sensorium2023(folder)
    np.testing.assert_allclose(session.source.read(0, 0, 3).responses[:, 3], 2 / (0.01 * np.nanmean(std)), rtol=1e-6)


def test_a_pixel_that_never_changes_in_training_carries_nothing(tmp_path):
    folder = write_dynamic(tmp_path)
    std = np.load(folder / "meta/statistics/videos/all/std.npy")
    std[2, 3] = 0
    np.save(folder / "meta/statistics/videos/all/std.npy", std)
    (session,) = read_sensorium2023(folder)
    assert not session.source.read(0, 0, 60).stimulus[:, 0, 2, 3].any()


def test_withheld_tiers_are_replaced_by_stimuli_of_the_training_tier(tmp_path):
    tiers = ["train"] * 20 + ["oracle"] * 2 + ["live_test_main"] * 3 + ["final_test_main"] * 3
    stimuli = [i // 2 for i in range(20)] + [100, 100, 101, 101, 101, 102, 102, 102]
    folder = write_dynamic(tmp_path, tiers=tiers, stimuli=stimuli, withheld=("live_test_main", "final_test_main"))
    (session,) = read_sensorium2023(folder, withheld_fraction=0.2)
    assert set(session.tiers[22:]) == {UNUSED}
    assert [len(session.clips(tier)) for tier in (TRAIN, VALIDATION, DEV_TEST, FINAL_TEST)] == [12, 2, 4, 4]
    assert stimuli_in_several_tiers(session.tiers, session.stimulus_ids) == []
    assert faults(folder) == []
    (other,) = read_sensorium2023(folder, withheld_fraction=0.2, split_seed=1)
    assert other.tiers != session.tiers


def test_withheld_tiers_may_stay_empty(tmp_path):
    folder = write_dynamic(tmp_path, withheld=("live_test_main",))
    (session,) = read_sensorium2023(folder, withheld_fraction=0.0)
    assert len(session.clips(DEV_TEST)) == 0
    assert len(session.clips(TRAIN)) == 6


def test_only_the_withheld_tier_is_replaced(tmp_path):
    (session,) = read_sensorium2023(write_dynamic(tmp_path, withheld=("live_test_main",)))
    assert session.clips(FINAL_TEST).tolist() == [5, 11]
    assert len(session.clips(DEV_TEST)) == 1


def test_a_session_without_behavior_has_no_behavior_and_no_pupil(tmp_path):
    (session,) = read_sensorium2023(write_dynamic(tmp_path, behavior=False))
    clip = session.source.read(0, 0, 10)
    assert clip.behavior is clip.pupil is None
    assert (session.facts.behavior_channels, session.facts.pupil_channels) == (0, 0)


def test_several_animals_in_one_folder_are_several_sessions(tmp_path):
    write_dynamic(tmp_path, seed=1)
    write_dynamic(tmp_path, seed=2, name="dynamic29623-4-9-Video-9b4f6a1a067fe51e15306b9628efea20", neurons=7)
    write_dynamic(tmp_path, seed=3, name="my_mouse")
    (tmp_path / "notes").mkdir()
    sessions = read_sensorium2023(tmp_path)
    assert [session.animal for session in sessions] == ["29515", "29623", "my_mouse"]
    assert [session.facts.n_neurons for session in sessions] == [12, 7, 12]


def test_the_same_stimulus_in_two_tiers_is_refused_unless_told_otherwise(tmp_path):
    stimuli = [7, 7, *range(20, 20 + len(DYNAMIC_TIERS) - 2)]
    folder = write_dynamic(tmp_path, stimuli=stimuli)
    with pytest.raises(ValueError, match=r"dynamic29515-10-12: the same stimulus was shown in train .* and validation"):
        read_sensorium2023(folder)
    (session,) = read_sensorium2023(folder, leakage="drop")
    assert session.tiers[:2] == (UNUSED, VALIDATION)
    (session,) = read_sensorium2023(folder, leakage="report")
    assert session.tiers[:2] == (TRAIN, VALIDATION)
    assert len(session.cautions) == 1
    assert any("the same stimulus was shown" in fault for fault in faults(folder))


OTHER_NAME = "dynamic29623-4-9-Video-9b4f6a1a067fe51e15306b9628efea20"


def write_two_that_share(tmp_path: Path, clip: int) -> None:
    """Two animals; the second was shown, in one clip, what the first saw in its first training clip."""
    for name, seed in ((DYNAMIC_NAME, 1), (OTHER_NAME, 2)):
        write_dynamic(tmp_path, name=name, seed=seed)
    first, second = (tmp_path / name / "data/videos" for name in (DYNAMIC_NAME, OTHER_NAME))
    shutil.copy(first / "0.npy", second / f"{clip}.npy")


def test_what_one_animal_is_trained_on_and_another_scored_on_is_refused_unless_told_otherwise(tmp_path):
    write_two_that_share(tmp_path, clip=DYNAMIC_TIERS.index("live_test_main"))
    match = r"'dynamic29515-10-12' trains on a stimulus \(clip 0\) that session 'dynamic29623-4-9' scores in dev_test"
    with pytest.raises(ValueError, match=match):
        read_sensorium2023(tmp_path)
    trained, scored = read_sensorium2023(tmp_path, leakage="drop")
    assert (trained.tiers[0], scored.tiers[0], scored.cautions) == (UNUSED, TRAIN, ())
    trained, scored = read_sensorium2023(tmp_path, leakage="report")
    assert (trained.tiers[0], len(trained.cautions), len(scored.cautions)) == (TRAIN, 0, 1)
    (fault,) = faults(tmp_path)
    assert re.search(match, fault)


def test_two_animals_may_be_trained_on_the_same_stimulus_and_scored_on_the_same(tmp_path):
    write_two_that_share(tmp_path, clip=0)
    oracle = DYNAMIC_TIERS.index("oracle")
    for clip in (i for i, tier in enumerate(DYNAMIC_TIERS) if tier == "oracle"):
        shutil.copy(
            tmp_path / DYNAMIC_NAME / f"data/videos/{oracle}.npy", tmp_path / OTHER_NAME / f"data/videos/{clip}.npy"
        )
    assert len(read_sensorium2023(tmp_path)) == 2
    assert faults(tmp_path) == []


def test_a_fingerprint_follows_the_data_and_not_the_place(tmp_path, folder, session):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    assert read_sensorium2023(copy)[0].fingerprint == session.fingerprint
    std = np.load(copy / "meta/statistics/responses/all/std.npy")
    np.save(copy / "meta/statistics/responses/all/std.npy", std * 1.001)
    assert read_sensorium2023(copy)[0].fingerprint != session.fingerprint


def test_reading_leaves_the_folder_as_it_was(tmp_path):
    folder = write_dynamic(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(tmp_path.rglob("*"))}
    (session,) = read_sensorium2023(folder)
    for clip, length in enumerate(session.lengths):
        session.source.read(clip, 0, int(length))
    assert faults(folder) == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(tmp_path.rglob("*"))} == before


def test_a_read_only_copy_can_be_read(tmp_path, folder, session):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (read_only,) = read_sensorium2023(copy)
    np.testing.assert_array_equal(read_only.source.read(3, 0, 60).responses, session.source.read(3, 0, 60).responses)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755)


def test_a_pickled_source_is_small_and_reads_the_same(session):
    expected = session.source.read(1, 7, 20)
    packed = pickle.dumps(session.source)
    assert len(packed) < 10_000
    np.testing.assert_array_equal(pickle.loads(packed).read(1, 7, 20).stimulus, expected.stimulus)


@pytest.mark.slow
def test_a_spawned_process_reads_the_same(session):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        clip = pool.apply(session.source.read, (1, 7, 20))
    np.testing.assert_array_equal(clip.responses, session.source.read(1, 7, 20).responses)


def test_no_file_stays_open_between_reads(session):
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    clips = [session.source.read(clip, 0, 10) for clip in range(15)]
    assert len(clips) == 15
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert str(session.source.recording.folder) not in Path("/proc/self/maps").read_text()


def test_the_reader_is_registered_with_its_choices(folder):
    component = readers["sensorium2023"]
    assert sorted(component.choices) == [
        "input_normalization",
        "leakage",
        "response_normalization",
        "split_seed",
        "withheld_fraction",
    ]
    options, wrong = component.validate({"response_normalization": "per_neuron", "split_seed": "3", "leakage": "move"})
    assert options == {"response_normalization": "per_neuron", "split_seed": 3}
    assert wrong[0].startswith("leakage: got 'move'")
    assert looks_like(folder)
    assert looks_like(folder.parent)
    assert not looks_like(folder / "data")
