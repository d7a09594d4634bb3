"""The calendar: cron as people know it, a node's own offset, catch-up, DST, clock steps."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from dvfd.clock import SystemClock
from dvfd.errors import ConfigError
from dvfd.schedule import Delayed, Schedule, cron, missed, offset

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def due(expression: str, after: str, zone: ZoneInfo = UTC_ZONE) -> str:
    moment = datetime.fromisoformat(after)
    following = cron(expression, zone).get_next_fire_time(None, moment)
    return following.astimezone(UTC).strftime("%a %d %H:%M")


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [("0", "Sun"), ("1", "Mon"), ("7", "Sun"), ("fri", "Fri"), ("5-6", "Fri"), ("6-1", "Sat")],
)
def test_weekdays_count_from_sunday_as_in_cron(weekday: str, expected: str) -> None:
    assert due(f"0 7 * * {weekday}", "2026-11-24T12:00+00:00").startswith(expected)


def test_a_step_over_weekdays_starts_on_sunday() -> None:
    assert due("0 7 * * */3", "2026-11-22T08:00+00:00") == "Wed 25 07:00"


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "61 * * * *",
        "0 7 * * 8",
        "0 7 * * xyz",
        "0 7 * * 1--2",
        "a b c d e",
        "0 0 31 2 *",
    ],
)
def test_a_schedule_that_is_no_cron_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match="schedule"):
        cron(expression, UTC_ZONE)


def test_a_time_that_the_clocks_skip_still_comes_once() -> None:
    """2026-03-29 02:30 does not exist in Berlin."""
    since, until = at("2026-03-28T12:00+00:00"), at("2026-03-30T12:00+00:00")
    runs = all_due("30 2 * * *", BERLIN, since, until)
    assert len(runs) == 2


def test_a_time_that_the_clocks_repeat_comes_once() -> None:
    """2026-10-25 02:30 comes twice in Berlin."""
    since, until = at("2026-10-24T12:00+00:00"), at("2026-10-25T12:00+00:00")
    assert len(all_due("30 2 * * *", BERLIN, since, until)) == 1


def all_due(expression: str, zone: ZoneInfo, since: float, until: float) -> list[float]:
    trigger, found, previous = Delayed(cron(expression, zone), 0), [], None
    moment = datetime.fromtimestamp(since, UTC)
    while (following := trigger.get_next_fire_time(previous, moment)) is not None:
        if following.timestamp() > until:
            break
        found.append(following.timestamp())
        previous = moment = following
    return found


@given(node=st.text(min_size=1), jitter=st.floats(1, 43200))
def test_a_node_keeps_its_offset_inside_the_jitter(node: str, jitter: float) -> None:
    assert 0 <= offset(node, "daily", jitter) < jitter
    assert offset(node, "daily", jitter) == offset(node, "daily", jitter)


def test_offsets_of_a_fleet_spread_over_the_jitter() -> None:
    seconds = sorted(offset(f"node{n}", "daily", 1000) for n in range(1000))
    gaps = [b - a for a, b in pairwise(seconds)]
    assert seconds[0] < 20
    assert seconds[-1] > 980
    assert max(gaps) < 20


def test_the_offset_moves_every_run() -> None:
    trigger = Delayed(cron("0 6 * * *", UTC_ZONE), 120)
    moment = datetime.fromisoformat("2026-11-22T06:01:00+00:00")
    assert trigger.get_next_fire_time(None, moment).minute == 2


def test_a_missed_run_is_the_newest_one_only() -> None:
    trigger = cron("0 6 * * *", UTC_ZONE)
    since, now = at("2026-11-18T06:00+00:00"), at("2026-11-22T09:00+00:00")
    assert missed(trigger, since, now) == at("2026-11-22T06:00+00:00")


def test_nothing_is_missed_before_it_was_due() -> None:
    trigger = cron("0 6 * * *", UTC_ZONE)
    assert missed(trigger, at("2026-11-22T06:00+00:00"), at("2026-11-23T05:59+00:00")) is None


def schedule(
    runs: list[tuple[str, float]], clock: FakeClock | SystemClock, done: threading.Event
) -> Schedule:
    def run(check: str, scheduled: float) -> None:
        runs.append((check, scheduled))
        done.set()

    return Schedule(
        {"daily": "0 6 * * *"}, zone=UTC_ZONE, node="n1", jitter=0, run=run, clock=clock
    )


def test_a_run_missed_while_down_is_caught_up_once() -> None:
    runs: list[tuple[str, float]] = []
    done = threading.Event()
    calendar = schedule(runs, SystemClock(), done)
    calendar.start({"daily": SystemClock().now() - 3 * 86400})
    assert done.wait(5)
    calendar.stop()
    assert len(runs) == 1
    assert runs[0][1] % 86400 == 6 * 3600


def test_a_first_start_has_missed_nothing() -> None:
    runs: list[tuple[str, float]] = []
    done = threading.Event()
    calendar = schedule(runs, SystemClock(), done)
    calendar.start({"daily": None})
    assert not done.wait(0.3)
    calendar.stop()


def test_a_step_of_the_wall_clock_is_noticed() -> None:
    clock = FakeClock()
    calendar = schedule([], clock, threading.Event())
    calendar.start({})
    clock.advance(1000)
    assert not calendar.tick()
    clock.step(-3600)
    assert calendar.tick()
    assert not calendar.tick()
    calendar.stop()
