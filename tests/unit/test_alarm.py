"""Alarms: when a breach is raised, when it is cleared, and what does neither."""

from __future__ import annotations

import json

import pytest
from fakes_judge import NOW, result

from dvfd.alarm import GAP, Alarm, State, Transition, advance, release


def play(*story, alarm=None, **rule):
    """The transitions and the last alarm of a story of (seconds, verdict[, keys of the result])."""
    alarm = alarm or Alarm("live.m")
    told = []
    for at, verdict, *more in story:
        alarm, transition = advance(alarm, result(verdict, at, **rule, **dict(*more)))
        if transition:
            told.append((at, transition.value))
    return told, alarm


def steady(verdict, since, until, every=5):
    return [(at, verdict) for at in range(since, until + 1, every)]


RAISED = Alarm("live.m", State.RAISED, since=NOW - 60, raised_at=NOW - 50)


def test_a_breach_is_raised_at_once_by_default():
    told, alarm = play((0, "PASS"), (5, "FAIL"))

    assert told == [(5, "raised")]
    assert (alarm.state, alarm.since, alarm.raised_at) == (State.RAISED, NOW + 5, NOW + 5)


def test_a_lasting_breach_is_raised_once():
    assert play(*steady("FAIL", 0, 600))[0] == [(0, "raised")]


@pytest.mark.parametrize("verdict", ["PASS", "UNKNOWN", "NOT_APPLICABLE", "WAIVED"])
def test_nothing_but_a_breach_raises(verdict):
    assert play(*steady(verdict, 0, 600)) == ([], Alarm("live.m"))


def test_with_for_a_breach_is_raised_after_that_time_and_began_before():
    told, alarm = play(*steady("FAIL", 10, 90), hold=60)

    assert told == [(70, "raised")]
    assert alarm.since == NOW + 10


def test_with_for_a_shorter_breach_is_not_raised():
    assert play(*steady("FAIL", 0, 55), *steady("PASS", 60, 70), hold=60)[0] == []


def test_a_pass_begins_the_time_anew():
    told, _ = play(*steady("FAIL", 0, 50), (55, "PASS"), *steady("FAIL", 60, 130), hold=60)

    assert told == [(120, "raised")]


def test_an_unknown_does_not_end_a_pending_breach_but_its_time_does_not_count():
    told, _ = play(*steady("FAIL", 0, 30), (35, "UNKNOWN"), *steady("FAIL", 40, 90), hold=60)

    assert told == [(70, "raised")]


def test_time_that_nobody_observed_does_not_count_beyond_the_gap():
    told, _ = play((0, "FAIL"), (86_400, "FAIL"), (86_460, "FAIL"), hold=GAP + 60)

    assert told == [(86_460, "raised")]


def test_the_gap_is_five_minutes():
    story = [(0, "FAIL"), (86_400, "FAIL")]

    assert play(*story, hold=300)[0] == [(86_400, "raised")]
    assert play(*story, hold=300.5)[0] == []


def test_a_streak_takes_as_many_failing_results():
    assert play(*steady("FAIL", 0, 20), streak=3)[0] == [(10, "raised")]


def test_a_pass_breaks_the_streak():
    story = [(0, "FAIL"), (5, "FAIL"), (10, "PASS"), (15, "FAIL"), (20, "FAIL")]

    assert play(*story, streak=3)[0] == []


def test_one_sample_judged_again_is_one_of_the_streak():
    story = [(at / 10, "FAIL", {"sampled_at": NOW}) for at in range(9)]

    assert play(*story, streak=3)[0] == []


def test_a_streak_may_span_days():
    assert play((0, "FAIL"), (86_400, "FAIL"), streak=2)[0] == [(86_400, "raised")]


def test_a_pass_clears_at_once_by_default():
    told, alarm = play((5, "PASS"), alarm=RAISED)

    assert told == [(5, "cleared")]
    assert (alarm.state, alarm.cleared_at, alarm.since) == (State.CLEAR, NOW + 5, NOW - 60)
    assert alarm.raised_at == NOW - 50


def test_a_raised_alarm_survives_any_time_of_blindness():
    assert play(*steady("UNKNOWN", 0, 3600), alarm=RAISED) == ([], RAISED)


def test_with_recovery_it_clears_after_that_time_of_passes():
    told, alarm = play(*steady("PASS", 0, 60), alarm=RAISED, recovery=30)

    assert told == [(30, "cleared")]
    assert alarm.cleared_at == NOW + 30


def test_the_time_of_the_breach_is_none_of_the_recovery():
    story = [*steady("FAIL", 0, 60), *steady("PASS", 65, 100, every=1)]

    assert play(*story, hold=60, recovery=30)[0] == [(60, "raised"), (95, "cleared")]


def test_a_breach_takes_back_even_a_second_of_recovery():
    story = [(0, "PASS"), (1, "PASS"), (2, "UNKNOWN"), (3, "FAIL"), *steady("PASS", 4, 40, every=1)]

    assert play(*story, alarm=RAISED, recovery=30)[0] == [(34, "cleared")]


def test_a_breach_begins_the_recovery_anew_and_is_not_raised_again():
    story = [*steady("PASS", 0, 25), (30, "FAIL"), *steady("PASS", 35, 70)]

    assert play(*story, alarm=RAISED, recovery=30)[0] == [(65, "cleared")]


def test_blind_time_is_no_recovery():
    story = [(0, "PASS"), *steady("UNKNOWN", 5, 100), *steady("PASS", 105, 140)]

    assert play(*story, alarm=RAISED, recovery=30)[0] == [(135, "cleared")]


def test_with_hysteresis_it_clears_only_well_inside_the_limit():
    near = {"margin": 10, "limit": 75}
    far = {"margin": 15, "limit": 75}
    rule = {"wanted": "<= 75", "clear": 0.8}

    assert play((0, "PASS", near), alarm=RAISED, **rule)[0] == []
    assert play((0, "PASS", far), alarm=RAISED, **rule)[0] == [(0, "cleared")]


def test_near_the_limit_a_recovery_begins_anew():
    near, far = {"margin": 1, "limit": 75}, {"margin": 30, "limit": 75}
    story = [(0, "PASS", far), (20, "PASS", near), (25, "PASS", far), (40, "PASS", far)]

    assert play(*story, alarm=RAISED, wanted="<= 75", clear=0.8, recovery=30)[0] == []


@pytest.mark.parametrize("known", [{"margin": None, "limit": 75}, {"margin": 1, "limit": None}])
def test_what_is_not_known_of_the_limit_keeps_no_alarm(known):
    told, _ = play((0, "PASS", known), alarm=RAISED, wanted="<= 75", clear=0.8)

    assert told == [(0, "cleared")]


@pytest.mark.parametrize(("wanted", "limit"), [("== 1", 1), ("<= 0", 0)])
def test_equality_and_a_limit_of_zero_have_no_hysteresis(wanted, limit):
    told, _ = play(
        (0, "PASS", {"margin": 0.0, "limit": limit}), alarm=RAISED, wanted=wanted, clear=0.5
    )

    assert told == [(0, "cleared")]


def test_a_latched_alarm_does_not_clear_by_itself():
    assert play(*steady("PASS", 0, 3600), alarm=RAISED, latch=True) == ([], RAISED)


@pytest.mark.parametrize("verdict", ["NOT_APPLICABLE", "WAIVED"])
def test_what_is_waived_or_does_not_apply_clears_even_a_latched_alarm(verdict):
    told, alarm = play((0, verdict), alarm=RAISED, latch=True, recovery=60)

    assert told == [(0, "cleared")]
    assert alarm.cleared_at == NOW


def test_an_alarm_is_released_by_an_act():
    alarm, transition = release(RAISED, NOW)

    assert (alarm.state, alarm.cleared_at, transition) == (State.CLEAR, NOW, Transition.CLEARED)


def test_releasing_what_is_not_raised_tells_nobody():
    pending = Alarm("live.m", State.PENDING, since=NOW)

    assert release(pending, NOW)[1] is None
    assert release(pending, NOW)[0].cleared_at is None
    assert release(Alarm("live.m"), NOW) == (Alarm("live.m"), None)


def test_a_clock_stepped_back_does_not_raise_and_the_breach_begins_no_later_than_now():
    told, alarm = play((0, "FAIL"), (-3600, "FAIL"), (-3595, "FAIL"), hold=60)

    assert told == []
    assert alarm.since == NOW - 3600


def test_a_clock_stepped_back_does_not_clear():
    told, alarm = play((0, "PASS"), (-3600, "PASS"), (-3590, "PASS"), alarm=RAISED, recovery=30)

    assert told == []
    assert alarm.counted == 10


def test_a_clock_stepped_back_only_delays_the_raising():
    assert play((0, "FAIL"), *steady("FAIL", -3600, -3500), hold=60)[0] == [(-3540, "raised")]


def test_a_cleared_alarm_can_be_raised_again():
    told, alarm = play((0, "PASS"), (5, "FAIL"), alarm=RAISED)

    assert told == [(0, "cleared"), (5, "raised")]
    assert alarm.since == NOW + 5


def test_nothing_changes_while_nothing_happens():
    calm = Alarm("live.m")

    assert advance(calm, result("PASS", 5))[0] is calm
    assert advance(RAISED, result("FAIL", 5))[0] is RAISED
    assert advance(RAISED, result("UNKNOWN", 5))[0] is RAISED


def test_a_result_of_another_criterion_is_refused():
    with pytest.raises(ValueError, match=r"a result of live\.m is none of other"):
        advance(Alarm("other"), result("FAIL"))


@pytest.mark.parametrize("story", [[], steady("FAIL", 0, 20), steady("FAIL", 0, 90)])
def test_an_alarm_survives_a_restart(story):
    _, alarm = play(*story, hold=60, streak=2)
    document = json.loads(json.dumps(alarm.to_dict()))

    assert Alarm.from_dict("live.m", document) == alarm


def test_a_restart_in_the_middle_changes_nothing():
    _, alarm = play(*steady("FAIL", 0, 30), hold=60)
    restored = Alarm.from_dict("live.m", alarm.to_dict())

    assert play(*steady("FAIL", 35, 90), alarm=restored, hold=60)[0] == [(60, "raised")]


@pytest.mark.parametrize(
    "change",
    [
        {"state": "loud"},
        {"state": None},
        {"since": None},
        {"since": "yesterday"},
        {"since": float("nan")},
        {"since": 10**400},
        {"since": 1e12 + 1},
        {"counted": -1},
        {"streak": "3"},
        {"streak": True},
        {"last": [1]},
        {"criterion_id": "other"},
    ],
)
def test_a_bad_document_gives_a_clear_alarm_and_a_problem(change):
    alarm = Alarm.from_dict("live.m", {**RAISED.to_dict(), **change})

    assert (alarm.criterion_id, alarm.state) == ("live.m", State.CLEAR)
    assert "stored alarm of live.m is bad" in alarm.problem


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"criterion_id": "other"}, "it is that of 'other'"),
        ({"since": None}, "raised since never"),
        ({"last": [1]}, "last [1]"),
    ],
)
def test_the_problem_of_a_bad_document_says_what_was_read(change, why):
    assert Alarm.from_dict("live.m", {**RAISED.to_dict(), **change}).problem.endswith(why)


def test_a_breach_of_which_nobody_knows_the_beginning_began_now():
    assert (Alarm("live.m").began(NOW), RAISED.began(NOW)) == (NOW, NOW - 60)


def test_a_time_as_late_as_people_may_mean_is_taken():
    assert not Alarm.from_dict("live.m", {**RAISED.to_dict(), "since": 1e12}).problem


@pytest.mark.parametrize("document", [None, [], "raised", 1])
def test_what_is_no_document_gives_a_clear_alarm_and_a_problem(document):
    assert Alarm.from_dict("live.m", document).problem.endswith(f"{document!r} is no document")
