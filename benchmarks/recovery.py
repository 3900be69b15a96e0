"""Fit designs to simulated truths, and write the matrix truth x design: what is found, less what a twin finds.

``python benchmarks/recovery.py --budget-minutes 40 --write-docs``: every cell is kept in ``results/recovery_cells``, so
a run that is cut short goes on where it stopped. ``--cells 'oracle/high/pool/*/*'`` chooses cells by name
(drive/SNR/truth/seed/design), ``--tables-only`` fits nothing. A process takes one thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

import pages
import torch
from recovery_parts.cells import Cell, all_cells, compute, selected
from recovery_parts.fitting import Training
from recovery_parts.tables import fed_contrast, markdown, reports_coupling, rows, verdicts
from recovery_parts.world import TRUTHS

ROOT = Path(__file__).parent.parent
QUICK = [f"oracle/high/{truth}/0/{design}" for truth in ("none", "pool") for design in ("static_*", "population_pool")]
SECTIONS = {"high": {"oracle/high"}, "low": {"oracle/low"}, "cores": {"learned/high", "frozen/high"}}  # of the page


def work(cells: list[Cell], cache: Path, until: float) -> int:
    """Fit the cells of one world, one after the other, while there is time; returns how many were left."""
    torch.set_num_threads(1)
    left = 0
    for cell in cells:
        if time.time() > until:
            left += 1
            continue
        compute(cell, cache)
        print(f"{time.strftime('%H:%M:%S')} {cell.name}", flush=True)
    return left


def run(cells: list[Cell], cache: Path, minutes: float, processes: int) -> int:
    """Fit what is missing, a world at a time in each process."""
    missing = [cell for cell in cells if not cell.file(cache).is_file()]
    worlds = [list(group) for _, group in groupby(missing, key=lambda c: (c.mode, c.snr, c.truth, c.seed))]
    until = time.time() + 60 * minutes
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        waiting = [pool.submit(work, group, cache, until) for group in worlds]
        try:
            return sum(future.result() for future in as_completed(waiting))
        except Exception:  # told at once, not when all the others have ended
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def summary(cells: list[Cell], cache: Path) -> dict[str, Any]:
    """Everything that was found."""
    found = rows(cells, cache)
    designs = list(dict.fromkeys(row["design"] for row in found))
    reports = {
        f"{snr}/{truth}/{design}": reports_coupling(found, mode="oracle", snr=snr, truth=truth, design=design)
        for snr in ("high", "low")
        for truth in TRUTHS
        for design in designs
    }
    return {
        "cells": len(found),
        "of": {name: sum(f"{c.mode}/{c.snr}" in shown for c in cells) for name, shown in SECTIONS.items()},
        "wins": {f"{mode}/{snr}": verdicts(found, snr, mode) for mode in ("oracle", "learned", "frozen") for snr in
                 ("high", "low")},
        "reports_coupling": {k: v for k, v in reports.items() if v is not None},
        "recorded_minus_predictions": {snr: fed_contrast(found, snr) for snr in ("high", "low")},
        "rows": found,
    }  # fmt: skip


def write_docs(found: dict[str, Any], sections: list[str], command: str) -> None:
    """Put the tables of sections between their marks of the page; the others stay as they are."""
    for section in sections:
        held = [row for row in found["rows"] if f"{row['mode']}/{row['snr']}" in SECTIONS[section]]
        if not held:
            raise SystemExit(f"there is no cell of section '{section}'; name those of --cells with --write-docs")
        about = f"{len(held)} of {found['of'][section]} cells"
        pages.put(pages.DOCS / "recovery.md", section, command, markdown(held), about=about)


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="+", default=["*"], help="patterns of cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Training.steps, help="of training where the drive is known")
    parser.add_argument("--budget-minutes", type=float, default=40, help="start no cell after so long")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one corner: is a pool found where it is?")
    parser.add_argument("--cache", type=Path, default=ROOT / "results" / "recovery_cells")
    parser.add_argument("--tables-only", action="store_true", help="fit nothing")
    about = "write the tables of sections into docs/recovery.md; by default of all"
    parser.add_argument("--write-docs", nargs="*", choices=SECTIONS, metavar="SECTION", help=about)
    parser.add_argument("--out", help="file to write the results to, JSON")
    options = parser.parse_args()
    everything = all_cells(options.seeds, options.steps)
    cells = selected(everything, QUICK if options.quick else options.cells)
    torch.set_num_threads(1)
    left = 0 if options.tables_only else run(cells, options.cache, options.budget_minutes, options.processes)
    found = summary(cells, options.cache)
    print(markdown(found["rows"]))
    print(f"\n{found['cells']} of {sum(found['of'].values())} cells; {left} left for want of time")
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1))
    if options.write_docs is not None:
        command = shlex.join(["python", "benchmarks/recovery.py", *sys.argv[1:]])
        write_docs(found, options.write_docs or list(SECTIONS), command)


if __name__ == "__main__":
    main()
