"""A cell: one design fitted to one world in one way, kept in a file so that a run can be cut short and go on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from neuroint.model import PopulationModel
from neuroint.seeding import derive, seed_everything
from recovery_parts import learned
from recovery_parts.designs import CONTROL, DESIGNS, LAST, LEARNED, ordered
from recovery_parts.fitting import CROP, Split, Training, drive_as_stimulus, fit, model_on_known_drive, split
from recovery_parts.scores import effects, found_constants, noise_correlations, pool_of, predictions
from recovery_parts.world import NEURONS, RATES, REPEATS, STIMULI, TRAIN_CLIPS, TRUTHS, UNIT, Known, make_world

MODES = ("oracle", "learned", "frozen")  # the drive is given; core and readout are learned; they are kept as they were
TIER_NAMES = ("train", "validation", "test")


@dataclass(frozen=True, order=True)
class Cell:
    """What is fitted to what."""

    mode: str
    snr: str
    truth: str
    seed: int
    design: str
    steps: int = Training.steps

    @property
    def name(self) -> str:
        """Path-like, to be matched by patterns."""
        return f"{self.mode}/{self.snr}/{self.truth}/{self.seed}/{self.design}"

    def recipe(self) -> str:
        """Hash of everything that the numbers depend on, but for the program."""
        settings = (TRUTHS[self.truth], RATES[self.snr], NEURONS, TRAIN_CLIPS, STIMULI, REPEATS, UNIT)
        fitted = DESIGNS[self.design]
        design = (fitted.normalization, fitted.interaction, fitted.recorded)
        then = {"learned": learned.THEN_ALL, "frozen": learned.STAGES_ONLY}
        behind = [learned.recipe(then[self.mode])] if self.mode in then else []
        text = json.dumps([self.name, design, settings, Training(self.steps).recipe(), *behind], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def file(self, cache: Path) -> Path:
        """Where it is kept."""
        return cache / f"{self.name.replace('/', '-')}-{self.recipe()}.npz"


BEHIND_CORE = tuple(dict.fromkeys(name for held in LEARNED.values() for name in held))


def all_cells(seeds: int, steps: int = Training.steps) -> list[Cell]:
    """Every cell of the matrix, those that matter first: high SNR before low, known drive before learned cores.

    Args:
        seeds: how many there are of each.
        steps: of training where the drive is known.
    """
    oracle = [
        Cell("oracle", snr, truth, seed, design, steps)
        for snr in RATES
        for slow in (False, True)
        for seed in range(seeds)
        for truth in TRUTHS
        for design in ordered()
        if (design in LAST) == slow
    ]
    behind_core = [
        Cell(mode, "high", truth, seed, design)
        for mode in ("learned", "frozen")  # the first fits the control that the second keeps
        for seed in range(seeds)
        for truth in ("none", *LEARNED)
        for design in LEARNED.get(truth, BEHIND_CORE)
    ]
    return oracle + behind_core


def selected(cells: list[Cell], patterns: list[str]) -> list[Cell]:
    """Cells whose name matches one of the patterns."""
    return [cell for cell in cells if any(fnmatch(cell.name, pattern) for pattern in patterns)]


def load(cell: Cell, cache: Path) -> dict[str, Any] | None:
    """Scores and matrices of a finished cell."""
    file = cell.file(cache)
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files if name != "scores"}
        return {**json.loads(str(held["scores"])), **arrays}


def truth_of(cell: Cell, cache: Path) -> dict[str, Any]:
    """What is true in a cell's world, and how noise is shared there; kept in a file too."""
    settings = (TRUTHS[cell.truth], RATES[cell.snr], NEURONS, TRAIN_CLIPS, STIMULI, REPEATS, UNIT)
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    file = cache / f"truth-{cell.snr}-{cell.truth}-{cell.seed}-{digest}.npz"
    if not file.is_file():
        world = make_world(cell.truth, cell.snr, cell.seed)
        now, before = noise_correlations(world)
        arrays = {name: getattr(world, name) for name in ("coupling", "pool", "positions_um", "explained_variance")}
        _save(file, {"noise_same_bin": now, "noise_next_bin": before} | arrays)
    with np.load(file, allow_pickle=False) as held:
        return dict(held)


def compute(cell: Cell, cache: Path) -> None:
    """Fit, score and keep one cell."""
    began = time.perf_counter()
    clips = TRAIN_CLIPS if cell.mode == "oracle" else learned.TRAIN_CLIPS
    world = make_world(cell.truth, cell.snr, cell.seed, clips)
    truth_of(cell, cache)
    seed_everything(derive(cell.seed, cell.design))
    model, test, about = _fitted(cell, world, cache)
    scores = predictions(model, test) | about | {f"found {k}": v for k, v in found_constants(model, test).items()}
    matrices = effects(model, test) | pool_of(model)
    scores["seconds"] = time.perf_counter() - began
    _save(cell.file(cache), {"scores": np.array(json.dumps(scores))} | matrices)


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write under another name first, so that a file that is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays)
    part.rename(file)


def _fitted(cell: Cell, world: Known, cache: Path) -> tuple[PopulationModel, Split, dict[str, float]]:
    design = DESIGNS[cell.design]
    if cell.mode != "oracle":
        behind = learned.end_to_end if cell.mode == "learned" else learned.behind_frozen
        control = learned.fitted_control(world, DESIGNS[CONTROL], cell.seed, cache)
        return behind(world, design, control, cell.seed)
    parts = [
        split(world.clips[tier], drive_as_stimulus(world.clips[tier]), crop=CROP if tier == "train" else None)
        for tier in TIER_NAMES
    ]
    model = model_on_known_drive(world, design)
    return model, parts[2], fit(model, parts[0], parts[1], Training(cell.steps), cell.seed)
