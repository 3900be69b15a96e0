"""Names that the Neural Latents Benchmark gives to its data sets and their parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

DatasetName = Literal["mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg", "mc_maze_large", "mc_maze_medium", "mc_maze_small"]
BinMs = Literal[5, 20]
Share = Annotated[float, Field(gt=0, lt=1)]
SUFFIXES = {5: "", 20: "_20"}
SPLITS = ("train", "eval")
PARTS = ("heldin", "heldout")


def group_name(dataset: str, bin_ms: int) -> str:
    """Name of the group of a data set at a bin width: ``mc_maze`` at 5 ms, ``mc_maze_20`` at 20 ms."""
    return dataset + SUFFIXES[bin_ms]
