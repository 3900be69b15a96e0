"""Masked modelling: what counts as hidden, what models are shown, and two views of a clip."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from neuroint.data.base import Batch, Inputs, Recorded
from neuroint.modules.masking import Masking
from neuroint.modules.objective.contrastive import Contrastive, info_nce
from neuroint.modules.objective.masked_poisson import MaskedPoisson, hidden
from neuroint.modules.objective.poisson import Poisson

MASKED = Recorded("recorded_others", 0, 0, reconstructs=True)
OTHERS = Recorded("recorded_others", 0, 0)
HALF = Masking(least=0.5, most=0.5, token_ratio=1.0)
HELD_IN, NEURONS, BINS = 3, 5, 8


class Model:
    """Predicts a rate of 1 everywhere and keeps what it was shown."""

    def __init__(self, recorded, core=None):
        self.recorded, self.core, self.shown = recorded, core, []

    def __call__(self, inputs, session, neurons):
        self.shown.append(inputs.observed)
        rate = torch.ones(*inputs.observed.shape[:2], NEURONS, dtype=torch.float64)
        return rate if neurons is None else rate[..., neurons]

    def burn_in(self, session):
        return 0


def batch(unseen=None, clips=2):
    counts = torch.arange(clips * BINS * NEURONS, dtype=torch.float64).reshape(clips, BINS, NEURONS) % 3 + 1
    valid = torch.ones_like(counts, dtype=torch.bool)
    unseen = None if unseen is None else torch.tensor(unseen)
    return Batch("one", Inputs(observed=counts[..., :HELD_IN]), counts, valid, torch.arange(clips), unseen)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_masked_held_in_entries_and_all_held_out_ones_count():
    model, given = Model(MASKED), batch()
    total, count = MaskedPoisson(masking=HALF)(model, given, generator())
    masked = model.shown[0] == 0
    assert 0 < masked.sum() < masked.numel()
    assert count.item() == masked.sum().item() + 2 * BINS * (NEURONS - HELD_IN)
    assert total.item() == pytest.approx(count.item(), abs=1e-4), "rate 1 costs 1 nat per response"
    assert torch.equal(model.shown[0][~masked], given.inputs.observed[~masked])


def test_bins_of_forward_prediction_count_for_every_neuron():
    mask = torch.zeros(2, BINS, HELD_IN, dtype=torch.bool)
    found = hidden(Model(MASKED), batch(unseen=[0, 3]), mask)
    assert not found[0, :, :HELD_IN].any()
    assert not found[1, :5, :HELD_IN].any()
    assert found[1, 5:].all()
    assert found[..., HELD_IN:].all()


def test_where_no_predicted_neuron_is_observed_everything_counts():
    model = Model(OTHERS)
    _, count = MaskedPoisson(masking=HALF)(model, batch(), generator())
    assert count.item() == 2 * BINS * NEURONS
    assert (model.shown[0] == 0).any(), "the mask is a dropout of the input"


def test_what_is_not_valid_does_not_count_and_a_subset_keeps_its_own_mask():
    given = batch()
    valid = given.valid.clone()
    valid[..., 4] = False
    chosen = torch.tensor([1, 4])
    model = Model(MASKED)
    _, count = MaskedPoisson(masking=HALF)(model, replace(given, valid=valid), generator(), chosen)
    assert count.item() == (model.shown[0][..., 1] == 0).sum().item()


def test_without_records_it_is_the_poisson_loss():
    class Blind(Model):
        def __call__(self, inputs, session, neurons):
            return torch.full((2, BINS, NEURONS), 0.7, dtype=torch.float64)

    given = replace(batch(), inputs=Inputs(behavior=torch.zeros(2, BINS, 1, dtype=torch.float64)))
    expected = Poisson()(Blind(None), given)
    assert torch.equal(torch.stack(MaskedPoisson()(Blind(None), given)), torch.stack(expected))


def test_the_generator_alone_decides_on_the_mask():
    model = Model(MASKED)
    for seed in (1, 1, 2):
        MaskedPoisson(masking=HALF)(model, batch(), generator(seed))
    assert torch.equal(model.shown[0], model.shown[1])
    assert not torch.equal(model.shown[0], model.shown[2])


# --- contrast


class Core:
    """Embeds counts by one weight."""

    def __init__(self):
        self.weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def embeddings(self, inputs):
        return [inputs.observed * self.weight, inputs.observed.transpose(1, 2) + self.weight]

    def __call__(self, inputs):
        return inputs.observed[..., None, None] ** 2 + self.weight


def test_info_nce_by_hand():
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    expected = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + 2))  # the partner's cosine is 1, two others have 0
    assert info_nce(first, second, 0.5).item() == pytest.approx(expected, abs=1e-6)


def test_a_partner_is_the_other_view_and_not_another_clip():
    first, second = torch.eye(3), torch.eye(3)
    assert info_nce(first, second, 0.07) < 0.01 < 5 < info_nce(first, second.roll(1, 0), 0.07)


def test_a_single_clip_has_nobody_to_be_told_apart_from():
    assert info_nce(torch.ones(1, 4), torch.ones(1, 4), 0.07).item() == 0


@pytest.mark.parametrize("layer", ["embedding", "features"])
def test_the_weight_counts_per_response_and_zero_is_the_masked_loss(layer):
    given, losses = batch(clips=3), {}
    for weight in (0.0, 1.0, 2.0):
        objective = Contrastive(weight=weight, layer=layer, masking=HALF)
        losses[weight] = objective(Model(MASKED, Core()), given, generator())
    plain, count = MaskedPoisson(masking=HALF)(Model(MASKED), given, generator())
    assert losses[0.0][0].item() == pytest.approx(plain.item())
    added = [(losses[weight][0] - plain) / count for weight in (1.0, 2.0)]
    assert added[1].item() == pytest.approx(2 * added[0].item())
    assert added[0].item() > 0


def test_the_gradient_reaches_the_core():
    core = Core()
    total, _ = Contrastive()(Model(MASKED, core), batch(clips=3), generator())
    total.backward()
    assert core.weight.grad.abs() > 0


def test_a_core_without_embeddings_or_data_without_records_are_refused():
    with pytest.raises(ValueError, match=r"which core 'SimpleNamespace' does not expose; choose core ndt, stndt"):
        Contrastive()(Model(MASKED, SimpleNamespace()), batch(), generator())

    class Blind(Model):
        def __call__(self, inputs, session, neurons):
            return torch.ones(2, BINS, NEURONS, dtype=torch.float64)

    blind = replace(batch(), inputs=Inputs(behavior=torch.zeros(2, BINS, 1, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"masks recorded activity, which is not on offer; set data.observed"):
        Contrastive()(Blind(None, Core()), blind, generator())
