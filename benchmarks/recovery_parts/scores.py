"""What a fitted model found, in the terms of the truth: rates, coupling, pool, exponent, time constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.data.simulators.v1_parts.settings import FRAME_S
from neuroint.model import PopulationModel
from neuroint.modules.graphs import dense
from neuroint.modules.rectified import log_rectified
from recovery_parts.fitting import SCORED_FROM, SESSION, Split
from recovery_parts.world import UNIT, Known

SPACING = 10  # frames between those at which effects are taken: coupling of spectral norm .7 is forgotten by then
READ_BINS = 8  # bins of recorded activity over which an effect is summed
BINS_UM = np.arange(0, 500, 60.0)  # edges of the kernel's profile

Matrix = Float[np.ndarray, "neurons neurons"]


@torch.no_grad()
def predictions(model: PopulationModel, test: Split) -> dict[str, float]:
    """Score rates on whole clips, mean over neurons.

    ``feve`` is against the rates without noise, ``r2`` against single responses.
    """
    model.eval()
    rates = model(test.inputs, SESSION)
    kept = test.responses.shape[1] - SCORED_FROM
    rates, truth, responses = (x[:, -kept:].double() for x in (rates, test.rates, test.responses))
    return {"feve": _explained(rates, truth), "r2": _explained(rates, responses)}


def _explained(rates: Tensor, truth: Tensor) -> float:
    error = (rates - truth).square().mean((0, 1))
    return float((1 - error / truth.var((0, 1), correction=0)).mean())


class _Recording(nn.Module):
    """A link that keeps the drives it is given."""

    def __init__(self, link: nn.Module) -> None:
        super().__init__()
        self.link = link
        self.drives: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.drives.append(x)
        return self.link(x)


def effects(model: PopulationModel, test: Split, clips: int = 2) -> dict[str, Matrix]:
    """Measure what the rate of neuron j adds to what goes into the link of neuron i.

    ``instant`` and ``lagged`` are d z_i(t) / d drive_j(t - l) for l = 0, 1 over d rate_j / d drive_j, with z the input
    of the link; ``read`` is d z_i(t) / d recorded_j summed over the last bins. Each is a ratio of sums over frames.
    Behind a coupling z = d + C r(t - 1) they are C itself. Row i is moved by column j.
    """
    found = [_effects(model, test.inputs.map(lambda x, c=c: x[c : c + 1])) for c in range(clips)]
    mean = {name: np.mean([f[name] for f in found], axis=0) for name in found[0]}
    gain = {name: np.maximum(mean.pop(f"{name} gain"), 1e-9) for name in ("instant", "lagged")}
    return {k: _off_diagonal(v / gain[k] if k in gain else v) for k, v in mean.items()}


def _effects(model: PopulationModel, inputs: Inputs) -> dict[str, Float[np.ndarray, "*shape"]]:
    model.eval()
    frames = torch.arange(SCORED_FROM, inputs.n_frames, SPACING)
    of_drive, of_record = _gradients(model, inputs, frames, behind_link=False)
    own = _gradients(model, inputs, frames, behind_link=True)[0]
    before = _gradients(model, inputs, frames - 1, behind_link=True)[0]
    read = [of_record[:, frames - bins].mean(1) for bins in range(1, READ_BINS + 1)]
    found = {
        "instant": of_drive[:, frames].mean(1),
        "lagged": of_drive[:, frames - 1].mean(1),
        "read": torch.stack(read).sum(0),
        "instant gain": own[:, frames].mean(1).diagonal(),
        "lagged gain": before[:, frames - 1].mean(1).diagonal(),
    }
    return {name: value.numpy() for name, value in found.items()}


def _gradients(
    model: PopulationModel, inputs: Inputs, frames: Tensor, *, behind_link: bool
) -> tuple[Float[Tensor, "target time source"], Float[Tensor, "target time source"]]:
    """Gradients of each neuron's rate, or input of the link, summed over some frames: a batch entry per target."""
    stimulus, observed = inputs.stimulus, inputs.observed
    if stimulus is None or observed is None:
        raise ValueError("effects are taken of a drive given as stimulus, and of records")
    leaves = inputs.map(lambda x: x.expand(stimulus.shape[2], *x.shape[1:]).clone().requires_grad_())
    link = model.link
    model.link = _Recording(link)
    try:
        rates = model(leaves, SESSION)
        drives = model.link.drives
    finally:
        model.link = link
    entering = drives[0] if drives[0].dim() == rates.dim() else torch.stack(drives, 1)
    target = (rates if behind_link else entering).diagonal(dim1=0, dim2=2)[frames].sum()
    wanted = [x for x in (leaves.stimulus, leaves.observed) if x is not None]
    found = torch.autograd.grad(target, wanted, allow_unused=True)
    drive, record = (torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))
    return drive.flatten(2), record


def coupling_of(found: dict[str, Matrix]) -> Matrix:
    """Everything that one neuron's activity does to another within a bin."""
    return found["instant"] + found["lagged"] + found["read"]


def against(estimate: Matrix, truth: Matrix, positions_um: Float[np.ndarray, "neurons 3"]) -> dict[str, float]:
    """Compare two matrices off the diagonal: correlation, slope of the estimate on the truth, profile over distance."""
    off = ~np.eye(len(truth), dtype=bool)
    profiles = [profile(m, positions_um) for m in (estimate, truth)]
    return {
        "corr": correlation(estimate[off], truth[off]),
        "slope": float((estimate * truth)[off].sum() / max((truth[off] ** 2).sum(), 1e-12)),
        "profile_corr": correlation(*profiles),
    }


def profile(matrix: Matrix, positions_um: Float[np.ndarray, "neurons 3"]) -> Float[np.ndarray, " bins"]:
    """Mean entry by distance between cells."""
    distance = np.linalg.norm(positions_um[:, None] - positions_um, axis=-1)
    place = np.where(np.eye(len(matrix), dtype=bool), -1, np.digitize(distance, BINS_UM) - 1)
    return np.array([matrix[place == b].mean() if (place == b).any() else 0.0 for b in range(len(BINS_UM))])


def correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Pearson's; 0 where one side does not vary."""
    if np.std(a) < 1e-12 or np.std(b) < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def norm(matrix: Matrix) -> float:
    """Largest singular value."""
    return float(np.linalg.norm(matrix, 2))


def noise_correlations(world: Known) -> tuple[Matrix, Matrix]:
    """Correlate what differs between repeats: in the same bin, and i with j one bin before.

    Noise shared in the same bin is not passed on from neuron to neuron: it comes from a source that was not recorded,
    or from light that reaches both outlines.
    """
    pairs = np.concatenate([world.clips[tier].responses for tier in ("validation", "test")])
    difference = (pairs[0::2] - pairs[1::2])[:, SCORED_FROM:].astype(float)
    z = (difference - difference.mean((0, 1))) / np.maximum(difference.std((0, 1)), 1e-9)
    now = np.einsum("cti,ctj->ij", z, z) / (z.shape[0] * z.shape[1])
    before = np.einsum("cti,ctj->ij", z[:, 1:], z[:, :-1]) / (z.shape[0] * (z.shape[1] - 1))
    return _off_diagonal(now), _off_diagonal(before)


def _off_diagonal(matrix: Matrix) -> Matrix:
    return matrix * (1 - np.eye(len(matrix)))


def pool_of(model: PopulationModel) -> dict[str, Matrix]:
    """Weights of a normalization's pool, where it has neighbors; rows sum to 1."""
    stage: Any = model.stages(SESSION)[0]
    if not hasattr(stage, "pool_weights"):
        return {}
    weights = stage.pool_weights(model.context(SESSION, None, None)).detach()
    return {"pool": _off_diagonal(dense(stage.pool.neighbors, weights).numpy())}


@torch.no_grad()
def found_constants(model: PopulationModel, test: Split) -> dict[str, float]:
    """Exponent, time constant and strength of a normalization, where it has them; medians over neurons.

    The strength is what pool or history add to the denominator, over sigma^n: for a pool in the mean over frames, for
    history where the rate is 1.
    """
    stage: Any = model.stages(SESSION)[0]
    found: dict[str, float] = {}
    part = getattr(stage, "excitation", stage)
    if hasattr(part, "exponent"):
        found["exponent"] = float(part.exponent)
    if hasattr(stage, "memory") and hasattr(stage, "prepare"):
        kept = stage.prepare(model.context(SESSION, None, None)).kept
        found["tau_s"] = float(-FRAME_S / torch.log(kept).median())
    if hasattr(stage, "raw_beta") and hasattr(stage, "step"):
        log_rate = math.log(UNIT) - part.log_sigma
        found["strength"] = float((functional.softplus(stage.raw_beta) * (part.exponent * log_rate).exp()).median())
    if hasattr(stage, "raw_alpha") and hasattr(stage, "pool_weights"):
        drive, _ = model.drive(model.lagged(test.inputs), SESSION)
        mean = (part.exponent * log_rectified(drive)).exp().mean((0, 1))
        pool = torch.as_tensor(pool_of(model)["pool"], dtype=mean.dtype) @ mean / (part.exponent * part.log_sigma).exp()
        found["strength"] = float((functional.softplus(stage.raw_alpha) * pool).median())
    return found
