"""A small population for tests of the attention family, and its arithmetic in NumPy, written apart from the package."""

import numpy as np
import torch

from neuroint.modules.base import Context

N, E, H, W = 7, 4, 2, 4
LATERAL, DEPTH = 300.0, 150.0
POSITIONS = np.random.default_rng(0).uniform(0, 300, (N, 3)).astype(np.float32)
FACTS = {"n_neurons": N, "positions_um": POSITIONS, "embedding_channels": E}


def moved(module, by=0.5):
    """Move every parameter, so that what starts at zero takes part."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def given(scale=1.0, frames=6):
    generator = torch.Generator().manual_seed(3)
    drive = scale * torch.randn(2, frames, N, generator=generator, dtype=torch.float64)
    return drive, Context(embedding=torch.randn(N, E, generator=generator, dtype=torch.float64))


def numbers(module):
    """Parameters as NumPy arrays, by name."""
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def unit(context):
    """Embeddings at root mean square 1."""
    e = context.embedding.numpy()
    return e / np.sqrt((e**2).mean(1, keepdims=True))


def through(p, name, e, heads=H):
    """A linear layer of embeddings, split into heads: neurons, heads, width."""
    out = e @ p[f"{name}.weight"].T + p[f"{name}.bias"]
    return out.reshape(len(e), heads, -1)


def softplus(x):
    return np.log1p(np.exp(x))


def apart(i, j):
    """The vector from one cell to another, in ranges."""
    return (POSITIONS[i].astype(float) - POSITIONS[j]) / (LATERAL, LATERAL, DEPTH)


def by_hand(shape, p, h, i, j):
    """Logit and factor that the places of two cells give, in plain arithmetic."""
    delta = apart(i, j)
    lateral, depth = np.hypot(delta[0], delta[1]), abs(delta[2])
    if shape == "rbf":
        centers = np.linspace(0, 1, 4)
        bumps = [np.exp(-((d - centers) ** 2) / (2 / 9)) for d in (lateral, depth)]
        return p["bias.weights"][h, 0] @ bumps[0] + p["bias.weights"][h, 1] @ bumps[1], 1.0
    if shape == "alibi":
        return -p["bias.slopes"][h] @ (lateral, depth), 1.0
    if shape == "center_surround":
        factor = 0.0
        for c in (0, 1):
            scale = np.exp(p["bias.log_scales"][h, c])
            factor += p["bias.weights"][h, c] * np.exp(-((lateral / scale[0]) ** 2 + (depth / scale[1]) ** 2) / 2)
        return 0.0, factor
    if shape == "fourier":
        phase = p["bias.frequency"] @ delta
        return p["bias.weights"][h, 0] @ np.cos(phase) + p["bias.weights"][h, 1] @ np.sin(phase), 1.0
    if shape == "mlp":
        hidden = np.tanh(p["bias.hidden.weight"] @ delta + p["bias.hidden.bias"])
        return p["bias.weights"][h] @ hidden, 1.0
    return 0.0, 1.0


def weigh(kind, logits, null, others):
    """Weights of others whose logits are given, so that nobody can be attended to."""
    if kind == "sigmoid":
        return 1 / (1 + np.exp(null - logits)) / others
    mass = np.exp(logits)
    return mass / (mass.sum() + np.exp(null))


def own_slopes_are_one(stage, drive, context):
    """Say whether no neuron's output moves with its own drive but for the drive itself."""
    slopes = torch.autograd.functional.jacobian(lambda x: stage(x, context), drive[:1, :1])[0, 0, :, 0, 0]
    return torch.allclose(slopes.diagonal(), torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-12)
