"""An experanto session becomes clips of bins: what was shown, done and recorded when each bin began."""

from pathlib import Path

import numpy as np
import pytest
import torch
from experanto_folder import BLANK, SIZE, Shown, movie, numbered, responses, squares, write_experanto

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION, Session, collate
from neuroint.data.readers.experanto import read_experanto

RAW = {"response_normalization": "none", "input_normalization": "per_channel"}


def unscaled(session: Session, clip: int = 0, start: int = 0, bins: int | None = None) -> np.ndarray:
    """Top left pixel of each bin, as it is stored."""
    source = session.source
    frames = source.read(clip, start, int(session.lengths[clip]) - start if bins is None else bins).stimulus
    shift, scale = (getattr(source.normalization, part)["stimulus"] for part in ("shift", "scale"))
    return (frames / scale + shift)[:, 0, 0, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_experanto(tmp_path_factory.mktemp("experanto"))


@pytest.fixture(scope="module")
def session(folder) -> Session:
    (session,) = read_experanto(folder)
    return session


def test_a_clip_is_a_presentation_in_bins_of_the_responses(session):
    facts = session.facts
    assert (session.name, session.animal) == ("dynamic29513-3-5-Video-full", "29513")
    assert set(session.lengths) == {8}, "a second at 8 Hz"
    assert (facts.n_neurons, facts.stimulus_shape, facts.shortest_clip, facts.bin_s) == (5, (1, 8, 12), 8, 0.125)
    assert (facts.behavior_channels, facts.pupil_channels, facts.positions_um) == (3, 2, None)


def test_tiers_and_repeats_are_those_of_the_screen(session):
    expected = [TRAIN, TRAIN, VALIDATION, DEV_TEST, TRAIN, TRAIN, VALIDATION, FINAL_TEST]
    expected += [TRAIN, TRAIN, TRAIN, TRAIN, DEV_TEST, FINAL_TEST, TRAIN]
    assert list(session.tiers) == expected
    for tier in (VALIDATION, DEV_TEST, FINAL_TEST):
        assert [len(group) for group in session.repeats(tier)] == [2]
    assert session.repeats(TRAIN)[0].tolist() == [0, 14]


def test_a_bin_shows_the_frame_that_was_on_the_screen_when_it_began(tmp_path):
    folder = write_experanto(tmp_path, trials=[numbered(), BLANK, numbered(tier="none"), BLANK])
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    np.testing.assert_allclose(unscaled(session), [0, 3, 7, 11, 15, 18, 22, 26], atol=1e-4)  # floor(3.75 k)
    np.testing.assert_allclose(unscaled(session, start=3, bins=2), [11, 15], atol=1e-4)


@pytest.mark.parametrize(("late_s", "frame"), [(0.00005, 15), (0.0005, 14)])
def test_a_frame_may_begin_a_tenth_of_a_millisecond_early(tmp_path, late_s, frame):
    folder = write_experanto(tmp_path, trials=[numbered(), BLANK])
    times = np.load(folder / "screen/timestamps.npy")
    times[15] += late_s
    np.save(folder / "screen/timestamps.npy", times)
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    np.testing.assert_allclose(unscaled(session)[4], frame, atol=1e-4)


def sampled(tmp_path, values, *, options=None, start_s=0.0, rate_hz=8.0, trials=None, **more) -> Session:
    device = {"values": np.asarray(values, np.float64), "rate_hz": rate_hz, "start_s": start_s, **more}
    trials = [numbered(), BLANK] if trials is None else trials
    folder = write_experanto(tmp_path, trials=trials, devices={"responses": device})
    (session,) = read_experanto(folder, withheld_fraction=0.0, **(RAW | (options or {})))
    return session


def test_bins_that_fall_on_samples_take_them_as_they_are(tmp_path):
    session = sampled(tmp_path, squares())
    assert responses(session)[:, 0].tolist() == [k**2 for k in range(16, 24)], "the video begins at 2 s, sample 16"


def test_responses_are_interpolated_between_the_samples_around_a_bin(tmp_path):
    session = sampled(tmp_path, squares(), options={"rate_hz": 16.0})
    assert session.facts.bin_s == 1 / 16
    between = [(k**2 + (k + 1) ** 2) / 2 for k in range(16, 24)]
    assert responses(session)[0::2, 0].tolist() == [k**2 for k in range(16, 24)]
    assert responses(session)[1::2, 0].tolist() == between


def test_the_first_sample_was_taken_at_the_start_time(tmp_path):
    session = sampled(tmp_path, squares(), start_s=0.05)  # 2 s is (2 - 0.05) * 8 = 15.6 samples in
    expected = [0.4 * k**2 + 0.6 * (k + 1) ** 2 for k in range(15, 23)]
    np.testing.assert_allclose(responses(session)[:, 0], expected, rtol=1e-6)


def test_previous_takes_the_last_sample_at_or_before_a_bin(tmp_path):
    options = {"interpolation": "previous", "rate_hz": 16.0}
    session = sampled(tmp_path, squares(), options=options)
    assert responses(session)[:, 0].tolist() == [k**2 for k in range(16, 24) for _ in range(2)]


def test_each_neuron_is_delayed_by_its_phase_shift(tmp_path):
    session = sampled(tmp_path, squares(neurons=3), shifts_s=np.array([0.0, 0.0625, 0.125]))
    expected = [[k**2, ((k - 1) ** 2 + k**2) / 2, (k - 1) ** 2] for k in range(16, 24)]
    assert responses(session).tolist() == expected


def test_phase_shifts_hold_for_previous_samples_too(tmp_path):
    options = {"interpolation": "previous"}
    session = sampled(tmp_path, squares(neurons=2), shifts_s=np.array([0.0, 0.0625]), options=options)
    assert responses(session).tolist() == [[k**2, (k - 1) ** 2] for k in range(16, 24)]


@pytest.mark.parametrize("seed", range(3))
def test_any_rate_start_and_shift_agrees_with_numpys_interpolation(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rate, start, shifts = rng.uniform(5, 40), rng.uniform(0, 1), rng.uniform(0, 0.2, 4)
    values = rng.normal(size=(int(9 * rate), 4))
    trials = [numbered(), BLANK, numbered(offset=5, frames=40), BLANK]
    bins = rng.uniform(4, 35)
    session = sampled(
        tmp_path, values, rate_hz=rate, start_s=start, shifts_s=shifts, trials=trials, options={"rate_hz": bins}
    )
    for clip, (onset, length) in enumerate([(2.0, 1.0), (3.5, 4 / 3)]):
        times = onset + np.arange(round(length * bins)) / bins
        taken = start + np.arange(len(values)) / rate
        expected = [np.interp(times, taken + shift, values[:, n]) for n, shift in enumerate(shifts)]
        np.testing.assert_allclose(responses(session, clip), np.stack(expected, axis=1), atol=1e-5)


def test_behavior_and_pupil_are_read_at_the_times_of_bins_at_their_own_rates(tmp_path):
    folder = write_experanto(tmp_path, trials=[numbered(), BLANK])
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    clip = session.source.read(0, 0, 8)
    times = 2 + np.arange(8) / 8
    eye, wheel = (np.load(folder / device / "data.npy") for device in ("eye_tracker", "treadmill"))
    eye = np.stack([np.interp(times, np.arange(len(eye)) / 20, signal) for signal in eye.T], axis=1)
    speed = np.interp(times, np.arange(len(wheel)) / 30, wheel[:, 0])
    of_eye, of_wheel = (
        [np.load(folder / device / f"meta/{name}.npy")[0] for name in ("means", "stds")]
        for device in ("eye_tracker", "treadmill")
    )
    behavior = np.stack([eye[:, 0] / of_eye[1][0], eye[:, 1] / of_eye[1][1], speed / of_wheel[1][0]], axis=1)
    np.testing.assert_allclose(clip.behavior, behavior, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clip.pupil, ((eye - of_eye[0]) / of_eye[1])[:, 2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mapped_and_saved_numbers_of_either_precision_are_the_same(tmp_path, dtype):
    read = []
    for mapped in (False, True):
        devices = {name: {"mapped": mapped, "dtype": dtype} for name in ("responses", "treadmill", "eye_tracker")}
        (session,) = read_experanto(write_experanto(tmp_path, name=f"m{mapped}", devices=devices))
        read.append(session.source.read(3, 2, 5))
    for name in ("responses", "stimulus", "behavior", "pupil"):
        np.testing.assert_array_equal(getattr(read[0], name), getattr(read[1], name))
        assert getattr(read[0], name).dtype == np.float32


def test_a_crop_is_the_same_part_of_the_whole_clip(session):
    whole, part = session.source.read(4, 0, 8), session.source.read(4, 3, 4)
    for name in ("responses", "stimulus", "behavior", "pupil"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[3:7])


def test_missing_responses_are_not_valid(tmp_path):
    values = squares(neurons=2)
    values[18, 1] = np.nan
    session = sampled(tmp_path, values)
    batch = collate(session.name, [0], [session.source.read(0, 0, 8)])
    assert (~batch.valid[0]).nonzero().tolist() == [[2, 1]], "neighbors that need no interpolation stay valid"
    assert torch.isfinite(batch.responses).all()


def test_a_bin_between_samples_is_missing_if_either_is(tmp_path):
    values = squares()
    values[18] = np.nan
    missing = np.isnan(responses(sampled(tmp_path, values, options={"rate_hz": 16.0}))[:, 0])
    assert np.flatnonzero(missing).tolist() == [3, 4, 5]


def with_gaps(tmp_path, **options) -> Session:
    eye = np.random.default_rng(0).normal(size=(100, 4)) + 10
    eye[45:50, 2] = np.nan
    folder = write_experanto(tmp_path, trials=[numbered(), BLANK], devices={"eye_tracker": {"values": eye}})
    return read_experanto(folder, withheld_fraction=0.0, **options)[0]


def test_missing_inputs_are_read_as_their_mean_and_remarked_upon(tmp_path):
    session = with_gaps(tmp_path)
    pupil = session.source.read(0, 0, 8).pupil
    np.testing.assert_allclose(pupil[2:4, 0], 0, atol=1e-6)  # 2.25 and 2.375 s are samples 45 and 47.5
    assert (pupil[5:] != 0).all()
    assert any("eye_tracker: 2.5 % of the samples are missing" in caution for caution in session.cautions)


def test_missing_inputs_may_be_refused(tmp_path):
    session = with_gaps(tmp_path, missing_inputs="refuse")
    with pytest.raises(
        ValueError, match=r"pupil is missing \(NaN\) between 2 and 2\.875 s; .*set missing_inputs to mean"
    ):
        session.source.read(0, 0, 8)


def test_responses_are_divided_by_stored_deviations_and_small_ones_held_up(tmp_path):
    values = np.random.default_rng(0).gamma(1, 1, (60, 3)) * [1, 10, 1e-6]
    folder = write_experanto(tmp_path, devices={"responses": {"values": np.tile(values, (5, 1))}})
    (session,) = read_experanto(folder)
    sd = np.load(folder / "responses/meta/stds.npy")[0]
    sd = np.maximum(sd, 0.01 * sd.mean())
    np.testing.assert_allclose(responses(session), np.tile(values, (5, 1))[16:24] / sd, rtol=1e-5)
    mean = np.load(folder / "responses/meta/means.npy")[0]
    np.testing.assert_allclose(session.facts.mean_responses, mean / sd, rtol=1e-5)


@pytest.mark.parametrize(("stored", "how"), [(True, "per_neuron"), (False, "official")])
def test_statistics_may_be_those_of_the_training_tier(tmp_path, stored, how):
    devices = {name: {"stored": stored} for name in ("responses", "treadmill", "eye_tracker")}
    folder = write_experanto(tmp_path, devices=devices)
    inputs = "per_channel" if stored else "official"
    (session,) = read_experanto(folder, response_normalization=how, input_normalization=inputs)
    clips = [session.source.read(int(clip), 0, 8) for clip in session.clips(TRAIN)]
    recorded, shown, pupil = (
        np.concatenate([getattr(c, n) for c in clips]) for n in ("responses", "stimulus", "pupil")
    )
    np.testing.assert_allclose(recorded.std(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(recorded.mean(axis=0), session.facts.mean_responses, rtol=1e-4)
    np.testing.assert_allclose([shown.mean(), shown.std()], [0, 1], atol=1e-4)
    np.testing.assert_allclose(pupil.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(pupil.std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize("shape", [(), (1,), SIZE])
def test_stored_statistics_of_the_screen_may_be_one_number_or_one_per_pixel(tmp_path, shape):
    folder = write_experanto(tmp_path)
    mean, sd = (np.full(shape, number) + np.arange(np.prod(shape, dtype=int)).reshape(shape) for number in (80.0, 60.0))
    np.save(folder / "screen/meta/means.npy", mean)
    np.save(folder / "screen/meta/stds.npy", sd)
    (session,) = read_experanto(folder)
    expected = (movie(0)[3].astype(np.float64) - mean) / sd
    np.testing.assert_allclose(session.source.read(0, 1, 1).stimulus[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_frames_may_be_made_smaller_by_averaging_blocks(tmp_path):
    folder = write_experanto(tmp_path)
    small, whole = (read_experanto(folder, scale=scale)[0] for scale in (0.25, 1.0))
    assert small.facts.stimulus_shape == (1, 2, 3)
    frame = whole.source.read(1, 2, 1).stimulus[0, 0]
    blocks = [[frame[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for x in range(3)] for y in range(2)]
    np.testing.assert_allclose(small.source.read(1, 2, 1).stimulus[0, 0], blocks, rtol=1e-4, atol=1e-5)


def test_colors_are_channels(tmp_path):
    colored = np.stack([movie(seed) for seed in (0, 1, 2)], axis=-1)
    folder = write_experanto(
        tmp_path, trials=[Shown(colored), BLANK, Shown(colored[0], frame_s=0.5, kind="image"), BLANK]
    )
    (session,) = read_experanto(folder, withheld_fraction=0.0)
    assert session.facts.stimulus_shape == (3, *SIZE)
    assert session.lengths.tolist() == [8, 4]
    video, image = session.source.read(0, 0, 1).stimulus, session.source.read(1, 0, 1).stimulus
    np.testing.assert_allclose(video, image, rtol=1e-6)
    shift, scale = session.source.normalization.shift["stimulus"], session.source.normalization.scale["stimulus"]
    np.testing.assert_allclose((video / scale + shift)[0], np.moveaxis(colored[0], -1, 0), atol=1e-3)
