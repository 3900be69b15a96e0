"""Message passing against the equation written out, and what its graphs and gains are bound to."""

import numpy as np
import pytest
import torch
from attention_worlds import FACTS, N, by_hand, given, moved, numbers, softplus, through, unit

from neuroint.modules import chunks
from neuroint.modules.interaction.message_passing import MessagePassing

K = 3


def stage(**options):
    return MessagePassing(**FACTS, neighbors=K, hidden=5, edge_width=4, **options).double()


def written_out(module, drive, context, shape):
    """The equation in plain loops over cells and their neighbors."""
    p, e, d = numbers(module), unit(context), drive.numpy()
    query, key = (through(p, name, e) for name in ("query", "key"))
    rest = e @ p["of_embedding.weight"].T + p["of_embedding.bias"]
    neighbors, out = module.graph(context.embedding).numpy(), d.copy()
    for i in range(N):
        for j in neighbors[i]:
            hidden = softplus(softplus(d[..., j, None]) * p["of_drive"] + rest[j]) - softplus(rest[j])
            sent = hidden @ p["message"][:, 0], np.tanh(hidden @ p["message"][:, 1])
            weight = []
            for kind in (0, 1):
                logit, factor = by_hand(shape, p, kind, i, j)
                weight.append((query[i, kind] @ key[j, kind] / 2 + logit) * factor / K)
            out[..., i] += weight[0] * sent[0] + d[..., i] * weight[1] * sent[1]
    return torch.tensor(out)


@pytest.mark.parametrize("shape", ["rbf", "center_surround", "none"])
@pytest.mark.parametrize("graph", ["position", "embedding", "random", "degree_matched"])
def test_the_output_is_the_equation(graph, shape):
    module = moved(stage(graph=graph, position=shape))
    drive, context = given()
    torch.testing.assert_close(module(drive, context), written_out(module, drive, context, shape), rtol=1e-5, atol=1e-5)


def test_it_starts_as_no_interaction_while_gradients_flow():
    module = stage()
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    (out**2).sum().backward()
    assert module.query.weight.grad.abs().min() > 0
    assert module.bias.weights.grad.abs().max() > 0


def test_a_population_that_is_silent_sends_nothing():
    module = moved(stage())
    drive, context = given()
    only = torch.full_like(drive, -800.0)
    only[..., 2] = drive[..., 2]
    torch.testing.assert_close(module(only, context)[..., 2], drive[..., 2], rtol=0, atol=1e-12)


def test_the_gain_on_a_drive_is_bounded_by_the_weights_of_scaling_messages():
    module = moved(stage(), by=2.0)
    context = given()[1]
    bound = 1 + module.modulation(context).abs().sum(1)
    for scale in (1.0, 1e3, 1e6):
        drive = given(scale)[0]
        with torch.no_grad():
            module.message[:, 0] = 0  # nothing is added
            assert ((module(drive, context) / drive).abs() <= bound * (1 + 1e-9)).all()


def test_weights_for_analysis_stand_at_the_neighbors():
    module = moved(stage())
    context = given()[1]
    for weights in (module.coupling(context), module.modulation(context)):
        assert weights.shape == (N, N)
        assert ((weights != 0).sum(1) == K).all()
        assert (weights.diagonal() == 0).all()


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
