"""Trials of a masked population in memory, for tests of attention over neurons and of silencing."""

import numpy as np

from neuroint.data.base import DEV_TEST, TRAIN, VALIDATION
from neuroint.data.observed import reconstructed
from neuroint.data.trials import trial_session


def masked_session(counts, held_in, *, forward_bins=0, conditions=None, tiers=None):
    """Half of the clips for training, a quarter each for validation and dev-test, unless tiers are given."""
    clips, _, neurons = counts.shape
    half, quarter = clips // 2, clips // 4
    tiers = tiers or [TRAIN] * half + [VALIDATION] * quarter + [DEV_TEST] * (clips - half - quarter)
    numbers = np.arange(clips) if conditions is None else np.asarray(conditions)
    session = trial_session("masked", "animal", counts, tiers, numbers, bin_s=0.02)
    order = np.arange(neurons)
    return reconstructed(session, order[:held_in], order[held_in:], forward_bins)
