"""Experanto: devices on one clock, each sampled at its own rate (https://github.com/sensorium-competition/experanto)."""

from __future__ import annotations

from pathlib import Path

from neuroint.data.base import Session
from neuroint.data.experanto.devices import Interpolation
from neuroint.data.experanto.files import is_session
from neuroint.data.experanto.inputs import EyeSignals
from neuroint.data.experanto.presented import Tier
from neuroint.data.experanto.session import Clips, Reading, all_faults, read_sessions
from neuroint.data.experanto.statistics import MissingInputs
from neuroint.data.sensorium import candidates
from neuroint.data.sensorium_source import InputNormalization, ResponseNormalization, side_of_blocks
from neuroint.data.splits import Leakage
from neuroint.registry import Fraction, Index, NonNegative, Positive, readers


@readers.register("experanto")
def read_experanto(
    path: Path,
    *,
    rate_hz: Positive | None = None,
    interpolation: Interpolation = "linear",
    clips: Clips = "presentations",
    scale: Fraction = 1.0,
    eye: EyeSignals | None = None,
    tiers: dict[str, Tier] | None = None,
    response_normalization: ResponseNormalization = "official",
    input_normalization: InputNormalization = "official",
    missing_inputs: MissingInputs = "mean",
    burn_in_s: NonNegative = 1.67,
    split_seed: Index = 0,
    withheld_fraction: Fraction = 0.1,
    leakage: Leakage = "refuse",
) -> list[Session]:
    """Read experanto sessions: what the screen showed, and responses, treadmill and eye tracker at the times of bins.

    ``path`` is a session's folder or holds several. A clip is a presentation of a video or an image. Its bins begin at
    its onset and are ``1 / rate_hz`` wide; what a bin has is what there was when it began: the frame on the screen, the
    responses (delayed per neuron by the stored phase shifts), behavior and the position of the pupil. Rates below the
    sampling rate pick samples, they do not average. Where responses are spikes, they are counted in bins.

    Behavior is the eye tracker's dilation signals, then all of the treadmill's, divided by their standard deviation;
    stimulus and pupil are ``(x - mean) / sd``; responses are divided by their standard deviation, and NaN in them is
    not valid. Names and animals come from ``meta.json`` (``data_key``, ``scan_key``) or the folder's name. Scores
    count from ``burn_in_s`` on, or from the first bin if a clip in use is not longer.

    Tiers are the screen's: ``train``; ``validation``, ``val`` or ``oracle``; ``test`` is dev-test, ``final_test`` is
    final test. Where no trial has a tier, all are for training. Tiers that have no clips, or only responses that are
    zero, are replaced by stimuli of the training tier. Repeats are found by hashing every fourth pixel. Positions are
    read if ``cell_motor_coordinates`` has three per neuron. ``combined_meta.json`` is read where it is, never written.

    Args:
        path: a session's folder, or a folder of sessions.
        rate_hz: bins per second; None takes the responses' own sampling rate, and is refused for spikes.
        interpolation: ``linear`` between samples; ``previous`` takes the last sample at or before a bin's time, which
            the format's own code does under the name of nearest neighbor.
        clips: ``presentations``, or ``runs``: presentations of one tier that follow each other, with nothing but blanks
            between, are one clip. For models with a past, where images follow each other quickly.
        scale: size of the frames in proportion to the stored ones; 1 / scale must be a whole number that divides both
            sides; blocks of pixels are averaged.
        eye: which signals of the eye tracker are behavior and position, counted from 0; by default, of four they are
            dilation, its derivative, x and y, and of two x and y; ``{}`` leaves the eye tracker out.
        tiers: further names of tiers, or other meanings, such as ``{live_main: dev_test, test: unused}``.
        response_normalization: ``official`` divides by the stored standard deviation per neuron, or, where none is
            stored, by that of the training tier; ``per_neuron`` always by the latter; ``none`` keeps the stored units.
        input_normalization: ``official`` takes stored statistics, or, where a device has none, those of the training
            tier; ``per_channel`` always takes the latter, which for the stimulus are one number per color channel.
        missing_inputs: ``mean`` reads NaN in behavior and pupil as the signal's mean; ``refuse`` refuses it.
        burn_in_s: seconds of a clip that are not scored; the benchmark of 2023 leaves out 50 of 30 a second.
        split_seed: of the tiers that replace missing ones.
        withheld_fraction: share of the training stimuli that replaces each of validation, dev-test and final test that
            is missing or withheld. 0 replaces nothing.
        leakage: ``refuse`` a stimulus shown in two tiers of a session, or trained on in one session and scored in
            another, ``report`` it as a caution, or ``drop`` its clips from the less protected tier.

    Raises:
        ValueError: the scale is not 1 / a whole number.
        DataError: no session, or one that cannot be used: fields of ``meta.yml`` that are missing or do not fit the
            files, truncated or encoded files, frames without a time or out of order, unknown tiers, frames of different
            sizes, no presentation while everything is recorded, a scored tier with responses withheld in part, leakage.
    """
    reading = Reading(
        rate_hz=rate_hz,
        interpolation=interpolation,
        clips=clips,
        shrink=side_of_blocks(scale),
        eye=eye,
        tiers=tiers,
        response_normalization=response_normalization,
        input_normalization=input_normalization,
        missing_inputs=missing_inputs,
        burn_in_s=burn_in_s,
        split_seed=split_seed,
        withheld_fraction=withheld_fraction,
        leakage=leakage,
    )
    return read_sessions(path, reading)


def looks_like(path: Path) -> bool:
    """Whether a path is an experanto session, or a folder of such."""
    return path.is_dir() and any(is_session(folder) for folder in candidates(path))


def faults(
    path: Path,
    *,
    rate_hz: Positive | None = None,
    interpolation: Interpolation = "linear",
    eye: EyeSignals | None = None,
    tiers: dict[str, Tier] | None = None,
    missing_inputs: MissingInputs = "mean",
) -> list[str]:
    """Read everything under a path and list every fault found."""
    reading = Reading(rate_hz=rate_hz, interpolation=interpolation, eye=eye, tiers=tiers, missing_inputs=missing_inputs)
    return all_faults(path, reading)
