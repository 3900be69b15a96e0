"""Latents that a core makes of recorded activity, by condition of the experiment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from neuroint.data.base import Inputs, Session, collate

Features = Callable[[Inputs], torch.Tensor]
Latents = Float[np.ndarray, "clips time latents"]


@dataclass(frozen=True)
class Separation:
    """How much of the variance of latents over trials lies between conditions, per latent, and how much by chance.

    Attributes:
        share: between conditions over total, each added up over bins.
        null: the same with conditions dealt to trials at random.
    """

    share: Float[np.ndarray, " latents"]
    null: Float[np.ndarray, "draws latents"]

    @property
    def p(self) -> Float[np.ndarray, " latents"]:
        """Share of draws that reach what was found; never below 1/(draws + 1)."""
        return (1 + (self.null >= self.share - 1e-12).sum(axis=0)) / (1 + len(self.null))


def latents_of(features: Features, session: Session, tiers: Sequence[str]) -> tuple[Latents, Int[np.ndarray, " clips"]]:
    """Run a core over whole clips of some tiers; returns its features and which clips they are of.

    Args:
        features: inputs of a batch, recorded activity lagged, to features ``batch time latents 1 1``.
        session: whose clips are read.
        tiers: where from; a test tier is read like any other, so do not choose by what is seen there.

    Raises:
        ValueError: there is no clip, clips differ in length, or features are not one number per latent and frame.
    """
    clips = np.concatenate([session.clips(tier) for tier in tiers])
    lengths = session.lengths[clips]
    if not len(clips) or lengths.min() != lengths.max():
        raise ValueError(
            f"tiers {', '.join(tiers)} of session '{session.name}' hold {len(clips)} clips of "
            f"{sorted(set(lengths.tolist()))} frames; latents by condition need clips of one length"
        )
    parts = [session.source.read(int(clip), 0, int(lengths[0])) for clip in clips]
    with torch.no_grad():
        found = features(collate(session.name, clips.tolist(), parts).inputs)
    if found.dim() != 5 or found.shape[3:] != (1, 1):
        raise ValueError(
            f"features have shape {tuple(found.shape)}, expected batch, time, latents, 1, 1: a core of latents"
        )
    return found[..., 0, 0].cpu().numpy(), clips


def condition_means(
    latents: Latents, conditions: Int[np.ndarray, " clips"], fewest: int = 1
) -> dict[int, Float[np.ndarray, "time latents"]]:
    """Mean latents of every condition with at least ``fewest`` trials."""
    names, counts = np.unique(conditions, return_counts=True)
    return {int(name): latents[conditions == name].mean(axis=0) for name in names[counts >= fewest]}


def separation(
    latents: Latents, conditions: Int[np.ndarray, " clips"], *, draws: int = 200, seed: int = 0
) -> Separation:
    r"""Compare conditions by the share of variance between their means, against conditions dealt at random.

    .. math::
        \eta^2_m = \frac{\sum_t \sum_k n_k (\bar z_{kmt} - \bar z_{mt})^2}{\sum_t \sum_c (z_{cmt} - \bar z_{mt})^2}

    Means over few trials differ by chance alone, which is what the null says; a picture of them does not.

    Args:
        latents: one time course per clip and latent.
        conditions: one number per clip.
        draws: of the null.
        seed: of the draws.

    Raises:
        ValueError: there are not two conditions, or a latent never changes over trials.

    Source: Anderson (2001), Austral Ecol. 26, 32-46 (permutation of the ratio).
    """
    if len(np.unique(conditions)) < 2:
        raise ValueError(f"all {len(conditions)} clips are of one condition; there is nothing to tell apart")
    centered = latents - latents.mean(axis=0)
    total = (centered**2).sum(axis=(0, 1))
    if (total == 0).any():
        raise ValueError(f"latents {np.flatnonzero(total == 0).tolist()} are the same in every trial; leave them out")
    draw = np.random.default_rng(seed)
    null = np.stack([_between(centered, draw.permutation(conditions)) / total for _ in range(draws)])
    return Separation(_between(centered, conditions) / total, null)


def fewest_draws(tests: int, alpha: float = 0.05) -> int:
    """Count the draws of a null below which no p value, 1/(draws + 1) at least, passes Bonferroni's alpha/tests.

    Twice as many, so that one draw that reaches what was found does not decide.
    """
    return math.ceil(2 * tests / alpha)


def _between(centered: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    groups = [centered[conditions == name] for name in np.unique(conditions)]
    return np.sum([len(group) * (group.mean(axis=0) ** 2).sum(axis=0) for group in groups], axis=0)
