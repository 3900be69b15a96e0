"""Static Sensorium sessions are clips of one frame."""

from pathlib import Path

import numpy as np
import pytest
from sensorium_folder import STATIC_TIERS, write_static

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, DataError, Session
from neuroint.data.readers import sensorium2023
from neuroint.data.readers.sensorium2022 import faults, looks_like, read_sensorium2022


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_static(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def session(folder) -> Session:
    (session,) = read_sensorium2022(folder)
    return session


def load(folder: Path, modality: str, name: str) -> np.ndarray:
    return np.load(folder / "meta/statistics" / modality / "all" / f"{name}.npy").astype(np.float64)


@pytest.mark.parametrize("clip", [0, 9, 15])
def test_a_clip_is_one_normalized_frame(folder, session, clip):
    read = session.source.read(clip, 0, 1)
    raw = {m: np.load(folder / f"data/{m}/{clip}.npy") for m in ("images", "responses", "behavior", "pupil_center")}
    image = ((raw["images"] - load(folder, "images", "mean")) / load(folder, "images", "std"))[0]
    blocks = [[image[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for x in range(6)] for y in range(4)]
    np.testing.assert_allclose(read.stimulus[0, 0], blocks, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read.responses[0], raw["responses"] / load(folder, "responses", "std"), rtol=1e-5)
    np.testing.assert_allclose(read.behavior[0], raw["behavior"] / load(folder, "behavior", "std"), rtol=1e-5)
    pupil = (raw["pupil_center"] - load(folder, "pupil_center", "mean")) / load(folder, "pupil_center", "std")
    np.testing.assert_allclose(read.pupil[0], pupil, rtol=1e-4, atol=1e-5)


def test_facts_are_those_of_single_images(session):
    facts = session.facts
    assert (session.name, session.animal) == ("static23964-4-22", "23964")
    assert (facts.n_neurons, facts.stimulus_shape, facts.shortest_clip, facts.bin_s) == (10, (1, 4, 6), 1, None)
    assert (facts.behavior_channels, facts.pupil_channels) == (3, 2)
    assert session.scored_from == 0


def test_tiers_and_repeats_are_those_of_the_release(session):
    names = {"train": TRAIN, "validation": VALIDATION, "test": DEV_TEST, "final_test": FINAL_TEST}
    assert session.tiers == tuple(names[tier] for tier in STATIC_TIERS)
    assert [len(group) for group in session.repeats(DEV_TEST)] == [4]


def test_images_may_keep_their_size_and_responses_their_units(folder):
    (session,) = read_sensorium2022(folder, scale=1.0, response_normalization="none")
    assert session.source.read(0, 0, 1).stimulus.shape == (1, 1, 16, 24)
    raw = np.load(folder / "data/responses/0.npy")
    np.testing.assert_array_equal(session.source.read(0, 0, 1).responses[0], raw)
    np.testing.assert_allclose(session.facts.mean_responses, load(folder, "responses", "mean"), rtol=1e-6)


def test_statistics_of_images_may_be_one_number(tmp_path, session):
    folder = write_static(tmp_path)
    np.save(folder / "meta/statistics/images/all/mean.npy", np.float32(100))
    np.save(folder / "meta/statistics/images/all/std.npy", np.array([50], np.float32))
    (session,) = read_sensorium2022(folder, scale=1.0)
    raw = np.load(folder / "data/images/3.npy")
    np.testing.assert_allclose(session.source.read(3, 0, 1).stimulus[0], (raw - 100) / 50, rtol=1e-6)


def test_a_scan_without_behavior_is_read(tmp_path):
    (session,) = read_sensorium2022(write_static(tmp_path, behavior=False))
    clip = session.source.read(0, 0, 1)
    assert clip.behavior is clip.pupil is None


def test_withheld_test_responses_are_replaced_from_training(tmp_path):
    (session,) = read_sensorium2022(write_static(tmp_path, withheld=("test", "final_test")))
    assert set(session.tiers[10:]) == {UNUSED}
    assert [len(session.clips(tier)) for tier in (TRAIN, DEV_TEST, FINAL_TEST)] == [6, 1, 1]


@pytest.mark.parametrize("scale", [0.3, 0.0])
def test_a_scale_that_is_not_one_over_a_whole_number_is_refused(folder, scale):
    with pytest.raises(ValueError, match=r"expected 1 / a whole number"):
        read_sensorium2022(folder, scale=scale)


def test_a_scale_that_does_not_divide_the_image_is_refused(folder):
    with pytest.raises(DataError, match=r"16 x 24 pixels cannot be averaged in blocks of 3 x 3"):
        read_sensorium2022(folder, scale=1 / 3)


def test_images_with_the_channel_last_are_refused(tmp_path):
    folder = write_static(tmp_path)
    for file in folder.glob("data/images/*.npy"):
        np.save(file, np.moveaxis(np.load(file), 0, -1))
    with pytest.raises(
        DataError, match=r"shape \(16, 24, 1\), expected \(1, height, width\); its axes seem to be in ano"
    ):
        read_sensorium2022(folder)


def test_a_nan_in_an_image_is_refused_and_listed(tmp_path):
    folder = write_static(tmp_path)
    image = np.load(folder / "data/images/2.npy")
    image[0, 5, 7] = np.nan
    np.save(folder / "data/images/2.npy", image)
    (session,) = read_sensorium2022(folder)
    with pytest.raises(DataError, match=r"data/images/2.npy has .* NaN or infinite inside the clip"):
        session.source.read(2, 0, 1)
    assert len(faults(folder)) == 1


def test_static_and_dynamic_sessions_are_told_apart(folder):
    assert looks_like(folder)
    assert not sensorium2023.looks_like(folder)
    assert faults(folder) == []
