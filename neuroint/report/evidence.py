"""Read a sweep's folder: what was asked, what the journal tells, and the scores of chosen configurations per neuron."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int

from neuroint import registry
from neuroint.analysis.snr import snr_quintiles
from neuroint.config.settings import ConfirmConfig, ScoreConfig, section
from neuroint.data.base import DEV_TEST, FINAL_TEST
from neuroint.metrics.moments import Moments
from neuroint.metrics.scoring import scores
from neuroint.report.neurons import Neurons, read_neurons
from neuroint.results import read_moments
from neuroint.sweep.selection import representatives
from neuroint.tracking.journal import RunRecord, SweepRecord

JOURNAL_FILE, SWEEP_FILE = "journal.jsonl", "sweep.yaml"
TEST_TIERS = (DEV_TEST, FINAL_TEST)
TIER_WORDS = {DEV_TEST: "dev-test", FINAL_TEST: "final test"}
# They describe the recording and are the same for all arms.
OF_THE_RECORDING = frozenset({"snr", "signal_power", "noise_variance", "explainable_variance", "poisson_loss_null"})
LOWER_IS_BETTER = frozenset({"poisson_loss"})
Picked = Mapping[str, Bool[np.ndarray, " neurons"]]


@dataclass(frozen=True)
class Asked:
    """What a sweep was asked, from its YAML; arms in the order of their declaration, the reference first.

    ``areas`` are those whose neurons are predicted, empty where none is named.
    """

    name: str
    question: str
    reference: str
    arms: list[str]
    score: ScoreConfig
    confirm: ConfirmConfig
    areas: tuple[str, ...] = ()


@dataclass(frozen=True)
class SessionScores:
    """One run on one session and tier.

    Attributes:
        values: metric -> score per neuron.
        snr: per neuron; NaN without repeats.
        quintiles: SNR fifth per neuron, formed within the session.
        totals: moments summed over stimuli, halves of the repeats kept apart.
    """

    values: Mapping[str, Float[np.ndarray, " neurons"]]
    snr: Float[np.ndarray, " neurons"]
    quintiles: Int[np.ndarray, " neurons"]
    totals: Moments

    def of(self, picked: Bool[np.ndarray, " neurons"]) -> SessionScores:
        """Keep some of the neurons."""
        values = {name: each[picked] for name, each in self.values.items()}
        return SessionScores(values, self.snr[picked], self.quintiles[picked], of_neurons(self.totals, picked))


@dataclass(frozen=True)
class ScoredRun:
    """A confirm run and its scores by session; ``folder`` holds its files, ``picked`` the neurons that are meant."""

    run: RunRecord
    folder: Path
    sessions: Mapping[str, SessionScores]
    picked: Picked | None = None

    @property
    def neurons(self) -> dict[str, int]:
        """Number of neurons scored in every session."""
        return {name: int(scores.snr.size) for name, scores in self.sessions.items()}

    def of(self, picked: Picked) -> ScoredRun:
        """Keep some neurons of each session, and the sessions that have any of them."""
        kept = {name: scores.of(picked[name]) for name, scores in self.sessions.items() if picked[name].any()}
        return replace(self, sessions=kept, picked=picked)

    def stimuli(self, tier: str, session: str) -> Moments:
        """Read the moments of one session again, stimuli apart, without the halves of the repeats."""
        moments = read_moments(self.folder, tier)[session]
        whole = replace(moments, values=moments.values[:, :1].copy())
        return whole if self.picked is None else of_neurons(whole, self.picked[session])


def of_neurons(moments: Moments, picked: Bool[np.ndarray, " neurons"]) -> Moments:
    """Keep some of the neurons."""
    return replace(moments, values=moments.values[..., picked])


@dataclass(frozen=True)
class Evidence:
    """All that a report is made of.

    Attributes:
        chosen: arm -> confirm runs of its chosen configuration.
        scored: tier -> arm -> those of the chosen runs that were scored, by seed.
        missing: arm -> what it lacks, in sentences.
    """

    folder: Path
    asked: Asked
    record: SweepRecord
    neurons: Neurons
    chosen: Mapping[str, list[RunRecord]]
    scored: Mapping[str, Mapping[str, list[ScoredRun]]]
    missing: Mapping[str, list[str]]

    def runs(self, arm: str, phase: str) -> list[RunRecord]:
        """Runs of an arm in one phase, in order of their start."""
        return [run for run in self.record.runs.values() if run.arm == arm and run.phase == phase]


def gather(folder: Path) -> Evidence:
    """Read everything once; what is missing is listed and not an error.

    Raises:
        ValueError: the folder is not that of a sweep.
    """
    absent = [name for name in (SWEEP_FILE, JOURNAL_FILE) if not (folder / name).is_file()]
    if absent:
        raise ValueError(
            f"{folder} has no {' and no '.join(absent)}; expected the folder of a sweep; give <results>/<sweep>"
        )
    asked, record = read_asked(folder), SweepRecord.from_journal(folder / JOURNAL_FILE)
    missing: dict[str, list[str]] = {arm: [] for arm in asked.arms}
    chosen = {arm: _chosen(record, arm, asked.confirm.seeds, missing[arm]) for arm in asked.arms}
    scored = {
        tier: {arm: _scored(folder, runs, tier, missing[arm]) for arm, runs in chosen.items()} for tier in TEST_TIERS
    }
    return Evidence(folder, asked, record, read_neurons(folder), chosen, scored, missing)


def read_asked(folder: Path) -> Asked:
    """Read the question; components are not looked up, so that a report needs none of them installed."""
    text = (folder / SWEEP_FILE).read_text()
    raw: dict[str, Any] = yaml.safe_load(text) or {}
    first = re.match(r"#\s*(.+)", text)
    name, reference = str(raw.get("name", folder.name)), str(raw.get("reference", ""))
    arms = sorted((str(arm) for arm in raw.get("arms") or {}), key=lambda arm: arm != reference)
    score, confirm = (section(key).validate(raw.get(key) or {})[0] for key in ("score", "confirm"))
    question = first.group(1).strip() if first else name
    areas = tuple(map(str, (raw.get("data") or {}).get("to_areas") or ()))
    return Asked(name, question, reference, arms, ScoreConfig(**score), ConfirmConfig(**confirm), areas)


def _chosen(record: SweepRecord, arm: str, seeds: int, missing: list[str]) -> list[RunRecord]:
    """Confirm runs of the configuration that represents an arm, by seed."""
    try:
        runs = representatives(record, [arm])[arm]
    except ValueError as reason:
        missing.append(f"Nothing represents an arm: {reason}")
        return []
    if len(runs) < seeds:
        missing.append(f"Arm '{arm}' was confirmed with {len(runs)} of {seeds} seeds")
    return runs


def _scored(folder: Path, runs: list[RunRecord], tier: str, missing: list[str]) -> list[ScoredRun]:
    """Read the moments of the runs that a tier was read for."""
    found, unread = [], []
    for run in runs:
        place = folder / (run.folder or f"runs/{run.key}")
        try:
            sessions = {name: _session(moments) for name, moments in read_moments(place, tier).items()}
        except (OSError, ValueError) as fault:  # a damaged file is reported, the other runs still count
            missing.append(f"Scores of {run.key} on {TIER_WORDS[tier]} clips cannot be read: {fault}")
            continue
        if sessions:
            found.append(ScoredRun(run, place, sessions))
        else:
            unread.append(run.key)
    if unread and (found or tier == DEV_TEST):
        missing.append(f"No {TIER_WORDS[tier]} score for {', '.join(unread)}")
    return found


def _session(moments: Moments) -> SessionScores:
    totals = replace(moments, values=moments.values.sum(axis=0, keepdims=True))
    values = scores(totals, registry.metrics.names())
    return SessionScores(values, values["snr"], snr_quintiles(values["snr"]), totals)
