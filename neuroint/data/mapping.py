"""Say which array of a user's file plays which role: what a short YAML beside the data holds.

.. code-block:: yaml

    video: {array: movie, axes: time height width}
    responses: {array: spikes, axes: neurons time}
    bin_s: 0.0333
    cautions: ["cells pooled over animals: no coupling"]
    split: {final_test: 0.2, final_test_at: end}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictStr,
    ValidationError,
)

from neuroint.data.base import DataError
from neuroint.data.cautions import checked
from neuroint.registry import Count, Index, nearest

Share = Annotated[float, Field(ge=0, lt=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Array(_Frozen):
    """An array by its name, and what its axes are, in stored order; any order is read, without a copy."""

    array: str
    axes: str | None = None


def _by_name(given: Any) -> Any:
    """Let ``video: movie`` stand for ``video: {array: movie}``."""
    return {"array": given} if isinstance(given, str) else given


def _axes_among(*choices: str) -> AfterValidator:
    """Accept any order of the words of one of ``choices``, and axes left to their default."""

    def check(array: Array) -> Array:
        words = sorted((array.axes or choices[0]).split())
        if words not in [sorted(choice.split()) for choice in choices]:
            expected = " or ".join(f"'{choice}'" for choice in choices)
            raise ValueError(f"axes '{array.axes}' are not understood; use the words of {expected} in any order")
        return array

    return AfterValidator(check)


def _number_first(given: Any) -> Any:
    """Read what looks like a number as one, because PyYAML hands ``1e-3`` over as text."""
    try:
        return given if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        return given


def _seconds(given: float | str) -> float | str:
    if isinstance(given, float) and not 0 < given < math.inf:
        raise ValueError("expected a positive number of seconds per bin, or the name of an array that holds it")
    return given


class Positions(_Frozen):
    """An array of positions, and how many micrometers one of its units is: a pixel size, where it holds pixels."""

    array: str
    um_per_unit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


Named = Annotated[Array, BeforeValidator(_by_name)]
Video = Annotated[Named, _axes_among("time height width", "time channel height width")]
Images = Annotated[Named, _axes_among("stimulus height width", "stimulus channel height width")]
Responses = Annotated[Named, _axes_among("time neurons", "stimulus repeat neurons", "stimulus neurons")]
Channels = Annotated[
    Named,
    _axes_among("time channel", "time", "stimulus channel", "stimulus", "stimulus repeat", "stimulus repeat channel"),
]
PositionsUm = Annotated[Positions, BeforeValidator(_by_name)]
Caution = Annotated[str, AfterValidator(checked)]
BinS = Annotated[StrictFloat | StrictStr, BeforeValidator(_number_first), AfterValidator(_seconds)]


class Split(_Frozen):
    """How a recording without tiers of its own is divided; seeded, so that it can be committed and repeated.

    Attributes:
        block_frames: frames per scored block of a continuous recording (at least; blocks are stretched to fit).
        gap_frames: frames before every scored block that are read as its lead and never scored or trained on; longer
            than the memory of any model that will be compared.
        validation: share of all frames (of stimuli, for images).
        dev_test: the same.
        final_test: the same.
        final_test_at: ``end`` takes exactly the last share of frames or stimuli, ``scattered`` seeded ones.
        seed: of the choice of blocks or stimuli.
    """

    block_frames: Count = 500
    gap_frames: Index = 60
    validation: Share = 0.1
    dev_test: Share = 0.1
    final_test: Share = 0.2
    final_test_at: Literal["end", "scattered"] = "scattered"
    seed: int = 0


class ArrayMapping(_Frozen):
    """Roles of arrays; see ``neuroint.data.array_roles`` for default axes.

    ``video``, ``images`` or neither is given. Without them there is activity only, over time: models then read it by
    ``data.observed``. Responses may be any numbers; negative ones (dF/F, z-scored traces) need link ``identity`` and
    objective ``mse``.

    Attributes:
        responses: per frame (``time neurons``), per image (``stimulus neurons``), or per image and repeat
            (``stimulus repeat neurons``, NaN where a repeat was not shown).
        video: one frame per response bin.
        images: one image per stimulus.
        behavior: channels in the axes of the responses, with ``channel`` in place of ``neurons``.
        pupil: the same, for the shifter.
        positions_um: (neurons, 3), or (neurons, 2), whose depth is then 0; in micrometers, or in another unit with
            ``{array: NAME, um_per_unit: 0.7}``.
        match_ids: (neurons,), whole numbers that are equal for neurons of several recordings that are the same cell or
            type, negative for none; what ``features: shared`` of readout ``gaussian`` reads.
        bin_s: seconds per bin, or the array that holds them.
        animal: the animal's name, or a text array that holds it; by default the session's. ``{file}`` in a name stands
            for the file's.
        session: the session's name, the same way; by default the file's.
        cautions: sentences that every later verdict obeys; ``why: no coupling`` (or interaction, or normalization)
            keeps arms that change it from a verdict, any other sentence is a remark.
        split: how tiers are made.
        input_normalization: ``z_score`` of the stimulus (per channel, one mean and standard deviation over pixels) and
            of behavior and pupil (per channel), with statistics of the training tier; or ``none``.
        response_normalization: ``per_neuron`` divides by the standard deviation over the training tier (by 1 % of the
            population's mean where it is smaller); ``none`` keeps counts as they are.
        leakage: what happens when a stretch of video is shown in two tiers, or an image or a stretch is trained on in
            one recording and scored in another: ``refuse``, or ``report`` as a caution.
    """

    responses: Responses
    video: Video | None = None
    images: Images | None = None
    behavior: Channels | None = None
    pupil: Channels | None = None
    positions_um: PositionsUm | None = None
    match_ids: str | None = None
    bin_s: BinS | None = None
    animal: str | None = None
    session: str | None = None
    cautions: tuple[Caution, ...] = ()
    split: Split = Split()
    input_normalization: Literal["z_score", "none"] = "z_score"
    response_normalization: Literal["none", "per_neuron"] = "none"
    leakage: Literal["refuse", "report"] = "refuse"


_EXPECTED = "a mapping is 'role: array' pairs, for example {responses: spikes}"
ARRAY_ROLES = ("video", "images", "responses", "behavior", "pupil", "positions_um", "match_ids", "bin_s")


def parse_mapping(given: Any) -> ArrayMapping:
    """Turn a dict, or the path of a YAML file with one, into a checked mapping.

    Raises:
        DataError: every fault at once: unknown roles with their nearest match, wrong types, shares that leave nothing
            to train on, video and images together.
    """
    if isinstance(given, ArrayMapping):
        return given
    raw = read_mapping(Path(given)) if isinstance(given, str | Path) else given
    if not isinstance(raw, Mapping):
        raise DataError(f"{_EXPECTED}; got {raw!r}")
    faults = [*_cross_faults(raw)]
    try:
        mapping = ArrayMapping.model_validate(dict(raw))
    except ValidationError as error:
        faults = [*dict.fromkeys(_fault(e) for e in error.errors()), *faults]
        raise DataError("mapping: " + "; ".join(faults)) from None
    if faults:
        raise DataError("mapping: " + "; ".join(faults))
    return mapping


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file of roles; they are not checked yet.

    Raises:
        DataError: the file cannot be read, is not YAML, is empty, or holds something else.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"mapping file '{path}' cannot be read ({error.strerror}); give its path or the roles inline"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"mapping file '{path}' is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise DataError(f"mapping file '{path}' {'is empty' if raw is None else f'holds {raw!r}'}; {_EXPECTED}")
    return raw


def _cross_faults(raw: Mapping[str, Any]) -> list[str]:
    faults = []
    if raw.get("video") is not None and raw.get("images") is not None:
        faults.append("video and images are both given; a recording is continuous or made of single images: keep one")
    split = raw.get("split")
    shares = [split.get(tier, getattr(Split(), tier)) for tier in _SHARES] if isinstance(split, Mapping) else []
    if all(isinstance(share, int | float) for share in shares) and sum(shares) >= 1:
        faults.append(f"split: validation, dev_test and final_test sum to {sum(shares):g}; leave some for training")
    return faults


_SHARES = ("validation", "dev_test", "final_test")


def _fault(error: Mapping[str, Any]) -> str:
    """One sentence on one fault, with the nearest known word where a word is unknown."""
    words = [str(word) for word in error["loc"]]
    if error["type"] == "extra_forbidden":
        known = _known(words[:-1])
        return f"'{'.'.join(words)}' is not known.{nearest(words[-1], known)} Known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{'.'.join(words)} is missing; name the array that holds it"
    message = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(words)}: got {error['input']!r}: {message[0].lower()}{message[1:]}"


def _known(parents: list[str]) -> list[str]:
    models: dict[tuple[str, ...], type[BaseModel]] = {
        (): ArrayMapping,
        ("split",): Split,
        ("positions_um",): Positions,
    }
    return list(models.get(tuple(parents), Array).model_fields)
