"""Controls that build another design of their room and give its neurons each other's places or embeddings.

The annotations here are not strings, as in other files, because those of a control name the room it stands in.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator
from torch import Tensor, nn

from neuroint.modules.base import Context, prepared
from neuroint.modules.positions import Positions
from neuroint.registry import Component, Fact, Index, Registry

Spec = dict[str, Any]
Fault = Callable[[Registry, str], str | None]


def everyone_elsewhere(n_neurons: int, seed: int) -> Int[np.ndarray, " neurons"]:
    """Draw a permutation that is one cycle, so that no neuron keeps its own place."""
    order = np.random.default_rng(seed).permutation(n_neurons)
    permuted = np.empty_like(order)
    permuted[order] = np.roll(order, 1)
    return permuted


def design_of(room: Registry, fault: Fault) -> Any:
    """Make the type of a choice that names a design of a room, with its options; it lists every fault in them."""

    def check(spec: Spec) -> Spec:
        name = str(spec.get("name", ""))
        if not name:
            raise ValueError("expected the name of a design beside its options, such as {name: x, option: 1}")
        component, options = room[name], {key: value for key, value in spec.items() if key != "name"}
        coerced, faults = component.validate(options)
        faults += [found] if (found := fault(room, name)) else []
        if faults:
            raise ValueError("; ".join(faults))
        return {"name": name, **coerced}

    return Annotated[Spec, AfterValidator(check)]


def positions_control(room: Registry, example: Spec) -> Callable[..., nn.Module]:
    """Make the control of a room's designs that read positions; ``example`` is the default of what is permuted."""

    def permuted_positions(
        *,
        positions_um: Fact[Positions],
        of: design_of(room, _reads_no_positions) = example,  # pyright: ignore[reportInvalidTypeForm]
        seed: Index = 0,
        **facts: Fact[Any],
    ) -> nn.Module:
        """Let another design run on the positions of other neurons.

        Neuron i stands where neuron p(i) was recorded, for a random cycle p that leaves nobody in place. All else is
        the design's own: equation, parameters, cost, information class, strength, and where it starts. It is the design
        itself, so weights of one fit the other: a fitted model can be scored with permuted positions, too.

        It is the null of *where*: what a design gains over this control, it owes to the places of cells. Distances
        keep their distribution and neighborhoods their sizes.

        Args:
            of: the design and its options, such as ``{name: neighbor_attention, neighbors: 16}``.
            seed: of the permutation.

        Raises:
            MissingFactError: no positions.
            ValueError: the design, with these options, reads no positions.

        Source: a permutation test, as for Mantel (1967), Cancer Res. 27, 209-220, with the model fitted anew.
        """
        options = {key: value for key, value in of.items() if key != "name"}
        build = partial(_with_positions, room[of["name"]], options, facts)
        elsewhere = positions_um[everyone_elsewhere(len(positions_um), seed)]
        with torch.random.fork_rng(devices=()):
            own = build(positions_um)
        found = build(elsewhere)
        if all(torch.equal(*pair) for pair in zip(own.buffers(), found.buffers(), strict=True)):
            raise ValueError(_no_use("permuted_positions", of, "positions", "the design without this control"))
        return found

    return permuted_positions


def identities_control(room: Registry, example: Spec) -> Callable[..., nn.Module]:
    """Make the control of a room's designs that read embeddings; ``example`` is the default of what is permuted."""

    def permuted_identities(
        *,
        n_neurons: Fact[int],
        of: design_of(room, _stands_in_the_core) = example,  # pyright: ignore[reportInvalidTypeForm]
        seed: Index = 0,
        **facts: Fact[Any],
    ) -> nn.Module:
        """Let another design run on the readout's embeddings of other neurons.

        Neuron i is described by the embedding of neuron p(i), for a random cycle p that leaves nobody with its own.
        Positions, drives, free parameters per neuron and everything else stay as they are: equation, parameters, cost,
        information class, strength, and where it starts. The names of its weights begin with ``design.``.

        It is the null of *who*: what a design gains over this control, it owes to a neuron's tuning.

        Args:
            of: the design and its options, such as ``{name: attention, heads: 2}``.
            seed: of the permutation.

        Raises:
            ValueError: the design, with these options, reads no embedding of the readout.

        Source: a permutation test, as for Mantel (1967), Cancer Res. 27, 209-220, with the model fitted anew.
        """
        options = {key: value for key, value in of.items() if key != "name"}
        design = room[of["name"]].build(options, {"n_neurons": n_neurons, **facts})
        if not _reads_embeddings(design, n_neurons, facts.get("observed_channels") or 0):
            raise ValueError(_no_use("permuted_identities", of, "embeddings of the readout", "embedding: readout"))
        order = torch.tensor(everyone_elsewhere(n_neurons, seed))
        return next(kind for method, kind in KINDS.items() if hasattr(design, method))(design, order)

    return permuted_identities


def _with_positions(
    component: Component, options: Spec, facts: Mapping[str, Any], positions_um: Positions
) -> nn.Module:
    return component.build(options, {**facts, "positions_um": positions_um})


def _no_use(control: str, of: Spec, what: str, instead: str) -> str:
    return f"'{control}' of {of}: this design reads no {what}, so the control would be the design itself; use {instead}"


def _reads_no_positions(room: Registry, name: str) -> str | None:
    able = [other for other in room.names() if "positions_um" in room[other].facts]
    if name in able or name == "permuted_identities":
        return None
    return f"'{name}' reads no positions, so permuting them changes nothing; designs that do: {', '.join(able)}"


def _stands_in_the_core(room: Registry, name: str) -> str | None:
    if not getattr(room[name].factory, "on_features", False):
        return None
    return f"'{name}' stands inside the core, where there are no neurons; choose a design on drives"


class PermutedIdentities(nn.Module):
    """A design that is shown the embeddings of other neurons; what it is beside that, it is asked itself.

    Args:
        design: a stage.
        order: whose embedding every neuron is given.
    """

    design: nn.Module
    order: Tensor

    def __init__(self, design: nn.Module, order: Int[Tensor, " neurons"]) -> None:
        super().__init__()
        self.design = design
        self.register_buffer("order", order, persistent=False)

    def __getattr__(self, name: str) -> Any:
        """Hand on what the design has: strength, penalty, memory, and maps, of the permuted context."""
        if name in ("design", "order"):
            return super().__getattr__(name)
        found = getattr(self.design, name)
        return partial(self._of_permuted, found) if callable(found) and name not in _ABOUT_ITSELF else found

    def prepare(self, context: Context) -> Context:
        """Permute the embeddings, and let the design prepare what it can."""
        seen = replace(context, embedding=None if context.embedding is None else context.embedding[self.order])
        return replace(seen, prepared=self.design.prepare(seen)) if hasattr(self.design, "prepare") else seen  # pyright: ignore[reportCallIssue]

    def seen(self, context: Context) -> Context:
        """What the design looks at."""
        return replace(prepared(self, context), observed=context.observed)

    def _of_permuted(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Call a method of the design; the context among what it is given is permuted."""
        bound = inspect.signature(method).bind(*given, **named)
        bound.arguments |= {key: self.seen(one) for key, one in bound.arguments.items() if isinstance(one, Context)}
        return method(*bound.args, **bound.kwargs)


_ABOUT_ITSELF = ("off", "penalty")  # methods that are given no context


class _FeedForward(PermutedIdentities):
    def forward(
        self, drive: Float[Tensor, "batch time neurons"], context: Context
    ) -> Float[Tensor, "batch time neurons"]:
        return self.design(drive, self.seen(context))


class _Filtering(PermutedIdentities):
    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> Any:
        return self.design.initial_state(drive_0, self.seen(context))  # pyright: ignore[reportCallIssue]

    def scan(
        self, drive: Float[Tensor, "batch time neurons"], state: Any, context: Context
    ) -> tuple[Float[Tensor, "batch time neurons"], Any]:
        return self.design.scan(drive, state, self.seen(context))  # pyright: ignore[reportCallIssue]


class _Recurrent(PermutedIdentities):
    def initial_state(self, drive_0: Float[Tensor, "batch neurons"], context: Context) -> Any:
        return self.design.initial_state(drive_0, self.seen(context))  # pyright: ignore[reportCallIssue]

    def step(
        self,
        drive_t: Float[Tensor, "batch neurons"],
        last_rate: Float[Tensor, "batch neurons"],
        state: Any,
        context: Context,
    ) -> tuple[Float[Tensor, "batch neurons"], Any]:
        return self.design.step(drive_t, last_rate, state, self.seen(context))  # pyright: ignore[reportCallIssue]


KINDS = {"step": _Recurrent, "scan": _Filtering, "forward": _FeedForward}  # by the method that tells, in this order


def _reads_embeddings(design: Any, n_neurons: int, observed_channels: int) -> bool:
    """Whether a design misses the embeddings when it is run on a frame without them: all that read them say so."""
    context = Context(observed=torch.zeros(1, 1, observed_channels))
    drive = torch.zeros(1, 1, n_neurons)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            _one_frame(design.eval(), drive, context)
    except ValueError as error:
        if "embedding" not in str(error):
            raise
        return True
    finally:
        design.train()
    return False


def _one_frame(design: Any, drive: Float[Tensor, "batch time neurons"], context: Context) -> None:
    if hasattr(design, "prepare"):
        context = replace(context, prepared=design.prepare(context))
    if not hasattr(design, "initial_state"):
        design(drive, context)
        return
    state = design.initial_state(drive[:, 0], context)
    if hasattr(design, "scan"):
        design.scan(drive, state, context)
    else:
        design.step(drive[:, 0], drive[:, 0], state, context)
