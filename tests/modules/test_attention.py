"""Static attention against the equation written out, and what its map says."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from neuroint.modules.base import Context
from neuroint.modules.interaction import attention
from neuroint.modules.interaction.attention import Attention
from neuroint.modules.pair_bias import RadialBias, SlopeBias
from neuroint.registry import MissingFactError, interactions

N, E, H, W = 7, 4, 2, 3
POSITIONS = np.random.default_rng(0).uniform(0, 300, (N, 3)).astype(np.float32)
FACTS = {"n_neurons": N, "positions_um": POSITIONS, "embedding_channels": E}


def stage(**options):
    return Attention(**FACTS, heads=H, head_width=W, **options).double()


def moved(module, by=0.5):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def given():
    generator = torch.Generator().manual_seed(3)
    drive = torch.randn(2, 6, N, generator=generator, dtype=torch.float64)
    return drive, Context(embedding=torch.randn(N, E, generator=generator, dtype=torch.float64))


def written_out(module, drive, context):
    """The equation in plain loops over heads and cells."""
    p = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    e = context.embedding.numpy()
    e = e / np.sqrt((e**2).mean(1, keepdims=True))

    def through(name):
        return e @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    query, key = through("query").reshape(N, H, W), through("key").reshape(N, H, W)
    value, output = through("value"), through("output")
    centers, out = np.linspace(0, 1, 4), drive.numpy().copy()
    rectified = np.log1p(np.exp(drive.numpy()))
    for h in range(H):
        for i in range(N):
            mass = np.zeros(N)
            for j in range(N):
                apart = POSITIONS[i].astype(float) - POSITIONS[j]
                scaled = np.hypot(apart[0], apart[1]) / 300, abs(apart[2]) / 150
                bias = sum(
                    p["bias.weights"][h, axis] @ np.exp(-((scaled[axis] - centers) ** 2) / (2 / 9)) for axis in (0, 1)
                )
                mass[j] = np.exp(query[i, h] @ key[j, h] / np.sqrt(W) + bias) * (i != j)
            mass /= mass.sum() + np.exp(p["null_logit"][h])
            out[..., i] += output[i, h] * (rectified @ (mass * value[:, h]))
    return torch.tensor(out)


def test_the_output_is_the_equation():
    module = moved(stage())
    drive, context = given()
    torch.testing.assert_close(module(drive, context), written_out(module, drive, context), rtol=1e-6, atol=1e-6)


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


@pytest.mark.parametrize("position", ["rbf", "alibi"])
def test_positional_biases_start_at_zero(position):
    assert (stage(position=position).bias(slice(0, N)) == 0).all()


def test_a_slope_falls_with_lateral_distance_and_with_depth_on_their_own_scales():
    bias = SlopeBias(np.array([[0, 0, 0], [30, 40, 0], [0, 0, 60]], np.float32), 1, 4, 100.0, 30.0)
    with torch.no_grad():
        bias.slopes.copy_(torch.tensor([[2.0, 0.5]]))
    torch.testing.assert_close(bias(slice(0, 1))[0, 0], torch.tensor([0.0, -2 * 0.5, -0.5 * 2]))


def test_a_radial_bias_can_be_a_center_with_an_opposite_surround():
    line = np.array([[0, 0, 0], [10, 0, 0], [100, 0, 0], [1000, 0, 0]], np.float32)
    bias = RadialBias(line, 1, 2, 100.0, 100.0)
    with torch.no_grad():
        bias.weights[0, 0] = torch.tensor([1.0, -1.0])
    near, far, beyond = bias(slice(0, 1))[0, 0, 1:].tolist()
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
