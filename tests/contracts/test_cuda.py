"""On a CUDA device every component gives the numbers, and the gradients, that it gives on a CPU."""

from dataclasses import replace

import pytest
import torch
from drives import clips, population
from module_contracts import FACTS, build, context, drive, inputs, perturbed, run_stage

from neuroint.analysis.influence import influence, recorded_influence
from neuroint.registry import cores, interactions, links, normalizations, readouts

pytestmark = pytest.mark.gpu
CUDA = "cuda"
SHAPE = FACTS["feature_shape"]
STAGES = [
    (registry, name)
    for registry in (normalizations, interactions)
    for name in registry.names()
    if not getattr(registry[name].factory, "on_features", False)
]
INSIDE = [name for name in normalizations.names() if getattr(normalizations[name].factory, "on_features", False)]
READING = [name for name in readouts.names() if not getattr(readouts[name].factory, "hands_on", False)]
every_stage = pytest.mark.parametrize(("registry", "name"), STAGES, ids=[f"{r.kind}-{n}" for r, n in STAGES])


def maps():
    """Feature maps cut out of the stimulus."""
    flat = inputs().stimulus.flatten(2)
    return flat[..., : SHAPE[0] * SHAPE[1] * SHAPE[2]].unflatten(2, SHAPE)


def inside(stage, x):
    """Run a stage that stands inside the core."""
    return stage.scan(x, stage.initial_state(x[:, 0]))[0] if hasattr(stage, "scan") else stage(x)


def outcome(module, run, *given):
    """Output, and gradients of every parameter and of what was given, on the CPU in float64."""
    given = [x.detach().requires_grad_() for x in given]
    module.zero_grad()
    out = run(module, *given)
    if out.requires_grad:
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
        out.mul(weights.reshape(out.shape)).sum().backward()
    grads = {name: p.grad for name, p in module.named_parameters()} | {
        f"given {i}": x.grad for i, x in enumerate(given)
    }
    return {"out": out.detach().cpu()} | {k: v.to("cpu", copy=True) for k, v in grads.items() if v is not None}


def check_equal_on_both(module, run, *given):
    """Float64 on both devices; the order of sums may differ, nothing else."""
    here = outcome(module, run, *given)
    there = outcome(module.to(CUDA), run, *(x.to(CUDA) for x in given))
    assert here.keys() == there.keys()
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, rtol=1e-7, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


def check_half_precision(module, run, *given):
    """Autocast to bfloat16 gives numbers near those of float32, and gradients that are numbers."""
    module, given = module.float().to(CUDA), [x.float().to(CUDA) for x in given]
    exact = run(module, *given).detach()
    with torch.autocast(CUDA, torch.bfloat16):
        out = run(module, *given)
    if out.requires_grad:
        out.float().square().mean().backward()
    does = exact - given[0] if exact.shape == given[0].shape else exact - exact.mean()  # what a stage adds to a drive
    assert (out.float() - exact).abs().max() < 0.05 * does.abs().max() + 0.02 * exact.abs().max()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def through_core(core, stimulus):
    return core(replace(inputs().map(lambda x: x.to(stimulus)), stimulus=stimulus))


def through_readout(readout, features):
    return readout(features, inputs().pupil.to(features))


def through_stage(stage, x):
    around = context()
    around = replace(around, embedding=around.embedding.to(x), observed=around.observed.to(x))
    return run_stage(stage, x, around)[0]


CASES = {
    **{f"core-{name}": (cores, name, through_core, lambda: inputs().stimulus) for name in cores.names()},
    **{f"readout-{name}": (readouts, name, through_readout, maps) for name in READING},
    **{f"{r.kind}-{name}": (r, name, through_stage, drive) for r, name in STAGES},
    **{f"normalization-{name}": (normalizations, name, inside, maps) for name in INSIDE},
}
every_component = pytest.mark.parametrize("case", CASES)


@every_component
def test_a_component_gives_the_same_numbers_and_gradients_as_on_a_cpu(case):
    registry, name, run, given = CASES[case]
    check_equal_on_both(perturbed(build(registry, name)).eval(), run, given())


@every_component
def test_a_component_works_in_bfloat16(case):
    registry, name, run, given = CASES[case]
    check_half_precision(perturbed(build(registry, name)).eval(), run, given())


@pytest.mark.parametrize("name", links.names())
def test_a_link_and_its_inverse_are_the_same_as_on_a_cpu(name):
    link, x = build(links, name), drive()
    torch.testing.assert_close(link.to(CUDA)(x.to(CUDA)).cpu(), link.cpu()(x), rtol=1e-12, atol=1e-12)


@every_stage
def test_influence_is_the_same_as_on_a_cpu(registry, name):
    model = population(perturbed(build(registry, name)), registry.kind).eval()
    given = clips(model.burn_in("one") + 3)
    found = influence(model, "one", given)
    there = influence(model.to(CUDA), "one", given.map(lambda x: x.to(CUDA)))
    torch.testing.assert_close(there.cpu(), found, rtol=1e-7, atol=1e-10)
    if model.reads_recorded:
        found = recorded_influence(model.cpu(), "one", given)
        there = recorded_influence(model.to(CUDA), "one", given.map(lambda x: x.to(CUDA)))
        torch.testing.assert_close(there.cpu(), found, rtol=1e-7, atol=1e-10)
