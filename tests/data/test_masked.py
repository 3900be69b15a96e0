"""Held-in neurons that are predicted in training and never scored: who is shown what, and that nothing leaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import make_config, make_session

from neuroint.config.settings import DataConfig
from neuroint.data.base import TRAIN, VALIDATION, DataError, Recorded, collate
from neuroint.data.observed import observe_masked, observe_others
from neuroint.fit import certify_model, claim_of
from neuroint.model import build_model, facts_of
from neuroint.recordings import _offering
from neuroint.registry import MissingFactError
from neuroint.runtime import LocalRuntime
from neuroint.train import train_trial

CORE = {"core": {"name": "ndt", "frames": 10, "layers": 1, "heads": 1, "hidden": 4}, "readout": {"name": "linear"}}
MODEL = {**CORE, "link": "exp", "objective": "masked_poisson", "arms": {"none": {}}}
SCORED = {"score": {"metric": "bits_per_spike"}, "train": {"epochs": 1, "frames": 20, "batch_size": 4}}


def masked(name="one", neurons=7, tier=TRAIN):
    plain = make_session(name, neurons=neurons)
    session = observe_masked(plain, 0.4, seed=1)
    clip = int(session.clips(tier)[0])
    return plain.source.read(clip, 3, 12), session.source.read(clip, 3, 12), session


def test_the_same_neurons_are_held_in_as_for_others_and_stand_first():
    plain, read, session = masked()
    others = observe_others(make_session(neurons=7), 0.4, seed=1)
    order = session.source.order
    np.testing.assert_array_equal(order, np.concatenate([others.source.channels, others.source.targets]))
    np.testing.assert_array_equal(read.responses, plain.responses[:, order])
    np.testing.assert_array_equal(read.observed, plain.responses[:, order[:3]])
    assert session.facts.recorded == Recorded("recorded_others", 0, 0, reconstructs=True)
    assert session.facts.observed_neurons.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(session.facts.mean_responses[3:], others.facts.mean_responses)


def test_outside_training_held_in_neurons_are_shown_and_not_scored():
    plain, read, session = masked(tier=VALIDATION)
    assert np.isnan(read.responses[:, :3]).all()
    np.testing.assert_array_equal(read.responses[:, 3:], plain.responses[:, session.source.order[3:]])
    np.testing.assert_array_equal(read.observed, plain.responses[:, session.source.order[:3]])


class Changed:
    """A source in which held-out neurons did something else."""

    def __init__(self, source, held_out):
        self.source, self.held_out = source, held_out

    def read(self, clip, start, frames):
        found = self.source.read(clip, start, frames)
        responses = found.responses.copy()
        responses[:, self.held_out] += 5
        return replace(found, responses=responses)


def test_what_held_out_neurons_do_never_reaches_a_model():
    _, _, session = masked()
    held = session.source
    other = replace(session, source=replace(held, source=Changed(held.source, held.order[3:])))
    batches = [collate("one", [0], [one.source.read(0, 0, 12)]) for one in (session, other)]
    assert (batches[0].responses != batches[1].responses).any()
    assert torch.equal(batches[0].inputs.observed, batches[1].inputs.observed)


@pytest.mark.parametrize("core", ["ndt", "stndt", "stndt_fixed"])
def test_the_certificate_of_a_transformer_says_others_and_not_causal(core):
    _, _, session = masked()
    config = make_config(**{**MODEL, "core": {**CORE["core"], "name": core}})
    model = build_model(config.specs, facts_of([session]))
    certificate = certify_model(model, session, torch.device("cpu"), torch.float32)
    assert certificate.passed
    assert (certificate.information, certificate.causal, certificate.own_record) == ("recorded_others", False, False)
    assert claim_of(model, session.facts).own_channels.tolist() == [-1] * 7


def test_only_held_out_neurons_have_a_validation_score():
    _, _, session = masked()
    scores = {}

    def keep(metrics, folder):
        scores.update(metrics)
        scores["files"] = {file.name: file for file in folder.iterdir()}
        scores["best"] = torch.load(folder / "state.pt", weights_only=True)["best_scores"]["one"].numpy()

    train_trial(make_config(**MODEL, **SCORED), [session], LocalRuntime(keep))
    assert np.isfinite(scores["train_loss"])
    assert np.isnan(scores["best"][:3]).all()
    assert np.isfinite(scores["best"][3:]).all()
    assert scores["validation_score"] == pytest.approx(scores["best"][3:].mean())


def test_the_configuration_offers_it_and_refuses_it_where_data_say_themselves_who_is_held_in():
    data = DataConfig(path="x", observed="masked", held_in=0.4, held_in_seed=1)
    session = _offering(make_session(neurons=7), data)
    assert session.facts.recorded.reconstructs
    assert _offering(session, DataConfig(path="x")) is session
    with pytest.raises(DataError, match=r"says itself which .* are held in; remove data.observed: masked"):
        _offering(session, data)


def test_a_core_that_needs_the_number_of_neurons_is_given_it_where_sessions_agree():
    config = make_config(**MODEL)
    same = [masked(name)[2] for name in ("one", "two")]
    assert build_model(config.specs, facts_of(same)).core.width == 7
    other = replace(same[1], facts=replace(same[1].facts, n_neurons=8))
    with pytest.raises(MissingFactError, match="core 'ndt' needs n_neurons"):
        build_model(config.specs, facts_of([same[0], other]))
