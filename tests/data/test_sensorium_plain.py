"""The plain normalization of inputs: one mean and one standard deviation per channel."""

import numpy as np
from sensorium_folder import write_dynamic

from neuroint.data.base import TRAIN
from neuroint.data.opening import open_sessions


def test_plain_inputs_of_the_training_tier_have_mean_0_and_standard_deviation_1(tmp_path):
    write_dynamic(tmp_path)
    (session,) = open_sessions(tmp_path, "sensorium2023", {"input_normalization": "per_channel"})
    clips = [session.source.read(int(c), 0, int(session.lengths[c])) for c in session.clips(TRAIN)]
    video = np.concatenate([clip.stimulus.ravel() for clip in clips])
    pupil = np.concatenate([clip.pupil for clip in clips])
    behavior = np.concatenate([clip.behavior for clip in clips])
    assert abs(video.mean()) < 0.05
    assert abs(video.std() - 1) < 0.05
    np.testing.assert_allclose(pupil.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(pupil.std(axis=0), 1, atol=0.05)
    assert np.all(behavior.mean(axis=0) > 0)  # behavior is scaled, not centered, as in the official rule


def test_plain_inputs_keep_a_difference_between_pixels_that_the_official_rule_removes(tmp_path):
    write_dynamic(tmp_path)
    official, plain = (
        open_sessions(tmp_path, "sensorium2023", {"input_normalization": how})[0].source.read(0, 0, 5).stimulus
        for how in ("official", "per_channel")
    )
    assert not np.allclose(official, plain)
