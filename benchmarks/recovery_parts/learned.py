"""Fits in which core and readout are learned from video too, or kept as the static control left them."""

from __future__ import annotations

from typing import Any

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
CONTROL_FIRST = Training(steps=150, learning_rate=0.02, check_every=15)
THEN_ALL = Training(steps=60, learning_rate=0.01, check_every=15)
STAGES_ONLY = Training()

Fitted = tuple[PopulationModel, Split, dict[str, Any]]


class Laboratory:
    """Holds the control fitted last, from whose core and readout every design of that world starts."""

    def __init__(self) -> None:
        self.world = ""
        self.control: PopulationModel | None = None

    def start(self, world: Known, control: Design, seed: int) -> PopulationModel:
        """The static control with core and readout, fitted once per world."""
        if self.control is None or self.world != world.name:
            self.control, self.world = _with_core(world, control), world.name
            parts = video_parts(world)
            fit(self.control, parts[0], parts[1], CONTROL_FIRST, seed)
        return self.control


LABORATORY = Laboratory()


def end_to_end(world: Known, design: Design, control: Design, seed: int) -> Fitted:
    """Learn core, readout and design together; the control itself goes on for as long as the others do."""
    first, parts = LABORATORY.start(world, control, seed), video_parts(world)
    model = _with_core(world, design)
    for name in ("core", "readouts"):
        getattr(model, name).load_state_dict(getattr(first, name).state_dict())
    if design == control:
        model.load_state_dict(first.state_dict())
    about = fit(model, parts[0], parts[1], THEN_ALL, seed)
    behind, _ = _behind(model, world, design)
    for name in ("normalization", "interaction"):
        getattr(behind, name).load_state_dict(getattr(model, name).state_dict())
    return behind, as_drive(model, parts[2]), about


def behind_frozen(world: Known, design: Design, control: Design, seed: int) -> Fitted:
    """Learn the design alone, behind core and readout of the static control."""
    first = LABORATORY.start(world, control, seed)
    parts = [as_drive(first, part) for part in video_parts(world)]
    model, readout = _behind(first, world, design)
    readout.requires_grad_(requires_grad=False)
    about = fit(model, parts[0], parts[1], STAGES_ONLY, seed)
    return model, parts[2], about


def video_parts(world: Known) -> list[Split]:
    """Training crops, longer by what the core consumes, and whole clips of the other tiers."""
    lost = sum(size - 1 for size in CORE[1]["temporal_kernels"])
    found = []
    for tier, clips in world.clips.items():
        found.append(split(clips, clips.video[:, :, None], crop=CROP + lost if tier == "train" else None))
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
    embedding = model.readouts[SESSION].embedding().detach().numpy()  # pyright: ignore[reportCallIssue]
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
