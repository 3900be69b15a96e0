"""Free couplings between all pairs, by hand."""

import numpy as np
import pytest
import torch
from coupling_worlds import context, design, drives, moved, rates, recorded

from neuroint.registry import interactions


def with_weights(weights, **options):
    stage = design("full_coupling", {"n_neurons": len(weights)}, **options)
    with torch.no_grad():
        stage.raw_coupling.copy_(torch.tensor(weights))
    return stage


def test_weights_below_the_cap_pass_one_frame_on():
    stage = with_weights([[7.0, 0.5], [0.0, 7.0]], bound=0.8)  # the diagonal does not count; row sum .5 is below 1
    torch.testing.assert_close(stage.coupling(context()), torch.tensor([[0, 0.4], [0, 0]], dtype=torch.float64))
    drive = torch.tensor([[[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    found = rates(stage, drive, context(), link=lambda x: x)
    torch.testing.assert_close(found[0], torch.tensor([[0, 1], [0.4, 0], [0, 0]], dtype=torch.float64))


def test_large_weights_are_scaled_to_the_cap():
    stage = with_weights([[0.0, 8.0], [2.0, 0.0]], bound=0.8)  # row sums 8, 2; column sums 2, 8; norm 8 = the bound
    assert np.linalg.norm(stage.coupling(context()).detach().numpy(), 2) == pytest.approx(0.8)


def test_the_penalty_is_the_mean_over_neurons_of_absolute_weights_without_the_diagonal():
    stage = with_weights([[9.0, -8.0], [2.0, 9.0]], l1=0.1)
    assert stage.penalty().item() == pytest.approx(0.1 * (8 + 2) / 2)
    assert with_weights([[9.0, -8.0], [2.0, 9.0]], l1=0.0).penalty().item() == 0


def test_it_starts_as_no_interaction_while_gradients_flow():
    stage = design("full_coupling")
    found = rates(stage, drives(), context(), link=lambda x: x)
    assert torch.equal(found, drives())
    found.square().sum().backward()
    off_diagonal = ~torch.eye(len(stage.raw_coupling), dtype=torch.bool)
    assert stage.raw_coupling.grad[off_diagonal].all()


def test_more_than_500_neurons_are_refused_and_others_named():
    interactions["full_coupling"].build({}, {"n_neurons": 500})
    with pytest.raises(ValueError, match=r"was given 501 neurons, expected at most 500; use 'distance_kernel'"):
        interactions["full_coupling"].build({}, {"n_neurons": 501})


def test_fed_with_records_it_reads_them_and_not_its_own_rates():
    stage, observed = moved(design("full_coupling", fed="recorded")), recorded()
    found = rates(stage, drives(), context(observed), link=lambda x: x)
    expected = drives() + observed @ stage.coupling(context()).T
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert stage.reads.information == "recorded_past"
    assert stage.memory_bins == 1
