"""The baseline: load clips the way the field's usual toolkit does, which is what ``loader.py`` is compared with.

Every clip is read once and kept in memory as it is stored. For every draw the *whole* clip is normalized, its neurons
are selected (all of them), all modalities are searched for NaN and cut before the first one found, and only then frames
are cropped; behavior becomes constant float64 image planes, and everything is cast to float32 tensors and stacked.

The steps and their order are those of the Sensorium 2023 loaders (Turishcheva et al. 2023, arXiv:2305.19654); the code
was written for this comparison. Their image rescaling at scale 1 is left out: it takes .7 to 2 ms (see README.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

MODALITIES = ("videos", "responses", "behavior", "pupil_center")


class WholeClipLoader:
    """Crops of cached, whole-clip normalized data: video with behavior channels, responses and pupil."""

    def __init__(self, session: Path) -> None:
        self.data = session / "data"
        self.cache: dict[int, dict[str, np.ndarray]] = {}
        statistics = session / "meta/statistics"
        self.mean = {name: np.load(statistics / name / "all/mean.npy") for name in MODALITIES}
        self.std = {name: np.load(statistics / name / "all/std.npy") for name in MODALITIES}
        std = self.std["responses"]
        smallest = 0.01 * np.nanmean(std)
        self.precision = np.where(std > smallest, 1 / np.where(std > smallest, std, 1), 1 / smallest).astype(np.float32)
        self.neurons = np.arange(len(std))

    def clip(self, clip: int) -> dict[str, np.ndarray]:
        """Read a whole clip, or take it from memory."""
        if clip not in self.cache:
            self.cache[clip] = {name: np.load(self.data / name / f"{clip}.npy") for name in MODALITIES}
        return self.cache[clip]

    def normalized(self, clip: int) -> dict[str, np.ndarray]:
        """Normalize a whole clip, select neurons, and cut off the padding, which every modality is searched for."""
        raw = self.clip(clip)
        values = {name: (raw[name] - self.mean[name]) / self.std[name] for name in ("videos", "pupil_center")}
        values["responses"] = (raw["responses"] * self.precision).take(self.neurons, axis=0)
        values["behavior"] = raw["behavior"] / self.std["behavior"]
        gaps = [np.argwhere(np.isnan(x))[:, -1] for x in values.values()]
        length = min(int(gap.min(initial=x.shape[-1])) for gap, x in zip(gaps, values.values(), strict=True))
        return {name: x.take(np.arange(length), axis=-1) for name, x in values.items()}

    def crop(self, clip: int, start: int, frames: int) -> tuple[np.ndarray, ...]:
        """Cut frames out of a normalized clip: video ``channel time height width``, responses and pupil time last."""
        values = {name: x[..., start : start + frames] for name, x in self.normalized(clip).items()}
        video = values["videos"].transpose(2, 0, 1)[None]
        planes = np.ones((1, *video.shape[1:])) * values["behavior"][:, :, None, None]
        return np.concatenate([video, planes]), values["responses"], values["pupil_center"]

    def batch(self, clips: tuple[int, ...], starts: tuple[int, ...], frames: int) -> tuple[torch.Tensor, ...]:
        """Stack crops into float32 tensors."""
        crops = [self.crop(clip, start, frames) for clip, start in zip(clips, starts, strict=True)]
        parts = zip(*crops, strict=True)
        return tuple(torch.stack([torch.from_numpy(x.astype(np.float32)) for x in part]) for part in parts)
