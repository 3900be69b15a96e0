"""Sensorium 2023: movies shown to mice, 30 frames a second (Turishcheva et al. 2023, arXiv:2305.19654)."""

from __future__ import annotations

from pathlib import Path

from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, UNUSED, VALIDATION, Session
from neuroint.data.sensorium import BEHAVIOR, PUPIL, RESPONSES, Layout, is_release
from neuroint.data.sensorium_session import Reading, all_faults, read_sessions
from neuroint.data.sensorium_source import InputNormalization, ResponseNormalization
from neuroint.data.splits import Leakage
from neuroint.registry import Fraction, Index, readers

FRAMES_PER_SECOND = 30
BURN_IN_FRAMES = 50  # the benchmark scores every clip from its 51st frame on
LAYOUT = Layout(
    title="Sensorium 2023",
    prefix="dynamic",
    stimulus="videos",
    axes={
        "videos": ("height", "width", "time"),
        RESPONSES: ("neurons", "time"),
        BEHAVIOR: (2, "time"),
        PUPIL: (2, "time"),
    },
    tiers={
        "train": TRAIN,
        "oracle": VALIDATION,
        "live_test_main": DEV_TEST,
        "final_test_main": FINAL_TEST,
        "live_test_bonus": UNUSED,
        "final_test_bonus": UNUSED,
        "none": UNUSED,
    },
)


@readers.register("sensorium2023")
def read_sensorium2023(
    path: Path,
    *,
    response_normalization: ResponseNormalization = "official",
    input_normalization: InputNormalization = "official",
    split_seed: Index = 0,
    withheld_fraction: Fraction = 0.1,
    leakage: Leakage = "refuse",
) -> list[Session]:
    """Read dynamic sessions of Sensorium 2023: videos, responses, behavior and pupil at 30 Hz, NaN-padded, time last.

    ``path`` is a session's folder or holds several. Oracle is validation, live main is dev-test, final main is final
    test; the bonus tiers and ``none`` are unused. Inputs are normalized officially, per pixel and frame: stimulus and
    pupil ``(x - mean) / std``, behavior ``x / std``, with the statistics of the training tier, which keep time.

    A clip ends at the first frame that is NaN in any modality, or where the statistics end. Negative responses, which
    deconvolution leaves at about -1e-9, become 0. Repeats are found by hashing every fourth pixel. Scores count from
    frame 50, the benchmark's rule, or from frame 0 if the shortest clip in use has 50 frames or fewer.

    Args:
        path: a session's folder, or a folder of sessions.
        response_normalization: ``official`` divides by the standard deviation over training trials per neuron *and
            frame* (or by a hundredth of its mean over both, where it is less): the statistics by which the scoring
            server divides, known as server-style normalization. ``per_neuron`` divides by one standard deviation per
            neuron; ``none`` keeps the stored units. It defines what is predicted *and* scored, so all arms of a sweep
            share it, and scores of two normalizations are not compared.
        input_normalization: ``official`` uses a mean and a standard deviation per pixel and frame, which need hundreds
            of training clips; ``per_channel`` one of each per channel.
        split_seed: of the tiers that replace withheld ones.
        withheld_fraction: share of the training stimuli that becomes dev-test, and again final test, where those tiers
            have no clips or only responses that are all zero (and so for an absent oracle tier). 0 replaces nothing.
        leakage: ``refuse`` a stimulus shown in two tiers of a session, or trained on in one session and scored in
            another, ``report`` it as a caution, or ``drop`` its clips from the less protected tier.

    Raises:
        DataError: no session, or one that cannot be used: missing or truncated files, unequal numbers of clips or
            neurons, axes in another order, objects, missing statistics, NaN inside a clip, zero responses in a part of
            a scored tier, leakage.
    """
    reading = Reading(
        response_normalization=response_normalization,
        input_normalization=input_normalization,
        split_seed=split_seed,
        withheld_fraction=withheld_fraction,
        leakage=leakage,
        bin_s=1 / FRAMES_PER_SECOND,
        scored_from=BURN_IN_FRAMES,
    )
    return read_sessions(path, LAYOUT, reading)


def looks_like(path: Path) -> bool:
    """Whether a path is a dynamic Sensorium session, or a folder of such."""
    return is_release(path, LAYOUT)


def faults(path: Path) -> list[str]:
    """Read everything under a path and list every fault found."""
    return all_faults(path, LAYOUT)
