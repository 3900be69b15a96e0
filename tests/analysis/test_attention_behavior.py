"""From a core and sessions to the four numbers: a core that looks where the pupil points is found out, and drawn."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn
from worlds import FRAMES, make_session

from neuroint.analysis.attention_behavior import behavior_in_attention, pairs_of
from neuroint.analysis.video_attention import attention_of
from neuroint.data.base import VALIDATION, Clip
from neuroint.modules.places import PlaceGrid
from neuroint.report.attention_maps import ShownClip, draw_attention
from neuroint.seeding import generator

GRID = PlaceGrid(0, 3, 4, side_px=2, stride_px=2)


@dataclass(frozen=True)
class Wanderer:
    """An animal whose pupil and running wander, so that neighboring frames say the same."""

    seed: int
    channels: int = 2

    def read(self, clip: int, start: int, frames: int) -> Clip:
        draw = generator(self.seed, "wanders", clip)
        did = np.cumsum(draw.normal(size=(FRAMES, 2 + self.channels)), axis=0).astype(np.float32) / 4
        crop = np.s_[start : start + frames]
        seen = draw.normal(size=(FRAMES, 1, 8, 10)).astype(np.float32)
        return Clip(np.zeros((frames, 1), np.float32), seen[crop], behavior=did[crop, 2:], pupil=did[crop, :2])


class Looking(nn.Module):
    """A core whose maps follow what it is told by as much as asked for, and what it sees besides.

    All look the further right, the further right the pupil is; up and down follows the video alone. Later frames look
    at those of running.
    """

    def __init__(self, told: float) -> None:
        super().__init__()
        self.told, self.place_grid, self.lost_frames = told, GRID, 2

    def maps(self, inputs, kinds):
        kept = inputs.from_frame(self.lost_frames)
        seen, places = kept.stimulus[0, :, 0, 0], torch.arange(12)
        right = self.told * kept.pupil[0, :, 0] + seen[:, 0]
        spatial = (right[:, None] * (places % 4) + seen[:, 1:2] * (places // 4)).softmax(-1)
        now = (self.told * kept.behavior[0, :, 1] + seen[:, 2]).expand(kept.n_frames, -1)
        temporal = now.masked_fill(torch.ones_like(now).triu(1).bool(), -torch.inf).softmax(-1)
        found = {
            "spatial": spatial[None, :, None, None].expand(1, -1, 1, 12, -1),
            "temporal": temporal[None, None, None],
        }
        return {kind: found[kind] for kind in kinds}


def sessions(count=2, clips=10, **choices):
    made = [make_session(str(k)) for k in range(count)]
    table = {"tiers": (VALIDATION,) * clips, "lengths": np.full(clips, FRAMES), "stimulus_ids": np.arange(clips)}
    return [replace(one, source=Wanderer(k, **choices), **table) for k, one in enumerate(made)]


def test_a_core_that_is_told_where_to_look_is_found_out_and_by_swapped_behavior_just_the_same():
    found = behavior_in_attention(Looking(told=1.0), sessions(), VALIDATION, later_frames=5, draws=499)
    assert list(found) == ["x", "y", "time"]
    for kind in ("x", "time"):
        assert found[kind].own.correlation > 0.2
        assert found[kind].own.p < 0.01
        assert found[kind].passed_on.correlation == pytest.approx(found[kind].own.correlation, abs=0.1)
        assert abs(found[kind].left_over.correlation) < 0.3
        assert found[kind].mispaired.p > 0.05
    assert found["y"].own.p > 0.05, "no map was made to follow it"


def test_a_core_that_is_told_nothing_follows_nothing():
    found = behavior_in_attention(Looking(told=0.0), sessions(), VALIDATION, draws=499)
    assert min(one.p for four in found.values() for one in (four.own, four.passed_on, four.left_over)) > 0.05
    for four in found.values():
        assert four.left_over.correlation == four.own.correlation, "the same maps, the same behavior"


def test_sessions_without_a_pupil_or_without_attention_over_time_are_held_against_what_there_is():
    (session,) = sessions(1)
    whole = attention_of(Looking(1.0), session, VALIDATION)
    assert list(pairs_of("one", replace(whole, pupil=None))) == ["time"]
    assert list(pairs_of("one", replace(whole, temporal=None))) == ["x", "y"]
    pair = pairs_of("one", whole, running_channel=0)["time"]
    np.testing.assert_array_equal(pair.behavior, whole.behavior[..., 0])


def test_what_cannot_be_held_against_behavior_is_refused():
    (session,) = sessions(1)
    whole = attention_of(Looking(1.0), session, VALIDATION)
    with pytest.raises(
        ValueError, match="session 'one' has no pupil, and no behavior that attention over time could be"
    ):
        pairs_of("one", replace(whole, pupil=None, behavior=None))
    with pytest.raises(ValueError, match="running_channel is 2, and behavior of session 'one' has channels 0 to 1"):
        pairs_of("one", whole, running_channel=2)
    with pytest.raises(ValueError, match="core Linear has no maps of attention among places"):
        behavior_in_attention(nn.Linear(1, 1), [session], VALIDATION)
    with pytest.raises(ValueError, match="1 clip in a tier has no other one to swap behavior with"):
        behavior_in_attention(Looking(1.0), sessions(1, clips=1), VALIDATION)


@pytest.mark.parametrize("temporal", [True, False])
def test_a_picture_is_written_with_and_without_attention_over_time(temporal, tmp_path):
    (session,) = sessions(1)
    found = attention_of(Looking(1.0), session, VALIDATION)
    shown = ShownClip(
        video=session.source.read(0, 2, FRAMES - 2).stimulus[:, 0],
        spatial=found.spatial[0],
        usual=found.spatial.mean((0, 1)),
        grid=GRID,
        center_px=found.center_px[0],
        pupil_px=found.pupil[0] * 20,
        temporal=found.temporal[0] if temporal else None,
        running=found.behavior[0, :, 1],
        bin_s=0.1,
        begins_s=0.2,
    )
    np.testing.assert_allclose(shown.time_s[[0, -1]], [0.2, 3.9])
    pixels = imread(draw_attention(shown, tmp_path / "maps.png", title="one clip"))
    assert pixels.shape[:2] == ((832 if temporal else 637), 1430)
    assert pixels[..., :3].std() > 0.1, "something is drawn"
