"""Small populations for tests of couplings: designs, drives, and runs in the model's own loop."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroint.model import PopulationModel
from neuroint.modules.base import Context
from neuroint.registry import interactions

N, CHANNELS, BATCH, FRAMES = 9, 4, 2, 12
POSITIONS = np.random.default_rng(0).uniform(0, 300, (N, 3)).astype(np.float32)
FACTS: dict[str, Any] = {
    "n_neurons": N,
    "positions_um": POSITIONS,
    "embedding_channels": CHANNELS,
    "observed_channels": N,
    "observed_neurons": np.arange(N),
    "observed_lag_bins": 2,
}


def design(name: str, facts: dict[str, Any] | None = None, **options: Any) -> Any:
    """Build an interaction in float64."""
    torch.manual_seed(0)
    return interactions[name].build(options, FACTS | (facts or {})).double()


def moved(stage: Any, scale: float = 0.5, seed: int = 2) -> Any:
    """Move every parameter by noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return stage


def drives(scale: float = 1.0, frames: int = FRAMES, seed: int = 3) -> Tensor:
    """Draw drives."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(BATCH, frames, N, generator=generator, dtype=torch.float64)


def recorded(frames: int = FRAMES, channels: int = N, seed: int = 4) -> Tensor:
    """Draw recorded activity, not negative."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(BATCH, frames, channels, generator=generator, dtype=torch.float64)


def context(observed: Tensor | None = None, neurons: Tensor | None = None) -> Context:
    """A context with embeddings that are the same in every call."""
    generator = torch.Generator().manual_seed(5)
    embedding = torch.randn(N, CHANNELS, generator=generator, dtype=torch.float64)
    return Context(embedding=embedding, observed=observed, neurons=neurons)


def rates(stage: nn.Module, x: Tensor, around: Context, link: Any = nn.functional.softplus) -> Tensor:
    """Rates of a stage in the model's own loop."""
    model = PopulationModel(nn.Identity(), {"one": nn.Identity()}, {"one": {"interaction": stage}}, Function(link))
    return model.respond(x, "one", around, None)[0]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def cosines(embedding: Tensor) -> np.ndarray:
    """Cosine of every pair of embeddings."""
    e = embedding.numpy()
    size = np.linalg.norm(e, axis=1)
    return e @ e.T / np.outer(size, size)
