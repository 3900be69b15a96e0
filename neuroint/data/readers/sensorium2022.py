"""Sensorium 2022: still images shown to mice (Willeke et al. 2022, arXiv:2206.08666)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, Session
from neuroint.data.sensorium import BEHAVIOR, PUPIL, RESPONSES, Layout, is_release
from neuroint.data.sensorium_session import Reading, all_faults, read_sessions
from neuroint.data.sensorium_source import InputNormalization, side_of_blocks
from neuroint.data.splits import Leakage
from neuroint.registry import Fraction, Index, readers

LAYOUT = Layout(
    title="Sensorium 2022",
    prefix="static",
    stimulus="images",
    axes={
        "images": (1, "height", "width"),
        RESPONSES: ("neurons",),
        BEHAVIOR: (3,),
        PUPIL: (2,),
    },
    tiers={
        "train": TRAIN,
        "validation": VALIDATION,
        "test": DEV_TEST,
        "final_test": FINAL_TEST,
        "none": UNUSED,
    },
)


@readers.register("sensorium2022")
def read_sensorium2022(
    path: Path,
    *,
    scale: Fraction = 0.25,
    response_normalization: Literal["official", "none"] = "official",
    input_normalization: InputNormalization = "official",
    split_seed: Index = 0,
    withheld_fraction: Fraction = 0.1,
    leakage: Leakage = "refuse",
) -> list[Session]:
    """Read static sessions of Sensorium 2022: images, responses, behavior, pupil; every image is a clip of one frame.

    ``path`` is a session's folder or holds several. The tier ``test`` is dev-test, ``final_test`` is final test.
    Images and pupil are normalized as ``(x - mean) / std``, behavior (pupil dilation, its derivative, running speed) as
    ``x / std``, with the stored statistics of the training tier; behavior and pupil may be absent. Negative responses
    become 0. Repeats are found by hashing every fourth pixel.

    Normalized images are then made smaller by averaging blocks of pixels, ``scale: .25`` blocks of 4 x 4. The official
    loader interpolates without a low-pass filter, which at .25 averages only the inner 2 x 2 pixels of each block: here
    fine detail is averaged away instead of being aliased.

    Args:
        path: a session's folder, or a folder of sessions.
        scale: size of the images in proportion to the stored ones; 1 / scale must be a whole number that divides both
            sides.
        response_normalization: ``official`` divides by the standard deviation per neuron; ``none`` keeps stored units.
        input_normalization: ``official`` uses a mean and a standard deviation per pixel and frame, which need hundreds
            of training clips; ``per_channel`` one of each per channel.
        split_seed: of the tiers that replace withheld ones.
        withheld_fraction: share of the training images that replaces each scored tier that has no clips or only
            responses that are all zero. 0 replaces nothing.
        leakage: ``refuse`` an image shown in two tiers of a session, or trained on in one session and scored in
            another, ``report`` it as a caution, or ``drop`` its clips from the less protected tier.

    Raises:
        ValueError: the scale does not fit the images.
        DataError: no session, or one that cannot be used; see ``sensorium2023``.
    """
    reading = Reading(
        response_normalization=response_normalization,
        input_normalization=input_normalization,
        split_seed=split_seed,
        withheld_fraction=withheld_fraction,
        leakage=leakage,
        shrink=side_of_blocks(scale),
    )
    return read_sessions(path, LAYOUT, reading)


def looks_like(path: Path) -> bool:
    """Whether a path is a static Sensorium session, or a folder of such."""
    return is_release(path, LAYOUT)


def faults(path: Path) -> list[str]:
    """Read everything under a path and list every fault found."""
    return all_faults(path, LAYOUT)
