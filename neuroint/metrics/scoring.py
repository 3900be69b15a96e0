"""Score moments by the names of registered metrics, and say what could not be scored."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from neuroint.metrics.moments import Half, Moments
from neuroint.registry import metrics


def scores(moments: Moments, names: Iterable[str], half: Half = "all") -> dict[str, Float[np.ndarray, " neurons"]]:
    """Compute every named metric per neuron, from all repeats or from one half of them.

    Raises:
        UnknownNameError: a name is not registered.
    """
    total = moments.sum(half=half)
    return {name: metrics[name].factory(total) for name in names}


def needs_repeats(name: str) -> bool:
    """Say whether a metric is NaN for all neurons unless stimuli were repeated (``NEEDS_REPEATS`` in its file)."""
    return bool(getattr(inspect.getmodule(metrics[name].factory), "NEEDS_REPEATS", False))


def ranks_models(name: str) -> bool:
    """Say whether a higher value means a better model (``RANKS_MODELS``); losses and noise levels cannot select."""
    return bool(getattr(inspect.getmodule(metrics[name].factory), "RANKS_MODELS", False))


def needs_positive_rates(name: str) -> bool:
    """Say whether a metric is NaN for a neuron with a negative prediction (``NEEDS_POSITIVE_RATES`` in its file)."""
    return bool(getattr(inspect.getmodule(metrics[name].factory), "NEEDS_POSITIVE_RATES", False))


def why_unavailable(moments: Moments, name: str) -> str | None:
    """Say that a metric is NaN for every neuron because nothing was repeated; None where that is not the reason."""
    if needs_repeats(name) and not moments.has_repeats:
        return f"{name} is not available: no stimulus of this tier was shown twice"
    return None


def undefined(values: Float[np.ndarray, " neurons"]) -> int:
    """Count the neurons a score is not defined for; report it beside every mean."""
    return int(np.count_nonzero(np.isnan(values)))


def pseudovalues(moments: Moments, name: str) -> Float[np.ndarray, "stimuli neurons"]:
    """Split a score into one contribution per stimulus, by leaving each stimulus out in turn.

    v_s = S score(all) - (S - 1) score(all but s). Their mean is the jackknife estimate of the score, and they can be
    treated as independent observations of it, one per held-out stimulus (Tukey 1958). NaN where either score is.

    Raises:
        ValueError: there are fewer than two stimuli.
    """
    s = moments.n_stimuli
    if s < 2:
        raise ValueError(f"got {s} stimulus; leaving one out needs at least 2, so score more clips or blocks of them")
    score = metrics[name].factory
    total = moments.sum()
    rest = [replace(total, values=total.values - moments.values[row : row + 1, :1]) for row in range(s)]
    return s * score(total) - (s - 1) * np.stack([score(others) for others in rest])
