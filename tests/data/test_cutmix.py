"""A box of another clip is pasted, and what was recorded is mixed by the area that was really cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from counted import counted_session

from neuroint.data.base import TRAIN, Batch, Inputs
from neuroint.data.cutmix import Box, check_cutmix, cutmix, draw_box, pasted
from neuroint.seeding import generator


class Told(np.random.Generator):
    """A generator that draws what it is told."""

    def __new__(cls, **told):
        return super().__new__(cls, np.random.PCG64(0))

    def __init__(self, *, uniform=0.0, share=0.25, center=(), order=(0, 1)):
        super().__init__(np.random.PCG64(0))
        self.uniform, self.share, self.center, self.order = uniform, share, list(center), order
        self.asked = None

    def random(self):
        return self.uniform

    def beta(self, *asked):
        self.asked = asked
        return 1 - self.share

    def integers(self, high):
        assert 0 <= self.center[0] < high
        return self.center.pop(0)

    def permutation(self, count):
        assert count == len(self.order)
        return np.array(self.order)


def batch_of(clips=2, height=8, width=10, stimulus=True):
    """Everything of clip k is k + 1 times ten, but recorded activity, which is k + 1 times seven."""
    tens = 10.0 * torch.arange(1, clips + 1)
    filled = lambda *shape: tens.view(-1, *[1] * len(shape)) * torch.ones(clips, *shape)  # noqa: E731
    video = filled(2, 1, height, width) if stimulus else None
    inputs = Inputs(video, filled(2, 3), filled(2, 2), filled(2, 4) * 0.7)
    return Batch("mouse", inputs, filled(2, 5), torch.ones(clips, 2, 5, dtype=torch.bool), torch.arange(clips))


def test_a_box_of_the_partner_is_pasted_into_all_frames_and_the_rest_is_mixed_by_area():
    batch = batch_of(height=4, width=5)
    mixed = pasted(batch, np.array([1, 0]), Box(1, 3, 0, 2))  # 4 of 20 pixels: lambda is .8
    picture = [[10.0] * 5, [20.0] * 2 + [10.0] * 3, [20.0] * 2 + [10.0] * 3, [10.0] * 5]
    assert mixed.inputs.stimulus[0, :, 0].tolist() == [picture] * 2
    assert mixed.inputs.stimulus[1, 1, 0, 1].tolist() == [10.0, 10.0, 20.0, 20.0, 20.0]
    for found in (mixed.responses, mixed.inputs.behavior, mixed.inputs.pupil):
        torch.testing.assert_close(found[0], torch.full_like(found[0], 12.0))
        torch.testing.assert_close(found[1], torch.full_like(found[1], 18.0))
    assert torch.equal(mixed.inputs.observed, batch.inputs.observed)
    assert torch.equal(mixed.clips, batch.clips)


def test_a_response_is_valid_where_both_are():
    batch = batch_of(clips=3)
    valid = batch.valid.clone()
    valid[0, 1, 2] = valid[2, 0, 4] = False
    mixed = pasted(replace(batch, valid=valid), np.array([1, 2, 0]), Box(0, 2, 0, 2))
    assert (~mixed.valid).nonzero().tolist() == [[0, 1, 2], [1, 0, 4], [2, 0, 4], [2, 1, 2]]


def test_the_batch_that_was_read_is_not_changed():
    batch, untouched = batch_of(), batch_of()
    cutmix(batch, 1.0, 1.0, generator(0))
    for one, other in ((batch.responses, untouched.responses), (batch.inputs.stimulus, untouched.inputs.stimulus)):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("center", "box"),
    [
        ((4, 5), Box(2, 6, 3, 8)),  # sides of 4 and 5: half of 8 and of 10
        ((0, 9), Box(0, 2, 7, 10)),  # from -2 to 2, and from 7 to 12: what lies outside is cut off
    ],
)
def test_a_box_is_centered_on_a_pixel_and_cut_at_the_edges(center, box):
    assert draw_box(8, 10, 0.25, Told(center=center)) == box


def test_the_share_that_mixes_is_that_of_the_box_as_it_was_cut():
    batch = batch_of()
    mixed = cutmix(batch, 1.0, 1.0, Told(share=0.25, center=(0, 9)))  # 6 of 80 pixels, not 20
    torch.testing.assert_close(mixed.responses[0], torch.full((2, 5), 10 + 10 * 6 / 80))
    assert (mixed.inputs.stimulus[0] == 20).sum() == 2 * 6  # two frames


def test_lambda_is_drawn_from_a_beta_distribution_that_is_even():
    told = Told(center=(4, 5))
    cutmix(batch_of(), 1.0, 0.3, told)
    assert told.asked == (0.3, 0.3)


def test_every_clip_has_another_one_as_partner_and_is_the_partner_of_one():
    batch = batch_of(clips=5)
    for draw in range(30):
        found = cutmix(batch, 1.0, 1.0, generator(draw))
        if found is batch:  # a box of no pixel
            continue
        shown = found.inputs.stimulus[:, 0, 0].flatten(1)
        others = [set(row.tolist()) - {own} for row, own in zip(shown, (10.0, 20.0, 30.0, 40.0, 50.0), strict=True)]
        assert all(len(other) == 1 for other in others)
        assert set.union(*others) == {10.0, 20.0, 30.0, 40.0, 50.0}


def test_the_ring_of_partners_is_the_drawn_order():
    mixed = cutmix(batch_of(clips=4), 1.0, 1.0, Told(center=(4, 5), order=(2, 0, 3, 1)))  # 2 -> 0 -> 3 -> 1 -> 2
    assert mixed.inputs.stimulus[:, 0, 0, 4, 5].tolist() == [40.0, 30.0, 10.0, 20.0]


def test_a_probability_is_how_often_it_happens():
    batch = batch_of()
    assert cutmix(batch, 0.5, 1.0, Told(uniform=0.5)) is batch
    assert cutmix(batch, 0.5, 1.0, Told(uniform=0.49, center=(4, 5))) is not batch
    assert cutmix(batch, 0.0, 1.0, Told(uniform=0.0)) is batch


def test_a_box_of_no_pixel_changes_nothing():
    batch = batch_of()
    assert cutmix(batch, 1.0, 1.0, Told(share=0.001, center=(4, 5))) is batch


def test_the_same_stream_mixes_alike_and_another_differently():
    words = (5, "cutmix", 0, 3, "mouse")
    mixed = [cutmix(batch_of(clips=4), 1.0, 1.0, generator(*words, rank)).responses for rank in (0, 0, 1)]
    assert torch.equal(mixed[0], mixed[1])
    assert not torch.equal(mixed[0], mixed[2])


def test_what_cannot_be_mixed_is_refused():
    session = counted_session({TRAIN: [20] * 4})
    blank = replace(session, facts=replace(session.facts, stimulus_shape=None))
    check = lambda sessions, clips=4, reads=False: check_cutmix(0.5, sessions, clips, "recorded_past", reads)  # noqa: E731
    check([session])
    with pytest.raises(ValueError, match=r"pastes pixels, but session 'mouse' has no stimulus; set train.cutmix: 0"):
        check([session, blank])
    with pytest.raises(ValueError, match=r"cutmix=0.5 pairs the clips .* there is 1; raise train.batch_size to at"):
        check([session], clips=1)
    with pytest.raises(ValueError, match=r"reads recorded activity \(recorded_past\), which would stay that of one"):
        check([session], reads=True)
    check_cutmix(0.0, [blank], 1, "recorded_past", True)


def test_batches_that_cannot_be_mixed_are_refused_as_well():
    with pytest.raises(ValueError, match="session 'mouse' has no stimulus"):
        cutmix(batch_of(stimulus=False), 1.0, 1.0, generator(0))
    with pytest.raises(ValueError, match="pairs the clips"):
        cutmix(batch_of(clips=1), 1.0, 1.0, generator(0))
