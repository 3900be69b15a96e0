"""Random streams that depend on the seed, the session and the purpose, and on nothing else.

Because every purpose has a stream of its own, switching a mechanism off leaves cells, stimuli and behavior as they
were: the same seed with ``pool=0`` is the none-truth twin of a world with a pool, and session 2 is the same whether one
or five sessions are written.
"""

from __future__ import annotations

import numpy as np

_PURPOSES = (
    "cells",
    "loadings",
    "calibration",
    "stimulus",
    "behavior",
    "latent",
    "noise",
    "replays",
    "order",
    "pool",
    "coupling",
    "neuropil",
)


def stream(seed: int, session: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator of one purpose (and one clip or stimulus) of one session."""
    key = (session, _PURPOSES.index(purpose), index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
