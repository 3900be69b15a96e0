"""Filters over recorded activity, written out."""

import numpy as np
import pytest
import torch

from neuroint.modules.causal_filters import RecordedSummary, causal_filter, newest, raised_cosines
from neuroint.registry import MissingFactError, interactions


def bumps(count, bins):
    spacing = np.log(1 + bins) / (count + 1)
    found = np.zeros((count, bins))
    for base in range(count):
        for lag in range(bins):
            apart = np.log(1 + lag) - base * spacing
            if abs(apart) < 2 * spacing:
                found[base, lag] = 1 + np.cos(np.pi * apart / (2 * spacing))
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize(("count", "bins"), [(1, 1), (1, 5), (3, 15), (5, 5), (4, 40)])
def test_bases_are_raised_cosines_in_log_time_that_sum_to_one(count, bins):
    found = raised_cosines(count, bins).numpy()
    np.testing.assert_allclose(found, bumps(count, bins), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_later_bases_lie_further_back_and_are_wider():
    found = raised_cosines(4, 30)
    lag = torch.arange(30.0)
    center = found @ lag
    width = ((found * (lag - center[:, None]) ** 2).sum(1)).sqrt()
    assert (center.diff() > 0).all()
    assert (width.diff() > 0).all()


def test_more_bases_than_bins_are_refused():
    with pytest.raises(ValueError, match=r"6 bases do not fit into a filter of 5 bin\(s\); take fewer bases"):
        raised_cosines(6, 5)


@pytest.mark.parametrize("history", [3, 6, 9, 20])
def test_filters_look_back_only_and_use_as_much_history_as_there_is(history):
    draw = np.random.default_rng(0)
    values, filters, frames = draw.normal(size=(2, history, 3)), draw.normal(size=(2, 4)), min(history, 6)
    expected = np.zeros((2, 2, frames, 3))
    for t in range(frames):
        now = history - frames + t
        for lag in range(4):
            if now - lag >= 0:
                expected[:, :, t] += filters[:, lag, None, None] * values[:, now - lag]
    found = causal_filter(torch.tensor(values), torch.tensor(filters), frames)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_before_what_is_known_there_are_zeros():
    values = torch.tensor([[[1.0], [2.0]]])
    assert newest(values, 3).flatten().tolist() == [0, 1, 2]
    assert newest(values, 1).flatten().tolist() == [2]


def test_a_summary_projects_and_then_filters():
    torch.manual_seed(0)
    summary = RecordedSummary(channels=5, summaries=2, bins=4, bases=3).double()
    torch.nn.init.normal_(summary.shape)
    observed = torch.randn(2, 9, 5, dtype=torch.float64)
    q, p = summary.shape.detach().numpy(), summary.projection.detach().numpy()
    expected = np.zeros((2, 6, 2))
    for t in range(6):
        for lag in range(4):
            past = observed[:, 3 + t - lag].numpy() @ p
            expected[:, t] += past * (q @ summary.basis.numpy())[:, lag]
    np.testing.assert_allclose(summary(observed, 6).detach(), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["coupled_glm", "population_film", "latent"])
def test_a_design_that_reads_records_refuses_data_without_them(name):
    facts = {"n_neurons": 4, "observed_channels": 0, "embedding_channels": 3}
    with pytest.raises(MissingFactError, match=rf"'{name}' reads recorded activity, and the data offers 0 channels"):
        interactions[name].build({}, facts)
