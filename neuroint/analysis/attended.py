"""Which neurons a fitted population transformer reads most: attention over neurons, in-degree, agreement of seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor, nn

from neuroint.analysis.influence import evaluated
from neuroint.analysis.video_attention import rollout
from neuroint.data.base import Batch, Inputs, Session, collate
from neuroint.seeding import generator

Layers = Literal["mean", "first", "rollout"]
OVER_LAYERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "first": lambda maps: maps[0],
    "rollout": lambda maps: rollout(maps[:, :, None]),
}
ROUNDING = 1e-9  # attention to others below this share is none


@runtime_checkable  # or else beartype cannot check it in tests
class Reading(Protocol):
    """What is asked of a core (``stndt`` and ``stndt_fixed`` offer it)."""

    def spatial_maps(self, inputs: Inputs) -> Float[Tensor, "layers samples neurons neurons"]:
        """Who (row) reads whom (column), averaged over heads; stretches of a clip are samples."""
        ...


@runtime_checkable
class Lagging(Protocol):
    """What is asked of a model (``neuroint.model.PopulationModel`` offers it)."""

    core: Any

    def lagged(self, inputs: Inputs) -> Inputs:
        """Shift recorded activity to where it may be read."""
        ...


@dataclass(frozen=True)
class Agreement:
    """How well rankings of neurons agree, and how well they would if neurons were dealt at random.

    Attributes:
        correlation: Spearman's; of several seeds the mean over their pairs.
        rankings: how many were compared.
        null: the same of every draw.
    """

    correlation: float
    rankings: int
    null: Float[np.ndarray, " draws"]

    @property
    def p(self) -> float:
        """Share of draws at least as far from 0 as what was found, itself counted: never below 1/(draws + 1)."""
        further = np.abs(self.null) >= abs(self.correlation) - 1e-12
        return float((1 + further.sum()) / (1 + len(self.null)))

    @property
    def kendall_w(self) -> float:
        """Kendall's coefficient of concordance, (1 + (m - 1) r) / m of m rankings: 1 when all are the same."""
        return (1 + (self.rankings - 1) * self.correlation) / self.rankings


def spatial_attention(
    model: nn.Module, session: Session, tier: str, *, layers: Layers = "mean", clips_at_once: int = 32
) -> Float[np.ndarray, "neurons neurons"]:
    r"""Average over the clips of a tier how much every neuron (row) reads every neuron (column). Rows sum to 1.

    A token of spatial attention is a neuron with all bins of a stretch of a clip, so there is one map per stretch,
    layer and head and none per bin. Heads are averaged by the core, stretches and clips here. Maps are computed for
    this call and not kept by training.

    ``layers`` says how the maps of layers become one. ``mean`` gives each the same weight. ``first`` takes the only one
    whose queries and keys are surely of one neuron each, its embedded record: the maps over bins before the second are
    as wide as the population and mix neurons into each other's channels. (The values that ``stndt`` reads are such
    channels already in its first layer; those of ``stndt_fixed`` are the records.) ``rollout`` follows attention
    through all layers, with the identity for the way around it, as if channels were not mixed.

    Whether a neuron that is read matters is another question: see :mod:`neuroint.analysis.silencing`.

    Args:
        model: fitted; it is evaluated as in validation and left as it was.
        session: whose clips, all cut to the shortest.
        tier: attention needs no response, so the training tier serves, and leaves the others unseen.
        layers: how layers are put together.
        clips_at_once: whose maps are held at a time.

    Raises:
        ValueError: the core has no attention over neurons, or was built without it; no records; the tier is empty.

    Source: Le and Shlizerman (2022), NeurIPS, arXiv:2206.04727 (maps over neurons of STNDT).
    """
    core = _reading(model)
    total, samples = torch.zeros(()), 0
    batch = clips_of(model, session, tier)
    with evaluated(model), torch.no_grad():
        for start in range(0, batch.inputs.n_batch, clips_at_once):
            some = model.lagged(batch.inputs.map(lambda x, start=start: x[start : start + clips_at_once]))  # pyright: ignore[reportCallIssue]
            maps = OVER_LAYERS[layers](core.spatial_maps(some))
            total, samples = total + maps.double().sum(0).cpu(), samples + len(maps)
    return _checked(core, (total / samples).numpy())


def in_degree(
    attention: Float[np.ndarray, "neurons neurons"], held_in: int | None = None
) -> Float[np.ndarray, " read"]:
    r"""Add up how much all other neurons read each of the first ``held_in`` neurons (of all, by default).

    .. math:: D_j = \sum_{i \ne j} A_{ij}

    What a neuron gives itself is left out. Held-out neurons read, too, and count as readers; they have no record and so
    are not among those that are read. Uniform attention of N neurons gives (N - 1) / N to each. In-degree goes with the
    mean rate and with reliability, also in a network that was never trained: both belong beside it.
    """
    return (attention.sum(axis=0) - attention.diagonal())[:held_in]


def relation(
    x: Float[np.ndarray, " neurons"],
    y: Float[np.ndarray, " others"],
    given: Float[np.ndarray, "rows traits"] | None = None,
    *,
    draws: int = 1999,
    seed: int = 0,
) -> Agreement:
    r"""Correlate the ranks of two properties of neurons, what goes with the ranks of traits taken off both.

    .. math:: \rho = \mathrm{corr}(M\, \mathrm{rank}\, x,\ M\, \mathrm{rank}\, y), \quad
        M = I - Z (Z^T Z)^{-1} Z^T, \quad Z = [1, \mathrm{rank}\, \mathrm{given}]

    Without ``given`` it is Spearman's correlation. The null exchanges the residuals M rank x between neurons and takes
    the traits off again (Freedman and Lane). It treats neurons as exchangeable, which neurons of one network are only
    in part: it speaks about this population, not about others.

    Raises:
        ValueError: lengths differ, a value is missing, or a property does not vary once the traits are taken off.

    Source: Freedman and Lane (1983), J. Bus. Econ. Stat. 1, 292-298.
    """
    found, null = _correlations([x, y], given, draws, seed)
    return Agreement(found, 2, null)


def agreement_of_seeds(
    in_degrees: Float[np.ndarray, "seeds neurons"],
    given: Float[np.ndarray, "rows traits"] | None = None,
    *,
    draws: int = 1999,
    seed: int = 0,
) -> Agreement:
    """Average Spearman's correlation of in-degree over pairs of models that differ in their seed alone.

    As :func:`relation` for every pair; the null deals neurons anew in every seed. Give at least the mean rate in
    ``given``: without it, networks that were never trained agree, because all read the same counts, and because the
    places of neurons are coded alike in all. So hold it beside the same number of untrained networks.

    Raises:
        ValueError: a single seed; otherwise as :func:`relation`.
    """
    if len(in_degrees) < 2:
        raise ValueError(
            f"in-degrees of {len(in_degrees)} seed say nothing about agreement; fit the same configuration with at "
            "least two seeds"
        )
    found, null = _correlations(list(in_degrees), given, draws, seed)
    return Agreement(found, len(in_degrees), null)


def clips_of(model: nn.Module, session: Session, tier: str) -> Batch:
    """Read all clips of a tier, cut to the shortest, in the precision and on the device of a model.

    Raises:
        ValueError: the tier is empty, or the session offers no recorded activity.
    """
    clips = session.clips(tier)
    if not len(clips):
        raise ValueError(f"tier '{tier}' of session '{session.name}' holds no clip; name a tier that does")
    frames = int(session.lengths[clips].min())
    batch = collate(session.name, clips.tolist(), [session.source.read(int(clip), 0, frames) for clip in clips])
    if batch.inputs.observed is None:
        raise ValueError(
            f"session '{session.name}' offers no recorded activity, so no neuron is read; set data.observed: masked"
        )
    like = next(model.parameters(), torch.zeros(()))
    return batch.to(like.device, like.dtype)


def _reading(model: Any) -> Reading:
    if isinstance(model, Lagging) and isinstance(model.core, Reading):
        return model.core
    raise ValueError(
        f"core {type(getattr(model, 'core', model)).__name__} has no attention over neurons; fit a model with core "
        "'stndt' or 'stndt_fixed', and give the model"
    )


def _checked(core: object, attention: Float[np.ndarray, "neurons neurons"]) -> Float[np.ndarray, "neurons neurons"]:
    if in_degree(attention).max() <= ROUNDING:
        raise ValueError(
            f"no neuron reads another in core {type(core).__name__}, which was built without spatial attention; set "
            "spatial: true"
        )
    return attention


def _correlations(
    values: list[np.ndarray], given: Float[np.ndarray, "rows traits"] | None, draws: int, seed: int
) -> tuple[float, Float[np.ndarray, " draws"]]:
    """Mean correlation over pairs of rankings, and the same of every draw."""
    _check(values, given)
    ranks = np.stack([rankdata(row) for row in values])
    traits = [] if given is None else [rankdata(column) for column in given.T]
    design, _ = np.linalg.qr(np.stack([np.ones(ranks.shape[1]), *traits], axis=1))
    left = _left(ranks, design)
    if (flat := np.linalg.norm(left, axis=1) <= ROUNDING * np.linalg.norm(ranks, axis=1)).any():
        raise ValueError(
            f"ranking {np.flatnonzero(flat).tolist()} does not vary over the {ranks.shape[1]} neurons once "
            f"{len(traits)} traits are taken off; leave it out, or give fewer traits"
        )
    random = generator(seed, "neurons")
    null = [_mean_of_pairs(_left(random.permuted(left, axis=1), design)) for _ in range(draws)]
    return _mean_of_pairs(left), np.array(null)


def _left(ranks: np.ndarray, design: np.ndarray) -> np.ndarray:
    return ranks - ranks @ design @ design.T


def _mean_of_pairs(left: Float[np.ndarray, "rankings neurons"]) -> float:
    units = left / np.linalg.norm(left, axis=1, keepdims=True)
    return float(np.mean([units[a] @ units[b] for a, b in combinations(range(len(units)), 2)]))


def _check(values: list[np.ndarray], given: np.ndarray | None) -> None:
    every = [*values, *([] if given is None else [given])]
    lengths, missing = [len(x) for x in every], sum(int((~np.isfinite(x)).sum()) for x in every)
    if len(set(lengths)) > 1 or missing:
        raise ValueError(
            f"rankings and traits are of {lengths} neurons, and {missing} values are missing; give one finite value "
            "per neuron for the same neurons"
        )
