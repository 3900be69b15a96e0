"""Find the arrays that a mapping names, put their axes in order, and check that they belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from neuroint.data.array_source import CHANNEL_AXES, RESPONSE_AXES, STIMULUS_AXES, View, in_chunks, usable
from neuroint.data.array_store import ArrayStore
from neuroint.data.base import DataError
from neuroint.data.mapping import Array, ArrayMapping, Positions
from neuroint.data.matches import whole_ids

# Axes that are assumed when the mapping does not say them, by what a row is, role and number of dimensions.
DEFAULT_AXES: dict[str, dict[str, dict[int, str]]] = {
    "time": {
        "video": {3: "time height width"},
        "responses": {2: "time neurons"},
        "behavior": {1: "time", 2: "time channel"},
        "pupil": {1: "time", 2: "time channel"},
    },
    "stimulus": {
        "images": {3: "stimulus height width"},
        "responses": {2: "stimulus neurons", 3: "stimulus repeat neurons"},
        "behavior": {1: "stimulus", 2: "stimulus channel", 3: "stimulus repeat channel"},
        "pupil": {1: "stimulus", 2: "stimulus channel", 3: "stimulus repeat channel"},
    },
}
FILE = "{file}"  # in a name: that of the file, without its ending
WANTED = {
    "video": STIMULUS_AXES,
    "images": STIMULUS_AXES,
    "responses": RESPONSE_AXES,
    "behavior": CHANNEL_AXES,
    "pupil": CHANNEL_AXES,
}


class Faults:
    """Collects what is wrong, so that it is said all at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """Call, and note a ``DataError`` instead of stopping at it; None then."""
        try:
            return read(*arguments)
        except DataError as error:
            self.found.append(str(error))
            return None

    def stop(self) -> None:
        """Raise what was noted, if anything."""
        if self.found:
            raise DataError("; ".join(self.found))


def row_axis(mapping: ArrayMapping) -> str:
    """What a row of every array is: a frame (``time``) or an image (``stimulus``)."""
    return "stimulus" if mapping.images is not None else "time"


def named_arrays(mapping: ArrayMapping) -> dict[str, Array]:
    """Arrays with axes, by role, as the mapping names them."""
    return {role: array for role in WANTED if (array := getattr(mapping, role)) is not None}


def find_views(store: ArrayStore, mapping: ArrayMapping) -> dict[str, View]:
    """Put the axes of every array in order; the stimulus is called ``stimulus``, whichever it is.

    Raises:
        DataError: every missing array, number of axes that does not fit, empty array, and disagreement at once.
    """
    faults = Faults()
    views = {
        "stimulus" if role in ("video", "images") else role: faults.attempt(
            _view, store, role, array, row_axis(mapping)
        )
        for role, array in named_arrays(mapping).items()
    }
    faults.stop()
    faults.found.extend(_disagreements(store, views, row_axis(mapping)))
    faults.stop()
    return views


def _view(store: ArrayStore, role: str, named: Array, row: str) -> View:
    array = store.numbers(named.array)
    axes = named.axes or DEFAULT_AXES[row][role].get(array.ndim)
    if axes is None:
        known = " or ".join(f"'{default}'" for default in DEFAULT_AXES[row][role].values())
        raise DataError(
            f"{role} '{named.array}' has shape {array.shape}; expected {known}, or say what its axes are: "
            f"{role}: {{array: {named.array}, axes: ...}}"
        )
    words = axes.split()
    if len(words) != array.ndim:
        raise DataError(f"{role} '{named.array}' has shape {array.shape}, but axes '{axes}' name {len(words)} of them")
    if row not in words:
        raise DataError(
            f"{role} has axes '{axes}', but the recording is one of {'images' if row == 'stimulus' else 'frames'}; "
            f"expected an axis '{row}' (responses to images need the role images, responses over time do not have it)"
        )
    if 0 in array.shape:
        raise DataError(f"{role} '{named.array}' is empty: its shape is {array.shape}")
    return View(role, named.array, tuple("row" if word == row else word for word in words), WANTED[role])


def _disagreements(store: ArrayStore, views: dict[str, View], row: str) -> Iterator[str]:
    """Compare the number of rows, and of repeats, with that of the responses."""
    repeats, rows, _ = views["responses"].of(store).shape
    for view in views.values():
        shape = dict(zip(view.wanted, view.of(store).shape, strict=True))
        if shape["row"] != rows:
            yield (
                f"{views['responses']} have {rows} along '{row}' and {view} has {shape['row']}; "
                f"{_read_as(store, views['responses'], row)}, {_read_as(store, view, row)}: "
                "if an axis is not what it is taken for, say so with 'axes', else cut both to the same length"
            )
        elif shape.get("repeat", repeats) != repeats:
            yield f"responses have {repeats} repeats per image and {view} has {shape['repeat']}: fill with NaN"


def _read_as(store: ArrayStore, view: View, row: str) -> str:
    axes = ", ".join(row if axis == "row" else axis for axis in view.stored)
    return f"'{view.array}' {store.numbers(view.array).shape} was read as ({axes})"


def read_positions(store: ArrayStore, named: Positions, n_neurons: int) -> Float[np.ndarray, "neurons 3"]:
    """Positions in micrometers; a depth that is not given is 0."""
    name, array = named.array, np.asarray(store.numbers(named.array))
    if array.shape not in ((n_neurons, 2), (n_neurons, 3)):
        raise DataError(
            f"positions_um '{name}' has shape {array.shape}; expected ({n_neurons}, 3), without depth ({n_neurons}, 2)"
        )
    if not usable(array).all():
        raise DataError(
            f"positions_um '{name}' has NaN or infinite values; give every neuron a position or leave it out"
        )
    positions = np.zeros((n_neurons, 3), dtype=np.float32)
    positions[:, : array.shape[1]] = array * named.um_per_unit
    return positions


def read_match_ids(store: ArrayStore, name: str | None, n_neurons: int) -> Int[np.ndarray, " neurons"] | None:
    """Ids of matched neurons, one each."""
    if name is None:
        return None
    array = np.asarray(store.numbers(name))
    if array.shape != (n_neurons,):
        raise DataError(f"match_ids '{name}' has shape {array.shape}; expected ({n_neurons},), one id per neuron")
    return whole_ids(array, f"match_ids '{name}'")


def read_bin_s(store: ArrayStore, given: float | str | None) -> float | None:
    """Seconds per bin, from the mapping or from an array of one number."""
    if not isinstance(given, str):
        return given
    array = np.asarray(store.numbers(given))
    if array.size != 1 or not usable(array).all() or not array.ravel()[0] > 0:
        raise DataError(f"bin_s '{given}' has shape {array.shape}; expected one positive number of seconds")
    return float(array.ravel()[0])


def read_text(store: ArrayStore, given: str | None, default: str) -> str:
    """A name, from the mapping or from an array of one text (or whole number) that is called so."""
    if given is None:
        return default
    if given not in store.names():
        return given.replace(FILE, store.path.stem)
    array = np.asarray(store[given])
    if array.size != 1 or array.dtype.kind not in "Uiu":
        raise DataError(f"array '{given}' has shape {array.shape} and dtype {array.dtype}; expected one text")
    return str(array.ravel()[0])


def shown_rows(responses: Shaped[np.ndarray, "repeats rows neurons"], array: str) -> Bool[np.ndarray, "repeats rows"]:
    """Which presentations have a response of any neuron; infinite responses are refused."""
    shown = np.ones(responses.shape[:2], dtype=bool)
    if responses.dtype.kind != "f":
        return shown
    for rows, chunk in in_chunks(responses, np.arange(responses.shape[1]), axis=1):
        faulty = ~(usable(chunk) | np.isnan(chunk)).all(axis=(0, 2))
        if faulty.any():
            raise DataError(
                f"responses '{array}' have infinite or too large values, first in row {rows[faulty][0]}; "
                "expected numbers, or NaN where nothing was recorded"
            )
        shown[:, rows] = ~np.isnan(chunk).all(axis=2)
    return shown
