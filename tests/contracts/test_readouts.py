"""Every registered readout keeps what modules/base.py promises."""

import pytest
import torch
from module_contracts import (
    BATCH,
    FACTS,
    FRAMES,
    NEURONS,
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

from neuroint.modules.base import INFORMATION_ORDER
from neuroint.registry import readouts

HANDED_ON = [name for name in readouts.names() if getattr(readouts[name].factory, "hands_on", False)]
NAMES = [name for name in readouts.names() if name not in HANDED_ON]
SHAPE = FACTS["feature_shape"]


def features(given):
    """Cut feature maps out of the stimulus."""
    flat = given.stimulus.flatten(2)
    return flat[..., : SHAPE[0] * SHAPE[1] * SHAPE[2]].unflatten(2, SHAPE)


def reading(readout):
    return lambda given: readout(features(given), given.pupil)


@pytest.mark.parametrize("name", NAMES)
def test_drive_has_one_number_per_neuron_and_frame(name):
    readout = build(readouts, name)
    for mode in (True, False):
        out = reading(readout.train(mode))(inputs())
        assert out.shape == (BATCH, FRAMES, NEURONS)
        assert out.isfinite().all()
    assert readout.reads.information in INFORMATION_ORDER


@pytest.mark.parametrize("name", NAMES)
def test_bias_starts_at_the_mean_drive(name):
    readout = build(readouts, name).eval()
    silent = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(
        readout(silent, torch.zeros(1, 1, 2, dtype=torch.float64))[0, 0].float(), torch.tensor(FACTS["mean_drive"])
    )


@pytest.mark.parametrize("name", NAMES)
def test_drive_does_not_depend_on_later_frames(name):
    check_causal(reading(perturbed(build(readouts, name)).eval()), 0)


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_a_batch_do_not_mix(name):
    check_clips_do_not_mix(reading(perturbed(build(readouts, name)).eval()))


@pytest.mark.parametrize("name", NAMES)
def test_a_subset_of_neurons_gives_their_columns(name):
    readout = perturbed(build(readouts, name)).eval()
    given, chosen = inputs(), torch.tensor([3, 0])
    whole = reading(readout)(given)
    torch.testing.assert_close(readout(features(given), given.pupil, chosen), whole[..., chosen], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_each_neuron_is_read_with_its_own_parameters(name):
    readout = perturbed(build(readouts, name)).eval()
    out = reading(readout)(inputs())
    for first in range(NEURONS):
        for second in range(first):
            assert not torch.allclose(out[..., first], out[..., second])


@pytest.mark.parametrize("name", NAMES)
def test_the_embedding_has_the_promised_width_and_carries_gradients(name):
    readout = build(readouts, name)
    embedding = readout.embedding()
    assert embedding.shape == (NEURONS, readout.embedding_channels)
    assert embedding.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_in_training(name):
    readout = perturbed(build(readouts, name)).train()
    reached = gradient_reaches(readout, lambda: reading(readout)(inputs()))
    assert all(reached.values()), [key for key, value in reached.items() if not value]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences(name):
    readout = perturbed(build(readouts, name)).eval()
    given = inputs(frames=2)

    def run(module, maps, pupil):
        return module(maps, pupil)

    check_gradients(readout, run, features(given), given.pupil)


@pytest.mark.parametrize("name", NAMES)
def test_a_readout_survives_pickling_and_its_weights_can_be_loaded(name):
    check_survives_storage(lambda seed: build(readouts, name, seed), lambda readout: reading(readout)(inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_result(name):
    check_repeats_by_seed(lambda seed: build(readouts, name, seed), lambda readout: reading(readout)(inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_draws_nothing(name):
    readout = build(readouts, name).eval()
    assert torch.equal(reading(readout)(inputs()), reading(readout)(inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_is_a_finite_scalar_that_is_not_negative(name):
    readout = build(readouts, name)
    penalty = readout.penalty() if hasattr(readout, "penalty") else torch.zeros(())
    assert penalty.shape == ()
    assert penalty.isfinite()
    assert penalty >= 0


@pytest.mark.parametrize("name", HANDED_ON)
def test_a_readout_that_hands_features_on_has_no_parameters_and_changes_nothing(name):
    readout = build(readouts, name, feature_shape=(NEURONS, 1, 1)).eval()
    given, chosen = inputs().observed, torch.tensor([3, 0])
    assert list(readout.parameters()) == []
    assert torch.equal(readout(given[..., None, None]), given)
    assert torch.equal(readout(given[..., None, None], None, chosen), given[..., chosen])
    assert readout.embedding().shape == (NEURONS, readout.embedding_channels)
    check_survives_storage(
        lambda seed: build(readouts, name, seed, feature_shape=(NEURONS, 1, 1)),
        lambda readout: readout(given[..., None, None]),
    )
