"""Passes at every phase of a stride, interleaved, and windows, averaged, by hand on models that tell frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from worlds import make_config, make_session, make_sweep

from neuroint import prediction
from neuroint.data.base import VALIDATION, Inputs
from neuroint.data.loader import ClipLoader, read_batch
from neuroint.data.observed import observe_others, observe_past
from neuroint.data.plan import Request
from neuroint.evaluation import evaluate
from neuroint.fit import model_for, start
from neuroint.model import PopulationModel, predict_in_chunks
from neuroint.modules.base import Reads
from neuroint.prediction import Predictor, Windows, predict_in_windows
from neuroint.runtime import LocalRuntime
from neuroint.sweep.planning import PlanError, summarize_arms

CONV2D = {"core": {"name": "conv2d", "channels": [3], "spatial_kernels": [3]}, "readout": {"name": "gaussian"}}


class Telling(nn.Module):
    """A core that sees the number of a frame, and tells ``tell(what it is given)`` of all frames but the first."""

    reads = Reads()
    feature_shape, lost_frames = (1, 1, 1), 1

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def forward(self, inputs):
        return self.tell(inputs.stimulus)[:, 1:]


class First(nn.Module):
    """A readout that hands a single feature on to two neurons, the second with a minus."""

    reads, embedding_channels = Reads(), 0

    def forward(self, features, pupil, neurons):
        return features[:, :, 0, 0] * torch.tensor([1.0, -1.0])

    def embedding(self):
        return None


def telling(tell) -> PopulationModel:
    return PopulationModel(Telling(tell), {"one": First()}, {"one": {}}, nn.Identity())


def numbered(frames: int) -> Inputs:
    return Inputs(torch.arange(float(frames)).view(1, -1, 1, 1, 1).expand(2, -1, 1, 1, 1))


def now_and_before(x):
    return x + 100 * x.roll(1, 1)


def where_it_begins(x):
    return x[:, :1].expand_as(x)


def predicted(model, frames, **how) -> list[float]:
    rates = Predictor(model, **how)(numbered(frames), "one")
    assert torch.equal(rates[0], rates[1])
    assert torch.equal(rates[..., 1], -rates[..., 0])
    return rates[0, :, 0].tolist()


@pytest.mark.parametrize("frames", [7, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_frame_is_predicted_from_itself_and_the_one_a_stride_before(frames, stride):
    model = telling(now_and_before)
    assert predicted(model, frames, stride=stride) == [t + 100.0 * (t - stride) for t in range(stride, frames)]
    assert Predictor(model, stride=stride).lost_frames == stride


def test_phases_that_predict_nothing_of_a_short_clip_are_left_out():
    assert predicted(telling(now_and_before), 5, stride=4) == [4.0]


def test_chunks_of_a_phase_are_the_phase():
    model = telling(now_and_before)
    assert predicted(model, 13, stride=3, chunk_frames=2) == predicted(model, 13, stride=3)


def test_windows_step_by_a_hop_and_the_last_one_ends_with_the_clip():
    assert Windows(4, 3).starts(10) == [0, 3, 6]
    assert Windows(4, 2).starts(9) == [0, 2, 4, 5]
    assert Windows(4, 2).starts(4) == Windows(4, 2).starts(3) == [0]


def test_a_frame_is_the_mean_of_the_windows_that_predict_it():
    # Windows of 4 frames begin at 0, 2, 4 and 6, tell where they begin, and predict all but their first frame.
    found = predicted(telling(where_it_begins), 10, windows=Windows(4, 2))
    assert found == [0, 0, (0 + 2) / 2, 2, (2 + 4) / 2, 4, (4 + 6) / 2, 6, 6]


def test_a_clip_no_longer_than_a_window_is_predicted_in_one_piece():
    model = telling(where_it_begins)
    assert predicted(model, 4, windows=Windows(4, 1)) == [*predicted(model, 3, windows=Windows(4, 1)), 0] == [0, 0, 0]


def test_windows_at_every_phase_of_a_stride():
    # Phase 0 is 0 2 4 6 8, phase 1 is 1 3 5 7 9. Windows of 3 of their frames, a hop of 1, predict their last 2.
    even, odd = [0, (0 + 2) / 2, (2 + 4) / 2, 4], [1, (1 + 3) / 2, (3 + 5) / 2, 5]
    interleaved = [x for pair in zip(even, odd, strict=True) for x in pair]
    assert predicted(telling(where_it_begins), 10, stride=2, windows=Windows(3, 1)) == interleaved


def built(session=None, arm="none", **changes):
    config = make_config(arm, **changes)
    session = session or make_session()
    return model_for(config, [session]).double().eval(), session


def clips_of(session) -> Inputs:
    read = read_batch(session, Request(session.name, (0, 1), (0, 0), 40))
    return read.to("cpu", torch.float64).inputs


@pytest.mark.parametrize("changes", [CONV2D, {}, {"core": {"name": "linear", "lags": 4}, "readout": "linear"}])
@pytest.mark.parametrize("hop", [1, 5, 9])
def test_windows_of_a_model_that_reads_a_bounded_past_are_its_plain_prediction(changes, hop):
    model, session = built(**changes)
    inputs = clips_of(session)
    plain, found = model(inputs, "one"), predict_in_windows(model, inputs, "one", Windows(13, hop))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    at_once = predict_in_windows(model, inputs, "one", Windows(40, hop))
    assert torch.equal(at_once, plain)


@pytest.mark.parametrize(
    ("observe", "arm"),
    [
        (lambda session: observe_past(session, 0.1), {"interaction": "population_film"}),
        (lambda session: observe_others(session, 0.5, 0), {"interaction": "latent"}),
    ],
    ids=["past", "others"],
)
def test_records_before_a_window_are_known_in_it(observe, arm):
    session = observe(make_session(neurons=8))
    model, _ = built(session, "reads", **CONV2D, arms={"none": {}, "reads": arm})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    inputs = clips_of(session)
    plain, found = model(inputs, "one"), predict_in_windows(model, inputs, "one", Windows(10, 7))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    deaf = predict_in_windows(model, replace(inputs, observed=torch.zeros_like(inputs.observed)), "one", Windows(10, 7))
    assert (deaf - plain).abs().max() > 1e-3


VIVIT = {
    "name": "vivit",
    "tubelet_frames": 3,
    "width": 8,
    "spatial_blocks": 1,
    "temporal_blocks": 1,
    "heads": 1,
    "head_width": 4,
    "hidden": 8,
    "registers": 0,
}
WINNER = {"name": "depthwise_conv3d", "stem": 8, "widths": [8], "strides": [2], "expansion": 2, "cortex": []}


@pytest.mark.parametrize("core", [VIVIT, WINNER | {"causal": False}], ids=lambda core: core["name"])
def test_windows_of_a_core_that_sees_all_of_a_clip_are_another_prediction(core):
    model, session = built(core=core, train={"evaluation_hop": 4})
    start(model, make_config(core=core, train={"evaluation_hop": 4}))
    inputs = clips_of(session)
    plain, found = model(inputs, "one"), predict_in_windows(model, inputs, "one", Windows(20, 4))
    assert found.shape == plain.shape
    assert (found - plain).abs().max() > 1e-6


GRU = {
    "features": [1],
    "sides_px": [3],
    "orders": [2],
    "directions": 4,
    "gru_channels": 2,
    "input_px": 3,
    "memory_px": 3,
}
REFUSED = [
    (
        "none",
        {"train": {"evaluation_hop": 18}},
        r"each predicts 17 frames \(the core consumes 3\).*at most 17, or raise",
    ),
    (
        "none",
        {"train": {"evaluation_hop": 4, "evaluation_frames": 8}},
        "evaluation_frames=8 would cut clips .* one of the",
    ),
    (
        "none",
        {"core": {"name": "conv_gru", **GRU}},
        "core 'conv_gru' reads clips from their beginning and would begin anew",
    ),
    (
        "own_past",
        {},
        "interaction 'linear_autoregressive' remembers earlier frames and would begin anew in every window",
    ),
    ("none", {"interaction": "own_drive_filter"}, "interaction 'own_drive_filter' remembers earlier frames"),
    ("none", {"normalization": "subtractive"}, "normalization 'subtractive' remembers earlier frames"),
    ("none", {"normalization": {"name": "input_depression", "longest_s": 0.1}}, "normalization 'input_depression' rem"),
]


@pytest.mark.parametrize(("arm", "changes", "message"), REFUSED, ids=[message[:40] for _, _, message in REFUSED])
def test_windows_are_refused_where_a_part_would_begin_anew_or_frames_be_left_out(arm, changes, message):
    config = make_config(arm, **{"train": {"evaluation_hop": 4}, **changes})
    model = model_for(config, [make_session()])
    with pytest.raises(ValueError, match=rf"train.evaluation_hop={config.train.evaluation_hop} averages .*{message}"):
        start(model, config)
    without = replace(config, train=replace(config.train, evaluation_hop=None))
    if not config.train.evaluation_frames:
        start(model, without)


def test_a_core_that_hands_its_state_on_has_no_windows(monkeypatch):
    config = make_config(train={"evaluation_hop": 4})
    model = model_for(config, [make_session()])
    monkeypatch.setattr(type(model.core), "scan", lambda self, inputs, state: None, raising=False)
    with pytest.raises(ValueError, match="core 'factorized_conv3d' reads clips from their beginning"):
        start(model, config)


def test_a_stride_is_refused_where_every_frame_has_a_value():
    config = make_config(core="time_course", readout="linear", train={"frame_stride": 2, "frames": 20})
    model = model_for(config, [make_session()])
    with pytest.raises(ValueError, match=r"core 'time_course' has a value for each frame .* set train.frame_stride: 1"):
        start(model, config)


def test_recurrent_stages_may_stride_and_count_time_in_longer_bins():
    strided, plain = (
        built(arm="none", normalization={"name": "input_depression", "longest_s": 0.4}, train={"frame_stride": stride})
        for stride in (2, 1)
    )
    assert strided[0].feature_stage.bin_s == pytest.approx(2 / 30)
    assert plain[0].feature_stage.bin_s == pytest.approx(1 / 30)
    assert strided[0].burn_in("one") == pytest.approx(plain[0].burn_in("one") / 2, abs=1)
    model, session = built(arm="own_past", train={"frame_stride": 2})
    inputs = clips_of(session)
    rates = Predictor(model, stride=2)(inputs, "one")
    for phase in range(2):
        alone = model(inputs.map(lambda x, phase=phase: x[:, phase::2]), "one")
        assert torch.equal(rates[:, phase::2], alone)


def test_a_lag_is_at_least_as_long_with_a_stride():
    model, _ = built(observe_past(make_session(), 0.1), train={"frame_stride": 2})
    assert model.recorded.lag_bins == 2  # 3 bins of 1/30 s: 2 of 1/15 s


def evaluated(model, session, **how):
    with ClipLoader([session]) as loader:
        return evaluate(model, loader, VALIDATION, LocalRuntime(device=torch.device("cpu")), frames_at_once=80, **how)


def test_the_frames_that_count_are_the_same_at_any_stride_and_with_windows():
    session = make_session()
    model = model_for(make_config(**CONV2D), [session])
    found = [
        evaluated(model, session, **how)["one"]
        for how in ({}, {"stride": 2}, {"stride": 3}, {"stride": 2, "windows": Windows(8, 3)})
    ]
    for other in found[1:]:
        for name in ("n_frames", "sum_y", "sum_yy"):
            assert other[name].tolist() == found[0][name].tolist()
        # a model of single frames predicts them alike, whatever the others are
        torch.testing.assert_close(
            torch.from_numpy(other.values), torch.from_numpy(found[0].values), rtol=1e-4, atol=1e-4
        )


def test_a_model_that_loses_more_frames_than_are_left_out_of_scores_is_refused_before_training():
    arms = {"none": {"train": {"frame_stride": {"choice": [1, 3, 4]}, "frames": 10}}}
    with pytest.raises(PlanError, match=r"needs 12 frames before its first .*is scored from frame 10"):
        summarize_arms_of(arms)
    arms["none"]["train"]["frame_stride"] = {"choice": [1, 3]}  # 3 x 3 frames are lost
    assert [arm.name for arm in summarize_arms_of(arms)] == ["none"]


def summarize_arms_of(arms):
    return summarize_arms(make_sweep(arms=arms), [make_session()])


def test_a_crop_that_spans_more_than_a_training_clip_is_refused_before_training():
    with pytest.raises(PlanError, match=r"has 40 valid frames, fewer than the 47 of a crop \(24, every 2 frames\)"):
        summarize_arms_of({"none": {"train": {"frame_stride": 2, "frames": 24}}})


def test_without_stride_and_windows_nothing_but_chunks_is_entered(monkeypatch):
    called = []

    def watched(*given):
        called.append(given)
        return predict_in_chunks(*given)

    monkeypatch.setattr(prediction, "predict_in_chunks", watched)
    monkeypatch.setattr(prediction, "predict_in_windows", None)
    model, inputs = telling(now_and_before), numbered(9)
    rates = Predictor(model, chunk_frames=4)(inputs, "one")
    assert [given[0] is model and given[1] is inputs and given[2:] for given in called] == [("one", 4)]
    assert torch.equal(rates, model(inputs, "one"))
