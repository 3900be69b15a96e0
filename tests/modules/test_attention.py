"""Static attention against the equation written out, and what its map says."""

import numpy as np
import pytest
import torch
from attention_worlds import (
    FACTS,
    POSITIONS,
    E,
    H,
    N,
    W,
    by_hand,
    given,
    moved,
    numbers,
    softplus,
    through,
    unit,
    weigh,
)
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.interaction import attention
from neuroint.modules.interaction.attention import Attention
from neuroint.modules.pair_bias import PAIR_BIASES, CenterSurroundBias, RadialBias, SlopeBias
from neuroint.registry import MissingFactError, interactions


def stage(**options):
    return Attention(**FACTS, heads=H, head_width=W, **options).double()


def written_out(module, drive, context, shape="rbf", weights="softmax"):
    """The equation in plain loops over heads and cells."""
    p, e = numbers(module), unit(context)
    query, key, value, output = (through(p, name, e) for name in ("query", "key", "value", "output"))
    out = drive.numpy().copy()
    for h in range(H):
        for i in range(N):
            others = [j for j in range(N) if j != i]
            places = [by_hand(shape, p, h, i, j) for j in others]
            logits = np.array([query[i, h] @ key[j, h] / 2 + b for j, (b, _) in zip(others, places, strict=True)])
            mass = weigh(weights, logits, p["null_logit"][h], N - 1)
            for j, share, (_, factor) in zip(others, mass, places, strict=True):
                out[..., i] += output[i, h, 0] * share * factor * value[j, h, 0] * softplus(drive.numpy()[..., j])
    return torch.tensor(out)


@pytest.mark.parametrize("weights", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shape", sorted(PAIR_BIASES))
def test_the_output_is_the_equation(shape, weights):
    module = moved(stage(position=shape, weights=weights))
    drive, context = given()
    expected = written_out(module, drive, context, shape, weights)
    torch.testing.assert_close(module(drive, context), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 6])
def test_a_coupling_that_is_too_large_to_keep_gives_the_same(frames, monkeypatch):
    module = moved(stage())
    drive, context = given(frames=frames)
    kept = module(drive, context)
    monkeypatch.setattr(attention, "HELD", N * N - 1)
    monkeypatch.setattr(attention, "ROWS", 3)
    assert module.prepare(context).coupling is None
    torch.testing.assert_close(module(drive, context), kept)
    (module(drive, context) ** 2).sum().backward()
    assert module.query.weight.grad.abs().min() > 0


def test_with_sigmoid_weights_neurons_do_not_compete_and_nobody_can_be_attended_to():
    module = stage(weights="sigmoid", position="none")
    alike = Context(embedding=torch.zeros(N, E, dtype=torch.float64))
    with torch.no_grad():
        module.query.bias.zero_()
    held = module.attention_map(alike)
    torch.testing.assert_close(held.sum(-1), torch.full((H, N), 0.5, dtype=torch.float64))
    torch.nn.init.constant_(module.null_logit, 50.0)
    assert module.attention_map(alike).sum() < 1e-12


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_blocks_of_rows_change_neither_outputs_nor_gradients(rows, monkeypatch):
    module = moved(stage())
    drive, context = given()
    results = []
    for size in (512, rows):
        monkeypatch.setattr(attention, "ROWS", size)
        module.zero_grad()
        out = module(drive, context)
        (out**2).sum().backward()
        grads = [parameter.grad.clone() for parameter in module.parameters()]
        results.append([out.detach(), module.attention_map(context), module.coupling(context), *grads])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_it_starts_as_no_interaction_while_gradients_flow():
    module = stage()
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    (out**2).sum().backward()
    assert module.output.weight.grad.abs().min() > 0


def test_rows_and_the_null_token_share_a_mass_of_one():
    module = stage()
    held = module.attention_map(given()[1])
    assert held.shape == (H, N, N)
    assert (held >= 0).all()
    assert (held.diagonal(dim1=1, dim2=2) == 0).all()
    torch.nn.init.constant_(module.null_logit, -50.0)
    torch.testing.assert_close(module.attention_map(given()[1]).sum(-1), torch.ones(H, N, dtype=torch.float64))
    torch.nn.init.constant_(module.null_logit, 50.0)
    assert module.attention_map(given()[1]).sum() < 1e-12, "attending to nobody has to be possible"


def test_the_null_token_starts_with_half_the_mass_where_cells_are_alike():
    module = stage()
    alike = Context(embedding=torch.zeros(N, E, dtype=torch.float64))
    with torch.no_grad():
        module.query.bias.zero_()
    torch.testing.assert_close(
        module.attention_map(alike).sum(-1), torch.full((H, N), 0.5, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_coupling_is_the_influence_of_rectified_drives_on_drives():
    module = moved(stage())
    drive, context = given()
    coupling = module.coupling(context)
    assert (coupling.diagonal() == 0).all()
    torch.testing.assert_close(module(drive, context), drive + functional.softplus(drive) @ coupling.T)


def test_the_map_depends_on_embeddings_and_not_on_the_drive():
    module = moved(stage())
    drive, context = given()
    other = Context(embedding=context.embedding.flip(0))
    assert not torch.allclose(module.attention_map(context), module.attention_map(other))
    slope = torch.autograd.functional.jacobian(lambda x: module(x, context), drive[:1, :1])[0, 0, :, 0, 0]
    torch.testing.assert_close(
        slope, torch.eye(N, dtype=torch.float64) + module.coupling(context) * torch.sigmoid(drive[0, 0])
    )


def test_the_scale_of_readout_weights_does_not_matter():
    module = moved(stage())
    drive, context = given()
    smaller = Context(embedding=context.embedding / 100)
    torch.testing.assert_close(module(drive, smaller), module(drive, context), rtol=1e-6, atol=1e-6)


def test_free_embeddings_need_no_readout():
    module = Attention(n_neurons=N, positions_um=POSITIONS, embedding="free", embedding_width=5).double()
    assert module(given()[0], Context()).shape == (2, 6, N)
    assert module.embedding.vectors.shape == (N, 5)


@pytest.mark.parametrize("position", ["rbf", "alibi", "fourier", "mlp", "none"])
def test_positional_biases_start_at_zero(position):
    logit, factor = stage(position=position).bias(slice(0, N))
    assert (logit == 0).all()
    assert (factor == 1).all()


def test_a_center_and_its_surround_have_opposite_signs_and_their_own_scales():
    line = np.array([[0, 0, 0], [30, 0, 0], [170, 0, 0], [5000, 0, 0], [0, 0, 85]], np.float32)
    logit, factor = CenterSurroundBias(line, 1, 4, 300.0, 150.0)(slice(0, 1))
    here, near, far, beyond, below = factor[0, 0].tolist()
    assert (logit == 0).all()
    assert here == pytest.approx(0.4)
    assert near == pytest.approx(np.exp(-(0.5**2) / 2) - 0.6 * np.exp(-(0.2**2) / 2), rel=1e-5)  # 60 and 150 um
    assert near > 0 > far
    assert beyond == pytest.approx(0)
    assert below == pytest.approx(far, rel=1e-5)  # half the distance at half the range


def test_waves_are_products_of_queries_and_keys():
    module = moved(stage(position="fourier"))
    query, key = module.bias.factors(torch.zeros(N, H, W, dtype=torch.float64))
    torch.testing.assert_close(torch.einsum("ihf,jhf->hij", query, key), module.bias(slice(0, N)).logit)


@pytest.mark.parametrize("shape", sorted(PAIR_BIASES))
def test_terms_along_a_graph_are_entries_of_the_whole_table(shape):
    module = moved(stage(position=shape))
    neighbors = torch.tensor([[1, 2], [0, 3], [4, 5], [0, 6], [1, 2], [3, 6], [0, 5]])
    for along, table in zip(module.bias.along(neighbors), module.bias(slice(0, N)), strict=True):
        wide = table.expand(table.shape[0], N, N)
        picked = wide.gather(2, neighbors.expand(table.shape[0], N, 2))
        torch.testing.assert_close(along.expand_as(picked), picked)


def test_a_slope_falls_with_lateral_distance_and_with_depth_on_their_own_scales():
    bias = SlopeBias(np.array([[0, 0, 0], [30, 40, 0], [0, 0, 60]], np.float32), 1, 4, 100.0, 30.0)
    with torch.no_grad():
        bias.slopes.copy_(torch.tensor([[2.0, 0.5]]))
    torch.testing.assert_close(bias(slice(0, 1)).logit[0, 0], torch.tensor([0.0, -2 * 0.5, -0.5 * 2]))


def test_a_radial_bias_can_be_a_center_with_an_opposite_surround():
    line = np.array([[0, 0, 0], [10, 0, 0], [100, 0, 0], [1000, 0, 0]], np.float32)
    bias = RadialBias(line, 1, 2, 100.0, 100.0)
    with torch.no_grad():
        bias.weights[0, 0] = torch.tensor([1.0, -1.0])
    near, far, beyond = bias(slice(0, 1)).logit[0, 0, 1:].tolist()
    assert near > 0
    assert far < 0
    assert beyond == pytest.approx(0)


def test_without_positions_a_positional_bias_is_refused_with_a_way_out():
    facts = {"n_neurons": N, "embedding_channels": E}
    with pytest.raises(MissingFactError, match=r"needs positions_um, which the data does not have.*position: none"):
        interactions["attention"].build({}, facts)
    assert interactions["attention"].build({"position": "none"}, facts).double()(*given()).shape == (2, 6, N)


def test_readout_embeddings_without_a_readout_are_refused():
    with pytest.raises(MissingFactError, match="embedding_channels, which no readout gave; choose free"):
        interactions["attention"].build({}, {"n_neurons": N, "positions_um": POSITIONS})
    with pytest.raises(ValueError, match=r"the context holds no embedding; give Context"):
        stage()(given()[0], Context())


def test_one_neuron_has_nobody_to_attend_to():
    module = moved(Attention(n_neurons=1, embedding_channels=E, position="none").double())
    drive = torch.randn(2, 3, 1, dtype=torch.float64)
    assert torch.equal(module(drive, Context(embedding=torch.ones(1, E, dtype=torch.float64))), drive)
