"""When gates are due: the programme's start says it, delays move it."""

from datetime import date

import pytest
from fakes_gates import AT, DAY, GATES, book, catalogue

from dvfd.errors import DvfdError
from dvfd.gates.programme import Due, dates, day_of, slips

MONDAY = date(2026, 3, 2)


def delays(*bodies):
    made = book("phase1")
    made.records.clear()
    for gate, body in bodies:
        made.add("delay", gate, body)
    return made.records


def days(start, *bodies):
    known = dates(catalogue().gates.values(), start, delays(*bodies))
    return [str(known[gate].day) for gate in GATES]


def test_every_gate_of_the_catalogue_is_due_on_the_friday_of_its_week():
    assert days(MONDAY) == ["2026-03-13", "2026-03-27", "2026-04-10", "2026-04-24"]


def test_a_programme_that_begins_within_a_week_has_its_fridays_too():
    assert day_of("Friday, week 1", date(2026, 3, 7)) == date(2026, 3, 13)


def test_without_a_start_no_gate_has_a_day():
    assert dates(catalogue().gates.values(), None, []) == {}


@pytest.mark.parametrize("text", ["Friday", "Friday, week 0", "friday, week 2", "Frday, week 2"])
def test_what_is_no_day_is_refused(text):
    with pytest.raises(DvfdError, match="no day of a programme"):
        day_of(text, MONDAY)


def test_a_delay_moves_its_gate_and_those_after_it():
    late = days(MONDAY, ("phase2a", {"weeks": 1, "until": AT, "incident": "i1"}))
    assert late == ["2026-03-13", "2026-04-03", "2026-04-17", "2026-05-01"]


def test_a_longer_delay_of_the_same_incident_takes_the_place_of_the_shorter():
    shorter = ("phase1", {"weeks": 1, "until": AT + 7 * DAY, "incident": "i1"})
    longer = ("phase1", {"weeks": 2, "until": AT + 14 * DAY, "incident": "i1"})
    assert days(MONDAY, shorter, longer)[0] == "2026-03-27"


def test_delays_at_one_time_count_once_and_others_add_up():
    one = ("phase1", {"weeks": 1, "until": AT, "incident": "i1"})
    beside = ("phase1", {"weeks": 1, "until": AT, "incident": "i2"})
    later = ("phase1", {"weeks": 1, "until": AT + 30 * DAY, "incident": "i3"})
    assert days(MONDAY, one, beside)[0] == "2026-03-20"
    assert days(MONDAY, one, beside, later)[0] == "2026-03-27"


@pytest.mark.parametrize("weeks", [1e300, 1e308, 10**9])
def test_beyond_the_end_of_the_calendar_it_is_its_last_day(weeks):
    assert days(date(9999, 12, 1))[3] == "9999-12-31"
    assert days(date(9900, 3, 1), ("phase1", {"weeks": weeks, "until": AT}))[0] == "9999-12-31"


def test_a_delay_that_says_no_weeks_moves_nothing():
    assert days(MONDAY, ("phase1", {"weeks": None, "until": AT}))[0] == "2026-03-13"


def test_a_gate_says_when_it_was_planned_and_how_many_weeks_later_it_is():
    late = delays(("phase1", {"weeks": 2, "until": AT, "incident": "i1"}))
    found = dates(catalogue().gates.values(), MONDAY, late)
    assert found["phase1"] == Due(date(2026, 3, 13), date(2026, 3, 27), 2)
    assert found["phase2a"] == Due(date(2026, 3, 27), date(2026, 4, 10), 2)


def test_a_week_begins_on_the_day_of_the_start_whatever_day_that_is():
    thursday = date(2026, 3, 5)
    found = [str(day_of(f"{day}, week 2", thursday)) for day in ("Thursday", "Sunday", "Monday")]
    assert found == ["2026-03-12", "2026-03-15", "2026-03-16"]
    assert day_of("Wednesday, week 12", MONDAY) == date(2026, 5, 20)


def test_delays_of_nobody_in_particular_are_each_their_own():
    one = ("phase1", {"weeks": 1, "until": AT})
    other = ("phase1", {"weeks": 1, "until": AT + 30 * DAY})
    assert days(MONDAY, one, other)[0] == "2026-03-27"


def test_delays_that_overlap_count_their_span_and_a_begun_week_counts_whole():
    one = ("phase1", {"weeks": 2, "until": AT, "incident": "i1"})
    beside = ("phase1", {"weeks": 1, "until": AT + 3 * DAY, "incident": "i2"})
    within = ("phase1", {"weeks": 1, "until": AT - DAY, "incident": "i3"})
    assert dates(catalogue().gates.values(), MONDAY, delays(one, beside))["phase1"].slipped == 3
    assert dates(catalogue().gates.values(), MONDAY, delays(one, within))["phase1"].slipped == 2


@pytest.mark.parametrize("body", [{"weeks": 1}, {"until": AT}, {"weeks": 0, "until": AT}])
def test_a_delay_that_says_not_how_long_or_until_when_moves_nothing(body):
    assert days(MONDAY, ("phase1", body))[0] == "2026-03-13"


def test_only_delays_move_a_gate():
    made = book("phase1")
    made.records.clear()
    made.add("incident", "phase1", {"weeks": 1, "until": AT})
    assert slips(made.records) == {}


def test_a_sum_of_weeks_beyond_all_sense_is_two_centuries():
    late = delays(("phase1", {"weeks": 1e9, "until": AT}))
    assert slips(late) == {"phase1": 10_000}


@pytest.mark.parametrize(("beyond", "weeks"), [(0.0, 3), (9.0, 4)])
def test_a_week_is_of_seven_days_to_the_second(beyond, weeks):
    ends = [0.0, 5 * DAY, 10 * DAY, 14 * DAY + beyond]
    late = delays(*(("phase1", {"weeks": 1, "until": AT + end}) for end in ends))
    assert slips(late) == {"phase1": weeks}


def test_a_delay_of_an_incident_that_is_told_anew_counts_as_it_is_told_last():
    first = ("phase1", {"weeks": 1, "until": AT, "incident": "i1"})
    moved = ("phase1", {"weeks": 1, "until": AT + 30 * DAY, "incident": "i1"})
    assert slips(delays(first, moved)) == {"phase1": 1}


def test_every_day_of_a_week_has_its_name():
    names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    assert [day_of(f"{name}, week 1", MONDAY).day for name in names] == list(range(2, 9))
