"""What a list will ask of people is told in time, once, and until they have said it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeClock
from fakes_sinks import FakeOutbox

from dvfd.breaches import Breaches
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.people.attestations import Attestations
from dvfd.reviews.due import DAY, EVERY, Dues
from dvfd.sinks.pager import Pager
from dvfd.state import LATE

CATALOGUE = load(Config())
WEEKLY = {"due:operational_review", "due:scalability_assessment"}


class Shelf:
    """Records and runs as the store has them."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Any] = {}
        self.runs: dict[str, float] = {}
        self.older: list[float] = []

    def put(self, kind: str, key: str, document: Any) -> None:
        self.kept[kind, key] = document

    def get(self, kind: str, key: str) -> Any:
        return self.kept.get((kind, key))

    def all(self, kind: str) -> dict[str, Any]:
        return {key: found for (of, key), found in self.kept.items() if of == kind}

    def last_run(self, check_id: str) -> float | None:
        return self.runs.get(check_id)

    def reports(self, check_id: str, limit: int) -> list[Any]:
        found = [self.runs[check_id], *self.older]
        return [SimpleNamespace(at=at, scheduled=None) for at in found][:limit]


class Desk:
    """A node whose weekly list is due in six days and whose monthly one in twenty."""

    def __init__(self) -> None:
        self.clock, self.shelf = FakeClock(), Shelf()
        self.pager = Pager(FakeOutbox(), push=True)
        self.attestations = Attestations(CATALOGUE, self.shelf, self.clock)
        now = self.clock.now()
        self.next = {"daily": now + DAY, "weekly": now + 6 * DAY, "monthly": now + 20 * DAY}
        self.dues = Dues(
            CATALOGUE, attestations=self.attestations, lists=self.shelf, pager=self.pager,
            next_runs=lambda: self.next, clock=self.clock,
        )  # fmt: skip

    def after(self, days: float) -> set[str]:
        """What fires after so many days in which every list was judged when it was due."""
        self.clock.advance(days * DAY)
        self.shelf.runs |= dict.fromkeys({"daily"}, self.clock.now())
        self.dues.look()
        return set(self.pager.firing())

    def say(self, item: str, *, value: bool = True, days: float = 90) -> None:
        request = {"item": item, "value": value, "name": "Ann Lee", "role": "lead",
                   "expires": self.clock.now() + days * DAY}  # fmt: skip
        self.attestations.attest(request, "root")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_nobody_is_asked_long_before_a_list_is_due(desk):
    assert desk.after(0) == set()


def test_what_was_never_said_is_told_half_a_week_before_the_weekly_list(desk):
    assert desk.after(2.4) == set()
    assert desk.after(0.2) == WEEKLY


def test_and_a_week_before_the_monthly_one(desk):
    desk.next["weekly"] += 100 * DAY
    desk.shelf.runs |= {"weekly": desk.clock.now() + 14 * DAY}
    for item in ("operational_review", "scalability_assessment"):
        desk.say(item)
    assert desk.after(12.9) == set()
    assert len(desk.after(0.2)) == 7


def test_an_item_that_was_missed_once_stays_told_until_it_is_said(desk):
    desk.after(2.6)
    desk.shelf.runs["weekly"] = desk.clock.now()
    desk.next["weekly"] += 7 * DAY
    assert desk.after(0.1) == WEEKLY
    desk.say("operational_review")
    assert desk.after(0) == WEEKLY - {"due:operational_review"}


def test_a_no_is_an_answer_too(desk):
    desk.after(2.6)
    desk.say("operational_review", value=False)
    assert desk.after(0) == WEEKLY - {"due:operational_review"}


def test_a_word_that_ends_is_told_a_week_before_and_after(desk):
    for item in ("operational_review", "scalability_assessment"):
        desk.say(item, days=10)
    assert desk.after(2.9) == set()
    assert desk.after(0.2) == WEEKLY
    desk.shelf.runs |= {"weekly": desk.clock.now() + 5 * DAY}
    assert desk.after(5) >= WEEKLY


def test_the_alert_says_until_when_and_what_to_type(desk):
    desk.say("operational_review", days=3)
    desk.after(0)
    [entry] = [e for e in desk.pager.entries() if e.alert.key == "due:operational_review"]
    assert "what Ann Lee said expires on" in entry.alert.description
    assert "dvfd attest operational_review" in entry.alert.description
    assert entry.alert.severity == "warning"


def test_a_list_that_was_not_judged_for_longer_than_its_period_is_told_and_then_over(desk):
    now = desk.clock.now()
    desk.shelf.runs |= {"weekly": now, "monthly": now}
    assert "overdue:weekly" not in desk.after((7 * DAY + LATE - 60) / DAY)
    assert "overdue:weekly" in desk.after(120 / DAY)
    desk.shelf.runs["weekly"] = desk.clock.now()
    assert "overdue:weekly" not in desk.after(0)


def test_a_list_that_was_never_judged_is_overdue_from_when_it_came_into_the_calendar(desk):
    desk.after(0)
    assert "overdue:weekly" in desk.after(8)


def test_a_list_that_was_judged_by_a_clock_that_was_ahead_is_overdue_all_the_same(desk):
    now = desk.clock.now()
    desk.shelf.runs |= {"weekly": now + 365 * DAY, "monthly": now}
    desk.shelf.older = [now + 300 * DAY, now]
    assert "overdue:weekly" not in desk.after((7 * DAY + LATE - 60) / DAY)
    assert "overdue:weekly" in desk.after(120 / DAY)
    desk.shelf.older.insert(1, desk.clock.now())
    assert "overdue:weekly" not in desk.after(0)
    desk.shelf.older.clear()
    desk.shelf.kept["list", "weekly"] = {"since": now + 365 * DAY}
    assert "overdue:weekly" not in desk.after(0)
    assert "overdue:weekly" in desk.after(8)


def test_it_looks_once_an_hour_and_first_after_one(desk):
    desk.next["weekly"] = desk.clock.now() + DAY
    desk.clock.advance(EVERY - 1)
    desk.dues.tick()
    assert not desk.pager.firing()
    desk.clock.advance(1)
    desk.dues.tick()
    assert desk.pager.firing() == WEEKLY


def test_a_restart_of_the_daemon_ends_no_such_alert(desk):
    class NoAlarms:
        def save_alarms(self, alarms: Any) -> None: ...
        def load_alarms(self) -> dict[str, Any]:
            return {}

    desk.after(2.6)
    Breaches(Config(), CATALOGUE, desk.pager, NoAlarms(), clock=desk.clock).load()
    assert desk.pager.firing() == WEEKLY
