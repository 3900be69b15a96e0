"""Fit a design to a known world: Poisson loss, AdamW with a cosine, the weights of the best validation loss."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuroint import registry
from neuroint.data.base import Facts, Inputs, Recorded
from neuroint.model import PopulationModel
from neuroint.modules.base import Reads
from recovery_parts.designs import STATIC, Design
from recovery_parts.world import Clips, Known

SESSION = "one"
CROP, STRIDE, BURN_IN = 80, 60, 20  # frames; each crop is scored after its burn-in, so that all frames count once
SCORED_FROM = 40  # frame of a whole clip


@dataclass(frozen=True)
class Training:
    """How long and how fast, on how many crops at a time (None: all)."""

    steps: int = 150
    learning_rate: float = 0.15
    check_every: int = 25
    clip_norm: float = 1.0
    batch: int | None = None

    def recipe(self) -> dict[str, Any]:
        """What is set, for the names of files."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class KnownDrive(nn.Module):
    """Hand on the drive that the stimulus holds, with a gain and a bias per neuron; embeddings are the true tuning."""

    reads: ClassVar[Reads] = Reads()
    tuning: Tensor

    def __init__(self, gain: Float[np.ndarray, " neurons"], tuning: Float[np.ndarray, "neurons embed"]) -> None:
        super().__init__()
        self.embedding_channels = tuning.shape[1]
        self.log_gain = nn.Parameter(torch.tensor(gain, dtype=torch.float32).log())
        self.bias = nn.Parameter(torch.zeros(len(gain)))
        self.register_buffer("tuning", torch.tensor(tuning, dtype=torch.float32))

    def forward(self, features: Tensor, pupil: Tensor | None = None, neurons: Tensor | None = None) -> Tensor:
        """Scale and shift."""
        return self.log_gain.exp() * features.flatten(2) + self.bias

    def embedding(self) -> Tensor:
        """Tuning of every neuron."""
        return self.tuning


class Split(NamedTuple):
    """Crops of a tier as tensors."""

    inputs: Inputs
    responses: Float[Tensor, "crops time neurons"]
    rates: Float[Tensor, "crops time neurons"]

    def to(self, device: torch.device) -> Split:
        """Move all of it."""
        return Split(self.inputs.map(lambda x: x.to(device)), self.responses.to(device), self.rates.to(device))

    def drawn(self, crops: int | None, generator: torch.Generator) -> Split:
        """Draw crops without replacement, or keep all."""
        if crops is None or crops >= len(self.responses):
            return self
        kept = torch.randperm(len(self.responses), generator=generator)[:crops].to(self.responses.device)
        return Split(self.inputs.map(lambda x: x[kept]), self.responses[kept], self.rates[kept])


def facts_of(world: Known, design: Design, shape: tuple[int, int, int] | None = None) -> Facts:
    """Facts of the world's session; a design that reads records is offered those of one bin ago."""
    everyone = np.arange(world.facts.n_neurons)
    offer = {
        "observed_channels": len(everyone),
        "observed_neurons": everyone,
        "recorded": Recorded("recorded_past", lag_bins=1, shortest_lag=1),
    }
    facts = world.facts if shape is None else replace(world.facts, stimulus_shape=shape)
    return replace(facts, **offer) if design.recorded else facts


def build(core: nn.Module, readout: nn.Module, design: Design, facts: Facts) -> PopulationModel:
    """Put a design behind a core and a readout; what stands inside the core keeps the static control behind it."""
    link = registry.links["softplus"].build({}, {})
    mean = torch.as_tensor(facts.mean_responses, dtype=torch.float32)
    given = facts.as_dict() | {
        "feature_shape": core.feature_shape,
        "embedding_channels": readout.embedding_channels,
        "mean_drive": link.inverse(mean).numpy(),
        "observed_lag_bins": facts.recorded.lag_bins if facts.recorded else None,
    }
    name, options = design.normalization
    component = registry.normalizations[name]
    inside = component.build(options, given) if getattr(component.factory, "on_features", False) else None
    interaction = registry.interactions[design.interaction[0]].build(design.interaction[1], given)
    if inside is None:
        stages = {"normalization": component.build(options, given), "interaction": interaction}
    else:
        stages = {"interaction": registry.normalizations[STATIC[0]].build(STATIC[1], given)}
    return PopulationModel(core, {SESSION: readout}, {SESSION: stages}, link, inside, facts.recorded)


def model_on_known_drive(world: Known, design: Design) -> PopulationModel:
    """Build the model whose stimulus is the true drive."""
    facts = facts_of(world, design)
    core = registry.cores["linear"].build({"lags": 1}, facts.as_dict())
    gain = facts.mean_responses / world.clips["train"].drive.mean((0, 1))
    return build(core, KnownDrive(gain, world.tuning), design, facts)


def split(clips: Clips, stimulus: np.ndarray, *, crop: int | None = None) -> Split:
    """Turn clips into tensors, whole or in overlapping crops; stimulus is ``clips time ...`` with channels."""
    starts = [0] if crop is None else range(0, stimulus.shape[1] - crop + 1, STRIDE)
    length = stimulus.shape[1] if crop is None else crop

    def cut(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate([x[:, s : s + length] for s in starts]))

    responses = cut(clips.responses)
    return Split(Inputs(stimulus=cut(stimulus), observed=responses), responses, cut(clips.rates))


def drive_as_stimulus(clips: Clips) -> Float[np.ndarray, "clips time neurons 1 1"]:
    """The true drive, a channel per neuron."""
    return clips.drive[..., None, None]


def poisson(rates: Tensor, responses: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats, up to what rates do not change."""
    return (rates - responses * torch.log(rates + 1e-6)).mean()


def fit(model: PopulationModel, train: Split, validation: Split, training: Training, seed: int) -> dict[str, Any]:
    """Train on crops drawn anew at every step, or on all; the model ends with the weights of the best validation loss.

    A model without anything to train, such as no design behind a frozen core, stays as it is.
    """
    torch.manual_seed(seed)
    crops = torch.Generator().manual_seed(seed)
    if not any(p.requires_grad for p in model.parameters()):
        loss = validation_loss(model, validation)
        return dict.fromkeys(("validation_loss", "last_validation_loss", "first_validation_loss"), loss)
    optimizer = registry.optimizers["adamw"].factory(
        [{"params": [p for p in model.parameters() if p.requires_grad]}],
        learning_rate=training.learning_rate,
        weight_decay=0.0,
    )
    best, kept, history = math.inf, copy.deepcopy(model.state_dict()), []
    for step in range(training.steps + 1):
        if step % training.check_every == 0:
            loss = validation_loss(model, validation)
            history.append(loss)
            if loss < best:
                best, kept = loss, copy.deepcopy(model.state_dict())
        if step < training.steps:
            rate = _factor(step / training.steps) * training.learning_rate
            _step(model, train.drawn(training.batch, crops), optimizer, rate, training.clip_norm)
    model.load_state_dict(kept)
    return {"validation_loss": best, "last_validation_loss": history[-1], "first_validation_loss": history[0]}


def _factor(share: float) -> float:
    """A linear warm-up over a tenth, then half a cosine."""
    return min(share / 0.1 + 0.01, 0.5 * (1 + math.cos(math.pi * share)))


def _step(model: PopulationModel, train: Split, optimizer: Any, rate: float, clip_norm: float) -> None:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    predicted = model(train.inputs, SESSION)
    kept = min(predicted.shape[1], train.responses.shape[1] - BURN_IN)
    loss = poisson(predicted[:, -kept:], train.responses[:, -kept:]) / train.responses.mean() + model.penalty()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


@torch.no_grad()
def validation_loss(model: PopulationModel, validation: Split) -> float:
    """Poisson loss of whole clips after the first frames."""
    model.eval()
    rates = model(validation.inputs, SESSION)
    kept = validation.responses.shape[1] - SCORED_FROM
    loss = float(poisson(rates[:, -kept:], validation.responses[:, -kept:]) / validation.responses.mean())
    return loss if math.isfinite(loss) else math.inf
