"""Folders that cannot be used are refused with a message that names the file and says what to do."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sensorium_folder import DYNAMIC_TIERS, write_dynamic

from neuroint.data.base import DataError
from neuroint.data.readers.sensorium2023 import faults, looks_like, read_sensorium2023


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_dynamic(tmp_path)


def change(file: Path, function: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(file, function(np.load(file)))


def change_all(folder: Path, modality: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    for file in (folder / "data" / modality).glob("*.npy"):
        change(file, function)


def with_value(at: tuple, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return put


def refused(folder: Path, message: str) -> None:
    """The reader refuses a folder with a message, and the list of faults has it too."""
    with pytest.raises(DataError, match=message):
        read_sensorium2023(folder)
    assert any(pytest.raises(DataError, match=message).matches(DataError(fault)) for fault in faults(folder))


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "nowhere", r"nowhere does not exist; give the folder of a session")
    assert not looks_like(tmp_path / "nowhere")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "session.zip").write_bytes(b"PK")
    refused(tmp_path / "session.zip", r"session.zip is a file; .* \(unpack archives first\)")


def test_an_empty_folder_holds_no_session(tmp_path):
    refused(tmp_path, r"holds no session of Sensorium 2023; expected data/videos/0.npy, data/responses/0.npy")
    assert not looks_like(tmp_path)


def test_missing_statistics_are_named_with_a_way_to_make_them(folder):
    (folder / "meta/statistics/responses/all/std.npy").unlink()
    refused(
        folder,
        r"meta/statistics/responses/all/std.npy is missing; compute the std of responses over the clips of the train",
    )


def test_all_faults_of_the_headers_are_told_at_once(folder):
    for file in ("responses/all/mean", "videos/all/std", "pupil_center/all/mean", "behavior/all/std"):
        (folder / f"meta/statistics/{file}.npy").unlink()
    with pytest.raises(
        DataError, match=r"session dynamic29515-10-12: .*behavior/all/std.npy is miss.*; and 1 more, which"
    ):
        read_sensorium2023(folder)
    assert len(faults(folder)) == 4


def test_statistics_without_time_are_refused(folder):
    change(folder / "meta/statistics/responses/all/std.npy", lambda std: std[:, :1].repeat(60, 1))
    refused(
        folder, r"responses/all/std.npy has shape \(12, 60\), expected \(neurons, time\) with time = 64 as in data/"
    )


def test_missing_tiers_are_named(folder):
    (folder / "meta/trials/tiers.npy").unlink()
    refused(folder, r"tiers.npy cannot be read \(no such file or directory\)")


def test_an_unknown_tier_is_named_with_its_nearest_match(folder):
    np.save(folder / "meta/trials/tiers.npy", np.array(["tran", *DYNAMIC_TIERS[1:]]))
    refused(folder, r"has the tier 'tran', expected one of train, oracle, .* Did you mean 'train'\?")


def test_without_training_clips_nothing_can_be_trained(folder):
    np.save(folder / "meta/trials/tiers.npy", np.array(["oracle"] * len(DYNAMIC_TIERS)))
    refused(folder, r"no clip has the tier train")


def test_a_modality_that_is_missing_is_named(folder):
    shutil.rmtree(folder / "data/videos")
    refused(folder, r"data/videos holds 0 clips, but meta/trials/tiers.npy lists 15 \(0.npy is missing\)")


def test_unequal_numbers_of_clips_are_refused(folder):
    (folder / "data/responses/7.npy").unlink()
    refused(folder, r"data/responses holds 14 clips, but meta/trials/tiers.npy lists 15 \(7.npy is missing\)")


def test_more_clips_than_tiers_are_refused(folder):
    shutil.copy(folder / "data/pupil_center/3.npy", folder / "data/pupil_center/15.npy")
    refused(folder, r"data/pupil_center holds 16 clips, but .* lists 15 \(15.npy has no tier\)")


def test_unequal_numbers_of_neurons_are_refused(folder):
    change(folder / "data/responses/4.npy", lambda responses: responses[:11])
    refused(
        folder, r"responses/4.npy has shape \(11, 64\), expected \(neurons, time\) with neurons = 12 as in meta/neurons"
    )


def test_positions_of_other_neurons_are_refused(folder):
    change(folder / "meta/neurons/cell_motor_coordinates.npy", lambda positions: positions[:9])
    refused(
        folder, r"unit_ids.npy has shape \(12,\), expected \(neurons\) with neurons = 9 as in meta/neurons/cell_motor_"
    )


def test_ids_of_matched_neurons_are_read_and_checked(folder):
    assert read_sensorium2023(folder)[0].facts.match_ids is None
    np.save(folder / "meta/neurons/multi_match_id.npy", np.arange(12.0))
    assert read_sensorium2023(folder)[0].facts.match_ids.tolist() == list(range(12))
    change(folder / "meta/neurons/multi_match_id.npy", lambda ids: ids + 0.5)
    refused(folder, r"multi_match_id.npy holds float64 that are not all ids; expected a whole number")


def test_positions_that_are_not_numbers_are_refused(folder):
    change(folder / "meta/neurons/cell_motor_coordinates.npy", lambda xyz: xyz * np.nan)
    refused(folder, r"cell_motor_coordinates.npy holds NaN or infinite positions")


@pytest.mark.parametrize(
    ("modality", "shape"), [("videos", r"\(64, 8, 12\)"), ("responses", r"\(64, 12\)"), ("behavior", r"\(64, 2\)")]
)
def test_time_first_is_refused(folder, modality, shape):
    change_all(folder, modality, lambda array: np.moveaxis(array, -1, 0))
    refused(folder, rf"data/{modality}/0.npy has shape {shape}, .* its axes seem to be in another order: transpose it")


def test_a_fault_of_many_clips_is_told_once(folder):
    change_all(folder, "videos", lambda array: array[..., :50])
    refused(folder, r"data/videos/0.npy has shape \(8, 12, 50\).* \(and 14 more clips of videos\)")


@pytest.mark.parametrize("modality", ["videos", "responses", "behavior", "pupil_center"])
def test_nan_inside_the_first_row_of_a_clip_is_refused_at_once(folder, modality):
    change(folder / f"data/{modality}/2.npy", with_value((0, ..., 17), np.nan))
    refused(folder, rf"data/{modality}/2.npy has 1 values that are NaN or infinite inside the clip, .* frame 17")


@pytest.mark.parametrize("modality", ["videos", "responses", "behavior", "pupil_center"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_elsewhere_in_a_clip_is_refused_when_it_is_read_and_listed(folder, modality, value):
    change(folder / f"data/{modality}/2.npy", with_value((-1, ..., slice(17, 20)), value))
    (session,) = read_sensorium2023(folder)
    session.source.read(2, 20, 40)
    with pytest.raises(DataError, match=rf"session dynamic29515-10-12: data/{modality}/2.npy .* at frame 17"):
        session.source.read(2, 10, 30)
    assert any(f"data/{modality}/2.npy" in fault for fault in faults(folder))


def test_nan_in_a_clip_of_an_unused_tier_is_no_fault(folder):
    change(folder / f"data/videos/{DYNAMIC_TIERS.index('none')}.npy", with_value((0, 0, 3), np.nan))
    assert len(read_sensorium2023(folder)) == 1
    assert faults(folder) == []


def test_zero_responses_in_part_of_a_test_tier_are_refused(folder):
    change(folder / "data/responses/9.npy", lambda responses: np.zeros_like(responses))
    refused(folder, r"responses of clips 9 \(1 of 2 of the tier dev_test\) are all zero and would be scored")


def test_zero_responses_in_validation_are_refused(folder):
    for clip in (1, 7):
        change(folder / f"data/responses/{clip}.npy", lambda responses: np.zeros_like(responses))
    refused(folder, r"responses of clips 1, 7 \(2 of 2 of the tier validation\) are all zero")


def test_zero_training_responses_are_refused(folder):
    change(folder / "meta/statistics/responses/all/std.npy", lambda std: std * 0)
    refused(folder, r"responses/all/std.npy is zero or undefined in every neuron")


def test_statistics_shorter_than_the_training_clips_are_refused(folder):
    change(folder / "meta/statistics/videos/all/mean.npy", with_value((..., slice(40, None)), np.nan))
    refused(folder, r"the statistics of the inputs end at frame 40, but all training clips have 60 valid frames")


def test_statistics_that_are_nan_from_the_start_are_refused(folder):
    change(folder / "meta/statistics/pupil_center/all/std.npy", lambda std: std * np.nan)
    refused(folder, r"are NaN at the first frame; compute them over the valid frames of the training tier")


def test_responses_with_a_negative_mean_are_refused(folder):
    change(folder / "meta/statistics/responses/all/mean.npy", with_value((3, ...), -0.5))
    refused(folder, r"has a mean response of -0.5, expected responses that are not negative")


def test_large_negative_responses_are_listed(folder):
    std = np.load(folder / "meta/statistics/responses/all/std.npy")
    change(folder / "data/responses/0.npy", with_value((3, 5), -2 * std[3, 5]))
    assert faults(folder) == [
        "session dynamic29515-10-12: data/responses/0.npy has a response of -2 standard deviations; "
        "negative responses are set to 0"
    ]


def test_clips_whose_modalities_end_apart_are_listed(folder):
    change(folder / "data/pupil_center/0.npy", with_value((..., slice(57, None)), np.nan))
    assert read_sensorium2023(folder)[0].lengths[0] == 57
    assert len(faults(folder)) == 1
    assert "(behavior 60, pupil_center 57, responses 60, videos 60); the shortest counts" in faults(folder)[0]


def test_clips_without_a_valid_frame_are_refused(folder):
    change(folder / "data/behavior/0.npy", lambda behavior: behavior * np.nan)
    refused(folder, r"clip 0 has no valid frame")


def test_objects_are_never_unpickled(folder):
    np.save(folder / "data/behavior/0.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    refused(folder, r"data/behavior/0.npy holds Python objects, which are never unpickled")


def test_a_truncated_clip_is_refused(folder):
    content = (folder / "data/videos/6.npy").read_bytes()
    (folder / "data/videos/6.npy").write_bytes(content[:5000])
    refused(folder, r"data/videos/6.npy is truncated: 5000 bytes of 49280")


def test_a_clip_that_vanishes_after_opening_is_named(folder):
    (session,) = read_sensorium2023(folder)
    (folder / "data/videos/6.npy").unlink()
    with pytest.raises(DataError, match=r"data/videos/6.npy cannot be read \(no such file or directory\)"):
        session.source.read(6, 0, 10)


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A session that a process without root's rights could read, and such a process: this one, for a while."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    write_dynamic(root)
    yield root
    if os.getuid() == 0:
        os.seteuid(0)
    for path in root.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "locked", [".", "data", "data/videos", "data/responses/3.npy", "meta/statistics/videos", "meta"]
)
def test_a_path_without_permission_is_named(stranger, locked):
    (folder,) = stranger.iterdir()
    (folder / locked).chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)  # nobody; root may read everything
    with pytest.raises(DataError, match=r"cannot be read \(permission denied\); check that"):
        read_sensorium2023(stranger)
    assert "permission denied" in faults(stranger)[0]
