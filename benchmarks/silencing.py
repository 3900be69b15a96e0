"""Do the neurons that spatial attention reads most matter more than neurons like them, and do seeds agree which?

``python benchmarks/silencing.py --write-docs`` fits ``stndt`` and ``stndt_fixed`` with three seeds to the generated
chaotic network of ``neuroint data simulate nlb --preset test``, and to a twin in which six known held-in neurons drive
all held-out ones; takes in-degrees from training clips; silences the most attended neurons in dev-test clips against
controls of the same rate and SNR; and holds in-degree against what each neuron truly tells, beside networks that were
never trained. Fits and rows are kept in ``results/silencing``, and a second call goes on where the first stopped. A
process takes one thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from silencing_parts.tables import markdown
from silencing_parts.worlds import BIN_MS, WORLDS, World, told_by_each

from neuroint.analysis.attended import in_degree, relation, spatial_attention
from neuroint.analysis.matching import Traits, traits_of
from neuroint.analysis.silencing import Silenced, Silencer, against_controls, most
from neuroint.config import TrialConfig, parse_sweep
from neuroint.data.base import DEV_TEST, TRAIN
from neuroint.fit import WEIGHTS_FILE, load_finished
from neuroint.model import PopulationModel, build_model, facts_of
from neuroint.runtime import LocalRuntime
from neuroint.seeding import derive, seed_everything
from neuroint.train import train_trial

ROOT = Path(__file__).parent.parent
PAGE = pages.DOCS / "stndt.md"
CORES = ("stndt", "stndt_fixed")
LAYERS = ("mean", "first")


def configuration(core: str, epochs: int, seed: int) -> TrialConfig:
    """The choices of ``search_spaces/stndt.yaml``, searched ones at the middle of their ranges."""
    shared = {"frames": 500 // BIN_MS, "layers": 2, "heads": 1, "hidden": 64, "dropout": 0.2, "dropout_rates": 0.2}
    reach = {"dropout_embedding": 0.3, "context_forward": 13, "context_back": 13}
    masking = {"mode": "full", "least": 0.1, "most": 0.4, "token_ratio": 0.707, "random_ratio": 0.548, "max_span": 4}
    sweep = parse_sweep(
        {
            "name": "silencing",
            "core": {"name": core, **shared, **reach},
            "readout": "linear",
            "link": "exp",
            "objective": {"name": "masked_poisson", "masking": masking},
            "optimizer": {"name": "adamw", "learning_rate": 0.003, "weight_decay": 3e-6},
            "schedule": {"name": "cosine", "warmup_epochs": 3},
            "train": {"epochs": epochs, "frames": 25, "batch_size": 32, "patience": 20, "clip_norm": 200.0},
            "score": {"metric": "bits_per_spike"},
            "search": {"trials": 1},
            "reference": "one",
            "arms": {"one": {}},
        }
    )
    return sweep.trial("one", {}, key="fit", phase="confirm", seed=seed)


def fitted(world: World, config: TrialConfig, kept: Path) -> PopulationModel:
    """Fit, or read the kept weights of the epoch that was best on validation."""
    model = untrained(world, config)
    if not kept.is_file():
        began, best = time.perf_counter(), kept.with_suffix(".part")

        def keep(metrics: dict[str, Any], found: Path | None) -> None:
            shutil.copyfile(Path(str(found)) / WEIGHTS_FILE, best)

        last = train_trial(config, [world.session], LocalRuntime(on_report=keep, device=torch.device("cpu")))
        best.rename(kept)
        print(f"{kept.name}: {last['epoch']} epochs, {time.perf_counter() - began:.0f} s", flush=True)
    load_finished(model, kept)
    return model.eval()


def untrained(world: World, config: TrialConfig) -> PopulationModel:
    """The network as training draws it."""
    seed_everything(derive(config.seed, "init"))
    return build_model(config.specs, facts_of([world.session])).eval()


def row_of(name: str, core: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is told of one fit; kept."""
    file = folder / f"{name}-{core}-{seed}-{options.k}-{options.draws}.json"
    if file.is_file():
        return json.loads(file.read_text())
    world = WORLDS[name](folder)
    config = configuration(core, options.epochs, seed)
    model = fitted(world, config, folder / f"{name}-{core}-{seed}-{options.epochs}-{WEIGHTS_FILE}")
    began, traits = time.perf_counter(), traits_of(world.session)
    degrees = {layers: degrees_of(model, world, layers) for layers in LAYERS}
    degrees["untrained"] = degrees_of(untrained(world, config), world, "mean")
    row = {"world": name, "core": core, "seed": seed, "k": options.k, "measure": traits.measure}
    row |= silenced(model, world, degrees["mean"], traits, options)
    row["relations"] = related(world, degrees, np.array(row["singly"]), traits)
    row["degrees"] = {kind: found.tolist() for kind, found in degrees.items()}
    row["traits"] = traits.table().tolist()
    row["seconds"] = time.perf_counter() - began
    file.write_text(json.dumps(row, indent=1) + "\n")
    print(f"{file.name}: {row['seconds']:.0f} s", flush=True)
    return row


def degrees_of(model: PopulationModel, world: World, layers: Any) -> np.ndarray:
    """In-degree of held-in neurons over training clips."""
    return in_degree(spatial_attention(model, world.session, TRAIN, layers=layers), world.held_in)


def silenced(
    model: PopulationModel, world: World, degree: np.ndarray, traits: Traits, options: argparse.Namespace
) -> dict[str, Any]:
    """Silence the most attended neurons, controls, and true hubs, each in several ways."""
    table, half = traits.table(), options.draws // 2
    mean, zero = (Silencer(model, world.session, DEV_TEST, how=how) for how in ("mean", "zero"))
    true = Silencer(model, world.session, DEV_TEST, against=world.truth(DEV_TEST))
    chosen = most(degree, options.k)
    found = {
        "matched": against_controls(mean.loss, chosen, table, draws=options.draws),
        "any": against_controls(mean.loss, chosen, table, draws=half, nearest=None, caliper=None),
        "zero": against_controls(zero.loss, chosen, table, draws=half),
    }
    if len(world.hubs):
        found["drivers"] = against_controls(mean.loss, world.hubs, table, draws=half)
    told: dict[str, Any] = {"co_bps": mean.intact, "singly": true.singly().tolist(), "chosen": chosen.tolist()}
    told["hubs"] = world.hubs.tolist()
    return told | {way: _numbers(one) for way, one in found.items()}


def _numbers(found: Silenced) -> dict[str, Any]:
    return {
        "lost": found.lost,
        "controls": float(found.controls.mean()),
        "difference": found.difference,
        "interval": found.interval,
        "p": found.p,
        "sets": found.sets,
        "imbalance": found.imbalance.tolist(),
        "caution": found.caution,
    }


def related(
    world: World, degrees: dict[str, np.ndarray], singly: np.ndarray, traits: Traits
) -> dict[str, dict[str, list[float]]]:
    """Correlation and p of in-degree with traits, with what neurons cost singly and with what they truly tell."""
    table, told = traits.table(), told_by_each(world)
    others = {"rate": traits.rate, "reliability": traits.reliability, "singly": singly, "told": told}
    others["drives"] = world.drives
    pairs = {f"{kind} ~ {name}": (degrees[kind], other) for kind in degrees for name, other in others.items()}
    pairs["singly ~ told"] = (singly, told)
    pairs["singly ~ drives"] = (singly, world.drives)
    found: dict[str, dict[str, list[float]]] = {}
    for name, (x, y) in pairs.items():
        plain = relation(x, y)
        found[name] = {"plain": [plain.correlation, plain.p]}
        if not name.endswith(("rate", "reliability")):
            given = relation(x, y, table)
            found[name]["given"] = [given.correlation, given.p]
    return found


def main() -> None:
    """Fit, silence, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--cores", nargs="+", choices=CORES, default=list(CORES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("-k", type=int, default=6, help="how many neurons are silenced together")
    parser.add_argument("--draws", type=int, default=120, help="sets of controls")
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "silencing")
    parser.add_argument("--write-docs", action="store_true", help=f"write the tables into {PAGE.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = [
        row_of(world, core, seed, options.folder, options)
        for world in options.worlds
        for core in options.cores
        for seed in range(options.seeds)
    ]
    text = markdown(rows)
    print(text)
    if options.write_docs:
        pages.put(PAGE, "silencing", "python benchmarks/silencing.py --write-docs", text)


if __name__ == "__main__":
    main()
