"""Controls that give neurons each other's places or embeddings: what they change, and that they change nothing else."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from config_examples import faults_of, minimal
from module_contracts import FACTS, NEURONS, OPTIONS, build, context, drive, perturbed, run_stage
from worlds import make_config, make_session

from neuroint.config import parse_sweep
from neuroint.data.base import Inputs
from neuroint.fit import certify_model
from neuroint.model import build_model, facts_of
from neuroint.modules.base import FilteringStage, RecurrentStage
from neuroint.modules.permuted import everyone_elsewhere
from neuroint.registry import MissingFactError, interactions, normalizations

ORDER = everyone_elsewhere(NEURONS, 0)
CONTROLS = ("permuted_positions", "permuted_identities")
ROOMS = {"normalization": normalizations, "interaction": interactions}
DESIGNS = [(kind, name) for kind, room in ROOMS.items() for name in room.names() if name not in CONTROLS]


def control(which, kind, name, **options):
    """The control of a design, its weights drawn after the same seed as the design's own."""
    of = {"name": name, **OPTIONS.get((kind, name), {}), **options}
    torch.manual_seed(0)
    return ROOMS[kind][which].build({"of": of}, FACTS).double()


def able(which):
    """Designs that the control accepts."""
    found = []
    for kind, name in DESIGNS:
        try:
            control(which, kind, name)
        except ValueError:
            continue
        found.append((kind, name))
    return found


READ_POSITIONS, READ_EMBEDDINGS = able("permuted_positions"), able("permuted_identities")


def elsewhere(around):
    return replace(around, embedding=around.embedding[ORDER])


@pytest.mark.parametrize("neurons", [2, 3, 50])
def test_nobody_stays_in_place_and_every_place_is_taken_once(neurons):
    for seed in range(5):
        order = everyone_elsewhere(neurons, seed)
        assert np.array_equal(np.sort(order), np.arange(neurons))
        assert (order != np.arange(neurons)).all()


def test_the_seed_decides_who_goes_where():
    assert not np.array_equal(everyone_elsewhere(50, 0), everyone_elsewhere(50, 1))
    assert np.array_equal(everyone_elsewhere(50, 1), everyone_elsewhere(50, 1))


def test_designs_that_are_known_to_read_them_are_accepted():
    assert {("normalization", "population_pool"), ("interaction", "distance_kernel")} <= set(READ_POSITIONS)
    assert {("interaction", "neighbor_attention"), ("normalization", "group")} <= set(READ_POSITIONS)
    assert {("interaction", "attention"), ("interaction", "low_rank_recurrent")} <= set(READ_EMBEDDINGS)
    assert {("normalization", "population_pool"), ("interaction", "gated_recurrent")} <= set(READ_EMBEDDINGS)


@pytest.mark.parametrize(("kind", "name"), READ_POSITIONS)
def test_permuted_positions_are_the_design_built_on_them(kind, name):
    moved = perturbed(control("permuted_positions", kind, name))
    by_hand = perturbed(build(ROOMS[kind], name, positions_um=FACTS["positions_um"][ORDER]))
    assert type(moved) is type(by_hand)
    assert torch.equal(run_stage(moved, drive(), context())[0], run_stage(by_hand, drive(), context())[0])


@pytest.mark.parametrize(("kind", "name"), READ_EMBEDDINGS)
def test_permuted_identities_are_the_design_shown_other_rows(kind, name):
    moved, own = perturbed(control("permuted_identities", kind, name)), perturbed(build(ROOMS[kind], name))
    out = run_stage(moved, drive(), context())[0]
    torch.testing.assert_close(out, run_stage(own, drive(), elsewhere(context()))[0], rtol=0, atol=1e-14)
    assert not torch.equal(out, run_stage(own, drive(), context())[0])


@pytest.mark.parametrize(("kind", "name"), READ_EMBEDDINGS)
def test_a_control_is_of_the_kind_of_its_design_and_declares_the_same(kind, name):
    moved, own = control("permuted_identities", kind, name), build(ROOMS[kind], name)
    for method in ("step", "scan", "initial_state", "penalty", "off"):
        assert hasattr(moved, method) == hasattr(own, method), method
    for protocol in (FilteringStage, RecurrentStage):
        assert isinstance(moved, protocol) == isinstance(own, protocol)
    for name in ("reads", "memory_bins", "fed"):
        assert getattr(moved, name, None) == getattr(own, name, None), name
    assert sum(p.numel() for p in moved.parameters()) == sum(p.numel() for p in own.parameters())
    for (key, mine), (other, theirs) in zip(moved.named_parameters(), own.named_parameters(), strict=True):
        assert key == f"design.{other}"
        assert torch.equal(mine, theirs), "both start from the same weights"


def test_maps_are_those_of_the_permuted_embeddings():
    moved = perturbed(control("permuted_identities", "interaction", "attention"))
    own = perturbed(build(interactions, "attention"))
    expected = own.attention_map(elsewhere(context()))
    assert torch.equal(moved.attention_map(context()), expected)
    assert torch.equal(moved.coupling(context()), own.coupling(elsewhere(context())))


def test_what_the_design_does_not_have_its_control_has_not():
    moved = control("permuted_identities", "interaction", "attention")
    with pytest.raises(AttributeError, match="'Attention' object has no attribute 'nonsense'"):
        _ = moved.nonsense
    assert copy.deepcopy(moved).strength == 1


def test_both_controls_can_be_combined():
    both = {"name": "permuted_positions", "of": {"name": "population_pool", "neighbors": 3}}
    stage = perturbed(normalizations["permuted_identities"].build({"of": both}, FACTS).double())
    by_hand = perturbed(build(normalizations, "population_pool", positions_um=FACTS["positions_um"][ORDER]))
    expected = run_stage(by_hand, drive(), elsewhere(context()))[0]
    torch.testing.assert_close(run_stage(stage, drive(), context())[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("which", "of", "message"),
    [
        ("permuted_positions", {"name": "attention", "position": "none"}, "this design reads no positions, so the"),
        (
            "permuted_positions",
            {"name": "linear_autoregressive"},
            r"reads no positions, so permuting.*that do: .*atten",
        ),
        ("permuted_identities", {"name": "attention", "embedding": "free"}, "reads no embeddings of the readout, so"),
        ("permuted_identities", {"name": "own_drive_filter"}, "this design reads no embeddings of the readout"),
        ("permuted_identities", {"name": "atention"}, "'atention' is not a registered interaction. Did you mean 'atte"),
        (
            "permuted_identities",
            {"name": "attention", "haeds": 2},
            "'haeds' is not a choice of .* Did you mean 'heads'",
        ),
        ("permuted_identities", {"heads": 2}, "expected the name of a design beside its options"),
    ],
)
def test_a_design_that_cannot_be_permuted_is_refused(which, of, message):
    with pytest.raises(ValueError, match=message):
        interactions[which].build({"of": of}, FACTS)


def test_a_design_inside_the_core_is_refused():
    for which in CONTROLS:
        with pytest.raises(ValueError, match=r"'channel_pool' (stands inside the core|reads no positions)"):
            normalizations[which].build({"of": {"name": "channel_pool"}}, FACTS)


def test_positions_are_needed():
    with pytest.raises(MissingFactError, match="interaction 'permuted_positions' needs positions_um"):
        interactions["permuted_positions"].build({}, {**FACTS, "positions_um": None})


def arm(of):
    return minimal(arms={"warm": {}, "control": {"interaction": {"name": "permuted_positions", "of": of}}})


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (
            {"name": "neighbor_atention"},
            "'neighbor_atention' is not a registered interaction. Did you mean 'neighbor_at",
        ),
        ({"name": "neighbor_attention", "heads": 0}, "heads: got 0: input should be greater than or equal to 1"),
        ({"name": "neighbor_attention", "positions_um": 0}, "positions_um is measured from the data; remove it"),
        ({"name": "neighbor_attention", "heads": {"int": [0, 2]}}, "heads: got 0: input should be greater than"),
        ({"name": "gated_recurrent"}, "'gated_recurrent' reads no positions, so permuting them changes nothing"),
    ],
)
def test_validation_reports_what_is_wrong_inside(of, message):
    faults = faults_of(arm(of))
    assert any(fault.startswith("arms.control: interaction.of: ") and message in fault for fault in faults), faults


def test_distributions_inside_are_searched_and_filled_in():
    of = {"name": "neighbor_attention", "neighbors": {"int": [4, 16]}, "weights": {"choice": ["softmax", "sigmoid"]}}
    sweep = parse_sweep(arm(of))
    searched = sweep.arms["control"].distributions
    assert {"interaction.of.neighbors", "interaction.of.weights"} <= set(searched)
    values = {"optimizer.learning_rate": 0.01, "interaction.of.neighbors": 7, "interaction.of.weights": "sigmoid"}
    trial = sweep.trial("control", values, key="k", phase="tune", seed=0)
    assert trial.specs["interaction"].options["of"] == {
        "name": "neighbor_attention",
        "neighbors": 7,
        "weights": "sigmoid",
    }
    assert trial.flat()["interaction.of.neighbors"] == 7


@pytest.mark.parametrize(
    "arm",
    [
        {"interaction": {"name": "permuted_identities", "of": {"name": "low_rank_recurrent", "rank": 2}}},
        {"interaction": {"name": "permuted_positions", "of": {"name": "distance_kernel", "neighbors": 2}}},
        {"normalization": {"name": "permuted_identities", "of": {"name": "population_pool", "neighbors": 2}}},
    ],
)
def test_a_model_with_a_control_is_built_and_certified_and_predicts(arm):
    session = make_session()
    config = make_config("other", arms={"none": {}, "other": arm})
    model = build_model(config.specs, facts_of([session])).double()
    assert certify_model(model, session, torch.device("cpu"), torch.float64).passed
    read = session.source.read(0, 0, 30)
    inputs = Inputs(
        **{name: torch.tensor(getattr(read, name))[None].double() for name in ("stimulus", "behavior", "pupil")}
    )
    assert model(inputs, session.name).isfinite().all()
