"""Seeds are named, independent and the same everywhere."""

from __future__ import annotations

import random
import subprocess
import sys
from hashlib import blake2b

import numpy as np
import torch

from neuroint.seeding import derive, generator, seed_everything, torch_generator


def test_a_derived_seed_is_the_hash_of_its_words():
    expected = int.from_bytes(blake2b(b"3\x1f'crops'\x1f7", digest_size=8).digest(), "big") // 2
    assert derive(3, "crops", 7) == expected


def test_a_derived_seed_is_the_same_in_another_process():
    code = "from neuroint.seeding import derive; print(derive(3, 'mouse', 1))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive(3, "mouse", 1)


def test_words_of_different_kind_or_grouping_give_different_seeds():
    seeds = [
        derive(0, "a", "b"),
        derive(0, "ab"),
        derive(0, 1),
        derive(0, "1"),
        derive(0),
        derive(1),
        derive(0, "b", "a"),
    ]
    assert len(set(seeds)) == len(seeds)


def test_derived_seeds_fill_the_63_bits_that_torch_takes():
    seeds = np.array([derive(0, k) for k in range(2000)], dtype=np.uint64)
    assert seeds.max() < 2**63
    assert abs(seeds.astype(float).mean() / 2**62 - 1) < 0.06  # 4.6 standard errors of a uniform mean


def test_streams_of_one_seed_are_uncorrelated():
    first, second = generator(0, "first").normal(size=4000), generator(0, "second").normal(size=4000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(4000)


def test_a_named_stream_can_be_rebuilt():
    np.testing.assert_array_equal(generator(5, "x").random(9), generator(5, "x").random(9))
    draws = [torch.rand(9, generator=torch_generator(5, "x")) for _ in range(2)]
    assert torch.equal(*draws)


def test_seeding_everything_repeats_every_global_generator():
    def draw():
        seed_everything(11)
        return random.random(), np.random.random(), torch.rand(1).item()

    assert draw() == draw()
    assert len(set(draw())) == 3


def test_explicit_generators_leave_the_global_ones_alone():
    before = torch.get_rng_state().clone()
    torch_generator(1, "x")
    generator(1, "x").random()
    assert torch.equal(torch.get_rng_state(), before)
