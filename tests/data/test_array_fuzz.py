"""The arrays reader: whatever comes in is a session or a DataError; real recordings."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
from array_recordings import MOVIE, SPLIT, movie, read_frames, saved, scored_frames
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neuroint.data.base import DataError
from neuroint.data.readers.arrays import read_arrays

# --- fuzz: whatever comes in, a session or a DataError comes out, never another exception

TEXT = st.text(max_size=8)
WORDS = st.sampled_from(["movie", "spikes", "xyz", "dt", "nothing", ""]) | TEXT
AXES = st.permutations(["time", "height", "width"]).map(" ".join) | TEXT | st.none()
NAMED = WORDS | st.fixed_dictionaries({"array": WORDS}, optional={"axes": AXES}) | st.integers()
RAW = st.fixed_dictionaries(
    {"responses": st.just("spikes") | NAMED},
    optional={
        "video": NAMED,
        "images": NAMED,
        "behavior": NAMED,
        "positions_um": WORDS,
        "bin_s": WORDS | st.floats() | st.booleans(),
        "animal": WORDS,
        "split": st.dictionaries(
            st.sampled_from(["block_frames", "gap_frames", "seed", "validation", "final_test_at"]),
            st.integers(-1, 9) | st.floats(0, 0.5) | st.sampled_from(["end", "scattered", "start"]),
            max_size=2,
        ),
        "cautions": st.lists(TEXT, max_size=2) | TEXT,
    },
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=RAW)
def test_any_mapping_gives_a_session_or_a_data_error(tmp_path, raw):
    path = saved(tmp_path, movie(100) | {"xyz": np.zeros((3, 3)), "dt": np.float64(0.1)})
    with contextlib.suppress(DataError):
        (session,) = read_arrays(path, mapping={"split": SPLIT} | raw)
        assert session.source.read(0, 0, 1).responses.shape == (1, session.facts.n_neurons)


FLAWS = {
    "type": lambda made, rng: made | {"movie": made["movie"].astype(rng.choice(["f8", ">i2", "f2", "?", "U3", "c8"]))},
    "scale": lambda made, rng: made | {"movie": made["movie"] * rng.choice([0.0, 1e-42, 1e-30, 1e30, 1e300])},
    "shape": lambda made, rng: made | {"movie": np.resize(made["movie"], rng.integers(0, 4, rng.integers(0, 6)))},
    "count": lambda made, rng: made | {"spikes": made["spikes"][: rng.integers(0, 99)]},
    "neurons": lambda made, rng: made | {"spikes": made["spikes"][:, : rng.integers(0, 3)]},
    "holes": lambda made, rng: made | {"spikes": np.where(rng.random(made["spikes"].shape) < 0.3, np.nan, 1.0)},
    "values": lambda made, rng: made | {"spikes": made["spikes"] * rng.choice([np.inf, np.nan, -1e38, 1e-30])},
}


@st.composite
def recording(draw):
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    frames, neurons, *sides = (draw(st.integers(low, high)) for low, high in [(25, 99), (1, 4), (1, 3), (1, 3)])
    made = {"movie": rng.normal(size=(frames, *sides)), "spikes": rng.poisson(2, (frames, neurons)).astype("f4")}
    for flaw in sorted(draw(st.sets(st.sampled_from(sorted(FLAWS)), max_size=2))):
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            made = FLAWS[flaw](made, rng)
    return made


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=recording(), scaled=st.sampled_from(["none", "per_neuron"]))
def test_any_arrays_give_a_session_that_can_be_read_or_a_data_error(tmp_path, made, scaled):
    path = saved(tmp_path, made)
    split = {"block_frames": 4, "gap_frames": 1}
    mapping = {"video": "movie", "responses": "spikes", "split": split}
    with contextlib.suppress(DataError):
        (session,) = read_arrays(path, mapping=mapping | {"response_normalization": scaled})
        for clip, length in enumerate(session.lengths):
            part = session.source.read(clip, 0, int(length))
            assert part.responses.shape == (length, session.facts.n_neurons)
            assert np.isfinite(part.stimulus).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(compressed=True, where=0.0390625, damage=b"\0" * 13, cut=False)
@given(
    compressed=st.booleans(),
    where=st.floats(0, 1, exclude_max=True),
    damage=st.binary(min_size=1, max_size=40),
    cut=st.booleans(),
)
def test_a_damaged_file_becomes_a_session_or_a_data_error(tmp_path, compressed, where, damage, cut):
    path = saved(tmp_path, movie(200), compressed=compressed)
    whole = path.read_bytes()
    place = int(where * len(whole))
    path.write_bytes(whole[:place] + (b"" if cut else damage + whole[place + len(damage) :]))
    with contextlib.suppress(DataError):
        read_arrays(path, mapping=MOVIE)


# --- real recordings


@pytest.mark.recordings
def test_the_retina_is_split_with_exactly_its_last_fifth_as_final_test(recordings):
    mapping = {
        "video": "video",
        "responses": "responses",
        "cautions": ["cells pooled over several retinas: no coupling"],
        "split": {"final_test_at": "end"},
    }
    (session,) = read_arrays(recordings / "retina_liu2017" / "retina.npz", mapping=mapping)
    assert scored_frames(session, "final_test") == list(range(24_000, 30_000))
    assert (session.facts.n_neurons, session.facts.stimulus_shape, session.facts.bin_s) == (177, (1, 24, 26), None)
    assert session.scored_from == 60
    assert max(read_frames(session, "train") | read_frames(session, "dev_test")) < 24_000 - 60
    for tier in ("validation", "dev_test"):
        assert 3000 <= len(scored_frames(session, tier)) <= 3100
    assert session.facts.shortest_clip >= 500
    assert session.cautions == ("cells pooled over several retinas: no coupling",)
    assert session.repeats("dev_test")
    with np.load(recordings / "retina_liu2017" / "retina.npz", allow_pickle=False) as raw:
        clip = int(session.clips("final_test")[3])
        first = int(session.source.rows[clip])
        part = session.source.read(clip, 60, 20)
        np.testing.assert_array_equal(part.responses, raw["responses"][first + 60 : first + 80])
        np.testing.assert_allclose(np.corrcoef(part.stimulus.ravel(), raw["video"][first + 60 : first + 80].ravel()), 1)


@pytest.mark.recordings
def test_v4_has_640_images_with_six_to_ten_repeats_and_a_fifth_of_them_as_final_test(recordings):
    (session,) = read_arrays(
        recordings / "v4_cowley2026" / "v4_210325.npz", mapping={"images": "images", "responses": "responses"}
    )
    tiers = {tier: session.repeats(tier) for tier in ("train", "validation", "dev_test", "final_test")}
    assert {tier: len(groups) for tier, groups in tiers.items()} == {
        "train": 384, "validation": 64, "dev_test": 64, "final_test": 128
    }  # fmt: skip
    repeats = [len(group) for groups in tiers.values() for group in groups]
    assert (min(repeats), max(repeats), sum(repeats)) == (6, 10, 6400 - 1560)
    with np.load(recordings / "v4_cowley2026" / "v4_210325.npz", allow_pickle=False) as raw:
        group = tiers["final_test"][0]
        mean = np.mean([session.source.read(int(clip), 0, 1).responses[0] for clip in group], axis=0)
        np.testing.assert_allclose(mean, raw["responses_mean"][session.stimulus_ids[group[0]]], rtol=1e-5)
