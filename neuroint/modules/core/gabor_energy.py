"""A core whose first stage is given, not learned: the energies of Gabor filters."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from neuroint.data.base import Inputs
from neuroint.modules.base import Reads
from neuroint.modules.batch_norm import SynchronizedBatchNorm
from neuroint.modules.convolution import check_layers, input_planes, over_frames, start_weights
from neuroint.registry import Count, Fact, Positive, cores

FLOOR = 0.01  # added to energies, which are 1 for white noise of unit variance, before their logarithm
STEP = 2  # pixels between the places where energies are taken


class EnergyBank(nn.Module):
    r"""Turn images into logarithms of energies, averaged in windows.

    .. math:: e_k(p) = \log\big(|(s * g_k)(p)|^2 + 0.01\big), \quad g_k(q) = G_k(q)\,(e^{i k \cdot q} - c_k)

    G is a round Gaussian of unit energy, which makes every filter a product of a row and a column, and c_k leaves
    uniform images without energy. Images are zero outside (their mean, where they are z-scored). Windows are Gaussians
    on an even grid. All planes, averaged in the same windows, follow as the last features.
    """

    rows: Tensor
    columns: Tensor
    uniform: Tensor
    window_rows: Tensor
    window_columns: Tensor
    sight_rows: Tensor
    sight_columns: Tensor

    def __init__(
        self, shape: tuple[int, int, int], waves: list[tuple[float, float]], envelope: float, cells: int, window: float
    ) -> None:
        super().__init__()
        self.channels = shape[0]
        sides = {"rows": (shape[1], math.sin), "columns": (shape[2], math.cos)}
        uniform = torch.ones(len(waves), dtype=torch.float64)
        for side, (pixels, part) in sides.items():
            scales = [(envelope * wavelength, part(angle) / wavelength) for wavelength, angle in waves]
            self._keep(side, torch.stack([_filters(pixels, *scale) for scale in scales], dim=1))
            self._keep(f"window_{side}", _windows(pixels, cells, window, STEP))
            self._keep(f"sight_{side}", _windows(pixels, cells, window, 1))
            uniform *= torch.tensor([_answer_to_uniform(*scale) for scale in scales], dtype=torch.float64)
        self._keep("uniform", uniform)

    def forward(
        self, planes: Float[Tensor, "images plane height width"]
    ) -> Float[Tensor, "images features cell_row cell_column"]:
        """Compute the energies of the stimulus, which comes first among the planes, then blur all planes."""
        with torch.autocast(planes.device.type, enabled=False):  # with 8 bits, logarithms of small energies are noise
            planes = planes.to(self.rows.dtype)
            energies = torch.log(self.energies(planes[:, : self.channels]) + FLOOR).flatten(1, 2)
            seen = self.window_rows @ energies @ self.window_columns.mT
            blurred = self.sight_rows @ planes @ self.sight_columns.mT
        return torch.cat([seen, blurred], dim=1)

    def energies(
        self, images: Float[Tensor, "images channel height width"]
    ) -> Float[Tensor, "images channel waves row column"]:
        """Sum the squares of each filter's even and odd answer; one product for all rows, then one for each wave."""
        sheet = images.permute(2, 0, 1, 3).flatten(1)  # height, images x channel x width
        by_rows = (self.rows.flatten(0, 2) @ sheet).view(*self.rows.shape[:2], -1, images.shape[3])
        cos, sin, flat = by_rows
        to_cos, to_sin, to_flat = self.columns.mT
        even = cos @ to_cos - sin @ to_sin - self.uniform[:, None, None] * (flat @ to_flat)
        odd = sin @ to_cos + cos @ to_sin
        found = even.square() + odd.square()  # waves, row x images x channel, column
        return found.unflatten(1, (-1, *images.shape[:2])).permute(2, 3, 0, 1, 4)

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values.to(torch.float32), persistent=False)


def _filters(pixels: int, sd_px: float, cycles_per_px: float) -> Float[Tensor, "parts place pixel"]:
    """One side of a filter at every place: Gaussian times cosine, Gaussian times sine, and the Gaussian."""
    offset = torch.arange(pixels, dtype=torch.float64) - torch.arange(0, pixels, STEP, dtype=torch.float64)[:, None]
    gauss = torch.exp(-0.5 * (offset / sd_px) ** 2) / _norm(sd_px)
    phase = 2 * math.pi * cycles_per_px * offset
    return torch.stack([gauss * phase.cos(), gauss * phase.sin(), gauss])


def _answer_to_uniform(sd_px: float, cycles_per_px: float) -> float:
    """One side's answer to a uniform image, as a share of the Gaussian's."""
    offset = _offsets(sd_px)
    gauss = torch.exp(-0.5 * (offset / sd_px) ** 2)
    return float((gauss * (2 * math.pi * cycles_per_px * offset).cos()).sum() / gauss.sum())


def _norm(sd_px: float) -> float:
    return float(torch.exp(-((_offsets(sd_px) / sd_px) ** 2)).sum().sqrt())


def _offsets(sd_px: float) -> Float[Tensor, " pixels"]:
    reach = math.ceil(6 * sd_px)
    return torch.arange(-reach, reach + 1, dtype=torch.float64)


def _windows(pixels: int, cells: int, window: float, step: int) -> Float[Tensor, "cells place"]:
    """Weights, summing to 1, of the places in each window."""
    centers = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * pixels - 0.5
    places = torch.arange(0, pixels, step, dtype=torch.float64)
    return torch.softmax(-0.5 * ((places - centers[:, None]) / (window * pixels / 2)) ** 2, dim=1)


@cores.register("gabor_energy")
class GaborEnergy(nn.Module):
    r"""Turn every frame into energies of fixed Gabor filters, seen through a few windows, and layers learned on them.

    .. math:: x_0 = \mathrm{BN}(e), \quad x_{l+1} = \mathrm{ELU}(\mathrm{BN}(w_l * x_l))

    with e the logarithms of the energies of quadrature pairs at every wavelength and orientation, averaged in Gaussian
    windows, and the blurred stimulus itself (:class:`EnergyBank`). The first normalization has no parameters. Without
    learned layers nothing in the core is fitted: with readout ``linear`` it is the classical energy model, for
    recordings too short to learn filters from. No frame is consumed. Its null is ``linear``; ``conv2d`` is its
    counterpart with learned filters.

    Args:
        wavelengths_px: of the filters, in pixels.
        orientations: evenly spaced over half a turn.
        envelope: standard deviation of the filters' Gaussian, in wavelengths.
        cells: windows along each side of the frame.
        window: standard deviation of a window, in half sides of the frame.
        channels: features per learned layer; none by default.
        spatial_kernels: windows per side and learned layer.
        momentum: weight of the *new* batch in the running statistics (torch's convention).
        behavior: show behavior as planes that are constant in a frame, where it was recorded.

    Raises:
        ValueError: no wavelength, kernels larger than the grid of windows, or lists of layers of unequal lengths.

    Source: Adelson & Bergen (1985), J. Opt. Soc. Am. A 2, 284-299; for V4, David et al. (2006), Neuron 49, 635-645.
    """

    reads: ClassVar[Reads] = Reads()

    def __init__(
        self,
        *,
        stimulus_shape: Fact[tuple[int, int, int]],
        behavior_channels: Fact[int] = 0,
        wavelengths_px: tuple[Positive, ...] = (3.0, 4.5, 7.0, 11.0, 17.0),
        orientations: Count = 4,
        envelope: Positive = 0.6,
        cells: Count = 5,
        window: Positive = 0.2,
        channels: tuple[Count, ...] = (),
        spatial_kernels: tuple[Count, ...] = (),
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
        behavior: bool = True,
    ) -> None:
        super().__init__()
        if not wavelengths_px:
            raise ValueError("core 'gabor_energy' got no wavelengths_px; give at least one, such as (4, 8)")
        if channels or spatial_kernels:
            check_layers("gabor_energy", channels, spatial_kernels=spatial_kernels)
        left = cells - sum(kernel - 1 for kernel in spatial_kernels)
        if left < 1:
            raise ValueError(
                f"core 'gabor_energy': spatial kernels {spatial_kernels} need at least {cells - left + 1} windows per "
                f"side, there are {cells}; choose smaller kernels or more cells"
            )
        self.behavior = behavior and behavior_channels > 0
        waves = [(wave, math.pi * turn / orientations) for wave in wavelengths_px for turn in range(orientations)]
        self.bank = EnergyBank(stimulus_shape, waves, envelope, cells, window)
        planes = stimulus_shape[0] * (len(waves) + 1) + behavior_channels * self.behavior
        layers: list[nn.Module] = [SynchronizedBatchNorm(planes, momentum=momentum, affine=False)]
        for in_, out, kernel in zip((planes, *channels), channels, spatial_kernels, strict=False):
            layers += [nn.Conv2d(in_, out, kernel), SynchronizedBatchNorm(out, momentum=momentum), nn.ELU()]
        self.layers = nn.Sequential(*layers)
        self.feature_shape = ((planes, *channels)[-1], left, left)
        self.lost_frames = 0
        start_weights(self)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch time channel height width"]:
        """Turn the inputs into features, frame by frame."""
        return over_frames(lambda planes: self.layers(self.bank(planes)), input_planes(inputs, self.behavior))
