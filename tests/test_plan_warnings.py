"""What a plan knows of the end of a sweep before anything is trained."""

from dataclasses import replace

from worlds import make_config, make_session, make_sweep, with_epochs

from neuroint.data.base import DEV_TEST, UNUSED
from neuroint.sweep.driver import _data_hash, warn_of_untestable
from neuroint.sweep.matching import Size
from neuroint.sweep.planning import _plan, untestable
from neuroint.sweep.rehearsal import Rehearsed


def with_dev_test_stimuli(session, count):
    kept = {int(group[0]) for group in session.repeats(DEV_TEST)[:count]}
    tiers = [UNUSED if t == DEV_TEST and clip not in kept else t for clip, t in enumerate(session.tiers)]
    return replace(session, tiers=tuple(tiers))


def test_one_block_of_one_animal_is_said_to_leave_every_verdict_untested():
    session = make_session()
    one, two = (with_dev_test_stimuli(session, count) for count in (1, 2))
    assert "dev-test of 'one' has 1 stimulus or block" in untestable([one])
    assert "lower split.block_frames" in untestable([one])
    assert untestable([two]) == ""


def test_sessions_of_one_animal_are_tested_over_their_stimuli_and_animals_over_animals():
    sessions = [with_dev_test_stimuli(make_session(name), 1) for name in ("a", "b")]
    assert untestable(sessions) == ""
    assert "1 stimulus or block" in untestable([replace(session, animal="m") for session in sessions])


def test_a_sweep_without_any_verdict_to_come_says_so_before_it_starts(caplog):
    one = with_dev_test_stimuli(make_session(), 1)
    warn_of_untestable([one])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no verdict can be tested: dev-test of 'one'" in caplog.text


def test_recordings_whose_clips_changed_tier_or_whose_neurons_match_others_are_other_data():
    session = make_session()
    assert _data_hash([session]) == _data_hash([make_session()])
    assert _data_hash([session]) != _data_hash([with_dev_test_stimuli(session, 1)])
    ids = session.facts.match_ids
    assert ids is not None
    otherwise = replace(session, facts=replace(session.facts, match_ids=ids[::-1].copy()))
    assert _data_hash([session]) != _data_hash([otherwise])


def test_hours_are_those_of_the_dearest_corner_as_a_whole():
    sweep, session, config = make_sweep(), make_session(), make_config()
    corner = lambda epochs, seconds: Rehearsed(  # noqa: E731
        with_epochs(config, epochs), "stimulus", Size(1, 1), seconds, steps=10, peak_memory_mb=1.0
    )
    alone = _plan(sweep, "none", [session], [corner(20, 0.5)]).hours
    assert _plan(sweep, "none", [session], [corner(2, 1.0), corner(20, 0.5)]).hours == alone
    assert alone == 5 * _plan(sweep, "none", [session], [corner(2, 1.0)]).hours
