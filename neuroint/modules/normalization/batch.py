"""Normalization by each neuron's mean and spread over the training data."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from neuroint.modules.base import Context, Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.blending import Blend
from neuroint.modules.rectified import full
from neuroint.registry import Fact, normalizations


@normalizations.register("batch")
class Batch(nn.Module):
    r"""Standardize each neuron's drive by its mean and spread over the training data, by a learned share.

    .. math:: d'_i = (1 - m)\, d_i + m \Big(\gamma_i \frac{d_i - \mu_i}{\sqrt{v_i + \epsilon}} + b_i\Big)

    ``batch time neurons`` in and out. Mean and variance are of the batch (all workers, clips and frames) in training,
    and running averages from training in evaluation: a prediction then depends on no other clip and no other frame.
    ``train.batch_statistics: frozen`` uses the running averages in training as well. Behind fixed statistics it is a
    gain and an offset per neuron, which a readout has already, so it is the control for what standardizing does to the
    *optimization*. It mixes no neurons and reads the stimulus only.

    It starts at m = .05, with running averages and b at the neurons' mean drives, running variances and gamma at 1: in
    evaluation that is the drive. Strength zero (:meth:`off`) is m = 0: the drive, and so ``none``, its null. Cost is
    linear in neurons.

    Args:
        momentum: weight of the new batch in the running averages (torch's convention).

    Source: Ioffe & Szegedy (2015), ICML.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        mean_drive: Fact[Float[np.ndarray, " neurons"]],
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.blend = Blend(scale=1.0, offset=mean_drive)
        self.norm = SynchronizedBatchNorm(len(mean_drive), momentum=momentum, affine=False)
        self.norm.running_mean = torch.tensor(mean_drive, dtype=torch.float32)

    def off(self) -> None:
        """Set the share of the normalized drive to 0."""
        self.blend.off()

    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        """Standardize every neuron by itself."""
        held = full(drive)
        normal = self._standardized(held.transpose(1, 2), context.neurons)
        return self.blend(held, normal.transpose(1, 2), context)

    def _standardized(
        self, x: Float[Tensor, "batch neurons time"], neurons: Int[Tensor, " chosen"] | None
    ) -> Float[Tensor, "batch neurons time"]:
        """Standardize the neurons present, and keep the running averages of no others up to date."""
        if neurons is None:
            return self.norm(x)
        running = {name: getattr(self.norm, name)[neurons] for name in ("running_mean", "running_var")}
        found = functional_call(self.norm, running, (x,))
        if self.norm.training:
            for name, value in running.items():
                getattr(self.norm, name)[neurons] = value
        return found
