"""The core that knows nothing but how long ago a clip began."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.registry import Count, Fact, cores


@cores.register("time_course")
class TimeCourse(nn.Module):
    r"""Give every bin since a clip's beginning a feature of its own, so that the readout is a rate per neuron and bin.

    .. math:: F_c(t) = 1 \text{ where } c = \lfloor t / hold \rfloor, \text{ else } 0

    t counts bins from 0 at the first frame. With readout ``linear`` and a positive link the best fit is each neuron's
    mean over training trials in every bin, the peristimulus time histogram (PSTH) of all conditions together. Features
    are ``batch time bins 1 1``; there are no parameters. It reads nothing, only counts frames (class ``stimulus``), so
    clips must be whole and of one length. It is the null of whatever is predicted within trials: a model that does not
    beat it predicts what happens in every trial. Its own null is ``constant``.

    Cost is neurons x bins weights in the readout; few training trials leave them noisy, so ``hold`` and the weight
    decay belong into the search.

    Args:
        hold: bins in a row that share a rate.

    Raises:
        ValueError: a clip longer than those of the training data.

    Source: Gerstein & Kiang (1960), Biophys. J. 1, 15-28 (the PSTH).
    """

    reads: ClassVar[Reads] = Reads()
    whole_clips: ClassVar[bool] = True

    def __init__(self, *, shortest_clip: Fact[int], hold: Count = 1) -> None:
        super().__init__()
        self.clip_frames, self.hold = shortest_clip, hold
        self.feature_shape = (-(-shortest_clip // hold), 1, 1)
        self.lost_frames = 0

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time bins 1 1"]:
        """Mark the bin of every frame, counted from the first."""
        frames = inputs.n_frames
        if frames > self.clip_frames:
            raise ValueError(
                f"core 'time_course' has rates for {self.clip_frames} frames, got clips of {frames}; it needs trials "
                "of one length"
            )
        like = next(x for x in (inputs.stimulus, inputs.behavior, inputs.pupil, inputs.observed) if x is not None)
        bins = torch.arange(frames, device=like.device) // self.hold
        marked = functional.one_hot(bins, self.feature_shape[0]).to(like.dtype)
        return marked[None, :, :, None, None].expand(inputs.n_batch, -1, -1, 1, 1)
