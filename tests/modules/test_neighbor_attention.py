"""Attention over neighbors against the equation written out, and against attention over all."""

import numpy as np
import pytest
import torch
from attention_worlds import FACTS, H, N, W, by_hand, given, moved, numbers, softplus, through, unit, weigh
from torch.nn import functional

from neuroint.modules.interaction.attention import Attention
from neuroint.modules.interaction.neighbor_attention import NeighborAttention
from neuroint.modules.pair_bias import PAIR_BIASES
from neuroint.registry import MissingFactError, interactions

K = 3


def stage(**options):
    return NeighborAttention(**FACTS, **({"heads": H, "head_width": W, "neighbors": K} | options)).double()


def written_out(module, drive, context, shape, weights):
    """The equation in plain loops over heads, cells and their neighbors."""
    p, e = numbers(module), unit(context)
    query, key, value, output = (through(p, f"tokens.{name}", e) for name in ("query", "key", "value", "output"))
    neighbors, out = module.graph(context.embedding).numpy(), drive.numpy().copy()
    for h in range(H):
        for i in range(N):
            places = [by_hand(shape, p, h, i, j) for j in neighbors[i]]
            logits = np.array([query[i, h] @ key[j, h] / 2 + b for j, (b, _) in zip(neighbors[i], places, strict=True)])
            mass = weigh(weights, logits, p["null_logit"][h], K)
            for j, share, (_, factor) in zip(neighbors[i], mass, places, strict=True):
                out[..., i] += output[i, h, 0] * share * factor * value[j, h, 0] * softplus(drive.numpy()[..., j])
    return torch.tensor(out)


@pytest.mark.parametrize("weights", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shape", sorted(PAIR_BIASES))
@pytest.mark.parametrize("graph", ["position", "embedding", "random", "degree_matched"])
def test_the_output_is_the_equation(graph, shape, weights):
    module = moved(stage(graph=graph, position=shape, weights=weights))
    drive, context = given()
    expected = written_out(module, drive, context, shape, weights)
    torch.testing.assert_close(module(drive, context), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", ["softmax", "sigmoid"])
def test_with_all_others_as_neighbors_it_is_attention_over_all(weights):
    whole = moved(Attention(**FACTS, heads=H, head_width=W, weights=weights).double())
    part = stage(neighbors=N - 1, weights=weights)
    renamed = {k.replace("tokens.", ""): v for k, v in part.state_dict().items()}
    assert renamed.keys() == whole.state_dict().keys()
    state = whole.state_dict()
    part.load_state_dict({k: state[k.replace("tokens.", "")] for k in part.state_dict()})
    drive, context = given()
    torch.testing.assert_close(part(drive, context), whole(drive, context))
    torch.testing.assert_close(part.attention_map(context), whole.attention_map(context))
    torch.testing.assert_close(part.coupling(context), whole.coupling(context))


def test_coupling_is_the_influence_of_rectified_drives_on_drives():
    module = moved(stage())
    drive, context = given()
    coupling = module.coupling(context)
    assert ((coupling != 0).sum(1) == K).all()
    assert (coupling.diagonal() == 0).all()
    torch.testing.assert_close(module(drive, context), drive + functional.softplus(drive) @ coupling.T)


def test_it_starts_as_no_interaction_while_gradients_flow():
    module = stage()
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    (out**2).sum().backward()
    assert module.tokens.output.weight.grad.abs().min() > 0


def test_a_random_graph_needs_no_positions():
    facts = {"n_neurons": N, "embedding_channels": 4}
    options = {"graph": "random", "position": "none", "neighbors": 2}
    assert interactions["neighbor_attention"].build(options, facts).double()(*given()).shape == (2, 6, N)
    with pytest.raises(MissingFactError, match="a graph of near cells needs positions_um"):
        interactions["neighbor_attention"].build({"position": "none"}, facts)
