"""Write small NWB files with the tables and series of the Neural Latents Benchmark, from spike times that are known."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

TRAIN_NAME = "sub-Demo_desc-train_behavior+ecephys.nwb"
TEST_NAME = "sub-Demo_desc-test_ecephys.nwb"
TRIAL_S, HELD_IN, HELD_OUT = 1.5, 5, 3


@dataclass(frozen=True)
class Signal:
    """A continuous signal; ``container`` puts it into a Position of that name."""

    name: str
    values: np.ndarray
    times_s: np.ndarray | None = None
    comments: str = "columns=[x,y]"
    rate: float = 1000.0
    container: str | None = None


@dataclass(frozen=True)
class Contents:
    """What a file holds; None leaves a table out, and a column that is not there is not written."""

    trials: Mapping[str, Any] | None
    units: Mapping[str, Any] | None
    signals: tuple[Signal, ...] = field(default=())

    def with_trials(self, **columns: Any) -> Contents:
        """The same with other columns of trials; None drops one."""
        return replace(self, trials=changed(self.trials, columns))

    def with_units(self, **columns: Any) -> Contents:
        """The same with other columns of units; None drops one."""
        return replace(self, units=changed(self.units, columns))


def changed(table: Mapping[str, Any] | None, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**(table or {}), **columns}.items() if value is not None}


def reaches(seed: int = 0, trials: int = 30, split: tuple[str, ...] = ("train",) * 3 + ("val",)) -> Contents:
    """Trials of 1.5 s with a movement somewhere in the middle, that eight units and a hand's velocity know of.

    Events and spikes fall between milliseconds. Nothing was recorded in the last 100 ms of every trial but
    the last.
    """
    draw = np.random.default_rng(seed)
    start = np.round(0.2 + TRIAL_S * np.arange(trials), 6)
    onset = start + draw.uniform(0.4, 0.6, trials)
    end_s = start[-1] + TRIAL_S
    spikes = [np.sort(draw.uniform(0, end_s, draw.poisson(20 * end_s))) for _ in range(HELD_IN + HELD_OUT)]
    watched = np.stack([start, start + TRIAL_S - 0.1], axis=1)
    watched[0, 0], watched[-1, 1] = 0, end_s
    held_out = np.arange(HELD_IN + HELD_OUT) % 3 == 1  # not the last ones
    table = {
        "start_time": start,
        "stop_time": start + TRIAL_S,
        "move_onset_time": onset,
        "split": [split[k % len(split)] for k in range(trials)],
        "trial_type": draw.integers(1, 3, trials),
        "trial_version": np.zeros(trials, np.int64),
    }
    units = {"spike_times": spikes, "obs_intervals": [watched] * len(spikes), "heldout": held_out}
    return Contents(table, units, (hand(end_s, draw),))


def hidden_trials(train: Contents, seed: int = 1) -> Contents:
    """Trials of split ``test`` and the held-in units alone, without behavior."""
    found, shown = reaches(seed, 8, ("test",)), np.flatnonzero(~train.units["heldout"])
    units = {name: [column[unit] for unit in shown] for name, column in found.units.items()}
    return Contents(found.trials, {**units, "id": shown})


def hand(end_s: float, draw: np.random.Generator, name: str = "hand_vel") -> Signal:
    """A sum of slow waves and of one that 5 ms bins cannot hold."""
    times = np.arange(round(end_s * 1000)) / 1000
    slow = [np.sin(2 * np.pi * (f * times + draw.random())) for f in (0.7, 2.3, 5.1)]
    return Signal(name, np.stack([slow[0] + slow[1] + np.sin(2 * np.pi * 180 * times), slow[2]], axis=1), times)


def intervals(tp_ms: np.ndarray, seed: int = 2) -> Contents:
    """Trials of 3 s with an interval of 800 ms before ``go_time``; every fourth is evaluated, the second an outlier."""
    draw, trials = np.random.default_rng(seed), len(tp_ms)
    found = reaches(seed, 2 * trials + 1)
    start = 0.2 + 3 * np.arange(trials)
    go = start + draw.uniform(2.0, 2.5, trials)
    table = {
        "start_time": start,
        "stop_time": start + 3,
        "set_time": go - 0.8,
        "go_time": go,
        "split": ["val" if k % 4 == 3 else "train" for k in range(trials)],
        "is_eye": np.arange(trials) % 2,
        "theta": np.zeros(trials),
        "is_short": np.ones(trials, np.int64),
        "ts": np.full(trials, 800.0),
        "tp": tp_ms,
        "is_outlier": (np.arange(trials) == 1).astype(np.int64),
    }
    return replace(found, trials=table, signals=()).with_units(obs_intervals=[np.array([[0, 3.0 * trials + 3]])] * 8)


def write(path: Path, contents: Contents) -> Path:
    """Write an NWB file."""
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries  # seconds, which collecting tests should not cost
    from pynwb.behavior import Position, SpatialSeries

    contents = deepcopy(contents)
    file = NWBFile("a session", path.stem, datetime(2026, 1, 1, tzinfo=UTC))
    _write_trials(file, contents.trials)
    if contents.units is not None:
        file.units = _units(contents.units)
    module = file.create_processing_module("behavior", "of the animal") if contents.signals else None
    for signal in contents.signals:
        clock = {"rate": signal.rate} if signal.times_s is None else {"timestamps": signal.times_s}
        told = {"name": signal.name, "data": signal.values, "comments": signal.comments, **clock}
        if signal.container is None:
            module.add(TimeSeries(unit="mm/s", **told))
        else:
            module.add(Position(SpatialSeries(reference_frame="screen", **told), name=signal.container))
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


def _write_trials(file: Any, table: Mapping[str, Any] | None) -> None:
    if table is None:
        return
    known = ("start_time", "stop_time")
    for name in (name for name in table if name not in known):
        file.add_trial_column(name, f"{name} of the trial")
    for row in range(len(table["start_time"])):
        file.add_trial(**{name: column[row] for name, column in table.items()})


def _units(table: Mapping[str, Any]) -> Any:
    from pynwb.misc import Units

    units = Units(name="units", description="sorted")
    own = [name for name in table if name not in ("spike_times", "obs_intervals", "id")]
    for name in own:
        units.add_column(name, f"{name} of the unit")
    for row in range(len(next(iter(table.values())))):
        units.add_unit(**{name: column[row] for name, column in table.items()})
    return units
