"""The card: signal and noise from repeats, counts, faults, text and figure; the final test is never read."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace

import numpy as np
import pytest

from neuroint.data.base import Clip, DataError, Facts, Session
from neuroint.data.card import inspect, render
from neuroint.data.card_figure import draw
from neuroint.data.readers.arrays import read_arrays
from neuroint.data.reliability import Reliability
from neuroint.data.running import RunningMoments


@dataclass
class Memory:
    """A source of clips held in memory, which may refuse some of them."""

    clips: list
    refused: tuple = ()

    def read(self, clip: int, start: int, frames: int) -> Clip:
        if clip in self.refused:
            raise DataError(f"clip {clip} is broken")
        return Clip(self.clips[clip][start : start + frames])


def session(responses, tiers, stimuli=None, positions=None, refused=(), **changes):
    responses = [np.asarray(r, dtype=np.float32) for r in responses]
    n_neurons = responses[0].shape[1]
    facts = Facts(n_neurons, (1, 4, 4), np.ones(n_neurons, np.float32), 1, positions_um=positions)
    made = Session(
        name="s",
        animal="a",
        facts=facts,
        tiers=tuple(tiers),
        lengths=np.array([len(r) for r in responses]),
        stimulus_ids=np.arange(len(tiers)) if stimuli is None else np.asarray(stimuli),
        source=Memory(responses, refused),
    )
    return replace(made, **changes)


def repeats(rng, stimuli=4, count=3, frames=50, neurons=5):
    signal = rng.normal(size=(stimuli, 1, frames, neurons))
    return signal + rng.normal(size=(stimuli, count, frames, neurons))


# --- running moments and reliability


def test_running_moments_are_those_of_all_rows_at_once_even_on_a_large_offset():
    rows = np.random.default_rng(0).normal(1e6, 1, (1000, 3))
    rows[rows[:, 1] > 1e6 + 1, 1] = np.nan
    moments = RunningMoments(3)
    for chunk in np.array_split(rows, 7):
        moments.add(chunk)
    np.testing.assert_array_equal(moments.count, (~np.isnan(rows)).sum(0))
    np.testing.assert_allclose(moments.mean, np.nanmean(rows, 0), rtol=1e-14)
    np.testing.assert_allclose(moments.variance(1), np.nanvar(rows, 0, ddof=1), rtol=1e-9)


def test_variance_of_too_few_values_is_undefined():
    moments = RunningMoments(2)
    moments.add(np.array([[1.0, np.nan]]))
    assert np.isnan(moments.variance(1)).all()
    np.testing.assert_array_equal(moments.variance(0), [0, np.nan])


def test_signal_power_worked_by_hand():
    # Frame means 2 and 6: variance 8. Variances across two repeats 2 and 8: noise 5, of which 5 / 2 is in the means.
    reliability = Reliability(1)
    reliability.add(np.array([[[1.0], [4.0]], [[3.0], [8.0]]]))
    assert reliability.noise_variance() == pytest.approx([5.0])
    assert reliability.signal_power() == pytest.approx([5.5])
    assert reliability.snr() == pytest.approx([1.1])


def test_ragged_repeats_agree_with_the_definition_written_out():
    rng = np.random.default_rng(1)
    blocks = [repeats(rng, 1, count, 30)[0] for count in (2, 3, 5, 1)]
    blocks[1][0, 4, 2] = np.nan
    blocks[0][1, 7, 3] = np.nan  # leaves one repeat: this frame does not count
    reliability = Reliability(5)
    for block in blocks:
        reliability.add(block)
    for neuron in range(5):
        frames = [block[:, t, neuron] for block in blocks for t in range(30)]
        frames = [values[~np.isnan(values)] for values in frames]
        frames = [values for values in frames if len(values) > 1]
        noise = [np.var(values, ddof=1) for values in frames]
        power = np.var([values.mean() for values in frames], ddof=1)
        power -= np.mean([v / len(values) for v, values in zip(noise, frames, strict=True)])
        assert reliability.noise_variance()[neuron] == pytest.approx(np.mean(noise), rel=1e-12)
        assert reliability.signal_power()[neuron] == pytest.approx(power, rel=1e-12)


@pytest.mark.parametrize("count", [2, 10])
def test_signal_power_of_pure_noise_is_unbiased_and_keeps_its_sign(count):
    reliability = Reliability(4000)
    reliability.add(np.random.default_rng(2).normal(size=(count, 100, 4000)))
    power = reliability.signal_power()
    assert abs(power.mean()) < 3 * power.std() / np.sqrt(4000)
    assert 0.45 < (power < 0).mean() < 0.6
    assert reliability.noise_variance().mean() == pytest.approx(1, abs=0.01)


def test_neurons_without_noise_or_without_repeats_have_no_snr():
    reliability = Reliability(2)
    reliability.add(np.array([[[1.0, 1.0], [2.0, 1.0]], [[1.0, np.nan], [2.0, np.nan]]]))
    assert np.isnan(reliability.snr()).all()


# --- the card


def test_counts_per_tier_leave_leads_and_unused_clips_out():
    tiers = ["train", "train", "validation", "validation", "dev_test", "final_test", "unused"]
    made = session([np.ones((20, 2))] * 7, tiers, [0, 1, 2, 2, 3, 4, 5], scored_from=5)
    (card,) = inspect([made]).sessions
    counted = {t.tier: (t.clips, t.frames, t.stimuli, t.fewest_repeats, t.most_repeats) for t in card.tiers}
    assert counted == {
        "train": (2, 40, 2, 1, 1),
        "validation": (2, 30, 1, 2, 2),
        "dev_test": (1, 15, 1, 1, 1),
        "final_test": (1, 15, 1, 1, 1),
    }
    assert card.unused_clips == 1


def test_response_statistics_are_those_of_all_values_but_the_final_test():
    rng = np.random.default_rng(3)
    responses = rng.poisson([0.5, 2, 0], (4, 30, 3)).astype(float)
    responses[1, 3, 0] = np.nan
    made = session(responses, ["train", "validation", "dev_test", "final_test"])
    card = inspect([made]).sessions[0].responses
    read = responses[:3].reshape(-1, 3)
    assert card.mean == pytest.approx(np.nanmean(read))
    assert card.sd == pytest.approx(np.nanstd(read))
    assert card.share_zero == pytest.approx((read == 0).sum() / np.isfinite(read).sum())
    assert card.largest == np.nanmax(read)
    assert card.silent_neurons == 1
    assert card.mean_per_neuron == pytest.approx(np.nanmean(read, axis=0))


def test_the_final_test_is_never_read():
    made = session([np.ones((5, 2))] * 3, ["train", "final_test", "final_test"], refused=(1, 2))
    assert inspect([made]).sessions[0].faults == ()


def test_snr_is_that_of_repeated_stimuli_of_all_other_tiers():
    values = repeats(np.random.default_rng(4), stimuli=4)
    tiers = ["train"] + ["validation"] * 3 + ["dev_test"] * 3 + ["final_test"] * 3
    clips = [values[0, 0], *values[1], *values[2], *values[3]]
    made = session(clips, tiers, [0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    snr = inspect([made]).sessions[0].snr
    expected = Reliability(5)
    expected.add(values[1].astype(np.float32))
    expected.add(values[2].astype(np.float32))
    assert snr.per_neuron == pytest.approx(tuple(expected.snr()))
    assert (snr.stimuli, snr.tiers) == (2, ("validation", "dev_test"))
    assert snr.median == pytest.approx(np.median(expected.snr()))


def test_without_repeats_there_is_no_snr_and_the_text_says_why():
    card = inspect([session([np.ones((5, 2))] * 2, ["train", "validation"])])
    assert card.sessions[0].snr is None
    assert "SNR        not available: no stimulus was repeated" in render(card)


def test_every_fault_is_listed_and_reading_goes_on():
    positions = np.zeros((2, 3), dtype=np.float32)
    clips = [np.ones((5, 2)), np.ones((5, 2)), np.zeros((5, 2)), np.ones((5, 2))]
    made = session(clips, ["train", "train", "dev_test", "validation"], [0, 1, 2, 0], positions, refused=(1,))
    faults = inspect([made], ["a file is missing"])
    text = render(faults)
    for part in (
        "faults: 5",
        "- a file is missing",
        "- s: clip 1 is broken",
        "the responses of dev_test are all zero",
        "the same stimulus was shown in train (clips 0) and validation (clips 3)",
        "all neurons have the same position",
    ):
        assert part in text
    assert faults.sessions[0].responses.mean == pytest.approx(2 / 3)


def test_the_text_names_what_there_is():
    positions = np.array([[0, 10, 200], [600, 20, 200]], dtype=np.float32)
    made = session([np.ones((5, 2))] * 2, ["train", "final_test"], positions=positions, cautions=("pooled",))
    made = replace(made, facts=replace(made.facts, bin_s=1 / 30, pupil_channels=2))
    text = render(inspect([made, replace(made, name="t")]))
    for part in (
        "2 sessions of 1 animal, 4 neurons",
        "s (animal a)",
        "stimulus 4 x 4 pixels (height x width), 1 channel, no behavior, pupil 2 channels",
        "33.33 ms",
        "x 0 to 600 um, y 10 to 20 um, z 200 to 200 um",
        "caution    pooled",
        "faults: none found",
    ):
        assert part in text


def test_a_card_is_valid_json_even_with_undefined_numbers():
    values = repeats(np.random.default_rng(5), stimuli=1)[0]
    values[:, :, 2] = 0
    values[:, :, 3] = np.nan
    made = session(values, ["train", "train", "train"], [0, 0, 0])
    card = inspect([made])
    kept = json.loads(json.dumps(card.as_dict(), allow_nan=False))
    assert kept["sessions"][0]["snr"]["per_neuron"][2] is None
    assert kept["sessions"][0]["responses"]["mean_per_neuron"][3] is None
    assert kept["sessions"][0]["snr"]["undefined_neurons"] == 2


def test_responses_that_cannot_be_read_leave_a_card_of_the_rest():
    card = inspect([session([np.ones((5, 2))], ["train"], refused=(0,))])
    assert card.sessions[0].responses is None
    assert "none could be read" in render(card)


def test_long_clips_are_read_a_stretch_at_a_time(monkeypatch):
    monkeypatch.setattr("neuroint.data.card.CHUNK_VALUES", 24)
    rng = np.random.default_rng(6)
    values = repeats(rng, stimuli=1, frames=31, neurons=2)[0]
    made = session(values, ["train"] * 3, [0, 0, 0])
    (card,) = inspect([made]).sessions
    expected = Reliability(2)
    expected.add(values.astype(np.float32))
    assert card.snr.per_neuron == pytest.approx(tuple(expected.snr()))
    assert card.responses.mean == pytest.approx(values.mean(), abs=1e-6)


# --- the figure


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_the_figure_has_a_row_per_session_and_a_panel_for_what_there_is(tmp_path):
    rng = np.random.default_rng(7)
    values = np.abs(repeats(rng, stimuli=2, neurons=30)).reshape(-1, 50, 30)
    values[0, :, 1] = np.nan
    positions = rng.uniform(0, 600, (30, 3)).astype(np.float32)
    plain = session(values, ["train"] * 3 + ["final_test"] * 3)
    rich = session(values, ["train"] * 3 + ["final_test"] * 3, [0, 0, 0, 1, 1, 1], positions)
    one = png_size(draw(inspect([plain]), [plain], tmp_path / "one.png"))
    two = png_size(draw(inspect([plain, rich]), [plain, rich], tmp_path / "two.png"))
    assert two[0] > 1.4 * one[0]
    assert two[1] > 1.8 * one[1]


def test_more_sessions_than_fit_are_not_drawn(tmp_path, monkeypatch):
    made = session([np.ones((5, 2))] * 2, ["train", "validation"])
    one = png_size(draw(inspect([made]), [made], tmp_path / "one.png"))
    monkeypatch.setattr("neuroint.data.card_figure.ROWS", 1)
    assert png_size(draw(inspect([made] * 3), [made] * 3, tmp_path / "many.png")) == one


def test_silent_or_unreadable_sessions_can_be_drawn_too(tmp_path):
    for made in (
        session([np.zeros((5, 2))] * 2, ["train", "validation"]),
        session([np.ones((5, 2))] * 2, ["train", "validation"], refused=(0, 1)),
    ):
        assert png_size(draw(inspect([made]), [made], tmp_path / "card.png"))[0] > 100


@pytest.mark.recordings
def test_v4_neurons_are_reliable_and_the_retina_has_no_repeats(recordings, tmp_path):
    v4 = read_arrays(recordings / "v4_cowley2026" / "v4_210325.npz")
    card = inspect(v4)
    with np.load(recordings / "v4_cowley2026" / "v4_210325.npz", allow_pickle=False) as raw:
        seen = sorted({int(v4[0].stimulus_ids[c]) for t in ("train", "validation", "dev_test") for c in v4[0].clips(t)})
        y = raw["responses"][seen].astype(float)  # stimulus repeat neurons
    noise = np.nanvar(y, axis=1, ddof=1)
    power = np.nanmean(y, axis=1).var(axis=0, ddof=1) - (noise / (~np.isnan(y)).sum(1)).mean(axis=0)
    np.testing.assert_allclose(card.sessions[0].snr.per_neuron, power / noise.mean(axis=0), rtol=1e-5)
    assert card.sessions[0].snr.stimuli == 512
    assert card.sessions[0].snr.median == pytest.approx(0.446, abs=0.002)
    assert png_size(draw(card, v4, tmp_path / "v4.png"))[0] > 1000
