"""Sweep folders with known truth."""

import pytest
from synthetic import Sweep, make

SMALL = {"neurons": 15, "frames": 12}


@pytest.fixture
def sweep(tmp_path):
    """Make a sweep folder of few neurons."""

    def make_one(name="sweep", **settings):
        return make(tmp_path / name, Sweep(**{**SMALL, **settings}))

    return make_one


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A finished sweep of three arms: `pool` is better than `none`, `attention` is not."""
    arms = {"none": 0.5, "pool": 0.3, "attention": 0.5}
    return make(tmp_path_factory.mktemp("whole") / "sweep", Sweep(noise=arms, **SMALL))
