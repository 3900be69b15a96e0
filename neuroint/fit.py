"""The state of one training run: model, optimizer, schedule, average, progress; saved and restored whole."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from neuroint.analysis.leak import Claim, LeakCertificate, certify
from neuroint.config import TrialConfig
from neuroint.config.settings import SPECS
from neuroint.data.base import TRAIN, Facts, Inputs, Session, collate
from neuroint.data.cutmix import check_cutmix
from neuroint.evaluation import Scores
from neuroint.model import STAGES, PopulationModel, build_model, facts_of
from neuroint.optimization import Schedule
from neuroint.prediction import check_prediction
from neuroint.runtime import Runtime
from neuroint.seeding import derive, seed_everything

STATE_FILE, WEIGHTS_FILE = "state.pt", "best.safetensors"
PARTS = {"core": "core", "readout": "readouts", "normalization": "normalization", "interaction": "interaction"}
CERTIFIED_FRAMES = 16  # beyond what the core consumes; enough to see a leak across the cut
GATES_OPENED = 0.3  # how far a stage's parameters are moved for it, the distance at which contracts look at them, too


@dataclass
class Progress:
    """How far a run has come; epochs are counted from 0."""

    epochs: int
    patience: int
    epoch: int = 0
    score: float = -math.inf
    best: float = -math.inf
    stalled: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or validation has stalled."""
        return self.epoch >= self.epochs or self.stalled >= self.patience


@dataclass
class Fit:
    """Everything that changes while a configuration is trained."""

    config: TrialConfig
    model: PopulationModel
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    progress: Progress
    ema: AveragedModel | None = None
    certificate: LeakCertificate | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    best_scores: Scores = field(default_factory=dict)
    base_rates: list[float] = field(default_factory=list)

    @property
    def evaluated(self) -> PopulationModel:
        """The model that validation sees: the running average, where there is one."""
        return self.model if self.ema is None else self.ema.module  # pyright: ignore[reportReturnType]

    @property
    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters that are not frozen."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def training_mode(self) -> None:
        """Switch to training; frozen parts and frozen batch statistics stay as in evaluation."""
        self.model.train()
        _swap_schedule_free(self.optimizer, "train")
        for name, part in _parts(self.model).items():
            part.train(getattr(self.config.init, name) != "frozen")
        if self.config.train.batch_statistics == "frozen":
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def evaluation_mode(self) -> None:
        """Switch to evaluation; a schedule-free optimizer puts its average in place."""
        _swap_schedule_free(self.optimizer, "eval")
        self.evaluated.eval()

    def set_learning_rate(self, epoch: float) -> None:
        """Scale the learning rates of all groups."""
        factor = self.schedule.factor(epoch, self.config.train.epochs)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def observe(self, score: float, scores: Scores) -> None:
        """Take note of an epoch's validation score and keep the weights when it is the best."""
        progress = self.progress
        progress.epoch += 1
        progress.score = score
        progress.stalled += 1
        self.schedule.observe(score)
        better = not (math.isnan(score) or score <= progress.best)  # than an undefined one, too
        if better or not self.best_weights:
            progress.best, progress.stalled = score, 0
            self.best_weights = {k: v.detach().clone().contiguous() for k, v in self.evaluated.state_dict().items()}
            self.best_scores = scores

    def save(self, folder: Path) -> None:
        """Write a checkpoint: tensors and plain numbers only."""
        save_file(self.best_weights, str(folder / WEIGHTS_FILE))
        torch.save(
            {
                "model": self.model.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "progress": asdict(self.progress),
                "best_scores": {name: torch.as_tensor(values) for name, values in self.best_scores.items()},
            },
            folder / STATE_FILE,
        )

    def restore(self, folder: Path, device: torch.device) -> None:
        """Go on from a checkpoint written by ``save``."""
        state = torch.load(folder / STATE_FILE, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.progress = Progress(**state["progress"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.best_weights = load_file(str(folder / WEIGHTS_FILE), device=str(device))
        self.best_scores = {name: values.cpu().numpy() for name, values in state["best_scores"].items()}


def prepare(config: TrialConfig, sessions: list[Session], runtime: Runtime, dtype: torch.dtype) -> Fit:
    """Build, initialize, certify and, after an interruption, restore a run."""
    seed_everything(derive(config.seed, "init"))
    model = model_for(config, sessions).to(runtime.device, dtype)
    start(model, config)
    certificate = certify_model(model, sessions[0], runtime.device, dtype)
    groups = _parameter_groups(model, config)
    optimizer = _build("optimizer", config, groups)
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("factor", 1.0)
    fit = Fit(
        config=config,
        model=model,
        objective=_build("objective", config),
        optimizer=optimizer,
        schedule=_build("schedule", config),
        progress=Progress(config.train.epochs, config.train.patience),
        ema=_average(model, config.train.ema),
        certificate=certificate,
        base_rates=[group["lr"] for group in optimizer.param_groups],
    )
    if found := runtime.checkpoint():
        fit.restore(found, runtime.device)
    if config.train.compile:
        model.core.compile()
    return fit


def model_for(config: TrialConfig, sessions: list[Session]) -> PopulationModel:
    """Build the model of a configuration, for the frames that it reads of these sessions.

    Raises:
        ValueError: it cannot be built, or its clips cannot be mixed.
    """
    train = config.train
    model = build_model(config.specs, facts_of(sessions, train.frame_stride), config.observed.lag_bins)
    clips = train.batch_size // config.resources.workers
    check_cutmix(train.cutmix, sessions, clips, model.information, model.reads_recorded)
    return model


def start(model: PopulationModel, config: TrialConfig) -> None:
    """Load what the configuration starts from into a model.

    Raises:
        ValueError: neurons are subsampled that a stage reads, clips are cut that the core needs whole, frames are
            left out or windows averaged where that cannot be, or ``init.source`` holds nothing that fits.
    """
    check_prediction(model, config)
    _check_whole_clips(model.core, config)
    if config.train.neurons_per_step and model.needs_population:
        raise ValueError(
            f"train.neurons_per_step={config.train.neurons_per_step} drops neurons that "
            f"{config.specs['normalization'].name}/{config.specs['interaction'].name} reads; remove one of the two"
        )
    if config.init.source:
        frozen = [part for part in PARTS if getattr(config.init, part) == "frozen"]
        load_weights(model, Path(config.init.source), frozen)


def _check_whole_clips(core: nn.Module, config: TrialConfig) -> None:
    """Refuse to cut clips for a core that counts frames, or remembers, from the beginning of a clip."""
    name, train = config.specs["core"].name, config.train
    if getattr(core, "whole_clips", False) and train.evaluation_frames is not None:
        raise ValueError(
            f"core '{name}' reads clips from their beginning, and train.evaluation_frames={train.evaluation_frames} "
            "would cut them; leave it out"
        )
    clip = getattr(core, "clip_frames", train.frames)
    if train.frames != clip:
        raise ValueError(
            f"core '{name}' has a value for each of the {clip} frames of a clip, and train.frames={train.frames} would "
            f"cut crops that begin anywhere; set train.frames: {clip}"
        )


def certify_model(
    model: PopulationModel, session: Session, device: torch.device, dtype: torch.dtype
) -> LeakCertificate:
    """Compute the leak certificate on the first frames of the session's shortest training clip.

    It is computed on a copy whose stages have moved away from where they start: there most of them add nothing yet, and
    a leak behind a gate of zero would not show.
    """
    clip = int(min(session.clips(TRAIN), key=lambda c: session.lengths[c]))
    lag = model.recorded.lag_bins if model.recorded else 0
    frames = min(int(session.lengths[clip]), model.lost_frames + lag + CERTIFIED_FRAMES)
    read = session.source.read(clip, 0, frames)
    inputs: Inputs = collate(session.name, [clip, clip], [read, read]).to(device, dtype).inputs
    moved = _with_open_gates(model).eval()
    return certify(lambda x: moved(x, session.name), inputs, claim_of(model, session.facts))


def _with_open_gates(model: PopulationModel) -> PopulationModel:
    """Copy a model and move every parameter of its stages a little."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    stages = (parameter for slot in STAGES for parameter in getattr(moved, slot).parameters())
    with torch.no_grad():
        for parameter in stages:
            parameter += GATES_OPENED * torch.randn(parameter.shape, generator=generator).to(parameter)
    return moved


def claim_of(model: PopulationModel, facts: Facts) -> Claim:
    """What a model says it reads of a session.

    Neurons that are only reconstructed in training are never scored: their own record does not count as forbidden.
    """
    offer = model.recorded if model.reads_recorded else None
    own = torch.full((facts.n_neurons,), -1)
    unscored = facts.recorded is not None and facts.recorded.reconstructs
    for channel, neuron in enumerate([] if facts.observed_neurons is None or unscored else facts.observed_neurons):
        if neuron >= 0:
            own[neuron] = channel
    return Claim(model.information, model.causal, offer, own)


def load_weights(model: PopulationModel, source: Path, frozen: Sequence[str] = ()) -> None:
    """Copy what a fitted run has in common with this model: the core, and the parts of sessions that both know.

    What matched neurons share is copied where they are the same neurons, of the same sessions.

    Raises:
        ValueError: the file is missing, or has nothing that fits the core or a part that is to be frozen.
    """
    file = source / WEIGHTS_FILE if source.is_dir() else source
    if not file.is_file():
        raise ValueError(f"init.source: {file} does not exist; give a run's folder or a .safetensors file")
    weights, wanted = load_file(str(file)), model.state_dict()
    others = _of_other_cells(weights, wanted)
    fitting = {k: v for k, v in weights.items() if k in wanted and wanted[k].shape == v.shape and k not in others}
    if any(key.startswith("core.") and key not in fitting for key in wanted):
        raise ValueError(
            f"init.source: {file} holds no core of this shape ({len(weights)} tensors, {len(fitting)} fit); "
            "use the core, with the same options, that the run was fitted with"
        )
    for part in frozen:
        if lacking := [key for key in wanted if key.startswith(f"{PARTS[part]}.") and key not in fitting]:
            raise ValueError(
                f"init.{part} is frozen, but {file} holds no {lacking[0]} of this shape; set init.{part} to "
                "trained, or start from a run on the same sessions with the same design"
            )
    model.load_state_dict(fitting, strict=False)


def _of_other_cells(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> set[str]:
    """Name what matched neurons share in a file or a model, where the other holds none of it or that of others."""
    ids = [key for key in {*weights, *wanted} if key.endswith((".match_ids", ".row_ids"))]
    differ = [k for k in ids if k not in weights or k not in wanted or not torch.equal(weights[k], wanted[k].cpu())]
    readouts = {key.rpartition(".")[0] for key in differ}
    return {f"{readout}.{name}" for readout in readouts for name in ("weights", "scale", "match_ids", "row_ids")}


def load_finished(model: nn.Module, file: Path) -> None:
    """Copy the weights of a finished run into the model of its configuration: all of them, and nothing else.

    Raises:
        ValueError: the file is missing, or a weight is lacking, too many, or of another shape.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist; give the {WEIGHTS_FILE} of a finished run")
    weights, wanted = load_file(str(file)), model.state_dict()
    lacking, strange = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    misshaped = [k for k in wanted.keys() & weights.keys() if wanted[k].shape != weights[k].shape]
    faults = [f"lacks {lacking[0]} ({len(lacking)} in all)"] if lacking else []
    faults += [f"holds {strange[0]} ({len(strange)} in all) of its own"] if strange else []
    faults += [f"holds {k} as {tuple(weights[k].shape)}, expected {tuple(wanted[k].shape)}" for k in misshaped[:1]]
    faults += [f"holds {k} of other matched neurons" for k in sorted(_of_other_cells(weights, wanted))[:1]]
    if faults:
        raise ValueError(
            f"{file.name} {' and '.join(faults)}: a part without its weights would be scored untrained; "
            "score a run with the configuration, sessions and neurons that it was trained with"
        )
    model.load_state_dict(weights)


def _parameter_groups(model: PopulationModel, config: TrialConfig) -> list[dict[str, Any]]:
    """Freeze parts, and give finetuned ones a lower learning rate."""
    groups = []
    for name, part in _parts(model).items():
        how = getattr(config.init, name)
        part.requires_grad_(how != "frozen")
        parameters = [p for p in part.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "factor": {"finetuned": config.init.finetune_factor}.get(how, 1.0)})
    if not groups:
        raise ValueError("nothing is left to train: every part is frozen or has no parameters; set one to trained")
    return groups


def _parts(model: PopulationModel) -> dict[str, nn.Module]:
    """What ``init`` speaks of, by name."""
    return {name: model.get_submodule(path) for name, path in PARTS.items()}


def _build(key: str, config: TrialConfig, *positional: Any) -> Any:
    component = SPECS[key][config.specs[key].name]
    options, _ = component.validate(config.specs[key].options)
    return component.factory(*positional, **options)


def _average(model: PopulationModel, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=partial(_moved, get_ema_multi_avg_fn(decay)), use_buffers=True)


@torch.no_grad()
def _moved(move: Callable[..., None], averages: Sequence[Tensor], current: Sequence[Tensor], steps: Any) -> None:
    """Move averages; whole numbers (who is whose neighbor) are copied, which torch's function would round."""
    if averages[0].dtype.is_floating_point:
        move(averages, current, steps)
    else:
        for average, value in zip(averages, current, strict=True):
            average.copy_(value)


def _swap_schedule_free(optimizer: torch.optim.Optimizer, mode: str) -> None:
    swap = getattr(optimizer, mode, None)
    if swap is not None:
        swap()
