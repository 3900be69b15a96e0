"""What a plan says of sizes: operations counted by hand, arms that are not matched, and controls that would be."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from worlds import make_session, make_sweep

from neuroint.modules.neighbors import neighbor_sum
from neuroint.modules.video_blocks import remembering_less
from neuroint.sweep.flops import step_counter
from neuroint.sweep.matching import Size, fair_control
from neuroint.sweep.planning import plan_sweep

pytestmark = pytest.mark.timeout(240)  # plans take a step of every arm


def counted(function):
    with step_counter() as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_counts_its_products_although_one_kernel_makes_them(directions):
    frames, clips, inputs, hidden = 6, 2, 5, 3
    network = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=directions == 2)
    with step_counter() as counter:
        network(torch.ones(clips, frames, inputs, requires_grad=True))[0].sum().backward()
    per_frame = 4 * hidden * (inputs + hidden)  # four gates of what comes in and of what was
    products = directions * 3 * 2 * clips * frames * per_frame  # there, and back to inputs and to weights
    assert products <= counter.get_total_flops() < 1.2 * products


def test_counting_holds_nothing_of_a_block_that_runs_again():
    held = []

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            inside = self.linear(x).exp()
            held.append(StorageWeakRef(inside.untyped_storage()))
            return self.linear(inside)

    with step_counter() as counter:
        remembering_less(Block(), True, torch.ones(2, 3, requires_grad=True)).sum().backward()
        expired = [memory.expired() for memory in held]
    assert expired == [True, True], "once forward, once on the way back"
    assert counter.get_total_flops() > 2 * 2 * 2 * 3 * 3 * 3


def test_products_of_matrices_are_counted_as_torch_does():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert counted(lambda: a @ b) == 2 * 3 * 4 * 5


def test_a_sum_over_neighbors_is_a_multiplication_and_an_addition_per_neighbor_and_frame_and_so_is_each_gradient():
    values = torch.randn(2, 5, 7, requires_grad=True)  # 10 frames of 7 neurons
    neighbors, weights = torch.randint(0, 7, (7, 3)), torch.rand(7, 3, requires_grad=True)
    forward = 2 * 7 * 3 * 10
    assert counted(lambda: neighbor_sum(values, neighbors, weights)) == forward
    both = counted(
        lambda: torch.autograd.grad(neighbor_sum(values, neighbors, weights), (values, weights), torch.ones(2, 5, 7))
    )
    assert both == 3 * forward
    with torch.no_grad():
        assert counted(lambda: neighbor_sum(values, neighbors, weights)) == forward


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (4, 2), (50, 50)])
def test_going_back_through_a_convolution_costs_twice_as_much_as_going_through_it_in_groups_too(channels, groups):
    x = torch.randn(2, channels, 30, requires_grad=True)
    weight = torch.randn(channels, channels // groups, 3, requires_grad=True)
    forward = 2 * (2 * channels * 28) * (channels // groups * 3)
    assert counted(lambda: functional.conv1d(x, weight, groups=groups)) == forward
    out = functional.conv1d(x, weight, groups=groups)
    assert counted(lambda: torch.autograd.grad(out, weight, torch.ones_like(out), retain_graph=True)) == forward
    assert counted(lambda: torch.autograd.grad(out, (x, weight), torch.ones_like(out))) == 2 * forward


def test_going_back_through_a_transposed_convolution_costs_twice_as_much_too():
    x, weight = torch.randn(2, 4, 30, requires_grad=True), torch.randn(4, 5, 3, requires_grad=True)
    out = functional.conv_transpose1d(x, weight)
    assert counted(lambda: torch.autograd.grad(out, (x, weight), torch.ones_like(out))) == 2 * 2 * (2 * 4 * 30) * 5 * 3


def test_fused_attention_is_two_products_and_going_back_through_it_five():
    query, key, value = (torch.randn(2, 3, tokens, 16, requires_grad=True) for tokens in (50, 40, 40))
    product = 2 * (2 * 3) * 50 * 40 * 16
    attend = functional.scaled_dot_product_attention
    assert counted(lambda: attend(query, key, value)) == 2 * product
    out = attend(query, key, value)
    found = counted(lambda: torch.autograd.grad(out, (query, key, value), torch.ones_like(out)))
    assert found == 5 * product, "the map again, and a gradient of it, of queries, of keys and of values"


def test_pointwise_arithmetic_is_one_operation_per_number():
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    assert counted(lambda: x * y + x) == 40
    assert counted(lambda: torch.exp(x)) == 20
    assert counted(lambda: torch.addcmul(x, x, y)) == 40
    assert counted(lambda: x.sum(0)) == 20
    assert counted(lambda: functional.softplus(x)) == 20
    assert counted(lambda: torch.zeros(9, 5).index_add_(0, torch.tensor([8, 8, 1, 0]), x)) == 20
    assert counted(lambda: x.clone()) == 0


def test_normalizing_a_batch_and_a_softmax_are_not_nothing():
    x = torch.randn(4, 5)
    assert counted(lambda: nn.BatchNorm1d(5)(x)) >= 20
    assert counted(lambda: x.softmax(-1)) == 20


@pytest.mark.parametrize(
    ("mine", "theirs", "matched"),
    [
        (Size(110, 100), Size(100, 100), True),
        (Size(111, 100), Size(100, 100), False),
        (Size(89, 100), Size(100, 100), False),
        (Size(100, 111), Size(100, 100), False),
        (Size(1, 0), Size(1, 0), True),
    ],
)
def test_sizes_match_within_a_tenth(mine, theirs, matched):
    assert mine.matches(theirs) == matched


def test_both_numbers_of_both_arms_are_said():
    said = Size(12_345, 3_000_000_000).against(Size(10_000, 2_000_000_000))
    assert said == "12,345 parameters against 10,000 (+23 %), 3 GFLOP a step against 2 (+50 %)"


SMALL = {
    "core": {"name": "linear", "lags": 1, "downsample": 4},
    "readout": {"name": "linear"},
    "train": {"frames": 34, "batch_size": 2},
}
OWN_PAST = {"interaction": {"name": "linear_autoregressive", "lags": 3}}
ARMS = {
    "none": {},
    "attention": {"interaction": {"name": "attention", "heads": {"choice": [1, 4]}}},
    "attention_permuted": {"interaction": {"name": "permuted_identities", "of": {"name": "attention"}}},
    "content_only": {"interaction": {"name": "attention", "position": "none"}},
    "larger_core": {"core": {"name": "linear", "lags": 3, "downsample": 4}},
}


@pytest.fixture(scope="module")
def plans():
    sweep = make_sweep(arms=ARMS, **SMALL)
    return {plan.name: plan for plan in plan_sweep(sweep, [make_session()])}


def test_the_reference_is_matched_to_itself(plans):
    assert plans["none"].unmatched == ""


def test_an_arm_of_another_size_is_named_with_both_numbers_and_a_control_of_its_size(plans):
    said, none = plans["attention"].unmatched, plans["none"]
    assert f"{plans['attention'].parameters:,} parameters against {none.parameters:,} (+" in said
    assert "a matched control is interaction: {name: permuted_positions, of: {name: attention, heads: 4}}" in said
    assert said.endswith("of this size here: attention_permuted, content_only")


def test_without_positions_the_control_permutes_identities(plans):
    assert (
        "interaction: {name: permuted_identities, of: {name: attention, position: none}}"
        in plans["content_only"].unmatched
    )


def test_a_control_needs_no_control(plans):
    said = plans["attention_permuted"].unmatched
    assert "; of this size here: attention" in said
    assert "control is" not in said


def test_no_control_stands_against_a_larger_core(plans):
    assert "parameters against" in plans["larger_core"].unmatched
    assert "control is" not in plans["larger_core"].unmatched


def proposed(arm, refuse=(), extra=3.2):
    """The control of an arm where all have its size but those that are refused, as a design may refuse them."""
    sweep = make_sweep(arms={"none": {}, "other": arm})
    configs = [sweep.trial(name, {}, key="k", phase="plan", seed=0) for name in sweep.arms]
    size = Size(100, 100)

    def measure(config):
        if {spec.name for spec in config.specs.values()} & set(refuse):
            raise ValueError("not for this design")
        return size

    return fair_control(configs[1], size, configs[0], extra, measure)


PERMUTED = ("permuted_positions", "permuted_identities")


def test_a_design_that_can_be_permuted_is_its_own_control():
    inside = "{name: linear_autoregressive, lags: 3}"
    assert proposed(OWN_PAST) == f"interaction: {{name: permuted_positions, of: {inside}}}"
    assert proposed(OWN_PAST, PERMUTED[:1]) == f"interaction: {{name: permuted_identities, of: {inside}}}"


def test_the_control_of_a_neuron_by_itself_is_a_filter_of_as_many_weights():
    assert proposed(OWN_PAST, PERMUTED) == "interaction: {name: own_drive_filter, lags: 3}"
    assert proposed(OWN_PAST, PERMUTED, extra=1e4) == "interaction: {name: own_drive_filter, lags: 40}"
    assert proposed(OWN_PAST, PERMUTED, extra=-5) == "interaction: {name: own_drive_filter, lags: 1}"
    pool = {"normalization": {"name": "population_pool"}}
    assert proposed(pool, PERMUTED) == "normalization: {name: static_saturation}"


@pytest.mark.parametrize("arm", [{"interaction": "own_drive_filter"}, {"readout": "linear"}])
def test_controls_and_readouts_have_no_control(arm):
    assert proposed(arm) is None


def test_pools_and_readouts_count(plans):
    assert plans["attention"].flops_per_step > plans["none"].flops_per_step
    assert "unmatched" in plans["none"].as_dict()
