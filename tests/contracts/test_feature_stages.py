"""Every normalization that stands inside the core keeps what modules/base.py promises; planted bad ones are caught."""

import pytest
import torch
from module_contracts import (
    BATCH,
    CHANNELS,
    FACTS,
    FRAMES,
    build,
    check_causal,
    check_clips_do_not_mix,
    check_gradients,
    check_repeats_by_seed,
    check_survives_storage,
    gradient_reaches,
    perturbed,
)
from torch import nn

from neuroint.data.base import Inputs
from neuroint.model import PopulationModel
from neuroint.modules.base import INFORMATION_ORDER, RECORDED
from neuroint.registry import normalizations

NAMES = [name for name in normalizations.names() if getattr(normalizations[name].factory, "on_features", False)]
SHAPE = FACTS["feature_shape"]
every_stage = pytest.mark.parametrize("name", NAMES)


class GivenFeatures(nn.Module):
    """A core that hands the stimulus on."""

    lost_frames = 0

    def forward(self, inputs):
        return inputs.stimulus


class Flat(nn.Module):
    """A readout with a neuron for every number."""

    def forward(self, features, pupil, neurons):
        return features.flatten(2)


def run(stage, x, memory=None):
    """Run a stage where the model runs it, inside the core: features out, and what the next chunk needs."""
    model = PopulationModel(GivenFeatures(), {"one": Flat()}, {"one": {}}, nn.Identity(), stage)
    out, state = model.drive(Inputs(stimulus=x), "one", None, memory)
    return out.unflatten(2, SHAPE), state


def features(seed=3, frames=FRAMES):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, frames, *SHAPE, generator=generator, dtype=torch.float64)


def out_of(stage):
    return run(stage, features())[0]


def features_as_inputs(stage):
    """Let a stage be run by the checks on inputs: its features are the first numbers of the stimulus."""
    size = SHAPE[0] * SHAPE[1] * SHAPE[2]

    def of(given):
        return run(stage, given.stimulus.flatten(2)[..., :size].unflatten(2, SHAPE))[0]

    return of


def make(name, seed=0):
    return build(normalizations, name, seed)


def test_there_are_normalizations_inside_the_core():
    assert {"channel_pool", "input_depression"} <= set(NAMES)


@every_stage
def test_a_stage_keeps_shape_and_is_finite(name):
    for stage in (make(name), perturbed(make(name))):
        out = out_of(stage)
        assert out.shape == (BATCH, FRAMES, *SHAPE)
        assert out.isfinite().all()


@every_stage
def test_a_stage_is_of_exactly_one_kind_and_reads_no_records(name):
    stage = make(name)
    remembers, plain = hasattr(stage, "scan"), type(stage).forward is not nn.Module.forward
    assert remembers != plain
    assert not hasattr(stage, "step"), "the last rate is not known inside the core"
    assert stage.reads.information in set(INFORMATION_ORDER) - set(RECORDED) - {"own_predictions"}
    assert not stage.reads.population
    if remembers:
        assert stage.memory_bins >= 1


@every_stage
@pytest.mark.parametrize("power", [-6, 0, 3, 6])
def test_gradients_stay_finite_for_features_of_any_size(name, power):
    stage = perturbed(make(name))
    x = (features().abs() * 10.0**power).requires_grad_()
    out = run(stage, x)[0]
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in stage.parameters())


@every_stage
def test_a_stage_stays_finite_in_single_precision_at_extreme_features(name):
    stage = perturbed(make(name)).float()
    x = (features().float() * 1e3).requires_grad_()
    out = run(stage, x)[0]
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in stage.parameters())


@every_stage
def test_a_stage_gives_numbers_in_bfloat16(name):
    stage = perturbed(make(name)).float()
    x = features().float()
    with torch.autocast("cpu", torch.bfloat16):
        out = run(stage, x.bfloat16())[0]  # what a convolution hands on there
    assert out.isfinite().all()
    assert (out.float() - run(stage, x)[0]).abs().max() < 0.5


@every_stage
def test_a_stage_never_reads_future_time(name):
    check_causal(features_as_inputs(perturbed(make(name)).eval()), 0)


@every_stage
def test_clips_of_a_batch_do_not_mix(name):
    check_clips_do_not_mix(features_as_inputs(perturbed(make(name)).eval()))


@every_stage
def test_every_parameter_gets_a_gradient(name):
    stage = perturbed(make(name))
    reached = gradient_reaches(stage, lambda: out_of(stage))
    assert all(reached.values()), [key for key, value in reached.items() if not value]


@every_stage
def test_gradients_reach_a_stage_from_where_it_starts(name):
    stage = make(name)
    assert any(gradient_reaches(stage, lambda: out_of(stage)).values())


@every_stage
def test_gradients_equal_finite_differences(name):
    check_gradients(perturbed(make(name)), lambda module, x: run(module, x)[0], features(frames=4))


@every_stage
def test_a_stage_survives_pickling_and_its_weights_can_be_loaded(name):
    check_survives_storage(lambda seed: make(name, seed), out_of)


@every_stage
def test_one_seed_gives_one_result(name):
    check_repeats_by_seed(lambda seed: make(name, seed), out_of)


@every_stage
def test_what_was_given_is_not_changed(name):
    given = features()
    run(perturbed(make(name)), given)
    assert torch.equal(given, features())


@every_stage
def test_strength_zero_leaves_neither_other_channels_nor_pixels_nor_memory(name):
    stage = perturbed(make(name))
    stage.off()
    x, frame = features(), FRAMES - 1

    def last(now):
        return run(stage, torch.cat([x[:1, :frame], now.unflatten(0, SHAPE)[None, None]], 1))[0][0, frame].flatten()

    slopes = torch.autograd.functional.jacobian(last, x[0, frame].flatten())
    assert torch.equal(slopes, torch.diag(slopes.diagonal()))
    shuffled = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(run(stage, x[:, shuffled])[0], out_of(stage)[:, shuffled], rtol=1e-12, atol=0)


@every_stage
@pytest.mark.parametrize("cut", [1, 5, FRAMES - 1])
def test_a_clip_in_chunks_equals_the_clip_in_one(name, cut):
    stage = perturbed(make(name)).eval()
    first, memory = run(stage, features()[:, :cut])
    second, _ = run(stage, features()[:, cut:], memory)
    torch.testing.assert_close(torch.cat([first, second], 1), out_of(stage), rtol=0, atol=1e-13)


class LooksAhead(nn.Module):
    """Adds the next frame."""

    def forward(self, x):
        return x + x.roll(-1, dims=1)


class NormalizesOverTime(nn.Module):
    """Divides every channel by its size over the clip."""

    def forward(self, x):
        return x / x.std(1, keepdim=True)


class MixesClips(nn.Module):
    """Subtracts the batch's mean."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize("bad", [LooksAhead, NormalizesOverTime])
def test_a_planted_stage_that_reads_the_future_is_caught(bad):
    with pytest.raises(AssertionError, match="changed what was predicted up to it"):
        check_causal(features_as_inputs(bad()), 0)


def test_a_planted_stage_that_mixes_clips_is_caught():
    with pytest.raises(AssertionError, match="one clip of a batch changed another"):
        check_clips_do_not_mix(features_as_inputs(MixesClips()))


def test_the_shape_of_these_features_is_that_of_the_facts():
    assert SHAPE[0] == CHANNELS
