"""Every registered core keeps what modules/base.py promises."""

import pytest
import torch
from module_contracts import (
    BATCH,
    FRAMES,
    build,
    check_causal,
    check_clips_do_not_mix,
    check_gradients,
    check_repeats_by_seed,
    check_survives_storage,
    gradient_reaches,
    inputs,
    perturbed,
)

from neuroint.data.base import Inputs
from neuroint.modules.base import INFORMATION_ORDER, Reads
from neuroint.registry import cores

NAMES = cores.names()


@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_promised_shape_and_are_finite(name):
    core = build(cores, name)
    for mode in (True, False):
        features = core.train(mode)(inputs())
        assert features.shape == (BATCH, FRAMES - core.lost_frames, *core.feature_shape)
        assert features.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_core_reads_is_declared(name):
    core = build(cores, name)
    assert isinstance(core.reads, Reads)
    assert core.reads.information in INFORMATION_ORDER


@pytest.mark.parametrize("name", NAMES)
def test_features_do_not_depend_on_later_frames(name):
    core = perturbed(build(cores, name)).eval()
    if not core.reads.causal:
        pytest.skip(f"{name} declares that it reads the future")
    check_causal(core, core.lost_frames)


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_promised_frames_are_lost(name):
    core = build(cores, name).eval()
    assert core(inputs(frames=core.lost_frames + 1)).shape[1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_a_batch_do_not_mix(name):
    check_clips_do_not_mix(perturbed(build(cores, name)).eval())


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    core = perturbed(build(cores, name))
    if not list(core.parameters()):
        pytest.skip(f"{name} has no parameters")
    gradient_reaches(core.train(), lambda: core(inputs()))
    reached = gradient_reaches(core.eval(), lambda: core(inputs()))
    dead = {name for name, reaches in reached.items() if not reaches}
    assert dead == set(getattr(core, "dead_parameters", ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_finite_differences(name, training):
    core = perturbed(build(cores, name)).train(training)
    given = inputs(frames=core.lost_frames + 2)

    def run(module, stimulus, behavior):
        return module(Inputs(stimulus, behavior, given.pupil, given.observed))

    probe = core(given)
    if probe.requires_grad or core(given.map(lambda x: x.requires_grad_())).requires_grad:
        check_gradients(core, run, given.stimulus, given.behavior)


@pytest.mark.parametrize("name", NAMES)
def test_a_core_survives_pickling_and_its_weights_can_be_loaded(name):
    check_survives_storage(lambda seed: build(cores, name, seed), lambda core: core(inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_result(name):
    check_repeats_by_seed(lambda seed: build(cores, name, seed), lambda core: core(inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_is_a_finite_scalar_that_is_not_negative(name):
    core = build(cores, name)
    if not hasattr(core, "penalty"):
        pytest.skip(f"{name} has no penalty")
    penalty = core.penalty()
    assert penalty.shape == ()
    assert penalty.isfinite()
    assert penalty >= 0


@pytest.mark.parametrize("name", NAMES)
def test_a_core_runs_in_half_the_precision_it_was_built_in(name):
    core = build(cores, name).float().eval()
    single = inputs().map(lambda x: x.float())
    double = build(cores, name).eval()(inputs())
    torch.testing.assert_close(core(single).double(), double, rtol=1e-3, atol=1e-4)
