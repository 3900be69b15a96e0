"""Which designs are fitted, with what options: the one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from neuroint import registry

STATIC = ("static_saturation", {})


@dataclass(frozen=True)
class Design:
    """A normalization and an interaction.

    Attributes:
        normalization, interaction: registered name and options; interactions stand behind the static control, so that
            what they gain is not a static nonlinearity.
        answers: the truths that this design has the equation of.
        relatives: the truths that it can come near in another form, so that it is no wrong design for them.
        recorded: reads the recorded past.
        null: the design that it must predict better than, besides the static control, before a coupling is believed:
            one that reads the same without saying who acts on whom. Without a null it has no pairs to report: it is
            a normalization, or a null itself.
    """

    normalization: tuple[str, dict[str, Any]] = STATIC
    interaction: tuple[str, dict[str, Any]] = ("none", {})
    answers: tuple[str, ...] = ()
    relatives: tuple[str, ...] = ()
    recorded: bool = False
    null: str | None = None

    @property
    def here(self) -> bool:
        """Whether both parts are registered."""
        return self.normalization[0] in registry.normalizations and self.interaction[0] in registry.interactions


COUPLINGS = ("rate_coupling", "spike_coupling")


def _divides(name: str, *answers: str, near: tuple[str, ...] = (), **options: Any) -> Design:
    return Design(normalization=(name, options), answers=answers, relatives=near)


def _couples(name: str, *answers: str, null: str | None = "population_mean", **options: Any) -> Design:
    near = COUPLINGS if null else ()
    return Design(interaction=(name, options), answers=answers, relatives=near, null=null)


def _reads(name: str, *answers: str, null: str | None = "latent", **options: Any) -> Design:
    return replace(_couples(name, *answers, null=null, **options), recorded=True)


ISOTROPIC: dict[str, Any] = {
    "lateral_um": 480.0,
    "depth_um": 480.0,
}  # the simulated circuit knows one distance, and reaches 480 um
KERNEL: dict[str, Any] = {"neighbors": 47, "distance_bases": 8, **ISOTROPIC}
NEAR: dict[str, Any] = {"neighbors": 47, "position_bases": 8, **ISOTROPIC}
POOL: dict[str, Any] = {"neighbors": 47, "initial_strength": 0.5}

DESIGNS: dict[str, Design] = {
    "none": Design(normalization=("none", {})),
    "static_saturation": Design(answers=("none", "latent", "neuropil")),
    "population_pool": _divides("population_pool", "pool", **POOL),
    "own_history": _divides("own_history", "own_history", initial_strength=0.5),
    "delayed": _divides("delayed", initial_strength=0.5),
    "organics": _divides("organics", near=("pool",), neighbors=47, initial_strength=0.5),
    "subtractive": _divides("subtractive", parent="none", initial_strength=0.5),
    "input_depression": _divides("input_depression", initial_strength=0.5),
    "channel_pool": _divides("channel_pool", near=("pool",), parent="none", pool_px=1),
    **{name: _divides(name) for name in ("rms", "layer", "group", "batch")},
    "pool_elsewhere": _divides("permuted_positions", near=("pool",), of={"name": "population_pool", **POOL}),
    "linear_autoregressive": _couples("linear_autoregressive", null=None),
    "own_drive_filter": _couples("own_drive_filter", null=None),
    "gated_recurrent": _couples("gated_recurrent", null=None),
    "population_mean": _couples("population_mean", null=None),
    "attention": _couples("attention", position="center_surround", position_bases=8, **ISOTROPIC),
    "dynamic_attention": _couples("dynamic_attention"),
    "neighbor_attention": _couples("neighbor_attention", position="center_surround", **NEAR),
    "inducing_attention": _couples("inducing_attention"),
    "linear_attention": _couples("linear_attention"),
    "message_passing": _couples("message_passing", **NEAR),
    "low_rank_recurrent": _couples("low_rank_recurrent"),
    "distance_kernel": _couples("distance_kernel", *COUPLINGS, null="kernel_elsewhere", **KERNEL),
    "full_coupling": _couples("full_coupling"),
    "kernel_elsewhere": _couples("permuted_positions", null=None, of={"name": "distance_kernel", **KERNEL}),
    "distance_kernel_recorded": _reads("distance_kernel", "spike_coupling", **KERNEL, fed="recorded"),
    "full_coupling_recorded": _reads("full_coupling", fed="recorded"),
    "coupled_glm": _reads("coupled_glm", neighbors=47, l1=0.03),
    "population_film": _reads("population_film", null=None),
    "latent": _reads("latent", null=None),
}
FED_TWINS = {"distance_kernel_recorded": "distance_kernel", "full_coupling_recorded": "full_coupling"}
CONTROL = "static_saturation"  # what a gain is measured from
# Behind a core: the right designs, two controls, and the wrong designs that came nearest where the drive is known.
CONTROLS = ("static_saturation", "none")
LEARNED: dict[str, tuple[str, ...]] = {
    "own_history": (*CONTROLS, "own_history", "input_depression", "delayed"),
    "pool": (*CONTROLS, "population_pool", "message_passing", "population_mean"),
    "rate_coupling": (*CONTROLS, "distance_kernel", "kernel_elsewhere", "latent"),
    "spike_coupling": (*CONTROLS, "distance_kernel_recorded", "distance_kernel", "kernel_elsewhere", "latent"),
}


# The order in which they are fitted, so that a run that is cut short has the rows that matter.
FIRST = ("none", CONTROL, "population_pool", "own_history", "distance_kernel", "distance_kernel_recorded", "delayed")


# Attention whose cost in this world (every frame another map, or wide tokens) is that of all others together.
LAST = ("dynamic_attention", "linear_attention", "inducing_attention")


def ordered() -> list[str]:
    """Designs that are registered, those that matter first and those that take long last."""
    names = dict.fromkeys((*FIRST, *(name for name in DESIGNS if name not in LAST), *LAST))
    return [name for name in names if DESIGNS[name].here]


def right_designs(truth: str) -> list[str]:
    """Designs that are made of the same equation as a truth."""
    return [name for name, design in DESIGNS.items() if truth in design.answers]
