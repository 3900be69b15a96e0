"""What it costs a fitted model when the records of some neurons are taken away, against neurons like them.

That neurons that are read much matter much is no finding by itself: neurons with high rates and little noise are read
more *and* tell more. So controls share rate and reliability with the silenced ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from neuroint.analysis.attended import clips_of
from neuroint.analysis.influence import evaluated
from neuroint.analysis.matching import imbalance, matched_draws, unmatched
from neuroint.data.base import DEV_TEST, VALIDATION, Inputs, Session
from neuroint.metrics.nlb import bits_per_spike

How = Literal["mean", "zero", "other_clip"]
Observed = Float[Tensor, "clips time observed"]
Loss = Callable[[Int[np.ndarray, " silenced"]], float]
READ = (VALIDATION, DEV_TEST)
LARGEST_IMBALANCE = 0.25  # SDs; Rubin (2001), Health Serv. Outcomes Res. Methodol. 2, 169-188


def _mean(observed: Observed, shown: Bool[Tensor, "clips time 1"]) -> Observed:
    mean = (observed * shown).sum((0, 1)) / shown.sum()
    return (mean * shown).to(observed)


def _zero(observed: Observed, shown: Bool[Tensor, "clips time 1"]) -> Observed:
    return torch.zeros_like(observed)


def _other_clip(observed: Observed, shown: Bool[Tensor, "clips time 1"]) -> Observed:
    if len(observed) < 2:
        raise ValueError("silencing by 'other_clip' needs a second clip, and the tier holds one; choose 'mean'")
    return observed.roll(1, 0) * shown


SILENT: Mapping[str, Callable[[Observed, Bool[Tensor, "clips time 1"]], Observed]] = {
    "mean": _mean,
    "zero": _zero,
    "other_clip": _other_clip,
}


class Silencer:
    """Score how a fitted model predicts held-out neurons while the records of some held-in ones are replaced.

    The score is pooled co-bps: bits per spike over the mean count of each held-out neuron, spikes weighing alike
    (:func:`neuroint.metrics.nlb.bits_per_spike`). Bins that no model is shown stay at 0.

    Args:
        model: ``model(inputs, session)`` gives rates in responses per bin; it is evaluated as in validation.
        session: with recorded activity of others (``data.observed: masked``, or reader ``nlb``).
        tier: ``validation`` or ``dev_test``; a final test is for one unlocked look, and is refused.
        how: what stands in place of the records. ``mean``: the neuron's mean count over the tier, so that what it tells
            is gone and the level of the model's input stays. ``zero``: no spike, which is also what a masked count was
            in training and what held-out neurons are; but a whole clip of zeros says "this neuron is silent", which
            moves predictions the more the higher its rate, so that rate alone makes neurons important. ``other_clip``:
            what it did in the clip before in the tier, as a real neuron would, but telling something wrong, which costs
            more than telling nothing.
        against: what is scored in place of recorded responses, such as true rates of a simulation, which leave the
            noise of spikes out.

    Raises:
        ValueError: another tier, no records, an empty tier, or nothing of the tier can be scored.
    """

    def __init__(
        self,
        model: nn.Module,
        session: Session,
        tier: str,
        *,
        how: How = "mean",
        against: Num[np.ndarray, "clips time neurons"] | None = None,
    ) -> None:
        if tier not in READ:
            raise ValueError(f"silencing reads tier '{tier}'; expected {' or '.join(READ)}, never a final test")
        batch = clips_of(model, session, tier)
        recorded: Any = batch.inputs.observed
        self._model, self._session, self._inputs = model, session.name, batch.inputs
        unseen = torch.zeros(len(recorded), dtype=torch.int64) if batch.unseen is None else batch.unseen
        frames = torch.arange(recorded.shape[1])
        self._shown = (frames < recorded.shape[1] - unseen[:, None])[..., None].to(recorded.device)
        self._silent = SILENT[how](recorded, self._shown)
        self._counts, self._scored = _scored(batch, session, against)
        self.intact = self.score(np.array([], np.int64))

    @property
    def neurons(self) -> int:
        """How many can be silenced."""
        return self._silent.shape[2]

    def score(self, silenced: Int[np.ndarray, " silenced"]) -> float:
        """Bits per spike of held-out neurons with these held-in ones silenced, by their index among held-in ones.

        Raises:
            ValueError: an index is not that of a held-in neuron.
        """
        if len(silenced) and not (silenced.min() >= 0 and silenced.max() < self.neurons):
            raise ValueError(f"silenced neurons are {silenced.tolist()}; expected indices from 0 to {self.neurons - 1}")
        recorded: Any = self._inputs.observed
        observed, which = recorded.clone(), torch.from_numpy(silenced)
        observed[..., which] = self._silent[..., which]
        given = Inputs(self._inputs.stimulus, self._inputs.behavior, self._inputs.pupil, observed)
        with evaluated(self._model), torch.no_grad():
            rates = self._model(given, self._session)[..., self._scored].double().cpu().numpy()
        found = bits_per_spike(rates, self._counts[:, -rates.shape[1] :])
        if np.isnan(found.value):
            raise ValueError(f"session '{self._session}' cannot be scored: {found.unscored}; take another tier")
        return found.value

    def loss(self, silenced: Int[np.ndarray, " silenced"]) -> float:
        """Bits per spike that are lost."""
        return self.intact - self.score(silenced)

    def singly(self) -> Float[np.ndarray, " observed"]:
        """What is lost with each held-in neuron by itself.

        Neurons that tell the same make up for each other, so that what a set costs is not the sum of these.
        """
        return np.array([self.loss(np.array([neuron])) for neuron in range(self.neurons)])


@dataclass(frozen=True)
class Silenced:
    """What silencing chosen neurons costs, and what it costs to silence others like them.

    Attributes:
        chosen: indices of the neurons.
        lost: what they cost.
        controls: what every drawn set of controls costs.
        dealt: what sets cost that were drawn in the same way from all neurons, chosen ones included.
        sets: how many different sets of controls were drawn.
        unmatched: chosen neurons that nobody was like.
        imbalance: mean trait of chosen neurons minus that of controls, SDs.
    """

    chosen: Int[np.ndarray, " chosen"]
    lost: float
    controls: Float[np.ndarray, " draws"]
    dealt: Float[np.ndarray, " draws"]
    sets: int
    unmatched: Int[np.ndarray, " unmatched"]
    imbalance: Float[np.ndarray, " traits"]

    @property
    def difference(self) -> float:
        """How much more than controls the chosen neurons cost, on average over draws."""
        return self.lost - float(self.controls.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Middle 95 % of the difference over sets of controls: of these neurons of this model, not over others."""
        low, high = np.quantile(self.controls, [0.025, 0.975])
        return self.lost - float(high), self.lost - float(low)

    @property
    def p(self) -> float:
        """One-sided: share of ``dealt`` sets that cost at least as much as the chosen one, itself counted.

        If in-degree tells nothing beyond the traits, the chosen set is one like these. Without matching that is a
        permutation test; with it one among neurons that are alike, as good as the match is (``caution``). A chosen
        neuron that nobody is like stands for itself in every set and is evidence of nothing. Sets of controls alone
        scatter less than the chosen set did when it was drawn: held against them, too much is found.

        It speaks about neurons of this model. Models of other seeds are other draws.
        """
        return float((1 + (self.dealt >= self.lost - 1e-12).sum()) / (1 + len(self.dealt)))

    @property
    def caution(self) -> str:
        """Why the controls may not be fit to compare with; empty where they are."""
        far = float(np.abs(self.imbalance).max()) if self.imbalance.size else 0.0
        reasons = {
            f"no control is like neurons {self.unmatched.tolist()}": len(self.unmatched) > 0,
            f"controls differ by {far:.2f} SDs of a trait on average": far > LARGEST_IMBALANCE,
            f"there are only {self.sets} different sets of controls": self.sets < len(self.controls) / 10,
        }
        return "; ".join(text for text, applies in reasons.items() if applies)


def most(importance: Float[np.ndarray, " neurons"], k: int) -> Int[np.ndarray, " k"]:
    """Name the k neurons that rank highest, the highest first.

    Raises:
        ValueError: k is not between 1 and half of the neurons, so that no set of controls is left.
    """
    if not 1 <= k <= len(importance) // 2:
        raise ValueError(
            f"k is {k} of {len(importance)} neurons; choose from 1 to {len(importance) // 2}, so that as many are left "
            "to draw controls from"
        )
    return np.argsort(-importance, kind="stable")[:k]


def against_controls(
    loss: Loss,
    chosen: Int[np.ndarray, " chosen"],
    table: Float[np.ndarray, "neurons traits"],
    *,
    draws: int = 200,
    nearest: int | None = 5,
    caliper: float | None = 1.0,
    seed: int = 0,
) -> Silenced:
    """Silence chosen neurons, sets of controls that are like them, and sets dealt from both.

    Args:
        loss: :meth:`Silencer.loss`, or any cost of a set of neurons; a set is asked for once.
        chosen: by :func:`most` of an in-degree, or known otherwise.
        table: :meth:`neuroint.analysis.matching.Traits.table`.
        draws: of controls, and as many of dealt sets.
        nearest: see :func:`neuroint.analysis.matching.matched_draws`; None together with ``caliper`` None draws
            controls that are not matched, for comparison.
        caliper: see there.
        seed: of the draws.

    Raises:
        ValueError: as :func:`neuroint.analysis.matching.matched_draws`.
    """
    drawn = partial(matched_draws, chosen, table, draws=draws, nearest=nearest, caliper=caliper, seed=seed)
    partners = drawn()
    known: dict[frozenset[int], float] = {}

    def of(some: Int[np.ndarray, " some"]) -> float:
        key = frozenset(some.tolist())
        return known[key] if key in known else known.setdefault(key, loss(np.sort(some)))

    return Silenced(
        chosen=chosen,
        lost=of(chosen),
        controls=np.array([of(row) for row in partners]),
        dealt=np.array([of(row) for row in drawn(from_all=True)]),
        sets=len({frozenset(row.tolist()) for row in partners}),
        unmatched=unmatched(chosen, table, caliper),
        imbalance=imbalance(chosen, partners, table),
    )


def _scored(
    batch: Any, session: Session, against: Num[np.ndarray, "clips time neurons"] | None
) -> tuple[Float[np.ndarray, "clips time scored"], Int[np.ndarray, " scored"]]:
    """Responses that count, NaN elsewhere, of the neurons that have some."""
    valid = batch.valid.cpu().numpy().copy()
    valid[:, : session.scored_from] = False
    found = batch.responses.double().cpu().numpy() if against is None else against
    if found.shape != valid.shape:
        raise ValueError(f"against is {found.shape}; expected clips, frames and neurons {valid.shape}")
    neurons = np.flatnonzero(valid.any((0, 1)))
    if not len(neurons):
        raise ValueError(f"session '{session.name}' has no response that is scored in this tier; take another tier")
    return np.where(valid, found, np.nan)[..., neurons].astype(np.float64), neurons
