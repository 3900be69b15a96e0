"""What the benchmark cuts out of each recording: around which event, what is decoded, which trials are alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from neuroint.data.nlb.names import DatasetName

WindowMs = tuple[int, int]
Phase = Literal["val", "test"]  # which trials are scored
MAZE_CONDITIONS = ("trial_type", "trial_version")
FORWARD_MS = 200


@dataclass(frozen=True)
class Task:
    """How trials of one data set are cut.

    Attributes:
        align: column of the trials table that holds the time of the event, in seconds.
        window_ms: from and to, after the event; the second is not inside.
        series: continuous signal that is decoded; None where ``columns`` are.
        lag_ms: how much later than the counts it is read.
        columns: columns of the trials table that are decoded, a row per trial.
        conditions: columns whose values make a condition; none where trials are not alike.
        psth_sd_ms: of the Gaussian that counts are smoothed with for the PSTH; 0 makes none.
        mask: column whose values 0 and 1 are decoded apart.
        known: columns of the times between which held-out evaluation counts are scored.
        outlier: column that is not 0 where the behavior of a trial is left out.
        jitter: column of a duration in ms, by which the event is shifted at random (see ``arrays.jitter_bins``).
    """

    align: str
    window_ms: WindowMs
    series: str | None = None
    lag_ms: int = 0
    columns: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    psth_sd_ms: int = 0
    mask: str | None = None
    known: tuple[str, str] | None = None
    outlier: str | None = None
    jitter: str | None = None


def _maze(lag_ms: int, psth_sd_ms: int) -> Task:
    return Task("move_onset_time", (-250, 450), "hand_vel", lag_ms, conditions=MAZE_CONDITIONS, psth_sd_ms=psth_sd_ms)


TASKS: Mapping[DatasetName, Task] = {
    "mc_maze": _maze(100, 70),
    "mc_maze_large": _maze(120, 50),
    "mc_maze_medium": _maze(120, 50),
    "mc_maze_small": _maze(120, 50),
    "mc_rtt": Task("start_time", (0, 600), "finger_vel", 140),
    "area2_bump": Task(
        "move_onset_time",
        (-100, 500),
        "hand_vel",
        -20,
        conditions=("cond_dir", "ctr_hold_bump"),
        psth_sd_ms=40,
        mask="ctr_hold_bump",
    ),
    "dmfc_rsg": Task(
        "go_time",
        (-1500, 0),
        columns=("is_eye", "theta", "is_short", "ts", "tp"),
        conditions=("is_eye", "theta", "is_short", "ts"),
        known=("set_time", "go_time"),
        outlier="is_outlier",
        jitter="tp",
    ),
}
