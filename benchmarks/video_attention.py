"""Do maps of attention show that receptive fields move with the eye, and nothing where they do not?

``python benchmarks/video_attention.py`` simulates two animals whose receptive fields move with the pupil and whose
neurons have a gain of arousal, and twins with the same cells, stimuli and behavior and neither; fits ``v1t`` and
``vivit`` to both, to the first with behavior swapped between clips in training as well, and to the first with a readout
that may move by the pupil; and holds attention in dev-test clips against behavior, beside the same networks before
training. Fits and rows are kept in a folder, and a second call goes on where the first stopped. ``--write-docs`` writes
table and figure into ``docs/attention_maps.md`` and ``docs/attention_maps.png``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch

from neuroint.analysis.attention_behavior import RUNNING, behavior_in_attention
from neuroint.analysis.following import Following, Swap, swap
from neuroint.analysis.video_attention import attention_of
from neuroint.config import TrialConfig, parse_sweep
from neuroint.data.base import DEV_TEST, Inputs, Session, collate
from neuroint.data.opening import open_sessions
from neuroint.data.simulators.v1 import simulate_v1
from neuroint.data.swapped import others, swap_behavior
from neuroint.evaluation import pooled_mean, score
from neuroint.fit import WEIGHTS_FILE, load_finished
from neuroint.model import PopulationModel, build_model, facts_of
from neuroint.report.attention_maps import ShownClip, draw_attention
from neuroint.runtime import LocalRuntime
from neuroint.seeding import seed_everything
from neuroint.train import score_weights, train_trial

ROOT = Path(__file__).parent.parent
PAGE, FIGURE = pages.DOCS / "attention_maps.md", pages.DOCS / "attention_maps.png"
METRIC = "single_trial_correlation"
DEGREES_PER_PIXEL, GAZE_DEG, LATER_FRAMES = 3.5, 3.0, 15
SWAP_SEED = 0
PUPIL_SD_PX = np.array([4.9, 6.9])  # of the camera, as simulated
SIZES = {"sessions": 2, "neurons": 192, "train_clips": 60, "stimuli": 6, "repeats": 2, "median_rate": 10.0}
WORLDS = {
    "moving": {"gaze_deg": GAZE_DEG, "behavior_gain": 0.3},
    "twin": {"gaze_deg": 0.0, "behavior_gain": 0.0},
}
BLOCKS = {"width": 32, "heads": 2, "head_width": 16, "hidden": 64, "dropout": 0.0}
CORES: dict[str, dict[str, Any]] = {
    "v1t": {"patch_px": 7, "stride_px": 3, "blocks": 2, "token_dropout": 0.0},
    "vivit": {
        "tubelet_frames": 4,
        "tubelet_px": 7,
        "stride_px": 3,
        "spatial_blocks": 2,
        "temporal_blocks": 1,
        "registers": 1,
        "hidden_dropout": 0.0,
        "patch_dropout": 0.0,
        "drop_path": 0.0,
    },
}
TRAINING = {
    "v1t": {"frames": 2, "batch_size": 32},  # frame by frame: many clips, few frames of each
    "vivit": {"frames": 8, "batch_size": 12},
}
_WAYS = ("own", "mispaired", "passed_on", "left_over")
KINDS = {
    "x": "rollout x ~ pupil x",
    "y": "rollout y ~ pupil y",
    "time": "attention over time ~ running",
    "rate": "mean rate ~ running",
}


@dataclass(frozen=True)
class Fit:
    """What is fitted to what.

    Attributes:
        about: for the table.
        world: which simulation.
        swapped: whether behavior is another clip's in training, too.
        shifter: whether the readout may move by the pupil.
        epochs: of 100 steps; 0 leaves the network as it was drawn.
    """

    about: str
    world: str = "moving"
    swapped: bool = False
    shifter: bool = False
    epochs: int = 6


FITS = {
    "moving": Fit("moving fields, gain"),
    "twin": Fit("twin: neither", world="twin"),
    "swapped": Fit("moving, but behavior swapped in training", swapped=True),
    "shifter": Fit("moving, readout with `shifter`", shifter=True),
    "untrained": Fit("not trained", epochs=0),
}


def sessions_of(fit: Fit, folder: Path) -> list[Session]:
    """Simulate a world, unless it is there, and open it."""
    where = folder / fit.world
    if not where.is_dir():
        simulate_v1(where, preset="tiny", seed=1, **SIZES, **WORLDS[fit.world])
    normalization = {"input_normalization": "per_channel", "response_normalization": "per_neuron"}
    return open_sessions(str(where), "sensorium2023", normalization)


def configuration(core: str, fit: Fit, seed: int) -> TrialConfig:
    """The same choices for every fit of a core."""
    sweep = parse_sweep(
        {
            "name": "attention_maps",
            "core": {"name": core, **BLOCKS, **CORES[core]},
            "readout": {"name": "gaussian", "shifter": fit.shifter},
            "link": "softplus",
            "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_epochs": 1},
            "train": {"epochs": max(1, fit.epochs), "steps_per_epoch": 100, "patience": 99, **TRAINING[core]},
            "score": {"metric": METRIC},
            "search": {"trials": 1},
            "reference": "one",
            "arms": {"one": {}},
        }
    )
    return sweep.trial("one", {}, key="fit", phase="confirm", seed=seed)


def fitted(core: str, name: str, seed: int, folder: Path) -> tuple[PopulationModel, list[Session], float | None]:
    """Fit, or read the kept weights of the epoch that was best on validation; with the score on dev-test."""
    fit = FITS[name]
    config, sessions = configuration(core, fit, seed), sessions_of(fit, folder)
    kept = folder / f"{core}-{name}-{seed}-{WEIGHTS_FILE}"
    seed_everything(seed)
    model = build_model(config.specs, facts_of(sessions)).eval()
    if not fit.epochs:
        return model, sessions, None
    if not kept.is_file():
        _train(config, [swap_behavior(session, seed) if fit.swapped else session for session in sessions], kept)
    load_finished(model, kept)
    moments = score_weights(config, sessions, kept, LocalRuntime(device=torch.device("cpu")), DEV_TEST)
    return model.eval(), sessions, pooled_mean(score(moments, METRIC))


def _train(config: TrialConfig, sessions: list[Session], kept: Path) -> None:
    began, best = time.perf_counter(), kept.with_suffix(".part")

    def keep(metrics: dict[str, Any], found: Path | None) -> None:
        shutil.copyfile(Path(str(found)) / WEIGHTS_FILE, best)

    train_trial(config, sessions, LocalRuntime(on_report=keep, device=torch.device("cpu")))
    best.rename(kept)
    print(f"{kept.name}: {time.perf_counter() - began:.0f} s", flush=True)


def rows_of(core: str, name: str, seed: int, folder: Path, draws: int) -> list[dict[str, Any]]:
    """The four numbers of every pair of traces, for one fit; kept."""
    file = folder / f"{core}-{name}-{seed}-{draws}.json"
    if file.is_file():
        return json.loads(file.read_text())
    commit = pages.commit()
    model, sessions, predicts = fitted(core, name, seed, folder)
    found = behavior_in_attention(model.core, sessions, DEV_TEST, later_frames=LATER_FRAMES, draws=draws)
    found["rate"] = rate_and_running(model, sessions, draws)
    about = {"core": core, "fit": name, "seed": seed, "predicts": predicts, "commit": commit}
    rows = [{**about, "kind": kind, **_numbers(numbers)} for kind, numbers in found.items()]
    file.write_text(json.dumps(rows, indent=1))
    return rows


def _numbers(found: Swap) -> dict[str, Any]:
    def told(one: Following) -> dict[str, float]:
        return {"correlation": one.correlation, "slope": one.slope, "p": one.p}

    return {way: told(getattr(found, way)) for way in _WAYS}


@torch.no_grad()
def rate_and_running(model: PopulationModel, sessions: Sequence[Session], draws: int) -> Swap:
    """Hold the mean predicted rate against running in the same way: where a gain should show."""
    given, own, swapped, running = {}, {}, {}, {}
    for session in sessions:
        name, clips = session.name, session.clips(DEV_TEST)
        given[name] = others(len(clips), SWAP_SEED)
        recorded, exchanged = (_inputs(one, clips) for one in (session, swap_behavior(session, SWAP_SEED)))
        own[name], swapped[name] = (model(one, name).mean(2).numpy() for one in (recorded, exchanged))
        running[name] = recorded.behavior[:, model.lost_frames :, RUNNING].numpy()  # pyright: ignore[reportOptionalSubscript]
    return swap(own, swapped, running, given, draws=draws)


def _inputs(session: Session, clips: np.ndarray) -> Inputs:
    frames = int(session.lengths[clips].min())
    parts = [session.source.read(int(clip), 0, frames) for clip in clips]
    return collate(session.name, clips.tolist(), parts).inputs


def draw(core: str, name: str, seed: int, folder: Path, file: Path) -> None:
    """Draw the dev-test clip of the first session in which running varies most."""
    model, (session, *_), _ = fitted(core, name, seed, folder)
    found = attention_of(model.core, session, DEV_TEST, later_frames=LATER_FRAMES)
    if found.pupil is None or found.behavior is None:
        raise ValueError(f"session '{session.name}' has no pupil or no behavior, which the figure shows")
    clip, lost = int(found.behavior[..., RUNNING].std(1).argmax()), model.lost_frames
    number = int(found.clips[clip])
    video = session.source.read(number, 0, lost + found.spatial.shape[1]).stimulus
    assert video is not None
    height, width = video.shape[2:]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shown = ShownClip(
        video=video[lost:, 0],
        spatial=found.spatial[clip],
        usual=found.spatial.mean((0, 1)),
        grid=model.core.place_grid,  # pyright: ignore[reportArgumentType]
        center_px=found.center_px[clip],
        pupil_px=middle + found.pupil[clip] * PUPIL_SD_PX * GAZE_DEG / DEGREES_PER_PIXEL,
        temporal=None if found.temporal is None else found.temporal[clip],
        running=found.behavior[clip, :, RUNNING],
        bin_s=session.facts.bin_s or 1.0,
        begins_s=lost * (session.facts.bin_s or 1.0),
    )
    draw_attention(shown, file, title=f"{core}, {FITS[name].about}: dev-test clip {number} of {session.name}")


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line per core, fit and pair, with the numbers of every seed."""
    lines = [
        "| core | fitted to | predicts | pair | own: r (p) | slope | mispaired | passed on | left over |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (core, fit, kind), given in groupby(sorted(rows, key=_place), _one):
        seeds = list(given)
        predicts = "" if seeds[0]["predicts"] is None else ", ".join(f"{row['predicts']:.3f}" for row in seeds)
        slopes = ", ".join(f"{row['own']['slope']:+.2f}" for row in seeds)
        cells = {way: _of_seeds([row[way] for row in seeds]) for way in _WAYS}
        lines.append(
            f"| `{core}` | {FITS[fit].about} | {predicts} | {KINDS[kind]} | {cells['own']} | {slopes} | "
            f"{cells['mispaired']} | {cells['passed_on']} | {cells['left_over']} |"
        )
    return "\n".join(lines)


def _one(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["core"], row["fit"], row["kind"]


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    return list(CORES).index(row["core"]), list(FITS).index(row["fit"]), list(KINDS).index(row["kind"]), row["seed"]


def _of_seeds(found: list[dict[str, float]]) -> str:
    """Correlations of all seeds, and the range of their p."""
    correlations = ", ".join(f"{one['correlation']:+.2f}" for one in found)
    ends = dict.fromkeys(f"{end(one['p'] for one in found):.4f}" for end in (min, max))
    return f"{correlations} ({' to '.join(ends)})"


def main() -> None:
    """Fit, hold against behavior, print, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=list(CORES))
    parser.add_argument("--fits", nargs="+", default=list(FITS), choices=list(FITS))
    parser.add_argument("--seeds", type=int, default=1, help="of networks and training; the data stay")
    parser.add_argument("--draws", type=int, default=1999, help="of every null")
    parser.add_argument("--keep", type=Path, default=ROOT / "results" / "attention_maps", help="data, fits and rows")
    parser.add_argument("--write-docs", action="store_true", help="write docs/attention_maps.md and .png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.keep.mkdir(parents=True, exist_ok=True)
    fits = {f"{core} {name}": configuration(core, fit, 0).flat() for core in CORES for name, fit in FITS.items()}
    asked = [LATER_FRAMES, SWAP_SEED, SIZES, WORLDS, {name: asdict(fit) for name, fit in FITS.items()}]
    settings = json.dumps([*asked, fits], default=str)
    _refuse_others(options.keep / "settings.json", settings)
    rows = []
    for core in options.cores:
        for name in options.fits:
            for seed in range(options.seeds):
                found = rows_of(core, name, seed, options.keep, options.draws)
                print(markdown(found), flush=True)
                rows += found
    if options.write_docs:
        command = f"python benchmarks/video_attention.py --seeds {options.seeds}"
        fits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
        pages.put(PAGE, "table", command, markdown(rows), about=f"fits of {fits}")
    drawn = FIGURE if options.write_docs else options.keep / "attention_maps.png"
    draw(options.cores[-1], "moving", 0, options.keep, drawn)


def _refuse_others(file: Path, settings: str) -> None:
    """Kept fits are used only by the settings that made them."""
    if file.is_file() and file.read_text() != settings:
        raise SystemExit(f"{file.parent} keeps fits of other settings; remove it, or choose another folder with --keep")
    file.write_text(settings)


if __name__ == "__main__":
    main()
