"""Open the recordings that a configuration names, once per process."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping

from neuroint.config import DataConfig, TrialConfig
from neuroint.data.base import DataError, Session
from neuroint.data.observed import choose_observed, observe_masked, observe_others, observe_past, shuffle_observed
from neuroint.data.opening import open_sessions


def open_data(data: DataConfig) -> list[Session]:
    """Open the sessions of a configuration; a reused process opens the same data once."""
    given = {"path": data.path, "reader": data.reader, "options": data.options}
    return [_offering(session, data) for session in _opened(json.dumps(given), _chosen(data))]


def open_for(config: TrialConfig) -> list[Session]:
    """Open the sessions of a trial as its arm reads them."""
    return arm_view(open_data(config.data), config)


def arm_view(sessions: list[Session], config: TrialConfig) -> list[Session]:
    """Leave an arm what it asks for of the recorded activity on offer: a part of it, or that of other clips."""
    asked = config.observed
    if asked.areas is not None or asked.neurons is not None:
        seed = config.data.held_in_seed
        sessions = [choose_observed(session, asked.areas, asked.neurons, seed) for session in sessions]
    if not asked.shuffled:
        return sessions
    return [shuffle_observed(session, config.data.held_in_seed) for session in sessions]


OFFERS: Mapping[str | None, Callable[[Session, DataConfig], Session]] = {
    None: lambda session, data: session,
    "past": lambda session, data: observe_past(session, data.lag_s),
    "others": lambda session, data: observe_others(
        session, data.held_in, data.held_in_seed, data.from_areas, data.to_areas
    ),
    "masked": lambda session, data: observe_masked(
        session, data.held_in, data.held_in_seed, data.from_areas, data.to_areas
    ),
}


def _offering(session: Session, data: DataConfig) -> Session:
    """Offer models the recorded activity that the configuration asks for.

    Raises:
        DataError: there would be nothing at all to read, or the data say themselves which neurons are held in.
    """
    facts = session.facts
    if data.observed is not None and facts.recorded is not None:
        raise DataError(
            f"session '{session.name}' says itself which of its neurons are held in; remove data.observed: "
            f"{data.observed}"
        )
    shown = (facts.stimulus_shape, facts.behavior_channels, facts.pupil_channels, facts.observed_channels)
    if data.observed is None and not any(shown):
        raise DataError(
            f"session '{session.name}' holds responses only, no stimulus, behavior or pupil, so that models have "
            "nothing to read; set data.observed: past (forecasting) or others (co-smoothing)"
        )
    return OFFERS[data.observed](session, data)


def _chosen(data: DataConfig) -> tuple[str, ...] | None:
    return None if data.sessions is None else tuple(data.sessions)


@functools.lru_cache(maxsize=2)
def _opened(key: str, chosen: tuple[str, ...] | None) -> tuple[Session, ...]:
    given = json.loads(key)
    if given["path"] is None:
        raise ValueError("data.path is not set; give it in the YAML or with --data PATH")
    sessions = open_sessions(given["path"], given["reader"], given["options"])
    known = {session.name: session for session in sessions}
    if unknown := [name for name in chosen or () if name not in known]:
        raise ValueError(f"data.sessions: {unknown} are not in {given['path']}; sessions there: {', '.join(known)}")
    return tuple(known[name] for name in chosen) if chosen else tuple(sessions)
