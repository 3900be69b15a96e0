"""A session of the benchmark's counts: held-in neurons are shown, all are predicted, held-out ones scored."""

from __future__ import annotations

import numpy as np

from neuroint.data.base import DEV_TEST, TRAIN, VALIDATION, DataError, Session
from neuroint.data.nlb.files import NlbData
from neuroint.data.nlb.names import BinMs, DatasetName
from neuroint.data.observed import reconstructed
from neuroint.data.trials import trial_session
from neuroint.seeding import generator


def benchmark_session(
    data: NlbData, dataset: DatasetName, bin_ms: BinMs, validation: float, seed: int, cautions: tuple[str, ...] = ()
) -> Session:
    """Make a session of the counts of both splits; a seeded share of the training trials is the validation tier.

    Trials of a condition are repeats. The evaluation split is dev-test.

    Raises:
        DataError: too few trials, or as :func:`neuroint.data.trials.trial_session`.
    """
    counts = np.concatenate([data.counts["train"], data.counts["eval"]])
    tiers = (*_training_tiers(len(data.counts["train"]), validation, seed), *[DEV_TEST] * len(data.counts["eval"]))
    conditions = [data.conditions(split) for split in ("train", "eval")]
    name = f"{dataset}_{bin_ms}ms"
    session = trial_session(
        name, name, counts, tiers, _stimulus_ids(conditions, len(counts)), bin_s=bin_ms / 1000, cautions=cautions
    )
    neurons = np.arange(counts.shape[2])
    return reconstructed(session, neurons[: data.held_in], neurons[data.held_in :], data.forward_bins)


def _training_tiers(trials: int, validation: float, seed: int) -> list[str]:
    chosen = max(1, round(validation * trials))
    if chosen >= trials:
        raise DataError(f"{trials} training trials cannot be split with validation={validation}; give more trials")
    tiers = [TRAIN] * trials
    for trial in generator(seed, "nlb_validation").permutation(trials)[:chosen]:
        tiers[trial] = VALIDATION
    return tiers


def _stimulus_ids(conditions: list[np.ndarray | None], trials: int) -> np.ndarray:
    """Equal numbers for trials of one condition; a trial of none has a number of its own."""
    known = [found for found in conditions if found is not None]
    own = np.arange(trials) + 1_000_000
    if len(known) < len(conditions):
        return own
    found = np.concatenate(known)
    return np.where(found < 0, own, found)
