"""Every registered link is finite, has an inverse, and says whether its rates are positive."""

import pytest
import torch
from module_contracts import build

from neuroint.registry import links

NAMES = links.names()


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_finite_and_do_not_fall_as_the_drive_rises(name):
    link = build(links, name)
    drive = torch.linspace(-200, 200, 4001, dtype=torch.float64)
    rate = link(drive)
    assert rate.isfinite().all()
    assert (rate.diff() >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_only_links_that_say_so_keep_rates_positive(name):
    link = build(links, name)
    rate = link(torch.linspace(-50, 50, 101, dtype=torch.float64))
    assert bool((rate >= 0).all()) == link.positive


@pytest.mark.parametrize("name", NAMES)
def test_the_inverse_undoes_the_link(name):
    link = build(links, name)
    rate = torch.logspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(link(link.inverse(rate)), rate, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_inverse_of_silence_is_finite_in_single_precision(name):
    link = build(links, name)
    drive = link.inverse(torch.tensor([0.0, 1e-9, 1e5]))
    assert drive.isfinite().all()
    assert link(drive)[0] < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences(name):
    link = build(links, name)
    drive = torch.tensor([-3.0, -0.4, 0.3, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(link, (drive,))
