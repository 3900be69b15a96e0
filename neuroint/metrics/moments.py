"""Sufficient statistics per neuron x stimulus x half of the repeats, from which every score is derived.

Every column is a sum over the scored frames of one stimulus, so columns add up over stimuli (with multiplicities, for a
bootstrap over clips) and over the shares of several workers. Sums are float64; responses of mean 1000 and standard
deviation 1 keep their correlation to better than 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Num

Half = Literal["all", 0, 1]
HALVES: tuple[Half, ...] = ("all", 0, 1)
DEFINITION = "1"  # raised whenever a column changes its meaning
LOG_OFFSET = 1e-8  # added to predictions inside logarithms, as the Sensorium toolkit does
_CHUNK = 2**16  # numbers per temporary array: 512 KiB stay in a core's cache

# Single-trial columns: each valid frame of each repeat counts once.
SINGLE = ("n_frames", "sum_y", "sum_yy", "sum_p", "sum_pp", "sum_yp", "sum_poisson")
# Repeat-mean columns: each frame with at least one valid repeat counts once.
MEAN = ("n_mean", "sum_ym", "sum_ymym", "sum_pm", "sum_pmpm", "sum_ympm")
# Repeated columns: each frame with at least two valid repeats counts once. n_var_trials counts their single trials,
# sum_var is the variance across repeats (ddof 1), sum_se the squared error averaged over repeats.
REPEATED = (
    "n_var",
    "n_var_trials",
    "sum_var",
    "sum_var_over_n",
    "sum_se",
    "sum_ym_var",
    "sum_ymym_var",
    "sum_pm_var",
    "sum_pmpm_var",
    "sum_ympm_var",
)
COLUMNS = SINGLE + MEAN + REPEATED
_POSITION = {name: position for position, name in enumerate(COLUMNS)}


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over scored frames, ``stimuli halves columns neurons``.

    Half 0 holds the repeats 0, 2, 4, ... of each stimulus in the order they were presented, half 1 the others, and
    ``all`` every repeat. ``moments["sum_y"]`` is a column summed over stimuli, all repeats together.

    Attributes:
        values: the sums; what ``COLUMNS`` means is written beside it.
        session: name of the recording.
        tier: which clips were scored.
    """

    values: Float[np.ndarray, "stimuli halves columns neurons"]
    session: str = ""
    tier: str = ""

    @property
    def n_stimuli(self) -> int:
        """Rows that can be resampled: stimuli, or blocks of them."""
        return self.values.shape[0]

    @property
    def n_neurons(self) -> int:
        """Neurons of the session."""
        return self.values.shape[3]

    @property
    def has_repeats(self) -> bool:
        """Whether any neuron has a frame with two valid repeats."""
        return bool(np.any(self["n_var"] > 0))

    def __getitem__(self, column: str) -> Float[np.ndarray, " neurons"]:
        return self.values[:, 0, _POSITION[column]].sum(axis=0)

    def sum(self, weights: Num[np.ndarray, " stimuli"] | None = None, half: Half = "all") -> Moments:
        """Add stimuli up, each with its weight, and keep one half of the repeats as if it were everything.

        Raises:
            ValueError: one weight per stimulus is missing, or the halves were summed away before.
        """
        if HALVES.index(half) >= self.values.shape[1]:
            raise ValueError(f"half {half} is gone: these moments were summed already; take halves before summing")
        weights = np.ones(self.n_stimuli) if weights is None else weights
        if weights.shape != (self.n_stimuli,):
            raise ValueError(f"got weights of shape {weights.shape}; give one for each of {self.n_stimuli} stimuli")
        total = np.tensordot(weights.astype(np.float64), self.values[:, HALVES.index(half)], axes=1)
        return replace(self, values=total[None, None])

    def to_table(self) -> pa.Table:
        """Lay the sums out as one row per stimulus x half x neuron, float64, with provenance in the metadata."""
        stimuli, halves, _, neurons = self.values.shape
        stimulus, half, neuron = np.indices((stimuli, halves, neurons), dtype=np.int32).reshape(3, -1)
        columns: dict[str, pa.Array] = {
            "neuron": pa.array(neuron),
            "stimulus": pa.array(stimulus),
            "half": pa.array(np.asarray([str(name) for name in HALVES])[half]).dictionary_encode(),
        }
        for position, name in enumerate(COLUMNS):
            columns[name] = pa.array(np.ascontiguousarray(self.values[:, :, position]).reshape(-1))
        provenance = {"session": self.session, "tier": self.tier, "definition": DEFINITION}
        return pa.table(columns).replace_schema_metadata(provenance)

    @staticmethod
    def from_table(table: pa.Table) -> Moments:
        """Read back what ``to_table`` wrote, rows in any order.

        Raises:
            ValueError: the table was written under another definition, lacks a column, or is not complete.
        """
        provenance = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        _check_table(table, provenance)
        stimulus, neuron = (table.column(name).to_numpy() for name in ("stimulus", "neuron"))
        position = {str(name): index for index, name in enumerate(HALVES)}
        half = np.asarray([position[name] for name in table.column("half").to_pylist()], dtype=np.int64)
        shape = (int(stimulus.max()) + 1, int(half.max()) + 1, len(COLUMNS), int(neuron.max()) + 1)
        _check_complete(np.ravel_multi_index((stimulus, half, neuron), (shape[0], shape[1], shape[3])), shape)
        values = np.empty(shape)
        for column, name in enumerate(COLUMNS):
            values[stimulus, half, column, neuron] = table.column(name).to_numpy()
        return Moments(values, provenance["session"], provenance["tier"])


def _check_table(table: pa.Table, provenance: dict[str, str]) -> None:
    found = provenance.get("definition")
    if found != DEFINITION or not {"session", "tier"} <= provenance.keys():
        raise ValueError(
            f"the table's metadata say definition {found}, this version reads definition {DEFINITION} with session and "
            "tier; score the run again"
        )
    missing = [name for name in ("neuron", "stimulus", "half", *COLUMNS) if name not in table.column_names]
    if missing or table.num_rows == 0:
        raise ValueError(
            f"the table has {table.num_rows} rows and lacks {', '.join(missing) or 'nothing else'}; "
            "give a table that Moments.to_table wrote"
        )


def _check_complete(place: Num[np.ndarray, " rows"], shape: tuple[int, ...]) -> None:
    expected = shape[0] * shape[1] * shape[3]
    distinct = np.unique(place).size
    if place.size != expected or distinct != expected:
        raise ValueError(
            f"the table has {place.size} rows, {distinct} of them distinct, where {shape[0]} stimuli x {shape[1]} "
            f"halves x {shape[3]} neurons make {expected}; it was cut or joined twice: score the run again"
        )


def concatenate(parts: Sequence[Moments]) -> Moments:
    """Put the stimuli of several parts of one session and tier behind one another, as workers hand them in.

    Raises:
        ValueError: there is no part, or parts differ in session, tier, neurons or halves.
    """
    if not parts:
        raise ValueError("got no moments to concatenate; give at least one part")
    kinds = {(part.session, part.tier, part.values.shape[1:]) for part in parts}
    if len(kinds) > 1:
        raise ValueError(
            f"parts differ in (session, tier, (halves, columns, neurons)): {sorted(kinds)}; "
            "concatenate within a session and tier only"
        )
    return replace(parts[0], values=np.concatenate([part.values for part in parts]))


class MomentsBuilder:
    """Gathers moments one stimulus at a time, so that predictions need not be kept.

    Args:
        n_neurons: neurons of the session.
        session: name written into the result.
        tier: tier written into the result.
        rows: most rows to keep; stimulus k is added onto row k modulo ``rows``, so that memory stays bounded where
            stimuli are thousands of still images. A row is then a block of stimuli. None keeps a row per stimulus.
    """

    def __init__(self, n_neurons: int, session: str = "", tier: str = "", rows: int | None = None) -> None:
        if n_neurons < 1 or (rows is not None and rows < 1):
            raise ValueError(f"got {n_neurons} neurons and {rows} rows; give at least one of each")
        self.n_neurons = n_neurons
        self._session = session
        self._tier = tier
        self._limit = rows
        self._rows: list[Float[np.ndarray, "halves columns neurons"]] = []
        self._added = 0

    def add(
        self,
        prediction: Float[np.ndarray, "repeats time neurons"],
        responses: Float[np.ndarray, "repeats time neurons"],
        valid: Bool[np.ndarray, "repeats time neurons"],
    ) -> None:
        """Count in the scored frames of every repeat of one stimulus, repeats in the order of presentation.

        What ``valid`` leaves out may hold anything. Pad clips of unequal length and mark the padding not valid.

        Raises:
            ValueError: shapes differ, there is no repeat, or a valid entry is NaN or infinite.
        """
        self._check(prediction, responses, valid)
        row = np.zeros((len(HALVES), len(COLUMNS), self.n_neurons))
        step = max(1, _CHUNK // max(1, valid.shape[0] * valid.shape[1]))
        for start in range(0, self.n_neurons, step):
            part = np.s_[..., start : start + step]
            v = valid[part]
            y = np.where(v, responses[part], 0.0).astype(np.float64)
            p = np.where(v, prediction[part], 0.0).astype(np.float64)
            _check_finite(y, p)
            row[0][part] = row[1][part] = _columns(y, p, v)
            if valid.shape[0] > 1:  # of a single repeat, half 0 is all and half 1 is empty
                row[1][part] = _columns(y[0::2], p[0::2], v[0::2])
                row[2][part] = _columns(y[1::2], p[1::2], v[1::2])
        self._keep(row)

    def finish(self) -> Moments:
        """Hand over what was gathered.

        Raises:
            ValueError: nothing was added.
        """
        if not self._rows:
            raise ValueError(f"no stimulus was added for tier '{self._tier}' of '{self._session}'; choose another tier")
        return Moments(np.stack(self._rows), self._session, self._tier)

    def _keep(self, row: Float[np.ndarray, "halves columns neurons"]) -> None:
        if self._limit is not None and self._added >= self._limit:
            self._rows[self._added % self._limit] += row
        else:
            self._rows.append(row)
        self._added += 1

    def _check(self, prediction: np.ndarray, responses: np.ndarray, valid: np.ndarray) -> None:
        shapes = (prediction.shape, responses.shape, valid.shape)
        fits = len(set(shapes)) == 1 and len(shapes[0]) == 3 and shapes[0][2] == self.n_neurons and shapes[0][0] > 0
        if not fits:
            raise ValueError(
                f"prediction, responses and valid have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; all three must "
                f"be (repeats, time, {self.n_neurons} neurons) with at least one repeat"
            )


def _check_finite(y: Float[np.ndarray, "repeats time neurons"], p: Float[np.ndarray, "repeats time neurons"]) -> None:
    """Refuse NaN and infinity: entries that are not valid have been set to 0 before."""
    for name, array, cure in (
        ("responses", y, "mark what was not recorded as not valid"),
        ("prediction", p, "the model has diverged; do not score it"),
    ):
        bad = np.count_nonzero(~np.isfinite(array))
        if bad:
            raise ValueError(f"{name}: {bad} of {array.size} entries marked valid are NaN or infinite; {cure}")


def _columns(
    y: Float[np.ndarray, "repeats time neurons"],
    p: Float[np.ndarray, "repeats time neurons"],
    v: Bool[np.ndarray, "repeats time neurons"],
) -> Float[np.ndarray, "columns neurons"]:
    """Sum everything over repeats and frames; y and p are 0 where not valid, so that they add nothing."""
    n = v.sum(axis=0).astype(np.float64)
    ym, pm = y.sum(axis=0) / np.maximum(n, 1), p.sum(axis=0) / np.maximum(n, 1)
    single = (n, y, y * y, p, p * p, y * p, _poisson(y, p))
    once = (n >= 1).astype(np.float64)
    means = (ym, ym * ym, pm, pm * pm, ym * pm)
    twice = (n >= 2).astype(np.float64)
    variance = np.square(np.where(v, y - ym, 0.0)).sum(axis=0) / np.maximum(n - 1, 1)
    error = np.square(y - p).sum(axis=0) / np.maximum(n, 1)
    repeated = (n, variance, variance / np.maximum(n, 1), error, *means)
    return np.stack(
        [array.reshape(-1, array.shape[-1]).sum(axis=0) for array in single]
        + [array.sum(axis=0) for array in (once, *means)]
        + [(twice * array).sum(axis=0) for array in (np.ones_like(n), *repeated)]
    )


def _poisson(
    y: Float[np.ndarray, "repeats time neurons"], p: Float[np.ndarray, "repeats time neurons"]
) -> Float[np.ndarray, "repeats time neurons"]:
    """Negative log likelihood without its y! term, nats; NaN where the prediction is negative."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(p > -LOG_OFFSET, p - y * np.log(p + LOG_OFFSET), np.nan)
