"""Dynamic attention against the equation written out, and against the static map that it starts from."""

import numpy as np
import pytest
import torch
from attention_worlds import (
    FACTS,
    H,
    N,
    W,
    by_hand,
    given,
    moved,
    numbers,
    own_slopes_are_one,
    softplus,
    through,
    unit,
    weigh,
)

from neuroint.modules import chunks
from neuroint.modules.interaction import dynamic_attention
from neuroint.modules.interaction.dynamic_attention import DynamicAttention
from neuroint.registry import MissingFactError, interactions


def stage(**options):
    return DynamicAttention(**FACTS, heads=H, head_width=W, **options).double()


def written_out(module, drive, context, shape):
    """Outputs and maps in plain loops over frames, heads and cells."""
    p, e, d = numbers(module), unit(context), drive.flatten(0, 1).numpy()
    query, key, value, output = (through(p, f"tokens.{name}", e) for name in ("query", "key", "value", "output"))
    out, maps = d.copy(), np.zeros((len(d), H, N, N))
    for t, h, i in np.ndindex(len(d), H, N):
        others = [j for j in range(N) if j != i]
        asks = query[i, h] + p["query_of_drive"][h] * np.arcsinh(d[t, i])
        logits = [
            asks @ (key[j, h] + p["key_of_drive"][h] * np.arcsinh(d[t, j])) / 2 + by_hand(shape, p, h, i, j)[0]
            for j in others
        ]
        maps[t, h, i, others] = weigh("softmax", np.array(logits), p["null_logit"][h], N - 1)
        heard = sum(maps[t, h, i, j] * value[j, h] * softplus(d[t, j]) for j in others)
        out[t, i] += output[i, h] @ heard
    return torch.tensor(out).view_as(drive), torch.tensor(maps)


@pytest.mark.parametrize("shape", ["fourier", "none"])
@pytest.mark.parametrize("rows", [512, 7, 3, 2, 1])
def test_the_output_is_the_equation_in_blocks_of_any_size(rows, shape, monkeypatch):
    monkeypatch.setattr(dynamic_attention, "ROWS", rows)
    module = moved(stage(position=shape))
    drive, context = given()
    expected, maps = written_out(module, drive, context, shape)
    torch.testing.assert_close(module(drive, context), expected, rtol=1e-5, atol=1e-5)
    made = module.attention_map(context, drive.flatten(0, 1))
    torch.testing.assert_close(made, maps, rtol=1e-5, atol=1e-5)
    assert (made.diagonal(dim1=-2, dim2=-1) == 0).all()


def test_blocks_and_chunks_change_neither_outputs_nor_gradients(monkeypatch):
    module = moved(stage())
    drive, context = given()
    results = []
    for rows, size in ((512, 2**23), (3, 1)):
        monkeypatch.setattr(dynamic_attention, "ROWS", rows)
        monkeypatch.setattr(chunks, "CHUNK", {"cpu": size})
        module.zero_grad()
        out = module(drive, context)
        (out**2).sum().backward()
        results.append([out.detach(), *(parameter.grad.clone() for parameter in module.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_map_can_be_made_of_a_few_neurons():
    module = moved(stage())
    drive, context = given()
    frames, chosen = drive[0, :2], torch.tensor([5, 1])
    whole = module.attention_map(context, frames)
    torch.testing.assert_close(module.attention_map(context, frames, chosen), whole[:, :, chosen])
    torch.testing.assert_close(module.coupling(context, frames, chosen), module.coupling(context, frames)[:, chosen])


def test_coupling_is_what_rectified_drives_are_multiplied_by():
    module = moved(stage())
    drive, context = given()
    frames = drive[0]
    influence = torch.einsum("tij,tj->ti", module.coupling(context, frames), torch.nn.functional.softplus(frames))
    torch.testing.assert_close(module(drive, context)[0], frames + influence)


def test_where_drives_are_not_asked_about_the_map_does_not_change():
    module = moved(stage())
    for parameter in (module.query_of_drive, module.key_of_drive):
        torch.nn.init.zeros_(parameter)
    drive, context = given()
    maps = module.attention_map(context, drive[0])
    torch.testing.assert_close(maps, maps[:1].expand_as(maps))
    assert own_slopes_are_one(module, drive, context), "a neuron hears nothing of itself"


def test_it_starts_as_no_interaction_with_a_static_map_while_gradients_flow():
    module = stage()
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    assert (module.query_of_drive == 0).all()
    (out**2).sum().backward()
    assert module.tokens.output.weight.grad.abs().min() > 0


def test_no_map_is_held_for_the_backward_pass(monkeypatch):
    n_neurons, frames = 300, 8
    monkeypatch.setattr(dynamic_attention, "ROWS", 64)
    module = DynamicAttention(n_neurons=n_neurons, embedding_channels=4, position="none", heads=1, head_width=4)
    drive, largest = torch.randn(1, frames, n_neurons), 0

    def look(tensor):
        nonlocal largest
        largest = max(largest, tensor.untyped_storage().nbytes() // 4)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        module(drive, type(given()[1])(embedding=torch.randn(n_neurons, 4)))
    assert largest <= 64 * 640  # the mask's table; a map would be 300 x 300, and one per frame


def test_one_neuron_has_nobody_to_attend_to():
    module = moved(DynamicAttention(n_neurons=1, embedding_channels=4, position="none").double())
    drive = torch.randn(2, 3, 1, dtype=torch.float64)
    context = type(given()[1])(embedding=torch.ones(1, 4, dtype=torch.float64))
    assert torch.equal(module(drive, context), drive)


def test_without_positions_waves_are_refused_with_a_way_out():
    facts = {"n_neurons": N, "embedding_channels": 4}
    with pytest.raises(MissingFactError, match=r"needs positions_um.*position: none"):
        interactions["dynamic_attention"].build({}, facts)


def test_the_width_that_a_card_wants_changes_no_number(monkeypatch):
    module, (drive, context) = moved(stage()), given()
    plain = module(drive, context)
    assert module.prepare(context).query.shape[-1] % dynamic_attention.FUSED_WIDTHS, "or nothing would be added"
    monkeypatch.setattr(dynamic_attention, "_spare", lambda width, device: (0, -width % dynamic_attention.FUSED_WIDTHS))
    assert module.prepare(context).query.shape[-1] % dynamic_attention.FUSED_WIDTHS == 0
    torch.testing.assert_close(module(drive, context), plain, rtol=1e-12, atol=1e-12)


def test_only_a_card_wants_wider_features():
    assert dynamic_attention._spare(25, "cuda") == (0, 7)
    assert dynamic_attention._spare(32, "cuda") == (0, 0)
    assert dynamic_attention._spare(25, "cpu") == (0, 0)
