"""Whole models that read records: certified against leaks, the same in chunks, and their residuals in step."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from worlds import make_config, make_session

from neuroint.data.base import TRAIN, collate
from neuroint.data.observed import observe_others, observe_past
from neuroint.fit import certify_model
from neuroint.model import build_model, facts_of, predict_in_chunks

LAG_BINS = 4
PAST = [
    {"name": "linear_autoregressive", "fed": "recorded"},
    {"name": "gated_recurrent", "fed": "recorded"},
    {"name": "low_rank_recurrent", "fed": "recorded"},
    {"name": "distance_kernel", "fed": "recorded"},
    {"name": "full_coupling", "fed": "recorded"},
    {"name": "coupled_glm"},
    {"name": "coupled_glm", "two_step": True},
    {"name": "population_film"},
    {"name": "latent"},
]
OTHERS = [{"name": "coupled_glm", "partners": "all"}, {"name": "population_film"}, {"name": "latent"}]


def past():
    return observe_past(make_session(neurons=8), lag_s=LAG_BINS / 30)


def others():
    return observe_others(make_session(neurons=9), held_in=0.4, seed=1)


def model_of(session, interaction):
    specs = make_config(arms={"none": {}}, interaction=interaction, link="softplus").specs
    model = build_model(specs, facts_of([session])).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.interaction.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def batch_of(session):
    clips = [int(clip) for clip in session.clips(TRAIN)[:2]]
    batch = collate(session.name, clips, [session.source.read(clip, 0, 40) for clip in clips])
    return batch.to("cpu", torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("session", "interaction"),
    [(past, given) for given in PAST] + [(others, given) for given in OTHERS],
    ids=lambda x: x.__name__ if callable(x) else "-".join(str(part) for part in x.values()),
)
def test_a_model_that_reads_records_is_certified_and_the_same_in_chunks(session, interaction):
    session = session()
    model = model_of(session, interaction)
    found = certify_model(model, session, torch.device("cpu"), torch.float64)
    assert found.passed
    assert found.information == session.facts.recorded.information
    inputs = batch_of(session).inputs
    whole = model(inputs, session.name)
    for frames in (1, 7, 30):
        torch.testing.assert_close(predict_in_chunks(model, inputs, session.name, frames), whole, rtol=0, atol=1e-12)


def test_residuals_are_of_the_frame_that_was_recorded():
    session = past()
    model, batch = model_of(session, {"name": "coupled_glm", "two_step": True}), batch_of(session)
    stage, inputs = model.interaction[session.name], model.lagged(batch.inputs)
    drive = model.drive(inputs, session.name)[0]
    rate, records = functional.softplus(drive).detach().numpy(), batch.responses.numpy()
    residual, _ = stage._residual(inputs.observed, drive, drive[:, :0], stage.lag_bins)
    lost = model.lost_frames
    for back in range(1, 10):  # counted from the last frame of the clip
        now = 40 - back - LAG_BINS
        np.testing.assert_allclose(residual[:, -back].detach(), records[:, now] - rate[:, now - lost])
