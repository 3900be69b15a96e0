"""Averages of the rates of several models: by hand on models that tell frames, and against plain loops on real ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from worlds import FRAMES as FRAMES_OF_WORLDS
from worlds import make_config, make_session

from neuroint.averaging import evaluate_averages, mean_rates
from neuroint.data.base import DEV_TEST, TRAIN, VALIDATION, Clip, Facts, Inputs, Session, collate
from neuroint.data.loader import ClipLoader
from neuroint.data.observed import observe_masked, observe_past
from neuroint.evaluation import DivergedError, pooled_mean, score
from neuroint.fit import prepare
from neuroint.model import PopulationModel
from neuroint.modules.base import Reads
from neuroint.prediction import Predictor, Windows
from neuroint.runtime import LocalRuntime
from neuroint.sweep.ensembling import choose

CPU = torch.device("cpu")
METRIC = "single_trial_correlation"
FRAMES, SCORED_FROM = 12, 2
SCORED_OF_WORLDS = FRAMES_OF_WORLDS - 10


class Telling(nn.Module):
    """A core that sees the number of a frame, and tells ``tell(number)`` of all frames but the first ``lost``."""

    reads = Reads()
    feature_shape = (1, 1, 1)

    def __init__(self, tell, lost):
        super().__init__()
        self.tell, self.lost_frames = tell, lost

    def forward(self, inputs):
        return self.tell(inputs.stimulus)[:, self.lost_frames :]


class Both(nn.Module):
    """A readout that hands a single feature on to two neurons, the second with a minus."""

    reads, embedding_channels = Reads(), 0

    def forward(self, features, pupil, neurons):
        return features[:, :, 0, 0] * torch.tensor([1.0, -1.0])

    def embedding(self):
        return None


def telling(tell, lost=1, **how) -> Predictor:
    return Predictor(PopulationModel(Telling(tell, lost), {"one": Both()}, {"one": {}}, nn.Identity()), **how)


@dataclass(frozen=True)
class Counting:
    """Shows the number of a frame; the neurons respond with it, and with its negative."""

    def read(self, clip, start, frames):
        number = np.arange(start, start + frames, dtype=np.float32)
        return Clip(responses=np.stack([number, -number], axis=1), stimulus=number.reshape(-1, 1, 1, 1))


def counting() -> Session:
    """A session of two neurons; one stimulus is shown three times in each tier that is scored."""
    tiers = (TRAIN,) * 2 + (VALIDATION,) * 3 + (DEV_TEST,) * 3
    facts = Facts(2, (1, 1, 1), np.ones(2, np.float32), FRAMES)
    stimuli, lengths = np.asarray([0, 1, 2, 2, 2, 3, 3, 3]), np.full(len(tiers), FRAMES)
    return Session("one", "animal", facts, tiers, lengths, stimuli, Counting(), scored_from=SCORED_FROM)


def wobble(x):
    return 3 * torch.cos(torch.pi * x)


TRUE_TWICE = {"above": telling(lambda x: x + wobble(x)), "below": telling(lambda x: x - wobble(x))}
WITH_A_BAD_ONE = TRUE_TWICE | {"reversed": telling(lambda x: -5 * x)}


def averages(predictors, sizes, session=None, tier=VALIDATION, frames_at_once=100):
    sessions = [session or counting()]
    with ClipLoader(sessions) as loader:
        return evaluate_averages(predictors, loader, tier, CPU, sizes=sizes, frames_at_once=frames_at_once)


def test_frames_that_all_models_predict_are_averaged_whatever_each_loses_at_the_beginning():
    numbered = Inputs(torch.arange(8.0).view(1, -1, 1, 1, 1))
    models = {
        "plain": telling(lambda x: x),
        "late": telling(lambda x: 3 * x, lost=3),
        "strided": telling(lambda x: 5 * x, stride=2),
        "windows": telling(lambda x: 7 * x, windows=Windows(4, 2)),
    }
    found = [rates[0].tolist() for rates in mean_rates(models, numbered, "one")]
    from_the_third = [3.0, 4.0, 5.0, 6.0, 7.0]
    for n, factor in enumerate([1, 2, 3, 4], 1):  # 1; (1 + 3) / 2; (1 + 3 + 5) / 3; (1 + 3 + 5 + 7) / 4
        assert found[n - 1] == [[factor * t, -factor * t] for t in from_the_third], n


def test_errors_that_cancel_make_two_the_best_number_and_a_bad_third_is_left_out():
    found = averages(WITH_A_BAD_ONE, (1, 2, 3))
    validation = [pooled_mean(score(found[n], METRIC)) for n in (1, 2, 3)]
    frames = np.arange(SCORED_FROM, FRAMES)
    alone = np.corrcoef(frames, frames + 3.0 * (-1.0) ** frames)[0, 1]
    assert alone < 0.95
    assert validation == pytest.approx([alone, 1.0, -1.0], abs=1e-6)  # (2 x - 5 x) / 3 = -x
    assert choose(validation) == 2


def test_the_best_model_is_counted_once_at_every_size():
    models = {"one": telling(lambda x: x), "three": telling(lambda x: 3 * x), "eight": telling(lambda x: 8 * x)}
    found = averages(models, (1, 3))
    of_frames = 3 * sum(range(SCORED_FROM, FRAMES))  # 3 repeats
    assert found[1]["one"]["sum_p"].tolist() == [of_frames, -of_frames]
    assert found[3]["one"]["sum_p"].tolist() == [4 * of_frames, -4 * of_frames]


def test_repeats_that_are_split_over_batches_are_put_together():
    whole, split = (averages(WITH_A_BAD_ONE, (2,), frames_at_once=at_once)[2]["one"] for at_once in (1000, FRAMES))
    assert whole.n_stimuli == split.n_stimuli == 1
    np.testing.assert_array_equal(whole.values, split.values)
    assert whole["n_var"].tolist() == [FRAMES - SCORED_FROM] * 2, "there were repeats"


def test_only_the_tier_that_is_asked_for_is_read():
    read = []

    @dataclass(frozen=True)
    class Noting(Counting):
        def read(self, clip, start, frames):
            read.append(clip)
            return super().read(clip, start, frames)

    averages(TRUE_TWICE, (1, 2), replace(counting(), source=Noting()), DEV_TEST)
    assert sorted(read) == [5, 6, 7], "each clip once for all models and sizes"


def test_a_model_whose_rates_are_no_numbers_is_named():
    models = {"sound": telling(lambda x: x), "lost": telling(lambda x: x / 0)}
    with pytest.raises(DivergedError, match=r"rates of lost for session 'one' are infinite or NaN: no average"):
        averages(models, (1, 2))


def test_sizes_that_are_no_number_of_models_are_refused():
    with pytest.raises(ValueError, match=r"got sizes \[0, 3\]; an average is of 1 to 2 of the models"):
        averages(TRUE_TWICE, (0, 1, 3))


def test_a_model_that_loses_frames_that_are_scored_is_refused():
    with pytest.raises(ValueError, match="needs 3 frames before its first prediction, but session 'one' is scored"):
        averages(TRUE_TWICE | {"late": telling(lambda x: x, lost=3)}, (3,))


STNDT = {
    "core": {"name": "stndt", "frames": 10, "layers": 1, "heads": 1, "hidden": 4},
    "readout": {"name": "linear"},
    "link": "exp",
    "objective": "masked_poisson",
    "arms": {"none": {}},
}
COUPLED = {"arms": {"none": {}, "coupled": {"interaction": "coupled_glm"}}}
SYSTEMS = {
    "video": ("none", {}, lambda session: session),
    "own past": ("own_past", {}, lambda session: session),
    "chunks": ("own_past", {"train": {"evaluation_frames": 15}}, lambda session: session),
    "stride": ("none", {"train": {"frame_stride": 2}}, lambda session: session),
    "windows": ("none", {"train": {"evaluation_hop": 3}}, lambda session: session),
    "records": ("coupled", COUPLED, lambda session: observe_past(session, 0.1)),
    "stndt": ("none", STNDT, lambda session: observe_masked(session, 0.4, seed=1)),
}


def moved_model(config, sessions) -> PopulationModel:
    """A model in which nothing is as it was initialized: gates are open."""
    model = prepare(config, sessions, LocalRuntime(device=CPU), torch.float32).evaluated.eval()
    draw = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return model


def by_a_plain_loop(predictors, session: Session) -> np.ndarray:
    """Correlate, clip by clip and without the loader, what both models predict on average with the responses."""
    rates, responses = [], []
    for clip in session.clips(DEV_TEST):
        read = session.source.read(int(clip), 0, FRAMES_OF_WORLDS)
        inputs = collate(session.name, [int(clip)], [read]).inputs
        with torch.no_grad():
            found = [p(inputs, session.name)[0, -SCORED_OF_WORLDS:].double().numpy() for p in predictors.values()]
        rates.append(np.mean(found, axis=0))
        responses.append(read.responses[-SCORED_OF_WORLDS:])
    pairs = zip(np.concatenate(rates).T, np.concatenate(responses).T, strict=True)
    return np.asarray([np.corrcoef(p, y)[0, 1] if np.isfinite(y).all() else np.nan for p, y in pairs])


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_averaged_in_every_session_as_by_a_plain_loop(system):
    arm, changes, offer = SYSTEMS[system]
    others = 7 if system == "stndt" else 5  # its core sees all neurons of every session
    sessions = [offer(make_session("one", neurons=7)), offer(make_session("two", neurons=others, seed=1))]
    configs = [make_config(arm, seed, **changes) for seed in (1, 2)]
    train = configs[0].train
    how = {"stride": train.frame_stride, "chunk_frames": train.evaluation_frames}
    how["windows"] = None if train.evaluation_hop is None else Windows(train.frames, train.evaluation_hop)
    predictors = {str(c.seed): Predictor(moved_model(c, sessions), **how) for c in configs}
    with ClipLoader(sessions) as loader:
        found = evaluate_averages(predictors, loader, DEV_TEST, CPU, sizes=(1, 2), frames_at_once=80)
    both, alone = score(found[2], METRIC), score(found[1], METRIC)
    for session in sessions:
        expected = by_a_plain_loop(predictors, session)
        assert np.isfinite(expected).sum() >= 3
        np.testing.assert_allclose(both[session.name], expected, atol=2e-5)
        assert np.nanmax(np.abs(both[session.name] - alone[session.name])) > 1e-3, "the second model counts"
