"""Small recordings as users save them, and how tests read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuroint.data.base import TRAIN, DataError
from neuroint.data.readers.arrays import read_arrays

SPLIT = {"block_frames": 20, "gap_frames": 5, "final_test_at": "end"}
MOVIE = {"video": "movie", "responses": "spikes", "split": SPLIT}
PICTURES = {"images": "images", "responses": "responses"}


def movie(frames=400, neurons=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "movie": rng.integers(-16, 17, (frames, 4, 5)).astype(np.int8),
        "spikes": rng.poisson(1.0, (frames, neurons)).astype(np.uint8),
    }


def pictures(images=20, repeats=3, neurons=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (images, 6, 6)).astype(np.uint8),
        "responses": rng.poisson(3.0, (images, repeats, neurons)).astype(np.float32),
    }


def saved(folder: Path, contents: dict, name="rec.npz", compressed=False) -> Path:
    (np.savez_compressed if compressed else np.savez)(folder / name, **contents)
    return folder / name


def read(folder, contents, mapping):
    (session,) = read_arrays(saved(folder, contents), mapping=mapping)
    return session


def refused(folder, contents, mapping, match):
    path = saved(folder, contents)
    with pytest.raises(DataError, match=match) as caught:
        read_arrays(path, mapping=mapping)
    return str(caught.value)


def scored_frames(session, tier):
    """Frames of the recording that are scored in a tier (all frames of training clips)."""
    lead = 0 if tier == TRAIN else session.scored_from
    clips = session.clips(tier)
    return [f for c in clips for f in range(session.source.rows[c] + lead, session.source.rows[c] + session.lengths[c])]


def read_frames(session, tier):
    clips = session.clips(tier)
    return {f for c in clips for f in range(session.source.rows[c], session.source.rows[c] + session.lengths[c])}
