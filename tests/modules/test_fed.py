"""Designs that may be fed with their own predictions or with records: what must agree, and how far each can go."""

import numpy as np
import pytest
import torch
from coupling_worlds import FRAMES, N, context, design, drives, moved, rates, recorded
from torch.nn import functional

from neuroint.model import PopulationModel
from neuroint.modules.base import Context

FED = ["linear_autoregressive", "gated_recurrent", "low_rank_recurrent", "distance_kernel", "full_coupling"]
COUPLED = ["low_rank_recurrent", "distance_kernel", "full_coupling"]
LINKS = {"softplus": functional.softplus, "elu1": lambda x: functional.elu(x) + 1, "identity": lambda x: x}


@pytest.mark.parametrize("name", FED)
def test_free_running_equals_teacher_forced_on_its_own_rates(name):
    free, forced = (moved(design(name, fed=fed)) for fed in ("predictions", "recorded"))
    found = rates(free, drives(), context())
    lagged = functional.pad(found, (0, 0, 1, 0))[:, :FRAMES]
    torch.testing.assert_close(rates(forced, drives(), context(lagged)), found, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", FED)
def test_what_is_read_and_remembered_follows_from_what_it_is_fed_with(name):
    free, forced = (design(name, fed=fed) for fed in ("predictions", "recorded"))
    assert free.reads.information == "own_predictions"
    assert forced.reads.information == "recorded_past"
    assert free.reads.population == forced.reads.population == (name in COUPLED)
    assert forced.memory_bins <= 3 < free.memory_bins <= 40


@pytest.mark.parametrize("name", FED)
def test_fed_with_records_it_is_causal_and_whole_in_chunks(name):
    stage, later = moved(design(name, fed="recorded")), recorded()
    later[:, 7:] = recorded(seed=99)[:, 7:]
    whole = rates(stage, drives(), context(recorded()))
    assert torch.equal(rates(stage, drives(), context(later))[:, :7], whole[:, :7])
    assert not torch.equal(rates(stage, drives(), context(later)), whole)
    model = PopulationModel(
        torch.nn.Identity(), {"one": torch.nn.Identity()}, {"one": {"interaction": stage}}, torch.nn.Softplus()
    )
    first, state = model.respond(drives()[:, :5], "one", context(recorded()[:, :5]), None)
    second, _ = model.respond(drives()[:, 5:], "one", context(recorded()), state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["linear_autoregressive", "gated_recurrent"])
def test_a_subset_of_neurons_reads_its_own_records(name):
    stage, chosen = moved(design(name, fed="recorded")), torch.tensor([7, 2])
    part = rates(stage, drives()[..., chosen], context(recorded(), chosen))
    torch.testing.assert_close(part, rates(stage, drives(), context(recorded()))[..., chosen], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", FED)
def test_strength_zero_fed_with_records_is_the_drive(name):
    stage = moved(design(name, fed="recorded"))
    stage.off()
    found = rates(stage, drives(), context(recorded()), link=lambda x: x)
    torch.testing.assert_close(found, drives(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("seed", range(8))
def test_two_starts_approach_each_other_by_the_bound_for_any_parameters_and_drives(name, link, seed):
    scale = 10.0 ** (seed - 2)  # .01 to 100000
    stage = moved(design(name, bound=0.8), scale=scale, seed=seed)
    around, drive = context(), drives(scale=10.0 ** (seed % 3 - 1), frames=stage.memory_bins, seed=seed)
    norm = np.linalg.norm(stage.coupling(around).detach().numpy(), 2)
    assert norm <= 0.8 * (1 + 1e-9)
    first, second = torch.zeros(2, N).double(), 5 * torch.rand(2, N).double()
    start = gap = (first - second).norm(dim=1)
    for t in range(stage.memory_bins):
        first, second = (LINKS[link](stage.step(drive[:, t], last, None, around)[0]) for last in (first, second))
        now = (first - second).norm(dim=1)
        assert (now <= 0.8 * gap * (1 + 1e-9) + 1e-12 * drive.abs().max()).all()
        gap = now
    assert (gap <= 0.05 * start + 1e-9).all()


@pytest.mark.parametrize("name", COUPLED)
def test_rates_under_bounded_drives_stay_bounded_over_a_thousand_frames(name):
    stage = moved(design(name), scale=1e4)
    found = rates(stage, drives(frames=1000), context())
    limit = functional.softplus(drives(frames=1000)).norm(dim=2).max() / (1 - stage.bound)  # sum of a geometric series
    assert found.norm(dim=2).max() <= limit


@pytest.mark.parametrize("name", COUPLED)
def test_in_single_precision_the_bound_holds_as_well(name):
    for seed in range(6):
        stage = moved(design(name), scale=10.0 ** (seed - 1), seed=seed).float()
        around = Context(embedding=context().embedding.float())
        norm = np.linalg.norm(stage.coupling(around).detach().numpy().astype(float), 2)
        assert norm <= stage.bound * (1 + 1e-5)
        assert norm < 1
