"""Time training steps on a CUDA device: cores, stages, and what the loader adds.

``python benchmarks/gpu.py cores stages loader``: forward and backward, ``--clips`` clips of ``--frames`` frames of
36 x 64 pixels, ``--neurons`` neurons.

- *cores*: every case of ``cores.py`` in float32, in bfloat16 and compiled. Model-FLOPs utilisation is the step's matrix
  products and convolutions over what one product of 8192 x 8192 matrices reaches in bfloat16 on the same card.
- *stages*: every interaction and normalization over one clip of 300 frames in bfloat16, and its share of a step with
  core and readout as in ``scaling.py``.
- *loader*: steps of the Sensorium 2023 baseline that load their batches against the same steps on batches that lie on
  the card; the share is what loading adds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from cores import CASES, products, step_of
from generated import write_session
from own_process import written
from scaling import FRAMES, PLAIN, plain_step, registered, stage_step
from step import SWEEP
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuroint.config import parse_sweep
from neuroint.data.base import Batch
from neuroint.data.loader import ClipLoader
from neuroint.data.opening import open_sessions
from neuroint.data.plan import TrainingPlan
from neuroint.fit import Fit, prepare
from neuroint.runtime import LocalRuntime
from neuroint.sweep.flops import step_counter
from neuroint.train import training_step

Row = dict[str, Any]
CUDA, SIDE = "cuda", 8192
MODES = {"float32": (False, False), "bfloat16": (True, False), "bfloat16, compiled": (True, True)}
WARM, BLOCKS, BLOCK_STEPS = 3, 3, 20


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median time of something on the card, the first runs left out."""
    times = []
    for _ in range(WARM + repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM:])


def ceiling() -> float:
    """FLOP/s of one large product of random matrices in bfloat16."""
    a, b = (torch.randn(SIDE, SIDE, device=CUDA, dtype=torch.bfloat16) for _ in range(2))
    return 2 * SIDE**3 / seconds(lambda: a @ b, 10)


def stepper(module: torch.nn.Module, forward: Callable[[], torch.Tensor], half: bool) -> Callable[[], None]:
    """Forward and backward, in bfloat16 or not."""

    def step() -> None:
        module.zero_grad(set_to_none=True)
        with torch.autocast(CUDA, torch.bfloat16, enabled=half):
            out = forward()
        out.float().square().mean().backward()

    return step


def core_rows(options: argparse.Namespace) -> list[Row]:
    """Every core in every mode; held maps and blocks run again, which ask about memory, in bfloat16 alone."""
    reached, rows = ceiling(), []
    for name, case in CASES.items():
        choice = case.math or "recompute" in case.options
        for mode, (half, compiled) in MODES.items():
            asked = name in options.cases and (name in options.compiled or not compiled)
            if asked and (mode == "bfloat16" or not choice):
                row = {"core": name, "mode": mode} | _refusable(_core, case, half, compiled, options, reached)
                told(row, rows)
    return rows


def _core(case: Any, half: bool, compiled: bool, options: argparse.Namespace, reached: float) -> Row:
    torch.manual_seed(0)
    parts, forward = step_of(case, options.neurons, options.frames, options.clips, CUDA)
    step = stepper(parts.train(), forward, half)
    with sdpa_kernel(SDPBackend.MATH) if case.math else nullcontext():
        with step_counter() as counter:
            step()
        if compiled:
            parts[0].compile()
        torch.cuda.reset_peak_memory_stats()
        took = seconds(step, options.repeats)
    flop = products(counter)
    return {
        "milliseconds": round(1e3 * took, 2),
        "frames_per_s": round(options.clips * options.frames / took),
        "utilisation": round(flop / took / reached, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def stage_rows(options: argparse.Namespace) -> list[Row]:
    """The plain step, then every stage alone."""
    plain, rows = 0.0, []
    for kind, name in [(PLAIN, PLAIN), *registered()]:
        torch.manual_seed(0)
        row: Row = {"kind": kind, "name": name} | _refusable(_stage, kind, name, options)
        plain = row["milliseconds"] if kind == PLAIN else plain
        if kind != PLAIN and "milliseconds" in row:
            row["share_of_step"] = round(row["milliseconds"] / (row["milliseconds"] + plain), 3)
        told(row, rows)
    return rows


def _stage(kind: str, name: str, options: argparse.Namespace) -> Row:
    made = plain_step if kind == PLAIN else lambda *sizes: stage_step(kind, name, *sizes)
    module, forward = made(options.neurons, FRAMES, CUDA)
    torch.cuda.reset_peak_memory_stats()
    took = seconds(stepper(module.train(), forward, half=True), options.repeats)
    return {"milliseconds": round(1e3 * took, 2), "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}


def loader_rows(options: argparse.Namespace) -> list[Row]:
    """Share of loading by number of neurons and of loader processes."""
    rows: list[Row] = []
    for neurons in (1000, options.neurons):
        with tempfile.TemporaryDirectory() as folder:
            sessions = open_sessions(write_session(Path(folder), neurons, clips=24).parent)
            config = parse_sweep(SWEEP | {"train": {"precision": "bfloat16"}})
            trial = config.trial("none", {}, key="step", phase="tune", seed=0)
            runtime = LocalRuntime(device=torch.device(CUDA))
            fit = prepare(trial, sessions, runtime, torch.float32)
            fit.training_mode()
            for processes in (0, 4, 8):
                told({"neurons": neurons, "processes": processes} | _loading(fit, sessions, runtime, processes), rows)
    return rows


def _loading(fit: Fit, sessions: list[Any], runtime: LocalRuntime, processes: int) -> Row:
    steps = BLOCKS * BLOCK_STEPS + 2 * WARM
    plan = TrainingPlan(sessions, frames=80, batch_size=4, seed=0, steps_per_epoch=steps)
    loaded, held = [], []
    with ClipLoader(sessions, workers=processes) as loader:
        batches = loader.training(plan, 0)
        kept = [[b.to(runtime.device) for b in next(batches)] for _ in range(2 * WARM)]
        for _ in range(BLOCKS):
            held.append(_block(fit, runtime, lambda step: kept[step % len(kept)]))
            loaded.append(_block(fit, runtime, lambda step: next(batches)))
    step, alone = (statistics.median(times) / BLOCK_STEPS for times in (loaded, held))
    return {
        "step_ms": round(1e3 * step, 2),
        "on_card_ms": round(1e3 * alone, 2),
        "share_of_loading": round(1 - alone / step, 3),
    }


def _block(fit: Fit, runtime: LocalRuntime, batches_of: Callable[[int], list[Batch]]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for step in range(BLOCK_STEPS):
        training_step(fit, batches_of(step), runtime, step)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def told(row: Row, rows: list[Row]) -> None:
    """Keep a row, and print it at once: a card may be lent for minutes."""
    rows.append(row)
    print(row, file=sys.stderr, flush=True)


def _refusable(measure: Callable[..., Row], *given: Any) -> Row:
    """What does not fit is written down as such."""
    try:
        return measure(*given)
    except (torch.OutOfMemoryError, ValueError) as error:
        return {"refused": str(error)[:200]}
    finally:
        torch.compiler.reset()
        torch.cuda.empty_cache()


SECTIONS = {"cores": core_rows, "stages": stage_rows, "loader": loader_rows}


def main() -> None:
    """Measure what was asked for and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; by default all")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="of cores")
    parser.add_argument("--compiled", nargs="*", choices=CASES, default=list(CASES), metavar="NAME", help="of them")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--neurons", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device on this machine; benchmarks/cores.py and scaling.py measure on CPUs")
    found: Row = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "bf16_tflop_per_s": ceiling() / 1e12,
    }
    for name in options.sections or SECTIONS:
        found[name] = SECTIONS[name](options)
    written(found, options.out)


if __name__ == "__main__":
    main()
