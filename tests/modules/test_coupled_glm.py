"""History and coupling filters on records, against the equation in NumPy."""

import numpy as np
import pytest
import torch
from coupling_worlds import BATCH, FRAMES, POSITIONS, N, context, design, drives, moved, rates, recorded

from neuroint.modules.base import Context
from neuroint.modules.causal_filters import raised_cosines
from neuroint.registry import MissingFactError

HISTORY, COUPLING, LAG = 3, 5, 2
OPTIONS = {"history_bins": HISTORY, "history_bases": 2, "coupling_bins": COUPLING, "coupling_bases": 3, "neighbors": 4}
FIVE = {"observed_channels": 5, "observed_neurons": np.array([7, -1, 2, 0, -1])}


def run(stage, drive, observed, neurons=None):
    around = context(observed, neurons)
    return stage.scan(drive, stage.initial_state(drive[:, 0], around), around)[0]


def written_out(stage, drive, activity, whose, partners):
    """The equation in loops; ``activity`` is what is filtered, partners are lists of channels."""
    own_filters = stage.history_weights.detach().numpy() @ raised_cosines(2, HISTORY).numpy().astype(float)
    weights, psi = stage.coupling_weights.detach().numpy(), raised_cosines(3, COUPLING).numpy().astype(float)
    c = weights / weights.shape[1]
    found, start = drive.copy(), activity.shape[1] - drive.shape[1]
    for i in range(N):
        for t in range(drive.shape[1]):
            now = start + t
            for lag in range(min(now + 1, COUPLING)):
                past = activity[:, now - lag]
                if lag < HISTORY and i in whose:
                    found[:, t, i] += own_filters[i, lag] * past[:, list(whose).index(i)]
                for place, channel in partners[i]:
                    found[:, t, i] += c[i, place] @ psi[:, lag] * past[:, channel]
    return found


def near():
    distance = np.linalg.norm(POSITIONS[:, None].astype(float) - POSITIONS, axis=-1)
    return [list(enumerate([j for j in np.argsort(distance[i]) if j != i][:4])) for i in range(N)]


@pytest.mark.parametrize("history", [FRAMES, FRAMES + 2, FRAMES + 30])
def test_the_output_is_the_equation_with_as_much_history_as_there_is(history):
    stage, observed = moved(design("coupled_glm", **OPTIONS)), recorded(frames=history)
    expected = written_out(stage, drives().numpy(), observed.numpy(), np.arange(N), near())
    np.testing.assert_allclose(run(stage, drives(), observed).detach(), expected, rtol=1e-6, atol=1e-9)


def test_all_channels_can_be_partners_and_only_own_ones_are_history():
    stage, observed = moved(design("coupled_glm", FIVE, partners="all", **OPTIONS)), recorded(channels=5)
    whose = FIVE["observed_neurons"]
    partners = [[(c, c) for c in range(5) if whose[c] != i] for i in range(N)]
    expected = written_out(stage, drives().numpy(), observed.numpy(), whose, partners)
    np.testing.assert_allclose(run(stage, drives(), observed).detach(), expected, rtol=1e-6, atol=1e-9)
    assert not stage.history_filters()[[1, 3, 4, 5, 6, 8]].any()
    assert stage.coupling(context())[7, 0] == 0


def test_without_own_channels_there_is_no_history():
    stage = design("coupled_glm", {"observed_channels": 5, "observed_neurons": np.full(5, -1)}, partners="all")
    assert stage.history_weights is None
    assert not stage.history_filters().any()
    assert run(stage, drives(), recorded(channels=5)).shape == drives().shape


def test_a_channel_finds_its_neuron_wherever_it_stands():
    order = np.random.default_rng(3).permutation(N)
    straight, mixed = (
        moved(design("coupled_glm", {"observed_neurons": whose}, **OPTIONS)) for whose in (np.arange(N), order)
    )
    observed = recorded()
    torch.testing.assert_close(run(mixed, drives(), observed[..., order]), run(straight, drives(), observed))
    torch.testing.assert_close(mixed.coupling(context()), straight.coupling(context())[:, order])


def test_what_is_recorded_later_changes_nothing_before():
    for stage in (moved(design("coupled_glm", **OPTIONS)), moved(design("coupled_glm", two_step=True, **OPTIONS))):
        later = recorded()
        later[:, 7:] = recorded(seed=99)[:, 7:]
        assert torch.equal(run(stage, drives(), recorded())[:, :7], run(stage, drives(), later)[:, :7])


def residuals(drive, observed):
    """Records minus the rate of the frame they were recorded at, 0 where that was not predicted."""
    rate, found = np.log1p(np.exp(drive)), np.zeros(observed.shape)
    before = observed.shape[1] - drive.shape[1]
    for t in range(drive.shape[1]):
        if t >= LAG:
            found[:, before + t] = observed[:, before + t] - rate[:, t - LAG]
    return found


@pytest.mark.parametrize("history", [FRAMES, FRAMES + 4])
def test_two_steps_read_what_the_stimulus_does_not_explain(history):
    stage, observed = moved(design("coupled_glm", two_step=True, **OPTIONS)), recorded(frames=history)
    activity = residuals(drives().numpy(), observed.numpy())
    expected = written_out(stage, drives().numpy(), activity, np.arange(N), near())
    np.testing.assert_allclose(run(stage, drives(), observed).detach(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 11])
def test_two_steps_in_chunks_equal_two_steps_in_one(cut):
    stage, observed = moved(design("coupled_glm", two_step=True, **OPTIONS)), recorded(frames=FRAMES + 4)
    first, drive = context(observed[:, : 4 + cut]), drives()
    head, state = stage.scan(drive[:, :cut], stage.initial_state(drive[:, 0], first), first)
    tail, _ = stage.scan(drive[:, cut:], state, context(observed))
    torch.testing.assert_close(torch.cat([head, tail], 1), run(stage, drive, observed), rtol=0, atol=1e-13)


def test_two_steps_leave_a_stimulus_that_explains_everything_alone():
    stage, drive = moved(design("coupled_glm", two_step=True, **OPTIONS)), drives()
    lagged = torch.nn.functional.pad(torch.nn.functional.softplus(drive), (0, 0, LAG, 0))[:, :FRAMES]
    torch.testing.assert_close(run(stage, drive, lagged), drive, rtol=1e-12, atol=1e-12)


def test_two_steps_send_no_gradient_from_couplings_to_the_stimulus_model():
    stage, drive = moved(design("coupled_glm", two_step=True, **OPTIONS)), drives().requires_grad_()
    run(stage, drive, recorded()).sum().backward()
    assert torch.equal(drive.grad, torch.ones_like(drive))


def test_a_subset_of_neurons_is_predicted_as_in_the_whole():
    chosen = torch.tensor([1, 4, 8])
    for partners in ("position", "all"):
        stage = moved(design("coupled_glm", partners=partners, **OPTIONS))
        part = run(stage, drives()[..., chosen], recorded(), chosen)
        torch.testing.assert_close(part, run(stage, drives(), recorded())[..., chosen], rtol=0, atol=1e-13)


def test_two_steps_need_all_neurons():
    stage, chosen = design("coupled_glm", two_step=True, **OPTIONS), torch.tensor([1, 4])
    assert stage.reads.population
    with pytest.raises(ValueError, match="'coupled_glm' mixes neurons and was given 2 chosen ones"):
        run(stage, drives()[..., chosen], recorded(), chosen)


def test_penalties_are_means_over_neurons_of_sums_and_of_norms_of_pairs():
    stage = design("coupled_glm", FIVE, partners="all", l1=0.1, group=0.2, **OPTIONS)
    torch.nn.init.constant_(stage.coupling_weights, 2.0)
    pairs = N * 5 - 3  # three channels are a neuron's own
    c = 2.0 / 5  # five partners
    expected = 0.1 * pairs * 3 * c / N + 0.2 * pairs * c * 3**0.5 / N
    assert stage.penalty().item() == pytest.approx(expected)
    fresh = design("coupled_glm", l1=0.1, group=0.2, **OPTIONS)
    fresh.penalty().backward()
    assert fresh.coupling_weights.grad.isfinite().all()


@pytest.mark.parametrize("neighbors", [2, 8])
def test_parameters_that_move_alike_move_a_drive_by_as_much_whatever_the_number_of_partners(neighbors):
    stage = design("coupled_glm", **OPTIONS | {"neighbors": neighbors})
    torch.nn.init.constant_(stage.coupling_weights, 0.5)
    everyone = torch.ones_like(recorded())
    shift = (run(stage, drives(), everyone) - drives())[:, COUPLING:]
    torch.testing.assert_close(shift, torch.full_like(shift, 0.5 * 3))  # three bases, each of sum 1


@pytest.mark.parametrize("partners", ["random", "degree_matched"])
def test_control_graphs_have_as_many_partners_and_never_the_neuron_itself(partners):
    stage = design("coupled_glm", partners=partners, **OPTIONS)
    assert stage.coupling_weights.shape == (N, 4, 3)
    assert (stage.partners.channels != torch.arange(N)[:, None]).all()


def test_faults_say_what_to_do():
    with pytest.raises(MissingFactError, match=r"6 of 9 have no recorded channel of their own; set partners: all"):
        design("coupled_glm", FIVE)
    with pytest.raises(MissingFactError, match=r"the lag None and 0 of 9 channels.*or two_step: false"):
        design("coupled_glm", {"observed_lag_bins": None}, two_step=True)
    with pytest.raises(MissingFactError, match=r"the lag 2 and 2 of 5 channels that are never predicted"):
        design("coupled_glm", FIVE, two_step=True, partners="all")
    many = {"observed_channels": 501, "observed_neurons": np.full(501, -1)}
    with pytest.raises(ValueError, match=r"given 501 recorded channels, expected at most 500; set partners: position"):
        design("coupled_glm", many, partners="all")
    with pytest.raises(MissingFactError, match="needs positions_um"):
        design("coupled_glm", {"positions_um": None})
    with pytest.raises(ValueError, match="'coupled_glm' reads recorded activity and the context holds none"):
        run(design("coupled_glm"), drives(), None)


def test_it_runs_frame_by_frame_behind_a_recurrent_stage_as_it_does_at_once():
    stage = moved(design("coupled_glm", **OPTIONS))
    observed, drive = recorded(frames=FRAMES + 3), drives()
    around = Context(observed=observed)
    state, frames = stage.initial_state(drive[:, 0], around), []
    for t in range(FRAMES):
        cut = around.until(t, FRAMES, stage.memory_bins)
        out, state = stage.scan(drive[:, t : t + 1], state, cut)
        frames.append(out)
    torch.testing.assert_close(torch.cat(frames, 1), run(stage, drive, observed), rtol=0, atol=1e-13)
    assert rates(stage, drive, around).shape == (BATCH, FRAMES, N)
