"""The rotation-equivariant core with memory: Hermite functions, turning pictures, the gated unit by hand."""

import numpy as np
import pytest
import torch

from neuroint.data.base import Inputs
from neuroint.modules.core.conv_gru import ConvGru
from neuroint.modules.rotated_filters import RotatedConv, hermite_filters
from neuroint.registry import cores

FACTS = {"stimulus_shape": (1, 9, 11), "behavior_channels": 2}
SMALL = {"features": (2, 3), "sides_px": (3, 3), "orders": (1, 1), "directions": 4, "gru_channels": 3}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def small(**options):
    return cores["conv_gru"].build({**SMALL, "input_px": 3, "memory_px": 3, **options}, FACTS).double().eval()


def test_at_the_published_sizes_the_gru_has_its_published_size():
    core = cores["conv_gru"].build({}, {"stimulus_shape": (1, 36, 64), "behavior_channels": 2})
    assert sum(p.numel() for p in core.gru.parameters()) == 1_991_040
    assert core.feature_shape == (64, 28, 56)


def test_hermite_functions_of_first_order_are_a_blob_and_its_two_slopes():
    blob, down, across = hermite_filters(21, 1, 1)[0]
    line = np.linspace(-1.5 * 3**0.5, 1.5 * 3**0.5, 21)
    gauss = np.exp(-(line**2) / 2)
    for found, expected in ((blob, np.outer(gauss, gauss)), (across, np.outer(gauss, line * gauss))):
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-12)
    np.testing.assert_allclose(down, across.T, atol=1e-12)


def test_a_quarter_turn_turns_every_function():
    found = hermite_filters(9, 3, 4)
    np.testing.assert_allclose(found[1], np.rot90(found[0], -1, axes=(1, 2)), atol=1e-12)


@pytest.mark.parametrize("turned_input", [False, True])
def test_turning_the_picture_turns_the_maps_and_shifts_their_directions(turned_input):
    layer = RotatedConv(2, 3, 5, 3, 4, turned_input=turned_input, padding=2).double()
    directions = 4 if turned_input else 1
    picture = torch.randn(1, 2, directions, 9, 9, dtype=torch.float64)
    turned = picture.roll(1, dims=2).rot90(-1, (3, 4))
    answer, answer_turned = (layer(x.flatten(1, 2)).unflatten(1, (3, 4)) for x in (picture, turned))
    torch.testing.assert_close(answer_turned, answer.roll(1, dims=2).rot90(-1, (3, 4)))


def test_the_gated_unit_is_its_equation_pixel_by_pixel():
    gru = ConvGru(2, 3, 1, 1).double()
    x = torch.randn(2, 4, 2, 2, 2, dtype=torch.float64)
    seen = gru.seen.weight[..., 0, 0].detach().numpy(), gru.seen.bias.detach().numpy()
    gates = gru.gates.weight[..., 0, 0].detach().numpy(), gru.gates.bias.detach().numpy()
    last = gru.candidate.weight[..., 0, 0].detach().numpy(), gru.candidate.bias.detach().numpy()
    found = gru(x).detach().numpy()
    for clip in range(2):
        memory = np.zeros(3)
        for t in range(4):
            told = seen[0] @ x[clip, t, :, 1, 0].numpy() + seen[1]
            update, reset = np.split(1 / (1 + np.exp(-(told[:6] + gates[0] @ memory + gates[1]))), 2)
            candidate = np.tanh(told[6:] + last[0] @ (reset * memory) + last[1])
            memory = (1 - update) * memory + update * candidate
            np.testing.assert_allclose(found[clip, t, :, 1, 0], memory, rtol=1e-10)


def test_a_gated_unit_that_is_to_remember_keeps_channels_for_2_to_as_many_frames():
    gru = ConvGru(2, 200, 1, 1, longest=10.0)
    frames = frames_of_memory(gru)
    assert 2.0 <= float(frames.min()) < 2.5
    assert 9.5 < float(frames.max()) <= 10.001
    assert 1.0 < float(frames_of_memory(ConvGru(2, 200, 1, 1)).max()) < 6.0, "by default about 2 frames"


@torch.no_grad()
def frames_of_memory(gru):
    """1 / (1 - h(t) / h(t - 1)) after a flash, of a unit that reads nothing but its candidate."""
    for layer in (gru.gates, gru.candidate):
        layer.weight.zero_()
    gru.candidate.bias.zero_()
    gru.seen.weight.zero_()
    gru.seen.weight[400:] = 1.0
    gru.seen.bias[400:] = 0.0
    flash = torch.zeros(1, 4, 2, 1, 1)
    flash[:, 0] = 1.0
    h = gru(flash)[0, :, :, 0, 0]
    return 1 / (1 - h[3] / h[2])


def test_a_core_without_memory_refuses_to_be_told_how_long_to_remember():
    with pytest.raises(ValueError, match=r"remembers_frames is 5\.0 and memory is false; leave one of them out"):
        small(memory=False, remembers_frames=5.0)


def test_memory_of_two_frames_or_less_is_refused():
    with pytest.raises(ValueError, match=r"remembers_frames: got 2\.0: input should be greater than 2"):
        small(remembers_frames=2.0)


def test_without_memory_a_frame_is_seen_alone():
    core = small(memory=False)
    video = torch.randn(1, 5, 1, 9, 11, dtype=torch.float64)
    behavior = torch.zeros(1, 5, 2, dtype=torch.float64)
    whole = core(Inputs(video, behavior))
    assert not core.whole_clips
    assert core.feature_shape == (12, 7, 9)
    torch.testing.assert_close(core(Inputs(video[:, 3:4], behavior[:, 3:4])), whole[:, 3:4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_px": 4}, "padded filters of 4 pixels cannot be centered"),
        ({"sides_px": (3, 2)}, "padded filters of 2 pixels cannot be centered"),
        ({"sides_px": (11, 3)}, "first filters of 11 pixels need frames as large, the stimulus has 9 x 11"),
        ({"orders": (1,)}, r"got 2 channels \(2, 3\) and 1 orders"),
    ],
    ids=["memory", "second", "first", "orders"],
)
def test_faults_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
