"""Build a session from mapped arrays: clips, tiers, statistics of the training tier, facts."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int

from neuroint.data.array_roles import (
    Faults,
    find_views,
    read_bin_s,
    read_match_ids,
    read_positions,
    read_text,
    row_axis,
    shown_rows,
)
from neuroint.data.array_source import ArraySource, Scale, View, in_chunks, rows_of, usable
from neuroint.data.array_store import ArrayStore
from neuroint.data.base import DEV_TEST, FINAL_TEST, TRAIN, VALIDATION, DataError, Facts, Session
from neuroint.data.blocks import Blocks, split_frames, split_stimuli
from neuroint.data.mapping import ArrayMapping
from neuroint.data.running import RunningMoments
from neuroint.data.shown import Shown, clip_ids, first_seen, frame_digests, shared_stretches

SMALLEST_SD = 1e-7  # of the mean: what float32 cannot resolve is constant
SMALLEST_SHARE = 0.01  # of the mean standard deviation, below which a neuron is not scaled up further


@dataclass(frozen=True)
class Plan:
    """The table of clips, before anything is known about values."""

    rows: Int[np.ndarray, " clips"]
    repeats: Int[np.ndarray, " clips"]
    lengths: Int[np.ndarray, " clips"]
    tiers: tuple[str, ...]
    stimulus_ids: Int[np.ndarray, " clips"]
    scored_from: int = 0
    cautions: tuple[str, ...] = ()
    shown: Shown | None = None

    def training_rows(self) -> Int[np.ndarray, " rows"]:
        """Rows that are trained on."""
        training = np.asarray(self.tiers) == TRAIN
        return rows_of(self.rows[training], self.lengths[training])


def build_session(store: ArrayStore, mapping: ArrayMapping, fingerprint: str) -> tuple[Session, Shown | None]:
    """Check the arrays of one recording, divide it, and describe it and what it showed, if anything.

    ``fingerprint`` is extended by its statistics.

    Raises:
        DataError: see ``neuroint.data.readers.arrays.read_arrays``.
    """
    views = find_views(store, mapping)
    shown = shown_rows(views["responses"].of(store), views["responses"].array)
    plan = PLANS[row_axis(mapping)](store, mapping, views, shown)
    _check_channels(store, views, shown if mapping.images is not None else np.ones_like(shown))
    _check_scored(views["responses"], store, plan)
    moments = {role: _moments(view.of(store), role, plan.training_rows()) for role, view in views.items()}
    scales = _scales(mapping, views, moments)
    name = read_text(store, mapping.session, store.path.stem)
    session = Session(
        name=name,
        animal=read_text(store, mapping.animal, name),
        facts=_facts(store, mapping, views, moments, scales, plan),
        tiers=plan.tiers,
        lengths=plan.lengths,
        stimulus_ids=plan.stimulus_ids,
        source=ArraySource(store, views, scales, plan.rows, plan.repeats, plan.lengths),
        scored_from=plan.scored_from,
        cautions=(*mapping.cautions, *plan.cautions),
        fingerprint=_extended(fingerprint, moments),
    )
    return session, plan.shown


def _plan_frames(store: ArrayStore, mapping: ArrayMapping, views: dict[str, View], shown: np.ndarray) -> Plan:
    """Blocks of a continuous recording."""
    blocks = split_frames(shown.shape[1], mapping.split)
    lead = mapping.split.gap_frames
    ids, shared, film = np.arange(len(blocks.starts)), [], None
    if "stimulus" in views:
        film = Shown(frame_digests(views["stimulus"].of(store), str(views["stimulus"])), blocks, lead)
        ids = clip_ids(film.digests, blocks, lead)
        shared = shared_stretches(film)
    if shared and mapping.leakage == "refuse":
        raise DataError(
            f"{'; '.join(shared)}: a model could learn the answer by heart. Split it into files "
            "without repeats between tiers, or set leakage: report to go on with a caution"
        )
    once = np.zeros_like(blocks.starts)
    cautions = tuple(f"{stretches}: scores there are too high" for stretches in shared)
    return Plan(blocks.starts, once, blocks.lengths, blocks.tiers, ids, lead, cautions, film)


def _plan_images(store: ArrayStore, mapping: ArrayMapping, views: dict[str, View], shown: np.ndarray) -> Plan:
    """One clip of one frame for every presentation that was recorded."""
    digests = frame_digests(views["stimulus"].of(store), str(views["stimulus"]))
    tiers = split_stimuli(digests.view(np.int64), mapping.split)
    ids = first_seen([digest.tobytes() for digest in digests])
    rows, repeats = np.nonzero(shown.T)
    if not len(rows):
        raise DataError(f"{views['responses']} hold nothing but NaN")
    blocks = Blocks(rows, np.ones_like(rows), tuple(tiers[row] for row in rows))
    return Plan(rows, repeats, blocks.lengths, blocks.tiers, ids[rows], shown=Shown(digests, blocks, 0))


PLANS = {"time": _plan_frames, "stimulus": _plan_images}


def _check_channels(store: ArrayStore, views: dict[str, View], read: Bool[np.ndarray, "repeats rows"]) -> None:
    """Refuse unknown inputs wherever a model reads them: over time also between responses, where no clip ends."""
    faults = Faults()
    for role in ("behavior", "pupil"):
        if role in views:
            bad = read & ~usable(views[role].of(store)).all(axis=-1)
            if bad.any():
                faults.found.append(
                    f"{views[role]} has NaN, infinite or too large values, first in row "
                    f"{np.argwhere(bad)[0][1]}; it is an input and must be known in every frame, also where responses "
                    "are not, and with every image shown: interpolate it"
                )
    faults.stop()


def _check_scored(view: View, store: ArrayStore, plan: Plan) -> None:
    """Refuse a scored tier without any response, as where a release withholds them."""
    faults, responses = Faults(), view.of(store)
    for tier in (VALIDATION, DEV_TEST, FINAL_TEST):
        clips = np.flatnonzero(np.asarray(plan.tiers) == tier).tolist()
        if len(clips) and not any(_answered(responses, plan, clip) for clip in clips):
            faults.found.append(
                f"the responses of clips {', '.join(map(str, clips[:5]))} ({len(clips)} of {len(clips)} of the tier "
                f"{tier}) are all zero and would be scored; leave out what was shown without recorded responses"
            )
    faults.stop()


def _answered(responses: np.ndarray, plan: Plan, clip: int) -> bool:
    row, end = plan.rows[clip] + plan.scored_from, plan.rows[clip] + plan.lengths[clip]
    scored = responses[plan.repeats[clip], row:end]
    return bool(((scored != 0) & ~np.isnan(scored)).any())


def _moments(view: np.ndarray, role: str, rows: Int[np.ndarray, " rows"]) -> RunningMoments:
    """Statistics over the training tier, per channel or neuron."""
    row_place, channel_place = (0, 1) if role == "stimulus" else (1, 2)
    moments = RunningMoments(view.shape[channel_place])
    for _, chunk in in_chunks(view, rows, row_place):
        moments.add(np.moveaxis(chunk, channel_place, -1).reshape(-1, view.shape[channel_place]))
    return moments


def _scales(mapping: ArrayMapping, views: dict[str, View], moments: dict[str, RunningMoments]) -> dict[str, Scale]:
    faults = Faults()
    silent = np.flatnonzero(moments["responses"].count == 0)
    if len(silent):
        faults.found.append(
            f"neurons {', '.join(map(str, silent[:10]))} have nothing but NaN in the training tier; leave them out"
        )
    scales = {}
    if mapping.input_normalization == "z_score":
        scales = {r: faults.attempt(_z_score, m, views[r]) for r, m in moments.items() if r != "responses"}
    if mapping.response_normalization == "per_neuron":
        scales["responses"] = _per_neuron(moments["responses"])
    faults.stop()
    return scales


def _z_score(moments: RunningMoments, view: View) -> Scale:
    sd = np.sqrt(moments.variance())
    constant = np.flatnonzero(sd <= np.maximum(SMALLEST_SD * np.abs(moments.mean), np.finfo(np.float32).tiny))
    if len(constant):
        raise DataError(
            f"{view} is constant in the training tier (channel {constant[0]}) and cannot be z-scored; "
            "leave it out or set input_normalization: none"
        )
    return Scale(moments.mean.astype(np.float32), (1 / sd).astype(np.float32))


def _per_neuron(moments: RunningMoments) -> Scale:
    sd = np.sqrt(moments.variance())
    sd = np.maximum(sd, SMALLEST_SHARE * np.nanmean(sd)) if np.nansum(sd) > 0 else np.ones_like(sd)
    return Scale(np.zeros(len(sd), dtype=np.float32), (1 / sd).astype(np.float32))


def _facts(
    store: ArrayStore,
    mapping: ArrayMapping,
    views: dict[str, View],
    moments: dict[str, RunningMoments],
    scales: dict[str, Scale],
    plan: Plan,
) -> Facts:
    faults = Faults()
    mean = moments["responses"].mean.astype(np.float32)
    bin_s = faults.attempt(read_bin_s, store, mapping.bin_s)
    named = mapping.positions_um
    positions = None if named is None else faults.attempt(read_positions, store, named, len(mean))
    match_ids = faults.attempt(read_match_ids, store, mapping.match_ids, len(mean))
    faults.stop()
    stimulus = views["stimulus"].of(store).shape[1:] if "stimulus" in views else None
    return Facts(
        n_neurons=len(mean),
        stimulus_shape=stimulus,
        mean_responses=mean * scales["responses"].factor if "responses" in scales else mean,
        shortest_clip=int(plan.lengths.min()),
        bin_s=bin_s,
        behavior_channels=len(moments["behavior"].mean) if "behavior" in moments else 0,
        pupil_channels=len(moments["pupil"].mean) if "pupil" in moments else 0,
        positions_um=positions,
        match_ids=match_ids,
    )


def _extended(fingerprint: str, moments: dict[str, RunningMoments]) -> str:
    statistics = [array for m in moments.values() for array in (m.count, m.mean, m.variance())]
    content = fingerprint.encode() + b"".join(array.tobytes() for array in statistics)
    return blake2b(content, digest_size=16).hexdigest()
