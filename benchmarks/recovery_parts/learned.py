"""Fits in which core and readout are learned from video too, or kept as the static control left them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from neuroint import registry
from neuroint.data.base import Inputs
from neuroint.model import PopulationModel
from recovery_parts.designs import Design
from recovery_parts.fitting import (
    CROP,
    SESSION,
    KnownDrive,
    Split,
    Training,
    build,
    facts_of,
    fit,
    split,
)
from recovery_parts.world import Known

CORE = ("factorized_conv3d", {"channels": [16, 16], "spatial_kernels": [9, 3], "temporal_kernels": [9, 3]})
READOUT = ("gaussian", {"sampling": True})
TRAIN_CLIPS = 96  # behind cores learned from 12 clips nothing could be told (docs/recovery.md)
CONTROL_FIRST = Training(steps=3000, learning_rate=0.01, check_every=100, batch=24)
THEN_ALL = Training(steps=500, learning_rate=0.005, check_every=50, batch=24)
STAGES_ONLY = Training(batch=24)
KEPT = "core, readout, saturation"  # of the control, from which an interaction goes on
CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Fitted = tuple[PopulationModel, Split, dict[str, Any]]


def recipe(*then: Training) -> list[Any]:
    """Everything that the numbers depend on, but for world, program and design, up to the control or beyond."""
    return [CORE, READOUT, TRAIN_CLIPS, KEPT, *(part.recipe() for part in (CONTROL_FIRST, *then))]


class Control(NamedTuple):
    """The static control with core and readout, from which every design of a world starts, and its design."""

    model: PopulationModel
    design: Design


def fitted_control(world: Known, design: Design, seed: int, cache: Path) -> Control:
    """Fit the static control once per world; its weights are kept in a file."""
    model = _with_core(world, design).to(DEVICE)
    about = [*recipe(), world.facts.mean_responses.tolist()]  # which no other setting of the world gives
    digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
    file = cache / f"control-{world.name}-{digest}.pt"
    if file.is_file():
        model.load_state_dict(torch.load(file, map_location=DEVICE, weights_only=True))
        return Control(model, design)
    parts = video_parts(world)
    fit(model, parts[0], parts[1], CONTROL_FIRST, seed)
    part = file.with_suffix(f".{os.getpid()}.part")
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), part)
    part.rename(file)
    return Control(model, design)


def end_to_end(world: Known, design: Design, control: Control, seed: int) -> Fitted:
    """Learn core, readout and design together; the control itself goes on for as long as the others do."""
    parts, model = video_parts(world), _with_core(world, design).to(DEVICE)
    for name in ("core", "readouts"):
        getattr(model, name).load_state_dict(getattr(control.model, name).state_dict())
    if design.normalization == control.design.normalization:  # an interaction goes on from the control's saturation
        model.normalization.load_state_dict(control.model.normalization.state_dict())
    about = fit(model, parts[0], parts[1], THEN_ALL, seed)
    behind, _ = _behind(model, world, design)
    for name in ("normalization", "interaction"):
        getattr(behind, name).load_state_dict(getattr(model, name).state_dict())
    return behind.cpu(), as_drive(model, parts[2]).to(CPU), about


def behind_frozen(world: Known, design: Design, control: Control, seed: int) -> Fitted:
    """Learn the design alone, behind core and readout of the static control."""
    parts = [as_drive(control.model, part) for part in video_parts(world)]
    model, readout = _behind(control.model, world, design)
    readout.requires_grad_(requires_grad=False)
    about = fit(model.to(DEVICE), parts[0], parts[1], STAGES_ONLY, seed)
    return model.cpu(), parts[2].to(CPU), about


def video_parts(world: Known) -> list[Split]:
    """Training crops, longer by what the core consumes, and whole clips of the other tiers."""
    lost = sum(size - 1 for size in CORE[1]["temporal_kernels"])
    found = []
    for tier, clips in world.clips.items():
        found.append(split(clips, clips.video[:, :, None], crop=CROP + lost if tier == "train" else None).to(DEVICE))
    return found


@torch.no_grad()
def as_drive(model: PopulationModel, part: Split) -> Split:
    """Replace the video by the drive that core and readout make of it."""
    model.eval()
    drive, _ = model.drive(part.inputs, SESSION)
    lost = part.responses.shape[1] - drive.shape[1]
    responses, rates = part.responses[:, lost:], part.rates[:, lost:]
    return Split(Inputs(stimulus=drive[..., None, None], observed=responses), responses, rates)


def _behind(model: PopulationModel, world: Known, design: Design) -> tuple[PopulationModel, nn.Module]:
    """A design on a drive that is handed on as it is, with the embeddings of a fitted readout."""
    embedding = model.readouts[SESSION].embedding().detach().cpu().numpy()  # pyright: ignore[reportCallIssue]
    readout = KnownDrive(np.ones(len(embedding), np.float32), embedding)
    facts = facts_of(world, design)
    core = registry.cores["linear"].build({"lags": 1}, facts.as_dict())
    return build(core, readout, design, facts), readout


def _with_core(world: Known, design: Design) -> PopulationModel:
    height, width = world.clips["train"].video.shape[2:]
    facts = facts_of(world, design, (1, height, width))
    core = registry.cores[CORE[0]].build(CORE[1], facts.as_dict())
    link = registry.links["softplus"].build({}, {})
    mean_drive = link.inverse(torch.as_tensor(facts.mean_responses)).numpy()
    given = facts.as_dict() | {"feature_shape": core.feature_shape, "mean_drive": mean_drive}
    return build(core, registry.readouts[READOUT[0]].build(READOUT[1], given), design, facts)
