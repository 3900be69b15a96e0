"""Every registered normalization and interaction keeps what modules/base.py promises; planted bad ones are caught."""

from dataclasses import replace

import pytest
import torch
from module_contracts import (
    BATCH,
    FRAMES,
    NEURONS,
    build,
    check_causal,
    check_clips_do_not_mix,
    check_gradients,
    check_repeats_by_seed,
    check_survives_storage,
    context,
    drive,
    drive_as_inputs,
    first_frames,
    gradient_reaches,
    perturbed,
    run_stage,
)
from torch import nn

from neuroint.modules.base import INFORMATION_ORDER, RECORDED, Context, FilteringStage, RecurrentStage
from neuroint.registry import interactions, normalizations

STAGES = [
    (registry, name)
    for registry in (normalizations, interactions)
    for name in registry.names()
    if not getattr(registry[name].factory, "on_features", False)  # those are in test_feature_stages.py
]
IDS = [f"{registry.kind}-{name}" for registry, name in STAGES]
every_stage = pytest.mark.parametrize(("registry", "name"), STAGES, ids=IDS)


def out_of(stage):
    return run_stage(stage, drive(), context())[0]


def jacobian(stage):
    """How drives of the first clip move the stage's last output: neurons x frames x neurons."""

    def of(x):
        return run_stage(stage, torch.cat([x[None], drive()[1:]]), context())[0][0, -1]

    return torch.autograd.functional.jacobian(of, drive()[0])


@every_stage
def test_a_stage_keeps_shape_and_is_finite(registry, name):
    for stage in (build(registry, name), perturbed(build(registry, name))):
        out = out_of(stage)
        assert out.shape == (BATCH, FRAMES, NEURONS)
        assert out.isfinite().all()


@every_stage
def test_a_stage_stays_finite_at_extreme_drives(registry, name):
    stage = perturbed(build(registry, name)).float()
    around = Context(embedding=context().embedding.float(), observed=context().observed.float())
    x = (drive().float() * 1e3).requires_grad_()
    out = run_stage(stage, x, around)[0]
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in stage.parameters())


@every_stage
def test_a_stage_is_of_exactly_one_kind(registry, name):
    stage = build(registry, name)
    kinds = {
        "recurrent": isinstance(stage, RecurrentStage),
        "filtering": isinstance(stage, FilteringStage),
        "feed-forward": type(stage).forward is not nn.Module.forward,
    }
    assert sum(kinds.values()) == 1, kinds
    assert stage.reads.information in INFORMATION_ORDER
    if not kinds["feed-forward"] or stage.reads.information in RECORDED:
        assert stage.memory_bins >= 1


@every_stage
@pytest.mark.parametrize("power", [-6, 0, 6])
def test_gradients_stay_finite_for_drives_of_any_size(registry, name, power):
    stage = perturbed(build(registry, name))
    x = (drive().abs() * 10.0**power).requires_grad_()
    run_stage(stage, x, context())[0].sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in stage.parameters())


@every_stage
def test_a_stage_gives_numbers_in_bfloat16(registry, name):
    stage = perturbed(build(registry, name)).float()
    around = Context(embedding=context().embedding.float(), observed=context().observed.float())
    with torch.autocast("cpu", torch.bfloat16):
        out = run_stage(stage, drive().float(), around)[0]
    assert out.isfinite().all()
    assert (out.float() - run_stage(stage, drive().float(), around)[0]).abs().max() < 0.5


@every_stage
def test_a_stage_never_reads_future_time(registry, name):
    check_causal(drive_as_inputs(perturbed(build(registry, name)).eval()), 0)


@every_stage
def test_clips_of_a_batch_do_not_mix(registry, name):
    check_clips_do_not_mix(drive_as_inputs(perturbed(build(registry, name)).eval()))


@every_stage
def test_only_stages_that_say_so_mix_neurons(registry, name):
    stage = perturbed(build(registry, name)).eval()
    across = jacobian(stage).movedim(1, 0)[:, ~torch.eye(NEURONS, dtype=torch.bool)]
    assert bool((across != 0).any()) == stage.reads.population


@every_stage
def test_a_stage_that_mixes_neurons_refuses_a_subset_of_them(registry, name):
    stage, chosen = build(registry, name), torch.tensor([0, 3])
    around = replace(context(), neurons=chosen)
    if stage.reads.population:
        with pytest.raises(ValueError, match=r"mixes neurons and was given 2 chosen ones.*train on all neurons"):
            run_stage(stage, drive()[..., chosen], around)
    else:
        part = run_stage(stage, drive()[..., chosen], around)[0]
        torch.testing.assert_close(part, out_of(stage)[..., chosen], rtol=0, atol=1e-13)


@every_stage
def test_every_parameter_gets_a_gradient(registry, name):
    stage = perturbed(build(registry, name))
    if not list(stage.parameters()):
        pytest.skip(f"{name} has no parameters")
    reached = gradient_reaches(stage, lambda: out_of(stage))
    assert all(reached.values()), [key for key, value in reached.items() if not value]


@every_stage
def test_gradients_reach_a_stage_from_where_it_starts(registry, name):
    stage = build(registry, name)
    if not list(stage.parameters()):
        pytest.skip(f"{name} has no parameters")
    assert any(gradient_reaches(stage, lambda: out_of(stage)).values())


@every_stage
def test_gradients_equal_finite_differences(registry, name):
    def run(module, x, embedding):
        return run_stage(module, x, Context(embedding=embedding, observed=context(frames=4).observed))[0]

    check_gradients(perturbed(build(registry, name)), run, drive()[:, :4], context().embedding)


@every_stage
def test_a_stage_survives_pickling_and_its_weights_can_be_loaded(registry, name):
    check_survives_storage(lambda seed: build(registry, name, seed), out_of)


@every_stage
def test_one_seed_gives_one_result(registry, name):
    check_repeats_by_seed(lambda seed: build(registry, name, seed), out_of)


@every_stage
def test_strength_zero_leaves_neither_neighbors_nor_memory(registry, name):
    stage = perturbed(build(registry, name))
    if not hasattr(stage, "off"):
        assert torch.equal(out_of(stage), drive()), "a stage without a strength has to be the null"
        return
    stage.off()
    slopes = jacobian(stage)
    assert not slopes[:, :-1].any(), "an earlier drive still counts"
    assert torch.equal(slopes[:, -1], torch.diag(slopes[:, -1].diagonal()))
    no_records = replace(context(), observed=torch.zeros_like(context().observed))
    torch.testing.assert_close(run_stage(stage, drive(), no_records)[0], out_of(stage), rtol=1e-12, atol=0)
    shuffled = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0))
    out = run_stage(stage, drive()[:, shuffled], context())[0]
    torch.testing.assert_close(out, out_of(stage)[:, shuffled], rtol=1e-12, atol=0)


@every_stage
def test_strength_zero_of_an_interaction_is_the_drive(registry, name):
    stage = perturbed(build(registry, name))
    if registry is not interactions or not hasattr(stage, "off"):
        pytest.skip("parents of normalizations are checked one by one")
    stage.off()
    torch.testing.assert_close(out_of(stage), drive(), rtol=1e-12, atol=0)


@every_stage
@pytest.mark.parametrize("cut", [1, 5, FRAMES - 1])
def test_a_clip_in_chunks_equals_the_clip_in_one(registry, name, cut):
    stage = perturbed(build(registry, name)).eval()
    first, memory = run_stage(stage, drive()[:, :cut], first_frames(context(), cut))
    second, _ = run_stage(stage, drive()[:, cut:], context(), memory)
    torch.testing.assert_close(torch.cat([first, second], 1), out_of(stage), rtol=0, atol=1e-13)


class LooksAhead(nn.Module):
    """Adds the next frame."""

    def forward(self, x, around):
        return x + x.roll(-1, dims=1)


class MixesClips(nn.Module):
    """Subtracts the batch's mean."""

    def forward(self, x, around):
        return x - x.mean(0, keepdim=True)


class NormalizesOverTime(nn.Module):
    """Divides by the clip's standard deviation, which is acausal though it looks harmless."""

    def forward(self, x, around):
        return x / x.std(1, keepdim=True)


class UnusedParameter(nn.Module):
    """Holds a parameter that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, around):
        return x * 1.0


@pytest.mark.parametrize("bad", [LooksAhead, NormalizesOverTime])
def test_a_planted_stage_that_reads_the_future_is_caught(bad):
    with pytest.raises(AssertionError, match="changed what was predicted up to it"):
        check_causal(drive_as_inputs(bad()), 0)


def test_a_planted_stage_that_mixes_clips_is_caught():
    with pytest.raises(AssertionError, match="one clip of a batch changed another"):
        check_clips_do_not_mix(drive_as_inputs(MixesClips()))


def test_a_planted_stage_with_an_unused_parameter_is_caught():
    stage = UnusedParameter()
    x = drive().requires_grad_()
    with pytest.raises(AssertionError, match=r"no gradient at all for \['idle'\]"):
        gradient_reaches(stage, lambda: stage(x, context()))


@every_stage
def test_an_interaction_that_says_it_couples_no_neurons_does_not(registry, name):
    if getattr(registry[name].factory, "couples_neurons", True):
        pytest.skip("it may couple neurons")
    stage = perturbed(build(registry, name))
    slopes = jacobian(stage).transpose(1, 2)
    others = ~torch.eye(NEURONS, dtype=torch.bool)
    assert (slopes[others] == 0).all()
    assert stage.reads.information in ("stimulus", "own_predictions")
