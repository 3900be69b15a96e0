"""Parts of published recipes, each a choice: switched on they train and resume, switched off nothing is entered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from config_examples import faults_of
from test_train import assert_same_bits, fit, weights
from worlds import make_config, make_session, make_sweep

from neuroint import train
from neuroint.config import TrialConfig
from neuroint.data.base import Inputs
from neuroint.data.cutmix import cutmix
from neuroint.data.loader import read_batch
from neuroint.data.observed import observe_past
from neuroint.data.plan import Request
from neuroint.fit import prepare
from neuroint.modules.core.vivit import ViViT
from neuroint.modules.video_blocks import DropPath
from neuroint.runtime import LocalRuntime
from neuroint.sweep.planning import PlanError, plan_sweep, summarize_arms

CPU = torch.device("cpu")
RECIPES = {
    "mixed": {"cutmix": 0.7, "cutmix_alpha": 0.5},
    "every other frame, in windows": {"frame_stride": 2, "frames": 14, "evaluation_hop": 3},
    "all at once": {"cutmix": 1.0, "frame_stride": 2, "frames": 14, "evaluation_hop": 3, "ema": 0.9},
}
OFF = {"cutmix": 0.0, "cutmix_alpha": 1.0, "frame_stride": 1, "evaluation_hop": None, "ema": None}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An epoch without any of it."""
    return fit(make_config(train={"epochs": 1}), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_run_equals_an_uninterrupted_one_and_differs_from_the_plain_one(recipe, plain, tmp_path):
    config = make_config(train={"epochs": 2, **RECIPES[recipe]})
    whole = fit(config, tmp_path / "whole")
    resumed = fit(config, tmp_path / "resumed", resume_from=tmp_path / "whole" / "1")
    assert resumed.metrics == whole.metrics[1:]
    assert_same_bits(weights(tmp_path / "whole" / "2"), weights(tmp_path / "resumed" / "2"))
    assert plain.metrics[0]["train_loss"] != whole.metrics[0]["train_loss"]


def test_two_sessions_are_mixed_each_in_itself_and_anew_at_every_step(monkeypatch, tmp_path):
    seen = []

    def watched(batch, *given):
        mixed = cutmix(batch, *given)
        seen.append((batch.session, mixed))
        return mixed

    monkeypatch.setattr(train, "cutmix", watched)
    sessions = [make_session("a", seed=1, train=8), make_session("b", seed=2, train=8, neurons=4)]
    fit(make_config(train={"epochs": 1, "cutmix": 1.0}), tmp_path, sessions)
    assert [name for name, _ in seen] == ["a", "b", "a", "b"]
    first, other = (mixed.responses for name, mixed in seen if name == "a")
    assert first.shape == other.shape
    assert not torch.equal(first, other)


def test_workers_and_epochs_draw_by_themselves():
    config = make_config(train={"cutmix": 1.0})
    fitted = prepare(config, [make_session()], LocalRuntime(device=CPU), torch.float32)
    batch = read_batch(make_session(), Request("one", (0, 1, 2, 3), (0, 0, 0, 0), 20))
    mixed = lambda step, rank: train._augmented(fitted, batch, step, rank).responses  # noqa: E731
    first = mixed(0, 0)
    assert torch.equal(mixed(0, 0), first)
    assert not torch.equal(mixed(0, 1), first)
    assert not torch.equal(mixed(1, 0), first)
    fitted.progress.epoch = 1
    assert not torch.equal(mixed(0, 0), first)


def test_switched_off_nothing_of_it_is_entered(plain, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "cutmix", None)
    monkeypatch.setattr(train, "generator", None)
    monkeypatch.setattr("neuroint.prediction.predict_in_windows", None)
    monkeypatch.setattr("neuroint.data.base.Clip.strided", None)
    config = make_config(train={"epochs": 1})
    assert {name: getattr(config.train, name) for name in OFF} == OFF
    explicit = fit(make_config(train={"epochs": 1, **OFF}), tmp_path)
    assert explicit.metrics == plain.metrics
    assert_same_bits(weights(tmp_path / "1"), weights(plain.folder / "1"))


def test_a_step_learns_from_what_was_mixed():
    config = make_config(train={"cutmix": 1.0})
    fitted = prepare(config, [make_session()], LocalRuntime(device=CPU), torch.float32)
    fitted.evaluation_mode()  # batch normalization and readout draw nothing: a loss is a function of the batch
    batch = read_batch(make_session(), Request("one", (0, 1, 2, 3), (0, 0, 0, 0), 20))
    mixed = train._augmented(fitted, batch, 0, 0)
    total, count = fitted.objective(fitted.model, mixed, torch.Generator(), None)
    plain, _ = fitted.objective(fitted.model, batch, torch.Generator(), None)
    expected = total / count + fitted.model.penalty()
    loss, _ = train.training_step(fitted, [batch], LocalRuntime(device=CPU), 0)
    torch.testing.assert_close(loss, expected.detach().double(), rtol=1e-6, atol=1e-6)
    assert abs((plain - total).item()) / count.item() > 1e-4


def test_the_evaluated_model_is_the_running_average_of_the_trained_one():
    fitted = prepare(make_config(train={"ema": 0.75}), [make_session()], LocalRuntime(device=CPU), torch.float32)
    batch = read_batch(make_session(), Request("one", (0, 1, 2, 3), (0, 0, 0, 0), 20))
    bias = lambda model: next(iter(model.readouts.parameters())).detach().clone()  # noqa: E731
    trained = []
    for step in range(3):
        train.training_step(fitted, [batch], LocalRuntime(device=CPU), step)
        trained.append(bias(fitted.model))
    expected = 0.75 * (0.75 * trained[0] + 0.25 * trained[1]) + 0.25 * trained[2]  # it begins at the first step's
    torch.testing.assert_close(bias(fitted.evaluated), expected)
    assert not torch.allclose(trained[2], expected)


def test_a_sweep_searches_all_of_it_and_a_run_remembers_its_draw():
    searched = {
        "train": {
            "cutmix": {"uniform": [0.0, 1.0]},
            "cutmix_alpha": {"loguniform": [0.1, 2.0]},
            "frame_stride": {"choice": [1, 2]},
            "evaluation_hop": {"choice": [None, 2]},
            "ema": {"choice": [None, 0.999]},
            "frames": 14,
        },
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "link": {"name": "softplus", "beta": {"loguniform": [0.05, 1.0]}},
    }
    sweep = make_sweep(arms={"none": {}, "recipe": searched})
    assert [arm.name for arm in summarize_arms(sweep, [make_session()])] == ["none", "recipe"]
    drawn = {
        "train.cutmix": 0.3,
        "train.cutmix_alpha": 0.2,
        "train.frame_stride": 2,
        "train.evaluation_hop": 2,
        "train.ema": 0.999,
        "link.beta": 0.07,
    }
    config = sweep.trial("recipe", drawn, key="k", phase="tune", seed=0)
    assert {path: config.flat()[path] for path in drawn} == drawn
    assert TrialConfig.from_dict(config.to_dict()) == config


def test_runs_of_before_are_read_as_without_any_of_it():
    config = make_config()
    old = config.to_dict()
    for name in ("cutmix", "cutmix_alpha", "frame_stride", "evaluation_hop"):
        del old["train"][name]
    assert TrialConfig.from_dict(old) == config


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"cutmix": 1.5}, "train.cutmix: got 1.5: input should be less than or equal to 1"),
        ({"cutmix": {"uniform": [-0.1, 1]}}, "train.cutmix: got -0.1: input should be greater than or equal to 0"),
        ({"cutmix_alpha": 0}, "train.cutmix_alpha: got 0: input should be greater than 0"),
        ({"frame_stride": 0}, "train.frame_stride: got 0: input should be greater than or equal to 1"),
        ({"evaluation_hop": 0}, "train.evaluation_hop: got 0: input should be greater than or equal to 1"),
    ],
)
def test_values_out_of_range_are_faults_of_the_file(section, message):
    raw = make_sweep().raw | {"train": section}
    assert [fault for fault in faults_of(raw) if message in fault]


@pytest.mark.parametrize(
    ("changes", "session", "message"),
    [
        ({"batch_size": 1}, make_session(), "pairs the clips that one worker has .* there is 1"),
        ({"batch_size": 2}, make_session(), None),
        ({}, replace(make_session(), facts=replace(make_session().facts, stimulus_shape=None)), "has no stimulus"),
    ],
    ids=["one clip", "two clips", "no stimulus"],
)
def test_what_cannot_be_mixed_is_refused_before_training_by_plan_and_run(changes, session, message):
    blank = {"core": "constant", "readout": "linear"} if session.facts.stimulus_shape is None else {}
    sweep = make_sweep(**blank, arms={"none": {"train": {"cutmix": {"choice": [0.0, 0.5]}, **changes}}})
    if message is None:
        assert summarize_arms(sweep, [session])
        return
    with pytest.raises(PlanError, match=message):
        summarize_arms(sweep, [session])
    with pytest.raises(PlanError, match=message):
        plan_sweep(sweep, [session])
    config = sweep.trial("none", {"train.cutmix": 0.5}, key="k", phase="tune", seed=0)
    with pytest.raises(ValueError, match=message):
        prepare(config, [session], LocalRuntime(device=CPU), torch.float32)


def test_two_workers_need_four_clips():
    arms = {"none": {"train": {"cutmix": 0.5, "batch_size": 2}}}
    with pytest.raises(PlanError, match="at least 2 per worker"):
        summarize_arms(make_sweep(arms=arms, resources={"workers": 2}), [make_session()])
    arms["none"]["train"]["batch_size"] = 4
    assert summarize_arms(make_sweep(arms=arms, resources={"workers": 2}), [make_session()])


def test_models_that_read_records_are_not_mixed_and_others_beside_them_are():
    session = observe_past(make_session(), 0.1)
    mixed = {"train": {"cutmix": 0.5, "frames": 30}}
    reads = {"interaction": "latent", **mixed}
    with pytest.raises(PlanError, match=r"^arm 'reads': .*recorded activity \(recorded_past\), which would stay that"):
        summarize_arms(make_sweep(arms={"none": mixed, "reads": reads}), [session])


def test_the_plan_counts_the_windows_of_a_validation_pass():
    hours = {}
    for hop in (None, 2):
        (plan,) = plan_sweep(make_sweep(arms={"none": {"train": {"evaluation_hop": hop}}}), [make_session()])
        hours[hop] = plan.hours / plan.seconds_per_step
    # 4 clips of 40 frames are validated, 2 steps of 4 crops of 20 trained on at three times the cost
    share = 4 * 40 / (3 * 2 * 4 * 20)
    assert hours[2] / hours[None] == pytest.approx((1 + share * 20 / 2) / (1 + share))


def test_patches_and_paths_are_dropped_whole_in_training_and_never_in_evaluation():
    core = ViViT(
        stimulus_shape=(1, 8, 10), tubelet_frames=1, tubelet_px=3, width=4, spatial_blocks=0, temporal_blocks=0,
        heads=1, head_width=2, registers=0, state="none", patch_dropout=0.5, drop_path=0.0,
    )  # fmt: skip
    features = core(Inputs(torch.randn(2, 20, 1, 8, 10)))
    gone = (features == 0).all(dim=2)
    assert torch.equal(gone, (features == 0).any(dim=2)), "a tubelet goes with all its channels, or stays"
    assert 0.4 < gone.float().mean() < 0.6
    path = DropPath(0.25)
    x = torch.ones(4000, 3)
    kept = path(x)
    assert {round(v, 4) for v in kept.unique().tolist()} == {0.0, 1.3333}
    assert (kept[:, 0] > 0).float().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(path.eval()(x), x)
    assert not (core.eval()(Inputs(torch.randn(2, 20, 1, 8, 10))) == 0).all(dim=2).any()
