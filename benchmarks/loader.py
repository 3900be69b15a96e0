"""Measure the loader against one that caches whole clips and normalizes before it crops.

    python benchmarks/loader.py --neurons 1000 8000 [--dtype float64] [--quick] [--out loader.json]

Clips of 300 frames stored at 324, 36x64 pixels; crops of 80 frames in batches of 4, with normalization and behavior,
from a warm page cache, torch on 2 threads. The usual loader writes behavior as image planes; the factorized core here
needs none, other cores make them. So ours is timed as it is (``ratio``) and with planes (``ratio_with_planes``).

Blocks of all alternate in one run; what is told is the median over blocks and, as the machine's noise, the middle half
of the ratios. CPU time (of all threads) is told beside it, because other processes disturb it less. Worker processes
have no model to work beside here, so on two cores two of them show what they cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generated import write_session
from whole_clip_loader import WholeClipLoader

from neuroint.data.base import Batch
from neuroint.data.loader import ClipLoader
from neuroint.data.plan import TrainingPlan
from neuroint.data.readers.sensorium2023 import read_sensorium2023

FRAMES, BATCH, STEPS = 80, 4, 10  # frames of a crop, clips of a batch, batches of a block
THREADS = 2


def main() -> None:
    """Run everything that the command line asks for and print it as JSON."""
    options = _options()
    torch.set_num_threads(THREADS)
    if options.peak_of:
        print(json.dumps(peak_mb(Path(options.peak_of), options.baseline)))
        return
    results = []
    for neurons in options.neurons:
        with tempfile.TemporaryDirectory(prefix="loader") as folder:
            results.append(measure(Path(folder), neurons, options.dtype, options.quick))
            print(json.dumps(results[-1], indent=1), flush=True)
    report = {"machine": {"cores": os.cpu_count(), "threads": THREADS, "load": os.getloadavg()}, "results": results}
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1))


def measure(folder: Path, neurons: int, dtype: str, quick: bool) -> dict[str, Any]:
    """Measure speed on one session, and memory on it and on one of four times as many clips."""
    clips = 40 if quick else 100
    few = write_session(folder, neurons, clips, dtype=dtype)
    result = {"neurons": neurons, "dtype": dtype, **speed(few, blocks=7 if quick else 21)}
    many = write_session(folder, neurons, 4 * clips, seed=1, dtype=dtype)
    sizes = {str(clips): few, str(4 * clips): many}
    result["peak_mb"] = {size: _in_a_new_process(path) for size, path in sizes.items()}
    result["baseline_peak_mb"] = {size: _in_a_new_process(path, "--baseline") for size, path in sizes.items()}
    return result


def speed(session: Path, blocks: int) -> dict[str, Any]:
    """Alternate blocks of both loaders, after checking that they load the same numbers."""
    sessions = read_sensorium2023(session)
    plan = TrainingPlan(sessions, frames=FRAMES, batch_size=BATCH, seed=0, steps_per_epoch=STEPS)
    ours, baseline = ClipLoader(sessions), WholeClipLoader(session)
    for clip in sessions[0].clips("train"):
        baseline.clip(int(clip))
    _check_equal(ours, baseline, plan)

    def load(epoch: int) -> None:
        for _ in ours.training(plan, epoch):
            pass

    def load_with_planes(epoch: int) -> None:
        for (batch,) in ours.training(plan, epoch):
            as_channels(batch)

    def load_baseline(epoch: int) -> None:
        for (request,) in plan.epoch(epoch):
            baseline.batch(request.clips, request.starts, FRAMES)

    ways = (load, load_with_planes, load_baseline)
    times = np.array([[clip_ms(way, block) for way in ways] for block in range(blocks)])
    wall, cpu = np.moveaxis(times, -1, 0)
    return {
        "clips_per_s": round(1000 / float(np.median(wall[:, 0])), 1),
        "baseline_clips_per_s": round(1000 / float(np.median(wall[:, 2])), 1),
        **_ratios("ratio", wall[:, 2] / wall[:, 0]),
        **_ratios("ratio_with_planes", wall[:, 2] / wall[:, 1]),
        "cpu_ms_per_clip": round(float(np.median(cpu[:, 0])), 2),
        "baseline_cpu_ms_per_clip": round(float(np.median(cpu[:, 2])), 2),
        "clips_per_s_with_workers": {workers: _with_workers(sessions, plan, workers, blocks) for workers in (1, 2)},
    }


def _ratios(name: str, found: np.ndarray) -> dict[str, Any]:
    """The median over blocks, and the middle half."""
    middle = [round(float(np.quantile(found, q)), 2) for q in (0.25, 0.75)]
    return {name: round(float(np.median(found)), 2), f"{name}_middle_half": middle}


def clip_ms(load: Callable[[int], None], epoch: int) -> tuple[float, float]:
    """Time one block: milliseconds per clip, of the clock on the wall and of all threads' CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    load(epoch)
    per_clip = 1000 / (STEPS * BATCH)
    return per_clip * (time.perf_counter() - wall), per_clip * (time.process_time() - cpu)


def as_channels(batch: Batch) -> torch.Tensor:
    """Append behavior to the stimulus as constant image channels, ``batch time channel height width``.

    So that both loaders deliver the same; cores that need planes do this when they read the batch.
    """
    stimulus, behavior = batch.inputs.stimulus, batch.inputs.behavior
    if stimulus is None or behavior is None:
        raise ValueError("the generated session has a stimulus and behavior; this batch lacks one of them")
    planes = behavior[..., None, None].expand(*behavior.shape, *stimulus.shape[-2:])
    return torch.from_numpy(np.concatenate([stimulus.numpy(), planes.numpy()], axis=2))


def _check_equal(ours: ClipLoader, baseline: WholeClipLoader, plan: TrainingPlan) -> None:
    """Compare every number of an epoch; tiny negative responses, which only one loader clamps, are within tolerance."""
    for (request,), (batch,) in zip(plan.epoch(0), ours.training(plan, 0), strict=True):
        video, responses, pupil = baseline.batch(request.clips, request.starts, FRAMES)
        pairs = [(as_channels(batch), video.transpose(1, 2)), (batch.responses, responses.transpose(1, 2))]
        for left, right in [*pairs, (batch.inputs.pupil, pupil.transpose(1, 2))]:
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def _with_workers(sessions: list, plan: TrainingPlan, workers: int, blocks: int) -> float:
    """Clips per second that ``workers`` processes deliver once they run."""
    with ClipLoader(sessions, workers=workers) as loader:

        def load(epoch: int) -> None:
            for _ in loader.training(plan, epoch):
                pass

        load(0)
        return round(1000 / float(np.median([clip_ms(load, epoch)[0] for epoch in range(blocks)])), 1)


def peak_mb(session: Path, baseline: bool) -> float:
    """Load every training clip once; the peak resident memory of this process, MB."""
    sessions = read_sensorium2023(session)
    plan = TrainingPlan(sessions, frames=FRAMES, batch_size=BATCH, seed=0)
    whole = WholeClipLoader(session)
    loader = ClipLoader(sessions)
    for (request,) in plan.epoch(0):
        if baseline:
            whole.batch(request.clips, request.starts, FRAMES)
        else:
            next(loader.read([[request]]))
    return round(_peak_bytes() / 1e6)


def _peak_bytes() -> int:
    """Peak resident memory, from Linux's own record: ``getrusage`` counts the process that started this one, too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def _in_a_new_process(session: Path, *flags: str) -> float:
    command = [sys.executable, __file__, "--peak-of", str(session), *flags]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--neurons", type=int, nargs="+", default=[1000, 8000])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of the stored arrays")
    parser.add_argument("--quick", action="store_true", help="fewer clips and blocks")
    parser.add_argument("--out", help="file to write the results to, JSON")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--baseline", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
