"""Transformers on video: published sizes, embeddings and attention against plain formulations, what is dropped."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules import video_blocks
from neuroint.modules.core import vivit
from neuroint.modules.tubelets import TubeletEmbedding
from neuroint.modules.video_blocks import (
    DropPath,
    SelfAttention,
    drawn_tokens,
    group_by_group,
    on_some_tokens,
    rotary_angles,
    turned,
)
from neuroint.registry import cores

SENSORIUM = {"stimulus_shape": (1, 36, 64), "behavior_channels": 2, "pupil_channels": 2}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "behavior", "parameters", "grid"), [("v1t", 3, 2_465_200, (29, 57)), ("vivit", 2, 3_793_762, (18, 32))]
)
def test_a_core_at_its_published_setting_has_its_published_size(name, behavior, parameters, grid):
    core = cores[name].build({}, SENSORIUM | {"behavior_channels": behavior})
    assert sum(p.numel() for p in core.parameters()) == parameters
    assert core.feature_shape[1:] == grid


def test_tubelets_are_a_norm_a_linear_map_and_a_norm_of_blocks_that_are_cut_out():
    embedding = perturbed(TubeletEmbedding(2, 5, 3, 3, 2).double())
    video = torch.randn(2, 6, 2, 7, 8, dtype=torch.float64)
    padded = functional.pad(video, [1] * 4)
    blocks = padded.unfold(1, 3, 1).unfold(3, 3, 2).unfold(4, 3, 2)  # batch time plane row column frame y x
    blocks = blocks.permute(0, 1, 3, 4, 2, 5, 6, 7)
    assert blocks.shape[2:4] == embedding.grid(7, 8)
    normal = functional.layer_norm(blocks, blocks.shape[4:], embedding.gain, embedding.offset, embedding.norm.eps)
    expected = embedding.norm(normal.flatten(4) @ embedding.weight.flatten(1).T + embedding.bias)
    torch.testing.assert_close(embedding(video), expected, rtol=1e-9, atol=1e-9)


def test_tubelets_that_are_not_normalized_are_a_linear_map_and_a_norm_and_know_contrast():
    embedding = perturbed(TubeletEmbedding(1, 5, 3, 3, 2, normalize=False).double())
    assert {name for name, _ in embedding.named_parameters()} == {"weight", "bias", "norm.weight", "norm.bias"}
    video = torch.randn(1, 4, 1, 5, 5, dtype=torch.float64)
    block = video[0, 1:4, 0, 1:4, 1:4]  # of the second frame that is left, in the middle of the grid
    expected = embedding.norm(torch.einsum("oijk,ijk->o", embedding.weight[:, 0], block) + embedding.bias)
    torch.testing.assert_close(embedding(video)[0, 1, 1, 1], expected)
    assert (embedding(2 * video) - embedding(video)).abs().max() > 0.01
    published = TubeletEmbedding(1, 5, 3, 3, 2).double()
    torch.testing.assert_close(published(2 * video), published(video), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_is_what_its_maps_say(causal):
    attention = SelfAttention(6, 2, 4, 0.0, causal=causal).double()
    x, angles = torch.randn(3, 5, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    maps = attention.maps(x, angles)
    value = attention.into(x).unflatten(-1, (3, 2, 4))[:, :, 2]
    expected = attention.out(torch.einsum("shqk,skhw->sqhw", maps, value).flatten(2))
    torch.testing.assert_close(attention(x, angles), expected)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 2, 5, dtype=torch.float64))
    assert causal == (maps.triu(1) == 0).all().item()


def test_products_of_turned_features_depend_on_the_difference_of_places():
    query, key = torch.randn(2, 1, 6, dtype=torch.float64)

    def product(here, there):
        places = torch.tensor([here, there], dtype=torch.float64)
        angles = rotary_angles(places, 6)
        return (turned(query, angles[:1]) * turned(key, angles[1:])).sum()

    torch.testing.assert_close(product((1.0, 2.0), (4.0, 0.0)), product((3.0, 7.0), (6.0, 5.0)))
    assert not torch.isclose(product((1.0, 2.0), (4.0, 0.0)), product((1.0, 2.0), (4.0, 1.0)))


def test_an_odd_feature_is_not_turned():
    x = torch.randn(2, 5)
    assert torch.equal(turned(x, torch.ones(2, 2))[:, -1], x[:, -1])


def test_a_path_is_dropped_for_whole_sequences_and_kept_in_the_mean():
    x = torch.ones(4000, 3)
    dropped = DropPath(0.25).train()(x)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))
    assert (dropped == dropped[:, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(x), x)


@pytest.mark.parametrize("tokens_at_once", [100_000, 1], ids=["whole", "sequence by sequence"])
@pytest.mark.parametrize("make", [lambda: small_v1t(), lambda: small_vivit()], ids=["v1t", "vivit"])
def test_running_blocks_again_gives_the_same_gradients(make, tokens_at_once, monkeypatch):
    monkeypatch.setattr(video_blocks, "TOKENS_AT_ONCE", tokens_at_once)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(1)
        core = perturbed(make()).eval()
        core.recompute = recompute
        core(inputs()).square().sum().backward()
        gradients.append([p.grad for p in core.parameters()])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)


def test_a_block_that_remembers_less_holds_few_tokens_at_a_time(monkeypatch):
    monkeypatch.setattr(video_blocks, "TOKENS_AT_ONCE", 15)
    seen = []

    class Block(nn.Module):
        def forward(self, x, told):
            seen.append((x.shape[0], told.shape[0]))
            return x + told[:, None]

    x, told = torch.randn(8, 5, 2), torch.randn(8, 2)
    torch.testing.assert_close(group_by_group(x, Block(), True, (told,)), x + told[:, None])
    assert seen == [(3, 3), (3, 3), (2, 2)]
    group_by_group(x, Block(), False, (told,))
    assert seen[3:] == [(8, 8)]


def test_tokens_that_a_block_does_not_see_pass_it_by():
    x = torch.randn(3, 6, 2)
    seen = drawn_tokens(x, range(1, 5), 0.5, training=True)
    assert seen.tolist() in [[0, *pair, 5] for pair in itertools.combinations(range(1, 5), 2)]
    y = on_some_tokens(lambda some: some + 1, x, seen)
    changed = torch.zeros(6, dtype=torch.bool).index_fill(0, seen, True)
    torch.testing.assert_close(y, x + changed[None, :, None])
    assert drawn_tokens(x, range(6), 0.5, training=False) is None
    assert drawn_tokens(x, range(6), 1.0, training=True) is None
    assert len(drawn_tokens(x, range(6), 0.01, training=True)) == 1


@pytest.mark.parametrize(("name", "extra"), [("v1t", 1), ("vivit", 3)])
def test_blocks_see_a_share_of_the_places_in_training_and_all_extra_tokens(name, extra):
    core = {"v1t": small_v1t, "vivit": partial(small_vivit, state="tokens")}[name](token_share=0.25)
    sizes = []
    for block in core.blocks if name == "v1t" else core.spatial:
        block.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[1]))
    places = core.feature_shape[1] * core.feature_shape[2]
    core.train()(inputs()).sum().backward()
    assert set(sizes) == {round(places / 4) + extra}
    sizes.clear()
    core.eval()(inputs())
    assert set(sizes) == {places + extra}


def test_places_keep_their_angles_when_others_are_left_out(monkeypatch):
    core, given = small_vivit(token_share=0.5), []
    core.spatial[0].register_forward_pre_hook(lambda *x: given.append(x[2]["angles"]), with_kwargs=True)
    core.eval()(inputs())
    seen = torch.tensor([0, 2, 5, len(given[0]) - 1])
    monkeypatch.setattr(vivit, "drawn_tokens", lambda *_: seen)
    core.train()(inputs())
    assert torch.equal(given[1], given[0][seen])


@pytest.mark.parametrize("state", ["channels", "tokens", "cross_attention"])
def test_behavior_and_pupil_reach_the_features_in_every_way(state):
    core = perturbed(small_vivit(state=state)).eval()
    given = inputs()
    for name in ("behavior", "pupil"):
        changed = Inputs(**{**vars(given), name: getattr(given, name) + 1.0})
        assert not torch.allclose(core(given), core(changed))


def test_without_state_behavior_changes_nothing():
    given = inputs()
    other = Inputs(given.stimulus, given.behavior + 1, given.pupil + 1)
    for core in (small_vivit(state="none").eval(), small_v1t(behavior=False).eval()):
        assert torch.equal(core(given), core(other))


def test_maps_of_a_core_are_those_it_used():
    core, given = small_vivit(state="tokens").eval(), inputs()
    maps = core.maps(given)
    places = core.grid[0] * core.grid[1]
    assert maps["spatial"].shape == (1, 2 * 12, 2, places + 3, places + 3)
    assert maps["temporal"].shape == (2, 2 * places, 2, 12, 12)
    assert (maps["temporal"].triu(1) == 0).all()
    frames = small_v1t().eval().maps(given)["spatial"]
    torch.testing.assert_close(frames.sum(-1), torch.ones_like(frames[..., 0]))


def test_a_transformer_over_time_needs_its_clips_whole():
    assert small_vivit().whole_clips
    assert not small_vivit(temporal_blocks=0).whole_clips


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cores["v1t"].build({}, SENSORIUM | {"stimulus_shape": (1, 7, 9)}), "cuts patches of 8 pixels.*7 x 9"),
        (lambda: cores["vivit"].build({"head_width": 5}, SENSORIUM), "head_width 5; choose an even one"),
        (lambda: small_vivit()(Inputs(inputs().stimulus)), "built for 4 channels of behavior and pupil.*have 0"),
        (lambda: small_v1t()(Inputs(inputs().stimulus)), "built for 4 channels of behavior and pupil.*have 0"),
        (lambda: small_vivit()(inputs(frames=2)), "consumes 2 frames and needs at least 3"),
    ],
    ids=["patch", "odd", "vivit state", "v1t state", "short"],
)
def test_faults_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def inputs(frames=14):
    draw = torch.Generator().manual_seed(2)
    shapes = {"stimulus": (1, 7, 9), "behavior": (2,), "pupil": (2,)}
    held = {name: torch.randn(2, frames, *shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    return Inputs(**held)


def perturbed(module):
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def small_vivit(**options) -> nn.Module:
    facts = {"stimulus_shape": (1, 7, 9), "behavior_channels": 2, "pupil_channels": 2}
    sizes = {"tubelet_frames": 3, "tubelet_px": 3, "width": 6, "spatial_blocks": 1, "temporal_blocks": 2, "heads": 2}
    return cores["vivit"].build({**sizes, "head_width": 4, "hidden": 8, "registers": 2, **options}, facts).double()


def small_v1t(**options) -> nn.Module:
    facts = {"stimulus_shape": (1, 7, 9), "behavior_channels": 2, "pupil_channels": 2}
    sizes = {"patch_px": 3, "stride_px": 2, "width": 6, "blocks": 2, "heads": 2, "head_width": 4, "hidden": 8}
    return cores["v1t"].build({**sizes, **options}, facts).double()
