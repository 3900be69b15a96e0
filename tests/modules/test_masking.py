"""Masks: how much of what is hidden, in which stretches, and what stands in its place."""

import pytest
import torch
from pydantic import TypeAdapter

from neuroint.modules.masking import Masking, corrupted, draw_mask, masked_view

COUNTS = torch.full((64, 50, 20), 2.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("span", [1, 2, 5, 9])
@pytest.mark.parametrize("mode", ["full", "timestep"])
def test_the_ratio_is_the_same_for_every_span(mode, span, monkeypatch):
    masking = Masking(mode=mode, least=0.3, most=0.3, max_span=span)
    draws = torch.stack([draw_mask(masking, COUNTS, generator(seed)).double().mean() for seed in range(20)])
    assert draws.mean().item() == pytest.approx(0.3, abs=0.02 if mode == "timestep" else 0.004)


def test_full_masks_neurons_one_by_one_and_timestep_all_of_a_bin():
    full = draw_mask(Masking(mode="full"), COUNTS, generator())
    bins = draw_mask(Masking(mode="timestep"), COUNTS, generator())
    assert (full != full[..., :1]).any()
    assert (bins == bins[..., :1]).all()


def stretches(mask):
    """Lengths of masked stretches that do not touch the ends."""
    found = []
    for row in mask.transpose(1, 2).flatten(0, 1).int().tolist():
        text = "".join(map(str, row)).strip("1")
        found += [len(run) for run in text.split("0") if run]
    return found


def test_stretches_are_as_long_as_the_span_or_longer_and_spans_are_drawn():
    lengths = set()
    for seed in range(12):
        mask = draw_mask(Masking(least=0.1, most=0.1, max_span=4), COUNTS, generator(seed))
        lengths.add(min(stretches(mask)))
    assert lengths == {1, 2, 3, 4}


def test_the_first_bins_are_masked_as_often_as_the_others():
    masking = Masking(least=0.4, most=0.4, max_span=6)
    mask = torch.stack([draw_mask(masking, COUNTS, generator(seed)).float().mean((0, 2)) for seed in range(10)])
    assert (mask.mean(0) - 0.4).abs().max() < 0.03


def test_every_batch_has_a_mask_of_its_own():
    one = generator()
    assert (draw_mask(Masking(), COUNTS, one) != draw_mask(Masking(), COUNTS, one)).any()
    assert torch.equal(draw_mask(Masking(), COUNTS, generator(3)), draw_mask(Masking(), COUNTS, generator(3)))


def test_the_ratio_is_drawn_within_its_range():
    ratios = [draw_mask(Masking(least=0.1, most=0.4), COUNTS, generator(seed)).float().mean() for seed in range(30)]
    assert min(ratios) > 0.09
    assert max(ratios) < 0.41
    assert max(ratios) - min(ratios) > 0.2


def test_shares_of_zeros_random_and_kept_counts_are_what_was_asked_for():
    mask = torch.rand(COUNTS.shape, generator=generator()) < 0.5
    shown = corrupted(Masking(token_ratio=0.6, random_ratio=0.5), COUNTS, mask, generator(1))
    assert torch.equal(shown[~mask], COUNTS[~mask])
    hidden = shown[mask]
    # 60 % are 0; 20 % are 0, 1 or 2 at random; 20 % are kept
    for count, share in ((0, 0.6 + 0.2 / 3), (1, 0.2 / 3), (2, 0.2 + 0.2 / 3)):
        assert (hidden == count).float().mean().item() == pytest.approx(share, abs=0.01)


def test_the_largest_count_can_be_drawn():
    binary = torch.cat([torch.zeros(8, 50, 20), torch.ones(8, 50, 20)])
    mask = torch.ones_like(binary, dtype=torch.bool)
    shown = corrupted(Masking(token_ratio=0, random_ratio=1), binary, mask, generator())
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    assert shown[:8].mean().item() == pytest.approx(0.5, abs=0.02)


def test_what_was_given_is_left_as_it_was():
    counts = COUNTS.clone()
    masked_view(Masking(), counts, generator())
    assert torch.equal(counts, COUNTS)


def test_silence_stays_silent():
    assert not masked_view(Masking(token_ratio=0, random_ratio=1), torch.zeros(2, 5, 3), generator())[0].any()


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"masking: least=0.5 is above most=0.2; swap them"):
        TypeAdapter(Masking).validate_python({"least": 0.5, "most": 0.2})
