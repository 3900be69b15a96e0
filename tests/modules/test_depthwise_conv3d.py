"""The deep core of depthwise filters: published sizes, its parts by hand, and what its causal form does not see."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroint.data.base import Inputs
from neuroint.registry import cores, readouts

FACTS = {"stimulus_shape": (1, 7, 9), "behavior_channels": 2, "pupil_channels": 2}
SMALL = {"stem": 3, "widths": (3, 4), "strides": (2, 1), "expansion": 2, "temporal_kernel": 3, "drop_path": 0.0}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def inputs(frames=8):
    shapes = {"stimulus": (1, 7, 9), "behavior": (2,), "pupil": (2,)}
    return Inputs(**{name: torch.randn(2, frames, *shape, dtype=torch.float64) for name, shape in shapes.items()})


def small(**options):
    return cores["depthwise_conv3d"].build({**SMALL, "cortex": (), **options}, FACTS).double().eval()


def test_at_the_published_widths_blocks_and_cortex_have_their_published_sizes():
    core = cores["depthwise_conv3d"].build({}, FACTS | {"stimulus_shape": (1, 36, 64)})
    cortex = sum(p.numel() for p in core.cortex.parameters())
    assert (sum(p.numel() for p in core.parameters()) - cortex, cortex) == (3_673_404, 5_402_624)


@pytest.mark.parametrize(("square", "grid"), [(False, (4, 5)), (True, (5, 5))])
def test_without_a_cortex_the_map_is_left_at_the_stride_of_the_blocks(square, grid):
    core = small(square=square)
    assert core.feature_shape == (4, *grid)
    assert core(inputs()).shape == (2, 8 - core.lost_frames, 4, *grid)


def test_the_causal_form_loses_what_its_filters_see_and_the_published_form_nothing():
    assert (small(causal=True).lost_frames, small(causal=False).lost_frames) == (4, 0)
    assert not small(causal=True).whole_clips
    assert small(causal=False).whole_clips
    assert not small(causal=False).reads.causal


@pytest.mark.parametrize("causal", [True, False])
def test_only_the_published_form_sees_later_frames(causal):
    core, given = small(causal=causal), inputs()
    changed = given.map(lambda x: torch.cat([x[:, :-1], x[:, -1:] + 1], dim=1))
    before, after = core(given)[:, :-1], core(changed)[:, :-1]
    assert torch.equal(before, after) == causal


def test_blocks_that_run_again_move_their_running_statistics_once():
    given, found = inputs(), []
    for recompute in (False, True):
        torch.manual_seed(1)
        core = small(recompute=recompute).train()
        core(given).square().sum().backward()
        gradients = {f"gradient of {name}": p.grad for name, p in core.named_parameters()}
        found.append({**core.state_dict(), **gradients})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_blocks_that_run_again_can_be_compiled():
    script = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        from test_depthwise_conv3d import inputs, small
        torch.manual_seed(0)
        given = inputs()
        for backend in (None, "aot_eager"):
            torch.manual_seed(1)
            core = small(recompute=True).train()
            run = core if backend is None else torch.compile(core, backend=backend, fullgraph=True)
            run(given).square().sum().backward()
            found = [*core.state_dict().values(), *(p.grad for p in core.parameters())]
            torch.testing.assert_close(found, found if backend is None else eager, rtol=1e-8, atol=1e-8)
            eager = found
    """  # a process of its own: torch.compile cannot read through the tests' checks of shapes
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_causal_clip_in_pieces_is_the_clip_in_one():
    core, given = small(causal=True), inputs(frames=10)
    lost, whole = core.lost_frames, core(given)
    pieces = [core(given.map(lambda x, s=s: x[:, s : s + lost + 3])) for s in (0, 3)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)


def test_planes_of_behavior_fill_the_padding_too():
    core, given = small(square=True), inputs()
    planes = core._planes(given)
    assert planes.shape[-2:] == (9, 9)
    assert (planes[:, :, 0, [0, -1]] == 0).all()
    torch.testing.assert_close(planes[:, :, 1, 0, 0], given.behavior[..., 0])
    torch.testing.assert_close(planes[:, :, 4, -1, -1], given.pupil[..., 1])


def test_in_a_causal_block_places_tell_row_and_column_and_in_the_published_one_the_frame_too():
    x = torch.zeros(1, 3, 6, 4, 5)
    still, moving = (small(causal=causal).blocks[0]._places(x) for causal in (True, False))
    assert still.shape == (6, 4, 5)
    torch.testing.assert_close(still[0, :, 0], torch.sin(torch.arange(4.0)))
    torch.testing.assert_close(still[3, 0], torch.sin(torch.arange(5.0)))
    torch.testing.assert_close(moving[:, 0, 0, 0], torch.sin(torch.arange(3.0)))


def test_the_cortex_shuffles_what_its_groups_made():
    layer = cores["depthwise_conv3d"].build({**SMALL, "cortex": (6,)}, FACTS).cortex[0].double().eval()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    weight = layer.mix.weight[..., 0]
    made = torch.cat([x[:, :2].transpose(1, 2) @ weight[:3].T, x[:, 2:].transpose(1, 2) @ weight[3:].T], dim=2)
    made = torch.nn.functional.silu(made / (1 + layer.norm.eps) ** 0.5)
    tiled = x.transpose(1, 2)[..., [0, 1, 2, 3, 0, 1]] / (1 + layer.norm.eps) ** 0.5
    torch.testing.assert_close(layer(x).transpose(1, 2), made[..., [0, 3, 1, 4, 2, 5]] + tiled)


def test_a_neuron_reads_the_channels_of_its_group_alone():
    facts = {"feature_shape": (4, 2, 3), "n_neurons": 5, "mean_drive": np.arange(5, dtype=np.float32)}
    readout = readouts["cortex"].build({}, facts).double().eval()
    features = torch.randn(2, 3, 4, 2, 3, dtype=torch.float64)
    pooled, weights = features.mean((3, 4)).numpy(), readout.weights.detach().numpy()
    group = [0, 0, 0, 1, 1]
    expected = [pooled[..., 2 * g : 2 * g + 2] @ weights[n] + n for n, g in enumerate(group)]
    np.testing.assert_allclose(readout(features).detach(), np.stack(expected, -1), rtol=1e-6)


def test_in_training_whole_channels_are_dropped_for_a_clip():
    facts = {"feature_shape": (64, 1, 1), "n_neurons": 1, "mean_drive": np.zeros(1, np.float32)}
    readout = readouts["cortex"].build({"groups": 1, "dropout": 0.5}, facts).train()
    still = torch.ones(3, 6, 64, 1, 1)
    drive = readout(still)
    torch.testing.assert_close(drive, drive[:, :1].expand_as(drive))
    assert len(drive[:, 0, 0].unique()) == 3  # clips drop other channels: with 64 of them two alike are one in 2^64


def test_a_query_finds_the_features_it_looks_for():
    facts = {"feature_shape": (3, 2, 2), "n_neurons": 4, "mean_drive": np.zeros(4, np.float32)}
    readout = readouts["attention"].build({"width": 5}, facts).double()
    features = torch.randn(2, 3, 3, 2, 2, dtype=torch.float64)
    maps = readout.maps(features)
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(2, 3, 4, dtype=torch.float64))
    seen = torch.einsum("btnhw,btchw->btnc", maps, features)
    torch.testing.assert_close(readout(features), (seen * readout.weights).sum(-1) + readout.bias)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(temporal_kernel=4), "kernels of 3 pixels and 4 frames cannot be centered"),
        (lambda: small(cortex=(5,)), r"2 groups do not divide the widths \(4, 5\)"),
        (lambda: small(strides=(1,)), r"got 2 channels \(3, 4\) and 1 strides"),
        (lambda: small()(Inputs(inputs().stimulus)), "built for 4 channels of behavior and pupil.*have 0"),
        (
            lambda: readouts["cortex"].build(
                {}, {"feature_shape": (3, 1, 1), "n_neurons": 2, "mean_drive": np.zeros(2, np.float32)}
            ),
            "2 groups do not divide 3 channels",
        ),
    ],
    ids=["even", "groups", "strides", "state", "readout groups"],
)
def test_faults_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()
