"""What is wrong with an experanto session is refused with a message that says so, and listed by ``faults``."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experanto_folder import (
    BLANK,
    Shown,
    change,
    default_trials,
    movie,
    read_everything,
    write_experanto,
    write_spikes,
)

from neuroint.data.base import DataError
from neuroint.data.opening import open_sessions
from neuroint.data.readers.experanto import faults, read_experanto


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_experanto(tmp_path_factory.mktemp("original"))


def meta(device: str, **fields) -> Callable[[Path], None]:
    return lambda folder: change(folder / device / "meta.yml", **fields)


def trial(number: int, **fields) -> Callable[[Path], None]:
    return lambda folder: change(folder / f"screen/meta/{number:05d}.yml", **fields)


def saved(file: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / file, edit(np.load(folder / file)))


def written(file: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def gone(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def mapped(bytes_more: int, **fields) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        values = np.load(folder / "responses/data.npy")
        content = values.tobytes()
        (folder / "responses/data.mem").write_bytes(
            content[:bytes_more] if bytes_more < 0 else content + bytes(bytes_more)
        )
        change(folder / "responses/meta.yml", is_mem_mapped=True, **fields)

    return make


def poisoned(file: str, at: tuple[int, ...], value: float) -> Callable[[Path], None]:
    def edit(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float64)
        array[at] = value
        return array

    return saved(file, edit)


def swapped(times: np.ndarray) -> np.ndarray:
    times[[40, 41]] = times[[41, 40]]
    return times


def shifted(values: np.ndarray) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        change(folder / "responses/meta.yml", phase_shift_per_signal=True)
        np.save(folder / "responses/meta/phase_shifts.npy", values)

    return make


BROKEN = {
    "no meta of a device": (gone("responses/meta.yml"), r"responses/meta.yml is missing; every device"),
    "no meta of the screen": (gone("screen/meta.yml"), r"screen/meta.yml is missing"),
    "a modality of another device": (
        meta("screen", modality="sequence"),
        r"screen/meta.yml: modality is 'sequence', exp",
    ),
    "a modality that is misspelled": (
        meta("treadmill", modality="sequenc"),
        r"modality is 'sequenc', expected one of sequence\. Did you mean 'sequence'\?",
    ),
    "no modality": (meta("responses", modality=None), r"responses/meta.yml has no modality\."),
    "a meta that is no mapping": (
        written("responses/meta.yml", "- a\n"),
        r"meta.yml holds list, expected fields with n",
    ),
    "a meta that is malformed": (written("responses/meta.yml", "a: [1\nb: {"), r"responses/meta.yml is malformed \("),
    "a meta that would run code": (
        written("responses/meta.yml", "!!python/object/apply:os.system ['true']"),
        r"responses/meta.yml is malformed",
    ),
    "a meta.json that is malformed": (written("meta.json", "{"), r"meta.json is malformed"),
    "no responses": (
        lambda folder: shutil.rmtree(folder / "responses"),
        r"neither a folder responses nor a folder spik",
    ),
    "no sampling rate": (meta("responses", sampling_rate=None), r"responses/meta.yml has no sampling_rate\."),
    "a rate of zero": (meta("responses", sampling_rate=0), r"sampling_rate is 0, expected samples per second above 0"),
    "a rate in words": (meta("responses", sampling_rate="fast"), r"sampling_rate is 'fast', expected a number"),
    "a rate that is a truth value": (
        meta("responses", sampling_rate=True),
        r"sampling_rate is True, expected a number",
    ),
    "seconds per sample": (
        meta("eye_tracker", sampling_rate=0.05),
        r"\d+ samples at a sampling_rate of 0.05 Hz take \d+ s, but from start_time to end_time it is",
    ),
    "times in milliseconds": (meta("responses", end_time=26_500.0), r"but from start_time to end_time it is 26500 s"),
    "half a signal": (meta("responses", n_signals=2.5), r"n_signals is 2.5, expected a whole number of at least 1"),
    "unequal signals": (
        meta("responses", n_signals=7),
        r"responses/data.npy has shape \(\d+, 5\), but responses/meta.yml says n_signals 7",
    ),
    "signals first": (
        saved("responses/data.npy", np.transpose),
        r"data.npy has shape \(5, \d+\), but .* samples first",
    ),
    "unequal samples": (
        meta("responses", n_timestamps=9),
        r"but responses/meta.yml says n_timestamps 9; they are not of",
    ),
    "no numbers": (gone("responses/data.npy"), r"responses/data.npy cannot be read \(no such file"),
    "objects": (
        saved("responses/data.npy", lambda a: a.astype(object)),
        r"data.npy holds Python objects, which are never",
    ),
    "a truncated file of numbers": (
        lambda folder: os.truncate(folder / "responses/data.npy", 500),
        r"responses/data.npy is truncated: 500 bytes of",
    ),
    "a truncated map": (
        mapped(-8),
        r"responses/data.mem is truncated: \d+ bytes, but \d+ samples of 5 signals in float64",
    ),
    "a map with more columns": (mapped(80), r"responses/data.mem holds more than meta.yml says: \d+ bytes"),
    "a map of objects": (mapped(0, dtype="object"), r"dtype is 'object', expected that of data.mem, such as float32"),
    "a map of nothing known": (mapped(0, dtype="real"), r"dtype is 'real', expected that of data.mem"),
    "a missing map": (meta("responses", is_mem_mapped=True), r"responses/data.mem cannot be read \(no such file"),
    "shifts of too few signals": (
        shifted(np.zeros(4)),
        r"responses/meta/phase_shifts.npy has shape \(4,\), expected a finite number of seconds for each of 5 signals",
    ),
    "shifts that are missing": (meta("responses", phase_shift_per_signal=True), r"phase_shifts.npy cannot be read"),
    "shifts that are not known": (shifted(np.full(5, np.nan)), r"expected a finite number of seconds for each of 5"),
    "statistics of too few signals": (
        saved("responses/meta/stds.npy", lambda a: a[:, :3]),
        r"responses/meta/stds.npy has shape \(1, 3\), expected a number for each of 5 signals, or one",
    ),
    "statistics that are not known": (
        poisoned("treadmill/meta/means.npy", (0, 0), np.nan),
        r"treadmill/meta/means.npy has NaN or infinite values; compute it without them, or delete the file",
    ),
    "responses that never vary": (
        saved("responses/meta/stds.npy", np.zeros_like),
        r"responses/meta/stds.npy \(or the training tier\) is zero or undefined in every neuron",
    ),
    "positions of too few neurons": (
        lambda folder: np.save(folder / "responses/meta/cell_motor_coordinates.npy", np.zeros((4, 3))),
        r"cell_motor_coordinates.npy has shape \(4, 3\), expected finite x, y, z in micrometers for each of 5 neurons",
    ),
    "an eye tracker of three signals": (
        lambda folder: (
            saved("eye_tracker/data.npy", lambda a: a[:, :3])(folder),
            saved("eye_tracker/meta/means.npy", lambda a: a[:, :3])(folder),
            saved("eye_tracker/meta/stds.npy", lambda a: a[:, :3])(folder),
            change(folder / "eye_tracker/meta.yml", n_signals=3),
        ),
        r"eye_tracker has 3 signals, and which is what is not stored: set eye, such as \{behavior: \[0, 1\]",
    ),
    "no trials": (
        lambda folder: shutil.rmtree(folder / "screen/meta"),
        r"the screen has no trials; expected screen/meta/0",
    ),
    "a missing trial": (
        gone("screen/meta/00004.yml"),
        r"00005: first_frame_idx is 92, but the trials before it have 62",
    ),
    "an unknown trial": (
        trial(2, modality="movie"),
        r"screen trial .*: modality is 'movie', expected one of video, image",
    ),
    "a video of no length": (
        trial(2, num_frames=None),
        r"00002.* has no num_frames\. Did you mean|00002.* has no num_f",
    ),
    "a trial that is no mapping": (written("screen/meta/00002.yml", "3"), r"00002.yml holds int, expected fields"),
    "missing pixels": (gone("screen/data/00002.npy"), r"screen/data/00002.npy cannot be read \(no such file"),
    "too few frames": (
        saved("screen/data/00002.npy", lambda a: a[:29]),
        r"00002.npy holds 29 frames, but screen trial 00002 is a video of 30; make the two agree",
    ),
    "frames of another size": (
        saved("screen/data/00002.npy", lambda a: a[:, :, :10]),
        r"frames of screen trial 00002 have channels, height and width \(1, 8, 10\), those of trial 00000 have",
    ),
    "pixels of two axes": (
        saved("screen/data/00002.npy", lambda a: a[0]),
        r"a screen video has shape \(8, 12\), expected \(fr",
    ),
    "pixels of four channels": (
        saved("screen/data/00002.npy", lambda a: np.stack([a] * 4, -1)),
        r"a screen video has shape \(30, 8, 12, 4\), expected .* or 3 colors as a last axis",
    ),
    "encoded pixels": (
        trial(2, encoded=True, file_format=".mp4"),
        r"screen trial 00002 is encoded \(\.mp4\), and only plain arrays are read; decode it to data/00002.npy",
    ),
    "a pixel that is not known": (
        poisoned("screen/data/00004.npy", (3, 1, 1), np.nan),
        r"screen trial 00004 \(video\) has NaN or infinite pixels; repair it, or give it the modality invalid",
    ),
    "an unknown tier": (
        trial(2, tier="trian"),
        r"the screen has the tier 'trian', expected one of train, .*\. Did you mean 'train'\? Set tiers, such as",
    ),
    "a trial without a tier": (trial(2, tier=None), r"screen trial 00002 has no tier, and others have; give it one"),
    "a frame without a time": (
        saved("screen/timestamps.npy", lambda a: a[:-2]),
        r"screen/timestamps.npy has 463 times, but the trials have 465 frames; every frame needs one",
    ),
    "a time that is not known": (
        poisoned("screen/timestamps.npy", (7,), np.nan),
        r"is NaN or infinite at frame 7; every",
    ),
    "times that go back": (
        saved("screen/timestamps.npy", swapped),
        r"screen/timestamps.npy goes back in time after frame 40: from 3.83333 s to 3.8 s",
    ),
    "no overlap in time": (
        saved("screen/timestamps.npy", lambda a: a + 1000),
        r"no presentation lasts for a bin of 0.125 s while responses and eye_tracker and treadmill are recorded "
        r"\(from 0 to 26\.\d+ s\); the screen shows from 1002 to 1023 s: is every clock in seconds, and the same\?",
    ),
    "statistics of other pixels": (
        lambda folder: [np.save(folder / f"screen/meta/{name}.npy", np.ones((3, 4))) for name in ("means", "stds")],
        r"screen/meta/means.npy has shape \(3, 4\), expected one number, one per channel, or one for each of 8 x 12",
    ),
    "a stale combined description": (
        written("screen/combined_meta.json", json.dumps({"00000": {}})),
        r"screen/combined_meta.json describes 1 trials, but screen/meta has 30 \(trial 00001 is in one of the two\);",
    ),
    "numbers that are huge in units of their deviation": (
        lambda folder: [
            poisoned(f"treadmill/{file}", at, value)(folder)
            for file, at, value in (("data.npy", (71, 0), 1e30), ("meta/stds.npy", (0, 0), 1e-30))
        ],
        r"behavior is too large in units of its standard deviation; compute the statistics again",
    ),
    "means that are huge in units of their deviation": (
        lambda folder: [
            saved(f"responses/meta/{name}.npy", lambda a, value=value: np.full_like(a, value))(folder)
            for name, value in (("means", 1e30), ("stds", 1e-30))
        ],
        r"mean responses are too large in units of responses/meta/stds.npy .*; compute both again",
    ),
    "a response that is infinite": (
        poisoned("responses/data.npy", (18, 2), np.inf),
        r"responses is infinite at 2.25 s; NaN says that a value is missing",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_session_is_refused_and_listed(original, tmp_path, kind):
    folder = shutil.copytree(original, tmp_path / original.name)
    breaks, message = BROKEN[kind]
    breaks(folder)
    with pytest.raises(DataError, match=message):
        read_everything(folder)
    assert [fault for fault in faults(folder) if re.search(message, fault)], faults(folder)


def test_all_faults_of_a_session_come_at_once(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / original.name)
    for kind in ("times that go back", "a rate of zero", "no modality"):
        BROKEN[kind][0](folder)
    meta("eye_tracker", modality="spikes")(folder)
    found = faults(folder)
    assert len(found) == 3
    assert all(fault.startswith(f"session {folder.name}: ") for fault in found)
    with pytest.raises(DataError, match=r"goes back in time .*; responses/meta.yml .*; eye_tracker/meta.yml"):
        read_experanto(folder)


def test_faults_of_the_same_kind_are_told_once(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / original.name)
    for number in (2, 4, 6):
        trial(number, encoded=True)(folder)
    assert [fault for fault in faults(folder) if "trial 00002 is encoded" in fault and "more trials" in fault]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 4, 2], r"spike_indices are to be whole numbers that begin at 0 and never fall"),
        ("many", r"spike_indices are to be whole numbers"),
        (
            [0, 2, 9],
            r"the last of spike_indices in spikes/meta.yml is 9, which takes 72; the two are not of one",
        ),
    ],
)
def test_spikes_that_do_not_fit_their_neurons_are_refused(tmp_path, indices, message):
    folder = write_experanto(tmp_path, trials=[Shown(movie(0)), BLANK], devices={"responses": None})
    write_spikes(folder / "spikes", [[1.0, 2.0], [2.0, 3.0]], end_s=5.0)
    change(folder / "spikes/meta.yml", spike_indices=indices)
    with pytest.raises(DataError, match=message):
        read_experanto(folder, rate_hz=10.0)


def test_a_signal_of_the_eye_that_is_not_there_is_refused(original):
    with pytest.raises(DataError, match=r"eye names signal 4, but eye_tracker has 4, counted from 0"):
        open_sessions(original, options={"eye": {"position": [0, 4]}})


def test_a_neuron_without_responses_in_the_training_tier_is_refused(tmp_path):
    values = np.random.default_rng(0).gamma(1, 1, (300, 3))
    values[:, 1] = np.nan
    folder = write_experanto(tmp_path, devices={"responses": {"values": values, "stored": False}})
    with pytest.raises(
        DataError, match=r"signals 1 of responses have nothing but NaN in the training tier; leave them out"
    ):
        read_experanto(folder)


def test_a_scored_tier_that_is_silent_in_part_is_refused(tmp_path):
    values = np.random.default_rng(0).gamma(1, 1, (300, 3))
    values[round(6.5 * 8) : round(7.5 * 8) + 1] = 0  # the first presentation of the tier test
    folder = write_experanto(tmp_path, devices={"responses": {"values": values}})
    with pytest.raises(
        DataError, match=r"responses of clips 3 \(1 of 2 of the tier dev_test\) are all zero .* name their"
    ):
        read_experanto(folder)


def test_without_training_clips_there_is_nothing_to_train_on(tmp_path):
    trials = [replace(shown, tier="test") for shown in default_trials()[:4]]
    with pytest.raises(DataError, match=r"no presentation that was recorded has the tier train"):
        read_experanto(write_experanto(tmp_path, trials=trials))


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (0.3, ValueError, r"expected 1 / a whole number"),
        (1 / 5, DataError, r"8 x 12 pixels cannot be averaged in blocks of 5"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(original, scale, error, message):
    with pytest.raises(error, match=message):
        read_experanto(original, scale=scale)


def test_a_folder_without_a_session_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no experanto session; expected screen/meta.yml, screen/timestamps.npy"):
        read_experanto(tmp_path)
    assert faults(tmp_path)[0].startswith(str(tmp_path))
