"""Models whose drive is given: the core hands the behavior on, and the readout takes every channel as a neuron."""

import torch
from torch import nn

from neuroint.data.base import Inputs, Recorded
from neuroint.model import PopulationModel
from neuroint.modules.base import Reads
from neuroint.modules.link import Softplus

EMBEDDING = 3  # channels


class GivenDrive(nn.Module):
    """A core that hands the behavior on as features."""

    reads = Reads()
    lost_frames = 0

    def forward(self, inputs):
        return inputs.behavior[..., None, None]


class AsItIs(nn.Module):
    """A readout that takes every feature as the drive of a neuron."""

    reads = Reads()

    def __init__(self, neurons):
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.register_buffer("weights", torch.randn(neurons, EMBEDDING, generator=draw, dtype=torch.float64))

    def forward(self, features, pupil, neurons):
        return features[..., 0, 0]

    def embedding(self):
        return self.weights


def population(stage, slot="interaction", link=None, neurons=5, lag=1):
    offer = Recorded("recorded_past", lag_bins=lag, shortest_lag=1)
    stages = {"one": {slot: stage}}
    return PopulationModel(GivenDrive(), {"one": AsItIs(neurons)}, stages, link or Softplus(), recorded=offer)


def clips(frames, neurons=5, batch=2):
    draw = torch.Generator().manual_seed(6)
    drive = torch.randn(batch, frames, neurons, generator=draw, dtype=torch.float64)
    observed = torch.rand(batch, frames, neurons, generator=draw, dtype=torch.float64)
    return Inputs(behavior=drive, observed=observed)
