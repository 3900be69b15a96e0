"""Inducing attention against the equation written out."""

import numpy as np
import pytest
import torch
from attention_worlds import FACTS, H, N, W, given, moved, numbers, softplus, through, unit, weigh

from neuroint.modules import chunks
from neuroint.modules.interaction.inducing_attention import InducingAttention

M = 2


def stage(**options):
    facts = {key: FACTS[key] for key in ("n_neurons", "embedding_channels")}
    return InducingAttention(**facts, **({"heads": H, "head_width": W, "points": M} | options)).double()


def written_out(module, drive, context):
    """Outputs and maps in plain loops over frames, heads, points and cells."""
    p, e, d = numbers(module), unit(context), drive.flatten(0, 1).numpy()
    query, key, value, output = (through(p, f"tokens.{name}", e) for name in ("query", "key", "value", "output"))
    out, maps = d.copy(), np.zeros((len(d), H, N, N))
    for t, h in np.ndindex(len(d), H):
        asks = query[:, h] + np.outer(np.arcsinh(d[t]), p["query_of_drive"][h])
        tells = key[:, h] + np.outer(np.arcsinh(d[t]), p["key_of_drive"][h])
        listening = [weigh("softmax", tells @ p["point_query"][h, m] / 2, p["null_listening"][h], N) for m in range(M)]
        for i in range(N):
            asking = weigh("softmax", p["point_key"][h] @ asks[i] / 2, p["null_asking"][h], M)
            for j in range(N):
                if j != i:
                    maps[t, h, i, j] = sum(asking[m] * listening[m][j] for m in range(M))
                    out[t, i] += maps[t, h, i, j] * output[i, h] @ value[j, h] * softplus(d[t, j])
    return torch.tensor(out).view_as(drive), torch.tensor(maps)


def test_the_output_and_the_map_are_the_equation():
    module = moved(stage())
    drive, context = given()
    expected, maps = written_out(module, drive, context)
    torch.testing.assert_close(module(drive, context), expected)
    torch.testing.assert_close(module.attention_map(context, drive.flatten(0, 1)), maps)


def test_coupling_is_what_rectified_drives_are_multiplied_by():
    module = moved(stage())
    drive, context = given()
    frames = drive[0]
    influence = torch.einsum("tij,tj->ti", module.coupling(context, frames), torch.nn.functional.softplus(frames))
    torch.testing.assert_close(module(drive, context)[0], frames + influence)


def test_the_map_has_at_most_the_rank_of_its_points_beside_the_diagonal():
    module, (drive, context) = moved(stage(points=1)), given()
    listening, asking = module._weights(module.prepare(context), drive[0])
    whole = asking @ listening
    assert torch.linalg.matrix_rank(whole).max() == 1
    diagonal = torch.diag_embed(whole.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(module.attention_map(context, drive[0]) + diagonal, whole)


def test_alone_it_says_nothing():
    module = moved(InducingAttention(n_neurons=1, embedding_channels=4).double())
    drive = torch.randn(2, 3, 1, dtype=torch.float64)
    around = type(given()[1])(embedding=torch.ones(1, 4, dtype=torch.float64))
    torch.testing.assert_close(module(drive, around), drive, rtol=0, atol=1e-12)


def test_it_starts_as_no_interaction_while_gradients_flow():
    module = stage()
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    (out**2).sum().backward()
    assert module.tokens.output.weight.grad.abs().min() > 0


@pytest.mark.parametrize("which", ["null_listening", "null_asking"])
def test_listening_to_nobody_and_asking_nobody_can_be_said(which):
    module = moved(stage())
    torch.nn.init.constant_(getattr(module, which), 60.0)
    drive, context = given()
    torch.testing.assert_close(module(drive, context), drive, rtol=0, atol=1e-12)


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
