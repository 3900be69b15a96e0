"""What every core, readout, stage and link owes, written once and applied to all that are registered.

Components are built from small facts; where their defaults are large or need more than those facts, ``OPTIONS`` names
smaller choices. A component that is not named there is built with its defaults.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroint import registry
from neuroint.data.base import Inputs
from neuroint.model import PopulationModel
from neuroint.modules.base import Context

NEURONS, CHANNELS, BATCH, FRAMES = 5, 3, 2, 14
STIMULUS = (1, 7, 9)

FACTS: dict[str, Any] = {
    "stimulus_shape": STIMULUS,
    "behavior_channels": 2,
    "pupil_channels": 2,
    "observed_channels": NEURONS,
    "observed_neurons": np.arange(NEURONS),
    "bin_s": 1 / 30,
    "shortest_clip": FRAMES,
    "feature_shape": (CHANNELS, 4, 5),
    "n_neurons": NEURONS,
    "mean_drive": np.linspace(-0.5, 0.5, NEURONS, dtype=np.float32),
    "mean_responses": np.linspace(0.3, 0.9, NEURONS, dtype=np.float32),
    "positions_um": np.random.default_rng(7).uniform(0, 200, (NEURONS, 3)).astype(np.float32),
    "embedding_channels": CHANNELS,
}

NO_DROPOUT = {"dropout": 0.0, "dropout_rates": 0.0, "dropout_embedding": 0.0}

OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("core", "factorized_conv3d"): {"channels": (3, 4), "spatial_kernels": (3, 2), "temporal_kernels": (3, 2)},
    ("core", "conv3d"): {"channels": (3, 4), "spatial_kernels": (3, 2), "temporal_kernels": (3, 2)},
    ("core", "conv2d"): {"channels": (3, 4), "spatial_kernels": (3, 2)},
    ("core", "linear"): {"lags": 3, "downsample": 2},
    ("core", "ndt"): {"frames": 6, "layers": 2, "heads": 1, "hidden": 4, **NO_DROPOUT},
    ("core", "stndt"): {"frames": 6, "layers": 2, "heads": 1, "hidden": 4, **NO_DROPOUT},
    ("core", "stndt_fixed"): {"frames": 6, "layers": 2, "heads": 1, "hidden": 4, **NO_DROPOUT},
    ("core", "gabor_energy"): {"wavelengths_px": (3.0, 5.0), "channels": (4,), "spatial_kernels": (2,)},
    ("core", "v1t"): {
        "patch_px": 3,
        "stride_px": 2,
        "width": 6,
        "blocks": 2,
        "heads": 2,
        "head_width": 4,
        "hidden": 8,
        "dropout": 0.0,
        "token_dropout": 0.0,  # finite differences need the same numbers twice
    },
    ("core", "vivit"): {
        "tubelet_frames": 3,
        "tubelet_px": 3,
        "width": 6,
        "spatial_blocks": 1,
        "temporal_blocks": 2,
        "heads": 2,
        "head_width": 4,
        "hidden": 8,
        "registers": 2,
        "dropout": 0.0,
        "hidden_dropout": 0.0,
        "patch_dropout": 0.0,
        "drop_path": 0.0,
    },
    ("core", "depthwise_conv3d"): {
        "stem": 3,
        "widths": (3, 4),
        "strides": (2, 1),
        "expansion": 2,
        "temporal_kernel": 3,
        "reduction": 2,
        "cortex": (6,),
        "drop_path": 0.0,
    },
    ("core", "conv_gru"): {
        "features": (2, 2),
        "sides_px": (3, 3),
        "orders": (1, 1),
        "directions": 2,
        "gru_channels": 3,
        "input_px": 3,
        "memory_px": 3,
    },
    ("readout", "cortex"): {"groups": 3, "dropout": 0.0},
    ("readout", "attention"): {"width": 4},
    ("core", "seq2seq"): {"latents": 3},
    ("core", "reduced_rank"): {"latents": 2, "before": 2},
    ("core", "input_separated_rnn"): {"hidden": 4, "driven": 3},
    ("normalization", "population_pool"): {"neighbors": 3},
    ("normalization", "organics"): {"neighbors": 3},
    ("normalization", "group"): {"group_neurons": 3},
    ("normalization", "permuted_positions"): {"of": {"name": "population_pool", "neighbors": 3}},
    ("normalization", "permuted_identities"): {"of": {"name": "population_pool", "neighbors": 3}},
    ("interaction", "permuted_positions"): {"of": {"name": "distance_kernel", "neighbors": 3}},
    ("interaction", "permuted_identities"): {"of": {"name": "attention", "heads": 2, "head_width": 3}},
    ("interaction", "attention"): {"heads": 2, "head_width": 3},
    ("interaction", "low_rank_recurrent"): {"rank": 2},
    ("interaction", "distance_kernel"): {"neighbors": 3, "distance_bases": 3},
    ("interaction", "coupled_glm"): {"neighbors": 3, "history_bins": 4, "history_bases": 2, "coupling_bins": 5},
    ("interaction", "population_film"): {"summaries": 2, "filter_bins": 5, "filter_bases": 2},
    ("interaction", "latent"): {"latents": 2, "filter_bins": 5, "filter_bases": 2},
    ("interaction", "neighbor_attention"): {"heads": 2, "head_width": 3, "neighbors": 3},
    ("interaction", "dynamic_attention"): {"heads": 2, "head_width": 3, "position_bases": 2},
    ("interaction", "inducing_attention"): {"heads": 2, "head_width": 3, "points": 3},
    ("interaction", "linear_attention"): {"heads": 2, "head_width": 4},
    ("interaction", "message_passing"): {"neighbors": 3, "hidden": 4, "edge_width": 3},
    ("interaction", "population_mean"): {"means": 2, "hidden": 4},
}


def build(kind: registry.Registry[Any], name: str, seed: int = 0, **facts: Any) -> Any:
    """Build a registered component in float64 from small facts, its parameters drawn after ``seed``."""
    torch.manual_seed(seed)
    return kind[name].build(OPTIONS.get((kind.kind, name), {}), FACTS | facts).double()


def perturbed(module: nn.Module, seed: int = 1) -> nn.Module:
    """Move every parameter a little, so that gates that start at zero are open."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def inputs(seed: int = 2, frames: int = FRAMES) -> Inputs:
    """Draw inputs of every kind."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(BATCH, frames, *shape, generator=generator, dtype=torch.float64)

    return Inputs(stimulus=draw(*STIMULUS), behavior=draw(2), pupil=draw(2), observed=draw(NEURONS))


def drive(seed: int = 3, neurons: int = NEURONS) -> Tensor:
    """Draw a drive."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, FRAMES, neurons, generator=generator, dtype=torch.float64)


def context(seed: int = 4, frames: int = FRAMES) -> Context:
    """Draw the embeddings and the (lagged) recorded activity that stages may look at."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(NEURONS, CHANNELS, generator=generator, dtype=torch.float64)
    observed = torch.rand(BATCH, frames, NEURONS, generator=generator, dtype=torch.float64)
    return Context(embedding=embedding, observed=observed)


class RecordingLink(nn.Module):
    """A softplus that keeps the drives it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.drives: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.drives.append(x)
        return nn.functional.softplus(x)


def run_stage(stage: nn.Module, x: Tensor, around: Context, memory: Any = None) -> tuple[Tensor, Any]:
    """Run a stage in the model's own frame loop, behind a softplus link: drives out, and what the next chunk needs.

    Recorded activity in the context ends where the drive ends.
    """
    link = RecordingLink()
    model = PopulationModel(nn.Identity(), {"one": nn.Identity()}, {"one": {"interaction": stage}}, link)
    _, state = model.respond(x, "one", around, memory)
    whole = len(link.drives) == 1 and link.drives[0].dim() == 3
    return (link.drives[0] if whole else torch.stack(link.drives, 1)), state


def first_frames(around: Context, frames: int) -> Context:
    """The context of the first frames of a clip."""
    return replace(around, observed=None if around.observed is None else around.observed[:, :frames])


def check_causal(run: Callable[[Inputs], Tensor], lost_frames: int) -> None:
    """Change everything after a frame, and require that what was predicted up to it has not moved by one bit."""
    for last in (lost_frames, (lost_frames + FRAMES) // 2, FRAMES - 2):
        given, other = inputs(), inputs(seed=12)
        later = given.map(lambda x: x.clone())
        for name in ("stimulus", "behavior", "pupil", "observed"):
            getattr(later, name)[:, last + 1 :] = getattr(other, name)[:, last + 1 :]
        kept = last + 1 - lost_frames
        before, after = run(given)[:, :kept], run(later)[:, :kept]
        assert torch.equal(before, after), f"frames after {last} changed what was predicted up to it"


def check_clips_do_not_mix(run: Callable[[Inputs], Tensor]) -> None:
    """Change the second clip, and require that the first clip's output has not moved by one bit."""
    given, other = inputs(), inputs(seed=12)
    swapped = given.map(lambda x: x.clone())
    for name in ("stimulus", "behavior", "pupil", "observed"):
        getattr(swapped, name)[1] = getattr(other, name)[1]
    before, after = run(given), run(swapped)
    assert torch.equal(before[0], after[0]), "one clip of a batch changed another"
    assert before.shape[0] == BATCH


def drive_as_inputs(stage: nn.Module) -> Callable[[Inputs], Tensor]:
    """Let a stage be run by the checks above: its drive is the first numbers of the stimulus."""

    def run(given: Inputs) -> Tensor:
        assert given.stimulus is not None
        return run_stage(stage, given.stimulus.flatten(2)[..., :NEURONS], context())[0]

    return run


def gradient_reaches(module: nn.Module, run: Callable[[], Tensor]) -> dict[str, bool]:
    """Say for every parameter whether a random weighing of the output moves with it (None counts as a failure)."""
    module.zero_grad()
    out = run()
    out.mul(torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype)).sum().backward()
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    missing = [name for name, grad in grads.items() if grad is None]
    assert not missing, f"no gradient at all for {missing}: they would be unused parameters"
    return {name: bool((grad.abs() > 1e-12).any()) for name, grad in grads.items() if grad is not None}


def check_gradients(module: nn.Module, run: Callable[..., Tensor], *given: Tensor) -> None:
    """Compare gradients of inputs and parameters with finite differences in float64."""
    names = [name for name, _ in module.named_parameters()]
    parameters = [parameter.detach().requires_grad_() for _, parameter in module.named_parameters()]
    xs = [x.detach().requires_grad_() for x in given]

    def of(*tensors: Tensor) -> Tensor:
        values = dict(zip(names, tensors[len(xs) :], strict=True))
        return torch.func.functional_call(
            _Run(module, run), {f"module.{k}": v for k, v in values.items()}, tensors[: len(xs)]
        )

    assert torch.autograd.gradcheck(of, (*xs, *parameters), fast_mode=True, atol=1e-6)


class _Run(nn.Module):
    def __init__(self, module: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *given: Tensor) -> Tensor:
        return self.run(self.module, *given)


def check_survives_storage(make: Callable[[int], nn.Module], run: Callable[[nn.Module], Tensor]) -> None:
    """Require equal outputs after pickling, and after loading the weights into another draw."""
    module = perturbed(make(0)).eval()
    out = run(module)
    assert torch.equal(run(pickle.loads(pickle.dumps(module))), out)
    other = make(5).eval()
    state: Mapping[str, Any] = {name: value.clone() for name, value in module.state_dict().items()}
    other.load_state_dict(state, strict=True)
    assert torch.equal(run(other), out)
    storages = [value.untyped_storage().data_ptr() for value in module.state_dict().values() if value.numel()]
    assert len(set(storages)) == len(storages), "two names share one tensor, which safetensors refuses"


def check_repeats_by_seed(make: Callable[[int], nn.Module], run: Callable[[nn.Module], Tensor]) -> None:
    """Require that one seed gives one result in training, random draws included."""
    outs = []
    for _ in range(2):
        module = make(3).train()
        torch.manual_seed(11)
        outs.append(run(module))
    assert torch.equal(*outs)
