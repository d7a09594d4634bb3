"""Blindness: what was known and no longer is; and a storm of alarms, which is one page."""

from __future__ import annotations

import json

import pytest
from fakes_judge import NOW, result

from dvfd.alarm import GAP, Breaker, Sight, State, Transition, blind, explained, forget


def play(*story, sight=None, grace=30.0):
    """The transitions and the last sight of a story of (seconds, verdict)."""
    sight = sight or Sight("live.m")
    told = []
    for at, verdict in story:
        sight, transition = blind(sight, result(verdict, at), grace=grace)
        if transition:
            told.append((at, transition.value))
    return told, sight


def steady(verdict, since, until, every=5):
    return [(at, verdict) for at in range(since, until + 1, every)]


KNOWN = Sight("live.m", known=True)
LOST = Sight("live.m", State.RAISED, known=True, since=NOW - 60, raised_at=NOW - 30)


@pytest.mark.parametrize("known", ["PASS", "FAIL"])
def test_what_was_known_and_is_now_unknown_is_raised_after_the_grace(known):
    told, sight = play((0, known), *steady("UNKNOWN", 5, 90))

    assert told == [(35, "raised")]
    assert (sight.state, sight.since, sight.raised_at) == (State.RAISED, NOW + 5, NOW + 35)


def test_what_was_never_known_is_never_raised():
    assert play(*steady("UNKNOWN", 0, 3600)) == ([], Sight("live.m"))


def test_without_grace_it_is_raised_at_once():
    assert play((0, "PASS"), (5, "UNKNOWN"), grace=0)[0] == [(5, "raised")]


def test_a_short_blindness_is_not_raised():
    story = [(0, "PASS"), *steady("UNKNOWN", 5, 30), (35, "PASS"), *steady("UNKNOWN", 40, 65)]

    assert play(*story)[0] == []


@pytest.mark.parametrize("known", ["PASS", "FAIL"])
def test_what_is_known_again_is_cleared(known):
    told, sight = play((5, known), sight=LOST)

    assert told == [(5, "cleared")]
    assert (sight.state, sight.known, sight.cleared_at) == (State.CLEAR, True, NOW + 5)
    assert (sight.since, sight.raised_at) == (NOW - 60, NOW - 30)


def test_lost_sight_is_pending_until_it_is_raised():
    assert play((0, "UNKNOWN"), sight=KNOWN)[1].state is State.PENDING


def test_a_silence_that_is_explained_makes_nothing_known():
    assert explained(Sight("live.m"), NOW) == (Sight("live.m"), None)


def test_a_short_blindness_is_over_without_having_been_cleared():
    _, sight = play((0, "PASS"), (5, "UNKNOWN"), (10, "PASS"))

    assert (sight.state, sight.since, sight.cleared_at) == (State.CLEAR, NOW + 5, None)


@pytest.mark.parametrize("excuse", ["NOT_APPLICABLE", "WAIVED"])
def test_what_is_excused_is_cleared_and_starts_over(excuse):
    told, sight = play((0, excuse), *steady("UNKNOWN", 5, 90), sight=LOST)

    assert told == [(0, "cleared")]
    assert sight.cleared_at == NOW


def test_series_that_ended_as_they_should_are_forgotten():
    sight, transition = forget(LOST, NOW)

    assert (transition, sight.known) == (Transition.CLEARED, False)
    assert sight.cleared_at == NOW
    assert play(*steady("UNKNOWN", 0, 90), sight=sight)[0] == []


def test_series_that_were_known_until_they_ended_leave_nothing_to_see():
    sight, transition = forget(KNOWN, NOW)

    assert (sight, transition) == (Sight("live.m"), None)
    assert forget(sight, NOW + 5) == (sight, None)


def test_time_that_nobody_observed_is_not_blindness_beyond_the_gap():
    told, _ = play((0, "UNKNOWN"), (86_400, "UNKNOWN"), sight=KNOWN, grace=GAP + 1)

    assert told == []


def test_a_clock_stepped_back_neither_raises_nor_clears():
    assert play((0, "UNKNOWN"), (-3600, "UNKNOWN"), (-3580, "UNKNOWN"), sight=KNOWN)[0] == []
    assert play((-3600, "UNKNOWN"), sight=LOST) == ([], LOST)


def test_a_clock_stepped_back_leaves_a_blindness_that_did_not_begin_after_it_was_raised():
    _, sight = play((0, "UNKNOWN"), *steady("UNKNOWN", -3600, -3550), sight=KNOWN)

    assert sight.since == sight.raised_at == NOW - 3570


def test_sight_does_not_change_while_nothing_happens():
    assert blind(KNOWN, result("PASS", 5), grace=30)[0] is KNOWN
    assert blind(LOST, result("UNKNOWN", 5), grace=30)[0] is LOST


@pytest.mark.parametrize(
    "sight", [Sight("live.m"), KNOWN, LOST, play((0, "UNKNOWN"), sight=KNOWN)[1]]
)
def test_sight_survives_a_restart(sight):
    document = json.loads(json.dumps(sight.to_dict()))

    assert Sight.from_dict("live.m", document) == sight


@pytest.mark.parametrize("document", [None, {}, {**LOST.to_dict(), "since": "x"}, [1]])
def test_a_bad_document_gives_a_fresh_sight_and_a_problem(document):
    sight = Sight.from_dict("live.m", document)

    assert (sight.criterion_id, sight.state, sight.known) == ("live.m", State.CLEAR, False)
    assert "stored sight of live.m is bad" in sight.problem


# --- Storms -----------------------------------------------------------------------------------


def storm(breaker, *raisings):
    """The breaker after (seconds, key) raisings, and the keys that went out alone."""
    alone = []
    for at, key in raisings:
        breaker, admitted = breaker.admit(NOW + at, key)
        if admitted:
            alone.append(key)
    return breaker, alone


def test_up_to_the_count_every_alert_goes_out_alone():
    breaker, alone = storm(Breaker(3, 60), (0, "a"), (1, "b"), (2, "c"))

    assert (alone, breaker.held) == (["a", "b", "c"], ())


def test_beyond_the_count_alerts_are_held_together():
    breaker, alone = storm(Breaker(3, 60), *((i, f"k{i}") for i in range(20)))

    assert (alone, len(breaker.held)) == (["k0", "k1", "k2"], 17)


def test_a_storm_that_goes_on_stays_one_page():
    _, alone = storm(Breaker(3, 60), *((i * 10, f"k{i}") for i in range(100)))

    assert alone == ["k0", "k1", "k2"]


def test_after_the_storm_alerts_go_out_alone_again():
    breaker, _ = storm(Breaker(2, 60), *((i, f"k{i}") for i in range(5)))

    assert breaker.admit(NOW + 64, "late")[1]


def test_alerts_that_come_slowly_are_no_storm():
    raisings = [(i * 31, f"k{i}") for i in range(20)]

    assert storm(Breaker(2, 60), *raisings)[1] == [key for _, key in raisings]


def test_what_is_as_old_as_the_window_is_of_no_storm():
    assert storm(Breaker(2, 60), (0, "a"), (30, "b"), (60, "c"))[1] == ["a", "b", "c"]


def test_a_held_alert_stays_held_until_it_clears():
    breaker, _ = storm(Breaker(1, 60), (0, "a"), (1, "b"))

    assert not breaker.admit(NOW + 600, "b")[1]
    assert breaker.drop("b").held == ()
    assert breaker.drop("b").admit(NOW + 600, "b")[1]


def test_a_clock_stepped_back_does_not_end_a_storm_nor_make_it_last():
    breaker, _ = storm(Breaker(2, 60), (0, "a"), (1, "b"))

    assert not breaker.admit(NOW - 3600, "c")[1]
    assert breaker.admit(NOW - 3600, "c")[0].admit(NOW - 3530, "d")[1]


def test_a_breaker_remembers_no_more_than_it_needs():
    breaker, _ = storm(Breaker(3, 60), *((i * 100, f"k{i}") for i in range(50)))

    assert (len(breaker.recent), breaker.held) == (1, ())


def test_a_storm_survives_a_restart():
    breaker, _ = storm(Breaker(2, 60), (0, "a"), (1, "b"), (2, "c"))
    document = json.loads(json.dumps(breaker.to_dict()))

    assert Breaker.from_dict(document, count=2, window=60) == breaker


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"recent": 1, "held": []},
        {"recent": ["x"], "held": []},
        {"recent": [], "held": [1]},
    ],
)
def test_a_bad_document_gives_a_fresh_breaker(document):
    assert Breaker.from_dict(document, count=2, window=60) == Breaker(2, 60)
