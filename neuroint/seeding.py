"""Turn one seed and a few words into the seed of every random stream.

A stream is named by what it is for (``derive(seed, "crops", session, epoch)``), so that adding one stream never shifts
another and any stream can be rebuilt without replaying the ones before it.
"""

from __future__ import annotations

import random
from hashlib import blake2b

import numpy as np
import torch


def derive(seed: int, *words: str | int) -> int:
    """Hash a seed and words into an integer in [0, 2^63), the same on every machine and in every process.

    ``1`` and ``"1"`` are different words, and so are ``("a", "b")`` and ``("ab",)``.
    """
    text = "\x1f".join(repr(word) for word in (seed, *words))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1  # torch seeds are signed


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Make the NumPy generator of a named stream."""
    return np.random.default_rng(derive(seed, *words))


def torch_generator(seed: int, *words: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make the torch generator of a named stream."""
    return torch.Generator(device).manual_seed(derive(seed, *words))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CUDA included).

    This project draws from explicit generators; the global ones are seeded for libraries that draw from them, and
    because a Ray process is reused for many trials.
    """
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)  # the legacy generator takes 32 bits
    torch.manual_seed(derive(seed, "torch"))
