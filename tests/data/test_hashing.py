"""Stimuli are recognized by their pixels, recordings by their bytes."""

import subprocess
import sys

import numpy as np
import pytest

from neuroint.data.hashing import fingerprint, stimulus_id


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (36, 64, 30)).astype(np.float64)


def test_the_stored_type_does_not_change_an_id(frames):
    assert stimulus_id(frames) == stimulus_id(frames.astype(np.uint8)) == stimulus_id(frames.astype(np.float32))


def test_memory_order_does_not_change_an_id(frames):
    assert stimulus_id(frames) == stimulus_id(np.asfortranarray(frames))


def test_one_gray_level_on_the_grid_changes_the_id(frames):
    changed = frames.copy()
    changed[32, 60, 29] += 1
    assert stimulus_id(changed) != stimulus_id(frames)


def test_what_lies_off_the_grid_of_every_fourth_pixel_is_not_looked_at(frames):
    changed = frames.copy()
    changed[33, 61] += 1
    assert stimulus_id(changed) == stimulus_id(frames)


def test_a_shortened_stimulus_is_another_stimulus(frames):
    assert stimulus_id(frames[..., :29]) != stimulus_id(frames)


def test_two_shapes_with_the_same_values_are_two_stimuli():
    assert stimulus_id(np.zeros((4, 8, 3))) != stimulus_id(np.zeros((8, 4, 3)))


def test_ids_fit_into_64_bits_and_do_not_depend_on_the_process(frames):
    code = "import numpy as np; from neuroint.data.hashing import stimulus_id; print(stimulus_id(np.ones((4, 4, 2))))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == stimulus_id(np.ones((4, 4, 2)))
    assert np.array([stimulus_id(frames)]).dtype == np.int64


def test_a_fingerprint_knows_where_one_part_ends():
    assert fingerprint([b"ab", b"c"]) != fingerprint([b"a", b"bc"])
    assert len(fingerprint([])) == 32
