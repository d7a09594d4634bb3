"""Results become alerts: who is called, when it ends, what blindness and storms make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import FakeClock
from fakes_sinks import NOW, FakeOutbox, check, criterion, result

from dvfd.breaches import GRACE, Breaches
from dvfd.config import Alerting, Config
from dvfd.model import Catalogue, Check, Criterion, Report, Severity, Verdict, Waived
from dvfd.sinks.alert import Alert, criterion_alert
from dvfd.sinks.pager import Pager

FAIL, PASS, UNKNOWN = Verdict.FAIL, Verdict.PASS, Verdict.UNKNOWN

ALIVE = criterion("live.responding", source="ranks")
LIVE = check("live", ALIVE, watch=True)
DAILY = check("daily", criterion("daily.responding", source="ranks"), schedule="0 6 * * *")


class Kept(FakeOutbox):
    """The store's side: the outbox, and alarms by key."""

    def save_alarms(self, alarms: dict[str, dict]) -> None:
        self.alarms.update(alarms)

    def load_alarms(self) -> dict[str, dict]:
        return dict(self.alarms)


class Rig:
    """Breaches over checks, and a clock; `tell` reports verdicts of one check's criteria."""

    def __init__(self, *checks: Check, store: Kept | None = None, storm: int = 10) -> None:
        self.dead: set[str] = set()
        self.clock = FakeClock(now=NOW)
        self.store = store or Kept()
        criteria = {c.id: c for each in checks for c in each.criteria}
        catalogue = Catalogue({}, {c.id: c for c in checks}, {}, "hash", criteria=criteria)
        config = Config(alerting=Alerting(storm_count=storm))
        self.pager = Pager(self.store, push=True)
        self.breaches = Breaches(
            config, catalogue, self.pager, self.store, clock=self.clock,
            mute=lambda metric, of: (metric, of["rank"]) in {(ALIVE.metric, n) for n in self.dead},
        )  # fmt: skip
        self.breaches.load()

    def tell(self, of: Check, *verdicts: Verdict, scheduled: float | None = None, **keys) -> None:
        self.clock.advance(1)
        at = self.clock.now()
        pairs = zip(of.criteria, verdicts, strict=True)
        results = tuple(result(v, c, at=at, sampled_at=at, **keys) for c, v in pairs)
        self.breaches.tell(Report(of, results, at, scheduled=scheduled))

    def firing(self) -> set[str]:
        return {raised.key for raised in self.pager.raised()}

    def alert(self, key: str) -> Alert:
        """The alert that fires under that key."""
        return next(e.alert for e in self.pager.entries() if e.firing and e.alert.key == key)


def test_a_breach_calls_and_its_end_takes_it_back() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL)
    assert rig.firing() == {"live.responding"}
    rig.tell(LIVE, PASS)
    assert not rig.firing()


def test_an_alert_on_what_is_waived_ends_with_the_words_of_who_waived_it() -> None:
    waived = Waived(
        verdict=FAIL, found="too hot", by="Ann", role="CTO", reason="fan", expires=NOW + 9, record=2
    )
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL)
    rig.tell(LIVE, Verdict.WAIVED, waived=waived, reason="waived by Ann (CTO): fan; it is FAIL")

    (ended,) = rig.pager.entries()
    assert not rig.firing()
    assert "waived by Ann" in ended.alert.description


def test_blindness_does_not_end_an_alert() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL)
    rig.tell(LIVE, UNKNOWN)
    assert "live.responding" in rig.firing()


def test_a_lasting_breach_is_told_in_new_words_once_a_minute() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL, reason="one rank of 8")
    rig.clock.advance(58)
    rig.tell(LIVE, FAIL, reason="two ranks of 8")
    assert rig.alert("live.responding").description == "one rank of 8"
    rig.tell(LIVE, FAIL, reason="three ranks of 8")
    assert rig.alert("live.responding").description == "three ranks of 8"


def test_the_words_of_a_breach_are_those_of_the_last_look_that_saw_it() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL, reason="one rank of 8")
    rig.clock.advance(600)
    rig.tell(LIVE, UNKNOWN, reason="nobody knows")
    assert rig.alert("live.responding").description == "one rank of 8"


def test_new_words_do_not_move_the_beginning_of_a_breach() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL)
    began = rig.alert("live.responding").since
    rig.clock.advance(600)
    rig.tell(LIVE, FAIL)
    assert rig.alert("live.responding").since == began == NOW + 1


def test_the_end_of_all_series_ends_the_alert_and_is_no_blindness() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, FAIL)
    rig.tell(LIVE, UNKNOWN, absent=True)
    assert rig.store.alarms["live.responding"]["cleared_at"] == rig.clock.now()
    for _ in range(int(GRACE) + 2):
        rig.tell(LIVE, UNKNOWN, absent=True)
    assert not rig.firing()


def test_the_end_of_all_series_ends_a_blindness() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    for _ in range(int(GRACE) + 2):
        rig.tell(LIVE, UNKNOWN)
    rig.tell(LIVE, UNKNOWN, absent=True)
    assert not rig.firing()
    assert rig.store.alarms["sight:live.responding"]["cleared_at"] == rig.clock.now()


def test_what_was_known_and_is_not_any_more_is_told_by_its_source() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    for _ in range(int(GRACE) + 2):
        rig.tell(LIVE, UNKNOWN)
    assert rig.firing() == {"blind:ranks"}
    rig.tell(LIVE, PASS)
    assert not rig.firing()


def test_people_are_told_after_fifteen_seconds_without_sight() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    for _ in range(15):
        rig.tell(LIVE, UNKNOWN)
    assert not rig.firing()
    rig.tell(LIVE, UNKNOWN)
    assert rig.firing() == {"blind:ranks"}


def test_the_alert_of_a_blind_source_names_what_is_not_known_since_when_and_why() -> None:
    two = check("live", *(criterion(f"live.c{n}", source="ranks") for n in range(2)), watch=True)
    rig = Rig(two)
    rig.tell(two, PASS, PASS)
    rig.tell(two, UNKNOWN, PASS)
    for _ in range(int(GRACE) + 2):
        rig.tell(two, UNKNOWN, UNKNOWN, reason="the socket is gone")

    alert = rig.alert("blind:ranks")
    assert alert.description == "UNKNOWN now: live.c0, live.c1. the socket is gone"
    assert alert.since == NOW + 2


@pytest.mark.parametrize(
    ("severities", "told"),
    [(("warning", "warning"), "warning"), (("warning", "critical"), "critical")],
)
def test_a_blind_source_is_as_severe_as_the_worst_that_rests_on_it(severities, told) -> None:
    criteria = [
        criterion(f"live.c{n}", source="ranks", severity=Severity(severity))
        for n, severity in enumerate(severities)
    ]
    both = check("live", *criteria, watch=True)
    rig = Rig(both)
    rig.tell(both, PASS, PASS)
    for _ in range(int(GRACE) + 2):
        rig.tell(both, UNKNOWN, UNKNOWN)
    assert rig.alert("blind:ranks").severity == told


def test_what_was_known_before_a_restart_is_missed_after_it() -> None:
    before = Rig(LIVE)
    before.tell(LIVE, PASS)
    after = Rig(LIVE, store=before.store)
    for _ in range(int(GRACE) + 2):
        after.tell(LIVE, UNKNOWN)
    assert after.firing() == {"blind:ranks"}


def test_a_restart_does_not_end_a_blindness() -> None:
    before = Rig(LIVE)
    before.tell(LIVE, PASS)
    for _ in range(int(GRACE) + 2):
        before.tell(LIVE, UNKNOWN)
    assert Rig(LIVE, store=before.store).firing() == {"blind:ranks"}


RANK_0, RANK_1 = (("rank", "0"),), (("rank", "1"),)


def watch(rig: Rig, *unseen: tuple[tuple[str, str], ...], **more: object) -> None:
    for _ in range(int(GRACE) + 2):
        rig.tell(LIVE, UNKNOWN, unseen=unseen, **more)


def test_the_silence_of_the_dead_is_no_blindness() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    rig.dead = {"0"}
    watch(rig, RANK_0)
    assert not rig.firing()


def test_ranks_that_have_just_come_are_no_blindness() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    watch(rig, RANK_0, began=(RANK_0,))
    assert not rig.firing()


def test_ranks_that_have_just_come_do_not_hide_one_that_was_lost() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    watch(rig, RANK_0, RANK_1, began=(RANK_0,))
    assert rig.firing() == {"blind:ranks"}


def test_blindness_that_was_told_lasts_until_enough_was_seen_again() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    watch(rig, RANK_0)
    watch(rig, RANK_0, began=(RANK_0,))
    assert rig.firing() == {"blind:ranks"}
    rig.tell(LIVE, PASS)
    assert not rig.firing()


def test_the_silence_of_the_dead_does_not_hide_that_of_the_living() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    rig.dead = {"0"}
    watch(rig, RANK_0, RANK_1)
    assert rig.firing() == {"blind:ranks"}


def test_blindness_ends_when_the_death_behind_it_is_known_and_comes_back_without_it() -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    watch(rig, RANK_0)
    assert rig.firing() == {"blind:ranks"}
    rig.dead = {"0"}
    rig.tell(LIVE, UNKNOWN, unseen=(RANK_0,))
    assert not rig.firing()
    assert rig.store.alarms["sight:live.responding"]["cleared_at"] == rig.clock.now()
    rig.dead = set()
    watch(rig, RANK_0)
    assert rig.firing() == {"blind:ranks"}


def test_what_was_never_known_calls_nobody() -> None:
    rig = Rig(LIVE)
    for _ in range(int(GRACE) + 2):
        rig.tell(LIVE, UNKNOWN)
    assert not rig.firing()


def test_a_run_that_a_person_asked_for_calls_nobody_but_ends_what_fires() -> None:
    rig = Rig(DAILY)
    rig.tell(DAILY, FAIL)
    assert not rig.firing()
    rig.tell(DAILY, FAIL, scheduled=NOW)
    assert rig.firing() == {"daily.responding"}
    rig.tell(DAILY, PASS)
    assert not rig.firing()


def test_a_run_that_a_person_asked_for_ends_what_fires_beside_what_does_not() -> None:
    two = check("daily", *(criterion(f"daily.c{n}", source="ranks") for n in range(2)))
    rig = Rig(two)
    rig.tell(two, PASS, FAIL, scheduled=NOW)
    rig.tell(two, PASS, PASS)
    assert not rig.firing()


def test_what_is_only_information_calls_nobody() -> None:
    quiet = check("live", replace(ALIVE, severity=Severity.INFO), watch=True)
    rig = Rig(quiet)
    rig.tell(quiet, FAIL)
    assert not rig.firing()


def test_a_restart_goes_on_with_the_same_alert() -> None:
    before = Rig(LIVE)
    before.tell(LIVE, FAIL)
    [began] = before.pager.raised()
    after = Rig(LIVE, store=before.store)
    assert [raised.since for raised in after.pager.raised()] == [began.since]
    after.tell(LIVE, PASS)
    assert not after.firing()


def test_an_alert_that_nothing_stands_behind_is_cleared_at_start() -> None:
    before = Rig(LIVE)
    before.tell(LIVE, FAIL)
    before.store.alarms.clear()
    assert not Rig(LIVE, store=before.store).firing()


def crowd(size: int) -> tuple[Criterion, ...]:
    return tuple(criterion(f"live.c{n}", source="ranks") for n in range(size))


def test_a_storm_is_one_alert_until_the_last_of_it_is_over() -> None:
    many = check("live", *crowd(5), watch=True)
    rig = Rig(many, storm=2)
    rig.tell(many, *[FAIL] * 5)
    assert rig.firing() == {"live.c0", "live.c1", "storm"}
    rig.tell(many, PASS, PASS, FAIL, PASS, PASS)
    assert rig.firing() == {"storm"}
    rig.tell(many, *[PASS] * 5)
    assert not rig.firing()


HOLDS = (0, 0, 9, 5)


def test_the_alert_of_a_storm_names_what_it_holds_since_the_first_of_it_began() -> None:
    many = check(
        "live", *(replace(c, hold=h) for c, h in zip(crowd(4), HOLDS, strict=True)), watch=True
    )
    rig = Rig(many, storm=2)
    for _ in range(11):
        rig.tell(many, *[FAIL] * 4)

    alert = rig.alert("storm")
    assert alert.description == "broken: live.c3, live.c2"
    assert alert.since == NOW + 1


def test_a_storm_goes_on_over_a_restart_and_ends_with_the_last_of_it() -> None:
    many = check("live", *crowd(4), watch=True)
    before = Rig(many, storm=2)
    before.tell(many, *[FAIL] * 4)
    after = Rig(many, store=before.store, storm=2)
    assert after.firing() == {"live.c0", "live.c1", "storm"}
    after.tell(many, FAIL, FAIL, PASS, FAIL)
    assert "storm" in after.firing()
    after.tell(many, *[PASS] * 4)
    assert not after.firing()


def test_a_storm_does_not_wait_for_criteria_that_are_gone_after_a_restart() -> None:
    many = check("live", *crowd(5), watch=True)
    before = Rig(many, storm=2)
    before.tell(many, *[FAIL] * 5)
    fewer = check("live", *crowd(4), watch=True)
    after = Rig(fewer, store=before.store, storm=2)
    after.tell(fewer, FAIL, FAIL, PASS, FAIL)
    assert after.alert("storm").description == "broken: live.c3"
    after.tell(fewer, *[PASS] * 4)
    assert not after.firing()


def test_a_storm_of_which_nothing_is_left_after_a_restart_is_over() -> None:
    many = check("live", *crowd(4), watch=True)
    before = Rig(many, storm=2)
    before.tell(many, *[FAIL] * 4)
    assert not Rig(LIVE, store=before.store).firing()


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_step_of_the_clock_neither_raises_nor_loses(step: float) -> None:
    rig = Rig(LIVE)
    rig.tell(LIVE, PASS)
    rig.clock.step(step)
    rig.tell(LIVE, PASS)
    assert not rig.firing()
    rig.tell(LIVE, FAIL)
    assert rig.firing() == {"live.responding"}


RUN = check(
    "stability_phase1",
    *(criterion(f"stability_phase1.c{n}", source="run") for n in range(4)),
    every=100,
)


def test_a_failed_run_calls_the_team_lead_alone_and_is_no_storm() -> None:
    rig = Rig(LIVE, RUN, storm=2)
    rig.tell(RUN, FAIL, FAIL, FAIL, FAIL, scheduled=NOW)

    alerts = [entry.alert for entry in rig.pager.entries()]

    assert {alert.name for alert in alerts} == {"DvfdCriterionFailed"}
    assert [alert.labels.get("escalation") for alert in alerts] == ["team_lead"] * 4


def test_a_breach_in_production_calls_by_its_severity_at_once_whatever_run_failed() -> None:
    rig = Rig(LIVE, RUN)
    rig.tell(RUN, FAIL, FAIL, FAIL, FAIL, scheduled=NOW)
    rig.tell(LIVE, FAIL)

    (alert,) = (e.alert for e in rig.pager.entries() if e.alert.key == "live.responding")

    assert "escalation" not in alert.labels


def test_an_incidents_alert_outlives_a_restart_of_breaches() -> None:
    rig = Rig(LIVE)
    alert = replace(criterion_alert(result(FAIL), NOW), key="incident:hardware:phase1:team_lead")
    rig.pager.raise_alert(alert, {})

    assert Rig(LIVE, store=rig.store).firing() == {alert.key}
