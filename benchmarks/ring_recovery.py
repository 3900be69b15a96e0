"""Identify simulated head-direction rings, and count how often the reference's three claims hold.

``python benchmarks/ring_recovery.py --write-docs``: 5 seeds of every condition, 10,000 updates each. Every run keeps a
checkpoint in ``results/ring_recovery``, so that a benchmark that is cut short goes on where it stopped; ``--conditions
separated unseparated`` chooses, ``--tables-only`` trains nothing, ``--quick`` takes a small ring and few updates. A
process takes one thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from ring_parts.fitting import CONDITIONS, World, fit, model_of, world_of
from ring_parts.scores import rollout, scores, wiring
from ring_parts.tables import markdown
from safetensors.torch import load_file

from neuroint.analysis.ring import (
    SHIFTER,
    connectivity_figure,
    sorted_by_heading,
    tuning_figure,
    tuning_maps,
    velocity_modulation,
)
from neuroint.model import PopulationModel

COLUMNS = 6  # units of a kind whose tuning is drawn
ROOT = Path(__file__).parent.parent


def identify(name: str, seed: int, updates: int, preset: str, folder: Path, draws: int) -> dict[str, Any]:
    """Fit and score one network, unless that was done before."""
    kept = folder / f"{name}-{seed}"
    file = kept.with_suffix(".json")
    if file.is_file():
        return json.loads(file.read_text())
    condition = CONDITIONS[name]
    world = world_of(condition, seed, preset, folder / "worlds")
    state = fit(condition, world, seed, updates, kept)
    model = model_of(condition, world, seed)
    model.load_state_dict(load_file(str(kept.with_suffix(".safetensors"))))
    row = {"condition": name, "seed": seed, "updates": updates, "preset": preset}
    row |= {key: state[key] for key in ("seconds", "cpu_seconds")} | scores(model, world, state["losses"], draws)
    file.write_text(json.dumps(row, indent=1) + "\n")
    return row


def fitted(name: str, seed: int, preset: str, folder: Path) -> tuple[PopulationModel, World]:
    """Read a network that was fitted, and the world that it was fitted to."""
    condition = CONDITIONS[name]
    world = world_of(condition, seed, preset, folder / "worlds")
    model = model_of(condition, world, seed)
    model.load_state_dict(load_file(str(folder / f"{name}-{seed}.safetensors")))
    return model, world


def draw_tuning(seed: int, preset: str, folder: Path, file: Path) -> None:
    """Draw maps over velocity and heading: true units, both networks' observed units, and the shifters."""
    rows: dict[str, Any] = {}
    for name in ("separated", "unseparated"):
        model, world = fitted(name, seed, preset, folder)
        velocity, heading, n = world.velocity[:, 1:, 0], world.heading[:, 1:, 0], world.rates.shape[2]
        rows.setdefault("true", tuning_maps(world.rates[:, 1:], velocity, heading))
        rates = rollout(model, world)
        maps, index = tuning_maps(rates, velocity, heading), velocity_modulation(rates, velocity, heading)
        rows[f"{name}: observed"] = maps[..., :n]
        for sign, told in ((1, "+"), (-1, "-")):
            shifters = n + np.flatnonzero(sign * index[n:] > SHIFTER)
            if len(shifters):
                rows[f"{name}: shifters {told}"] = maps[..., shifters][..., sorted_by_heading(maps[..., shifters])]
    tuning_figure(rows, COLUMNS, file)


def draw(name: str, seed: int, preset: str, folder: Path, file: Path) -> None:
    """Draw the connectivity of a fitted network beside the true one, hidden units sorted by heading."""
    model, world = fitted(name, seed, preset, folder)
    parts = wiring(model)
    pairs = [{"W, true": world.recurrent, "among observed units, found": parts.recurrent}]
    if parts.shifting is not None:
        pairs.append({"Wv, true": world.shifting, "gain-signed product, found": parts.shifting})
        hidden = rollout(model, world)[..., world.rates.shape[2] :]
        order = sorted_by_heading(tuning_maps(hidden, world.velocity[:, 1:, 0], world.heading[:, 1:, 0]))
        core: Any = model.core
        w, n = core.connectivity().detach().numpy(), core.observed
        pairs.append({"hidden (by heading) to observed": w[n:, :n][order], "observed to hidden": w[:n, n:][:, order]})
    connectivity_figure(pairs, file)


def finished(folder: Path) -> list[dict[str, Any]]:
    """Results that are there, in the order of the conditions."""
    files = [folder / f"{name}-{seed}.json" for name in CONDITIONS for seed in range(100)]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=200, help="of the shuffled-unit null")
    parser.add_argument("--quick", action="store_true", help="a small ring, one seed, 500 updates, in its own folder")
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "ring_recovery")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/ring.md, and its figure")
    parser.add_argument("--figures", action="store_true", help="draw docs/ring.png and docs/ring_tuning.png of seed 0")
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset, updates, seeds = ("test", 500, 1) if options.quick else ("reference", options.updates, options.seeds)
    folder = options.folder / "quick" if options.quick else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not options.tables_only:
        for seed in range(seeds):
            for name in options.conditions:
                identify(name, seed, updates, preset, folder, options.draws)
    rows = finished(folder)
    print(markdown(rows))
    if options.write_docs:
        command = "python benchmarks/ring_recovery.py --write-docs"
        pages.put(pages.DOCS / "ring.md", "tables", command, f"Mean (range) over seeds.\n\n{markdown(rows)}")
    if options.write_docs or options.figures:
        draw("separated", 0, preset, folder, pages.DOCS / "ring.png")
        draw_tuning(0, preset, folder, pages.DOCS / "ring_tuning.png")


if __name__ == "__main__":
    main()
