"""Linear attention against the equation over all pairs, written out."""

import numpy as np
import pytest
import torch
from attention_worlds import FACTS, H, N, W, apart, given, moved, numbers, own_slopes_are_one, softplus, through, unit

from neuroint.modules import chunks
from neuroint.modules.base import Context
from neuroint.modules.interaction.linear_attention import LinearAttention
from neuroint.registry import MissingFactError, interactions


def stage(**options):
    return LinearAttention(**FACTS, heads=H, head_width=W, **options).double()


def phi(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def turned(x, y, angle):
    """The product of x with y turned by an angle per pair: pairs are a feature of the first half and of the second."""
    a, b = np.split(x, 2)
    c, d = np.split(y, 2)
    return np.sum(np.cos(angle) * (a * c + b * d) + np.sin(angle) * (b * c - a * d))


def written_out(module, drive, context, rotary):
    """Outputs and maps in plain loops over frames, heads and pairs."""
    p, e, d = numbers(module), unit(context), drive.flatten(0, 1).numpy()
    query, key, value, output = (through(p, f"tokens.{name}", e) for name in ("query", "key", "value", "output"))
    out, maps = d.copy(), np.zeros((len(d), H, N, N))
    for t, h, i in np.ndindex(len(d), H, N):
        asks = phi(query[i, h] + p["query_of_drive"][h] * np.arcsinh(d[t, i]))
        told = [phi(key[j, h] + p["key_of_drive"][h] * np.arcsinh(d[t, j])) for j in range(N)]
        mass = np.exp(p["null_logit"][h]) + sum(asks @ told[j] for j in range(N) if j != i) / (N - 1)
        for j in range(N):
            if j != i:
                angle = p["rotation.frequency"] @ apart(j, i) if rotary else 0.0
                maps[t, h, i, j] = turned(asks, told[j], angle) / (N - 1) / mass
                out[t, i] += maps[t, h, i, j] * output[i, h] @ value[j, h] * softplus(d[t, j])
    return torch.tensor(out).view_as(drive), torch.tensor(maps)


@pytest.mark.parametrize("position", ["rotary", "none"])
def test_the_output_and_the_map_are_the_equation(position):
    module = moved(stage(position=position))
    drive, context = given()
    expected, maps = written_out(module, drive, context, position == "rotary")
    torch.testing.assert_close(module(drive, context), expected, rtol=1e-5, atol=1e-5)
    made = module.attention_map(context, drive.flatten(0, 1))
    torch.testing.assert_close(made, maps, rtol=1e-5, atol=1e-5)
    assert bool((made < 0).any()) == (position == "rotary")


def test_coupling_is_what_rectified_drives_are_multiplied_by():
    module = moved(stage())
    drive, context = given()
    frames = drive[0]
    influence = torch.einsum("tij,tj->ti", module.coupling(context, frames), torch.nn.functional.softplus(frames))
    torch.testing.assert_close(module(drive, context)[0], frames + influence)


def test_a_neuron_hears_nothing_of_itself():
    module = moved(stage())
    torch.nn.init.zeros_(module.query_of_drive)  # so that its drive does not change what it asks for
    assert own_slopes_are_one(module, *given())


def test_it_starts_as_no_interaction_with_half_the_mass_for_nobody_while_gradients_flow():
    module = stage(position="none")
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    (out**2).sum().backward()
    assert module.tokens.output.weight.grad.abs().min() > 0
    with torch.no_grad():
        module.tokens.query.bias.zero_()
        module.tokens.key.bias.zero_()
    alike = Context(embedding=torch.zeros(N, 4, dtype=torch.float64))
    held = module.attention_map(alike, drive[0])
    torch.testing.assert_close(held.sum(-1), torch.full_like(held[..., 0], 0.5), rtol=1e-6, atol=0)


def test_single_precision_follows_double_in_a_large_population():
    facts = {"n_neurons": 8000, "embedding_channels": 4}
    torch.manual_seed(0)
    module = moved(LinearAttention(**facts, heads=2, head_width=8, position="none").double())
    drive = torch.randn(1, 2, 8000, dtype=torch.float64)
    drive[..., 0] = 1e4  # one neuron outweighs all others
    embedding = torch.randn(8000, 4, dtype=torch.float64)
    exact = module(drive, Context(embedding=embedding)) - drive
    single = module.float()(drive.float(), Context(embedding=embedding.float())) - drive.float()
    torch.testing.assert_close(single.double()[..., 1:], exact[..., 1:], rtol=1e-3, atol=1e-4)


def test_chunks_of_frames_change_neither_outputs_nor_gradients(monkeypatch):
    module = moved(stage())
    drive, context = given()
    results = []
    for size in (2**23, 1):
        monkeypatch.setattr(chunks, "CHUNK", {"cpu": size})
        module.zero_grad()
        out = module(drive, context)
        (out**2).sum().backward()
        results.append([out.detach(), *(parameter.grad.clone() for parameter in module.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_rotary_positions_need_positions_and_an_even_width():
    facts = {"n_neurons": N, "embedding_channels": 4}
    with pytest.raises(MissingFactError, match=r"rotary positions need positions_um.*position: none"):
        interactions["linear_attention"].build({}, facts)
    with pytest.raises(ValueError, match="turn pairs of features, got head_width 3; choose an even one"):
        interactions["linear_attention"].build({"head_width": 3}, FACTS)
