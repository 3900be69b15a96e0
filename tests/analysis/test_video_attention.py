"""Where a video transformer looks: rollout, its middle of mass and attention over time, by hand and of real cores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import make_session

from neuroint.analysis.video_attention import (
    attention_of,
    center_of_mass,
    looked_at,
    looked_back_at,
    rollout,
)
from neuroint.data.base import TRAIN, VALIDATION, collate
from neuroint.modules.places import PlaceGrid
from neuroint.registry import cores

SESSION = make_session()
FACTS = {"stimulus_shape": (1, 8, 10), "behavior_channels": 2, "pupil_channels": 2}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def of_heads(*blocks):
    """Maps of one sequence and one head per block."""
    return torch.tensor(blocks, dtype=torch.float64)[:, None, None]


def vivit(**choices):
    small = {"width": 8, "head_width": 4, "hidden": 8, "tubelet_frames": 3, "tubelet_px": 3, "stride_px": 2}
    few = {"spatial_blocks": 2, "temporal_blocks": 1, "registers": 2}
    return cores["vivit"].build(small | few | choices, FACTS)


def v1t(**choices):
    small = {"width": 8, "head_width": 4, "hidden": 8, "blocks": 2, "heads": 2, "patch_px": 4, "stride_px": 2}
    return cores["v1t"].build(small | choices, FACTS)


def test_rollout_of_two_tokens_and_one_block_is_half_of_the_map_and_half_of_the_token_itself():
    rolled = rollout(of_heads([[0.5, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(rolled[0], torch.tensor([[0.75, 0.25], [0.0, 1.0]], dtype=torch.float64))


def test_rollout_of_three_tokens_passes_on_what_the_block_before_has_mixed():
    """Token 1 takes half of token 0, then token 2 takes half of token 1: a quarter of token 2 is token 0."""
    first = [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    second = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    expected = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(rollout(of_heads(first, second))[0], expected)
    other_way = rollout(of_heads(second, first))[0]
    torch.testing.assert_close(other_way[2], torch.tensor([0, 0.5, 0.5], dtype=torch.float64))


def test_heads_are_averaged_or_the_largest_is_taken():
    heads = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])[None, None]
    torch.testing.assert_close(rollout(heads)[0], torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    torch.testing.assert_close(rollout(heads, "max")[0], torch.tensor([[2 / 3, 1 / 3], [0.0, 1.0]]))


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_rows_of_a_rollout_sum_to_one(heads):
    maps = torch.randn(4, 3, 2, 5, 5, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(rollout(maps, heads).sum(-1), torch.ones(3, 5, dtype=torch.float64))


@pytest.mark.parametrize("first", [0, 1])
def test_only_places_look_and_are_looked_at_and_the_share_of_extra_tokens_is_told(first):
    """Places a and b, extra token e: a looks at a .5, b .25, e .25; b at b .75, e .25; what e looks at is no matter."""
    order = [2, 0, 1] if first else [0, 1, 2]
    rolled = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.75, 0.25], [0.9, 0.1, 0.0]])[order][:, order]
    spatial, extra = looked_at(rolled[None], PlaceGrid(first, 1, 2, 1, 1))
    torch.testing.assert_close(spatial, torch.tensor([[[1 / 3, 2 / 3]]]))
    torch.testing.assert_close(extra, torch.tensor([0.25]))


def test_the_middle_of_mass_is_in_pixels_of_the_frame():
    """Blocks of 4 pixels every 2: the first one's middle lies between the second and the third pixel."""
    grid = PlaceGrid(0, 2, 3, side_px=4, stride_px=2)
    assert grid.columns_px().tolist() == [1.5, 3.5, 5.5]
    spatial = np.array([[0.5, 0.0, 0.0], [0.0, 0.0, 0.5]])
    np.testing.assert_allclose(center_of_mass(spatial, grid), [3.5, 2.5])
    corner = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(center_of_mass(corner, grid), [5.5, 1.5])
    padded = replace(grid, padding_px=1)
    np.testing.assert_allclose(center_of_mass(corner, padded), [4.5, 0.5])


@pytest.mark.parametrize("make", [vivit, v1t])
def test_places_lie_where_the_core_cuts_its_blocks(make):
    """A place changes when a pixel within half a side of its middle does, and no other place."""
    core = make()
    core.spatial = core.temporal = core.blocks = torch.nn.ModuleList()
    grid, inputs = core.place_grid, collate("one", [0], [SESSION.source.read(0, 0, 3)]).inputs
    changed = inputs.stimulus.clone()
    changed[:, :, 0, 2, 7] += 1.0
    with torch.no_grad():
        moved = (core.eval()(replace(inputs, stimulus=changed)) - core(inputs))[0, -1].abs().amax(0) > 1e-6
    near_y = np.abs(grid.rows_px() - 2) < grid.side_px / 2
    near_x = np.abs(grid.columns_px() - 7) < grid.side_px / 2
    assert moved.shape == (grid.rows, grid.columns)
    np.testing.assert_array_equal(moved.numpy(), np.outer(near_y, near_x))


def uniform(frames):
    return torch.tril(torch.ones(frames, frames)) / torch.arange(1, frames + 1)[:, None]


@pytest.mark.parametrize("later_frames", [None, 1, 3])
def test_uniform_causal_attention_is_flat(later_frames):
    found = looked_back_at(uniform(7).expand(2, 3, 2, 7, 7), later_frames)
    last = later_frames or 1
    torch.testing.assert_close(found[:-last], torch.ones(7 - last))
    assert found[-last:].isnan().all()


def test_attention_over_time_is_that_of_later_frames_alone():
    """Frame 1 gives frame 0 all (2 x 1), frame 2 itself half, frame 1 half (3 x .5): (2 + 0) / 2, and 1.5."""
    maps = of_heads([[1, 0, 0], [1, 0, 0], [0, 0.5, 0.5]])
    torch.testing.assert_close(looked_back_at(maps)[:2], torch.tensor([1.0, 1.5], dtype=torch.float64))
    near = looked_back_at(maps, 1)
    torch.testing.assert_close(near[:2], torch.tensor([2.0, 1.5], dtype=torch.float64))


@pytest.mark.parametrize("later_frames", [0, 3, 9])
def test_a_horizon_that_no_frame_has_is_refused(later_frames):
    with pytest.raises(ValueError, match=r"clips with 3 frames of features: no frame has .* choose from 1 to 2"):
        looked_back_at(of_heads(uniform(3).tolist()), later_frames)


@pytest.mark.parametrize("make", [vivit, lambda: vivit(state="tokens"), v1t], ids=["vivit", "tokens", "v1t"])
def test_a_core_is_looked_at_in_stretches_as_in_one_piece(make):
    core = make().train()
    found = attention_of(core, SESSION, VALIDATION, frames_at_once=7)
    assert core.training, "left as it was"
    frames = 40 - core.lost_frames
    assert found.spatial.shape == (4, frames, core.place_grid.rows, core.place_grid.columns)
    np.testing.assert_allclose(found.spatial.sum((2, 3)), 1, rtol=1e-5)
    clip = int(SESSION.clips(VALIDATION)[1])
    inputs = collate("one", [clip], [SESSION.source.read(clip, 0, 40)]).inputs
    spatial, extra = looked_at(rollout(core.eval().maps(inputs)["spatial"]), core.place_grid)
    np.testing.assert_allclose(found.spatial[1], spatial.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.extra[1], extra.numpy(), atol=1e-6)
    assert (found.extra > 0).all()
    np.testing.assert_array_equal(found.pupil[1], inputs.pupil[0, core.lost_frames :].numpy())


def test_a_core_that_was_fitted_to_every_second_frame_is_looked_at_in_these():
    core = vivit().eval()
    found = attention_of(core, SESSION, VALIDATION, stride=2, later_frames=4)
    clip = int(SESSION.clips(VALIDATION)[1])
    inputs = collate("one", [clip], [SESSION.source.read(clip, 0, 40)]).inputs.map(lambda x: x[:, ::2])
    maps = core.maps(inputs)
    spatial, _ = looked_at(rollout(maps["spatial"]), core.place_grid)
    np.testing.assert_allclose(found.spatial[1], spatial.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.temporal[1], looked_back_at(maps["temporal"], 4).numpy(), atol=1e-6)
    np.testing.assert_array_equal(found.behavior[1], inputs.behavior[0, core.lost_frames :].numpy())


def test_attention_over_time_is_known_for_cores_that_have_it():
    found = attention_of(vivit(), SESSION, VALIDATION, later_frames=4)
    assert found.temporal.shape == (4, 38)
    assert np.isnan(found.temporal[:, -4:]).all()
    assert np.isfinite(found.temporal[:, :-4]).all()
    assert attention_of(v1t(), SESSION, VALIDATION).temporal is None
    assert attention_of(vivit(temporal_blocks=0), SESSION, VALIDATION).temporal is None


@pytest.mark.parametrize("make", [vivit, v1t])
def test_the_behavior_of_another_clip_moves_attention_and_not_what_is_recorded(make):
    core, given = make(), np.array([1, 0, 3, 2])
    own, swapped = (attention_of(core, SESSION, VALIDATION, given=one) for one in (None, given))
    assert not np.allclose(own.spatial, swapped.spatial)
    np.testing.assert_array_equal(own.behavior, swapped.behavior)
    np.testing.assert_array_equal(own.pupil, swapped.pupil)
    again = attention_of(core, SESSION, VALIDATION, given=np.arange(4))
    np.testing.assert_array_equal(own.spatial, again.spatial)


def test_a_core_that_reads_no_behavior_looks_where_it_did():
    core = v1t(behavior=False)
    own, swapped = (attention_of(core, SESSION, TRAIN, given=one) for one in (None, np.array([1, 2, 3, 4, 5, 0])))
    np.testing.assert_array_equal(own.spatial, swapped.spatial)


def test_what_was_not_recorded_is_not_there():
    bare = make_session(behavior=False)
    core = cores["v1t"].build({"width": 8, "head_width": 4, "hidden": 8, "patch_px": 4}, {"stimulus_shape": (1, 8, 10)})
    found = attention_of(core, bare, VALIDATION)
    assert found.pupil is None
    assert found.behavior is None


def test_what_cannot_be_looked_at_is_refused():
    with pytest.raises(ValueError, match="core Conv2d has no maps of attention among places of a frame; fit a model"):
        attention_of(torch.nn.Conv2d(1, 1, 1), SESSION, VALIDATION)
    with pytest.raises(ValueError, match=r"was built without blocks among places.*set spatial_blocks to 1 or more"):
        attention_of(vivit(spatial_blocks=0), SESSION, VALIDATION)
    with pytest.raises(ValueError, match="tier 'unused' of session 'one' holds no clip"):
        attention_of(v1t(), SESSION, "unused")
    with pytest.raises(
        ValueError, match=r"given names behavior of clips \[4, 0, 1, 2\] for 4 clips; expected one number"
    ):
        attention_of(v1t(), SESSION, VALIDATION, given=np.array([4, 0, 1, 2]))
