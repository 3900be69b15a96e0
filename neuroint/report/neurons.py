"""Keep beside a sweep whose neurons it scored: session, animal, area and position, so that a report needs no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from neuroint.data.base import Session

NEURONS_FILE = "neurons.parquet"
_AXES, _AREA = ("x_um", "y_um", "z_um"), "area"


@dataclass(frozen=True)
class Neurons:
    """Whose neurons a sweep scored.

    Attributes:
        animals: session -> animal; empty where nothing was recorded.
        positions_um: session -> positions in the brain; sessions without positions are left out.
        areas: session -> brain area of every neuron; sessions that do not know them are left out.
    """

    animals: Mapping[str, str]
    positions_um: Mapping[str, Float[np.ndarray, "neurons 3"]]
    areas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def write_neurons(folder: Path, sessions: Sequence[Session]) -> Path:
    """Write one row per neuron (session, animal, neuron, area, x, y, z in µm) into a sweep's folder.

    What is not known is an empty word, or NaN.
    """
    tables = [_table(session) for session in sessions]
    file = folder / NEURONS_FILE
    pq.write_table(pa.concat_tables(tables), file)
    return file


def read_neurons(folder: Path) -> Neurons:
    """Read what ``write_neurons`` left; empty where it was never called."""
    file = folder / NEURONS_FILE
    if not file.exists():
        return Neurons({}, {})
    table = pq.read_table(file)
    names = np.asarray(table.column("session").to_pylist())
    animals = np.asarray(table.column("animal").to_pylist())
    positions = np.stack([table.column(axis).to_numpy() for axis in _AXES], axis=1)
    sessions = list(dict.fromkeys(names.tolist()))
    known = {name: positions[names == name] for name in sessions}
    return Neurons(
        {name: str(animals[names == name][0]) for name in sessions},
        {name: found for name, found in known.items() if np.isfinite(found).all()},
        _areas(table, names, sessions),
    )


def _areas(table: pa.Table, names: np.ndarray, sessions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read areas of the sessions that know them; sweeps of earlier versions have none."""
    if _AREA not in table.column_names:
        return {}
    areas = np.asarray(table.column(_AREA).to_pylist())
    found = {name: tuple(map(str, areas[names == name])) for name in sessions}
    return {name: told for name, told in found.items() if any(told)}


def _table(session: Session) -> pa.Table:
    n = session.facts.n_neurons
    positions = session.facts.positions_um
    if positions is None:
        positions = np.full((n, 3), np.nan)
    columns = {"session": [session.name] * n, "animal": [session.animal] * n, "neuron": np.arange(n, dtype=np.int32)}
    columns[_AREA] = [""] * n if session.facts.areas is None else list(session.facts.areas)
    return pa.table(columns | {axis: positions[:, k].astype(np.float32) for k, axis in enumerate(_AXES)})
