"""The population's mean against the equation written out."""

import numpy as np
import torch
from attention_worlds import FACTS, N, given, moved, numbers, softplus, unit

from neuroint.modules.base import Context
from neuroint.modules.interaction.population_mean import PopulationMean


def stage(**options):
    facts = {key: FACTS[key] for key in ("n_neurons", "embedding_channels")}
    return PopulationMean(**facts, **({"means": 2, "hidden": 3} | options)).double()


def written_out(module, drive, context):
    p, e, d = numbers(module), unit(context), drive.numpy()
    source = e @ p["source.weight"].T + p["source.bias"]
    bias = e @ p["of_embedding.weight"].T + p["of_embedding.bias"]
    out = d.copy()
    for i in range(N):
        heard = sum(softplus(d[..., j, None]) * source[j] for j in range(N) if j != i) / (N - 1)
        alone = np.arcsinh(d[..., i, None]) * p["of_drive"] + bias[i]
        out[..., i] += (softplus(alone + heard @ p["of_means"]) - softplus(alone)) @ p["output"]
    return torch.tensor(out)


def test_the_output_is_the_equation():
    module = moved(stage())
    drive, context = given()
    torch.testing.assert_close(module(drive, context), written_out(module, drive, context))


def test_it_starts_as_no_interaction_while_gradients_flow():
    module = stage()
    drive, context = given()
    out = module(drive, context)
    assert torch.equal(out, drive)
    (out**2).sum().backward()
    assert module.output.grad.abs().min() > 0


def test_means_leave_the_neuron_itself_out():
    module = moved(stage())
    drive, context = given()
    louder = drive[0].clone()
    louder[:, 3] += 5
    before, after = module.means(context, drive[0]), module.means(context, louder)
    torch.testing.assert_close(before[:, 3], after[:, 3], rtol=0, atol=1e-12)
    assert ((before - after).abs()[:, [0, 1, 2, 4, 5, 6]] > 1e-6).all()


def test_without_others_nothing_is_done_to_a_drive():
    module = moved(PopulationMean(n_neurons=1, embedding_channels=4).double())
    drive = torch.randn(2, 3, 1, dtype=torch.float64)
    around = Context(embedding=torch.ones(1, 4, dtype=torch.float64))
    torch.testing.assert_close(module(drive, around), drive, rtol=0, atol=1e-12)


def test_the_mean_of_a_large_population_is_exact_in_single_precision():
    n_neurons = 8000
    module = moved(PopulationMean(n_neurons=n_neurons, embedding_channels=4))
    generator = torch.Generator().manual_seed(0)
    drive = torch.randn(2, n_neurons, generator=generator)
    drive[:, 5] = 1e6  # the neuron whose own term is the largest
    around = Context(embedding=torch.randn(n_neurons, 4, generator=generator))
    single = module.means(around, drive)
    exact = module.double().means(Context(embedding=around.embedding.double()), drive.double())
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-2)
