"""The store gives back what it was given, at once, and only what is true."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_store import METRICS, criterion, eventually, fold, opened, report, rows, sample

from dvfd import derive
from dvfd.errors import StoreError
from dvfd.model import Limit, Sample, Verdict
from dvfd.store import Interval, Store, report_document

NOW = FakeClock().now()
HOUR = 3600.0


def test_constructing_a_store_touches_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "deep" / "dvfd.db", metrics=METRICS, clock=FakeClock())

    assert list(tmp_path.iterdir()) == []


def test_a_store_that_was_not_started_is_not_well_and_says_so() -> None:
    health = Store(None, metrics=METRICS, clock=FakeClock()).health()

    assert (health.ok, health.reason) == (False, "not started")


def test_a_sample_is_seen_by_the_next_question() -> None:
    with opened(None) as store:
        store.write([sample(70.0, NOW)])

        assert store.samples(criterion(), until=NOW) == [sample(70.0, NOW)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_counted_and_not_kept(value: float) -> None:
    with opened(None) as store:
        store.write([sample(value, NOW), Sample("heat", 1.0, NOW, (), value)])

        assert (store.latest("heat"), store.health().nonfinite) == ([], 2)


def test_a_series_gone_silent_is_given_with_its_newest_sample() -> None:
    with opened(None) as store:
        store.write([sample(1.0, NOW - 5 * HOUR, rank=0), sample(2.0, NOW, rank=1)])

        found = store.samples(criterion(window=30 * HOUR), until=NOW)

    assert [s.value for s in found] == [1.0, 2.0]


JOB = {"job": "gpt"}


def live(store: Store) -> list[float]:
    return [s.value for s in store.latest("heat")]


def test_a_look_from_before_the_end_of_a_series_does_not_bring_it_back(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path / "a.db", clock) as store:
        store.write([sample(1, clock.now(), **JOB)])
        seen = sample(2, clock.now(), **JOB)
        clock.advance(0.01)
        store.end_series(JOB, clock.now())
        store.write([seen, sample(3, seen.at, job="other")], looked=True)
        assert live(store) == [3]
    with opened(tmp_path / "a.db", clock) as store:
        assert live(store) == [3]


def test_a_series_that_began_anew_takes_what_is_late() -> None:
    clock = FakeClock()
    with opened(None, clock) as store:
        store.end_series(JOB, clock.now())
        store.write([sample(1, clock.now(), **JOB)])
        store.write([sample(2, clock.now(), **JOB)], looked=True)
        assert live(store) == [2]


def test_a_look_from_after_the_end_finds_a_new_life() -> None:
    clock = FakeClock()
    with opened(None, clock) as store:
        store.end_series(JOB, clock.now())
        clock.advance(5)
        store.write([sample(1, clock.now(), **JOB)], looked=True)
        assert live(store) == [1]


def test_a_clock_that_was_set_back_makes_nobody_mute() -> None:
    clock = FakeClock()
    with opened(None, clock) as store:
        store.end_series(JOB, clock.now())
        clock.step(-3600)
        store.write([sample(1, clock.now(), **JOB)], looked=True)
        assert live(store) == [1]


def test_the_metric_of_the_limit_comes_along_with_its_newest_sample() -> None:
    with opened(None) as store:
        store.write([sample(1.0, NOW - 9, "events"), sample(2.0, NOW, "events"), sample(3.0, NOW)])

        found = store.samples(criterion(limit=Limit(of="metric.events")), until=NOW)

    assert [(s.metric, s.value) for s in found] == [("heat", 3.0), ("events", 2.0)]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, float]]:
    """60 hours of one sample a minute, each one more than the one before, all rolled up."""
    path, clock = tmp_path_factory.mktemp("past") / "dvfd.db", FakeClock(now=1_800_000_000.0)
    with opened(path, clock) as store:
        store.write([sample(float(i), clock.now() + 60.0 * i) for i in range(60 * 60)])
    clock.advance(60 * HOUR + 10)
    with opened(path, clock) as store:
        assert eventually(lambda: len(rows(path, "SELECT 1 FROM hours")) == 60)
        yield store, clock.now()


def test_a_long_window_joins_hours_minutes_and_raw_without_a_hole(past) -> None:
    store, now = past

    found = store.samples(criterion("sum", 50 * HOUR), until=now)

    assert {s.span for s in found} == {900.0, 15.0, 0.0}
    assert sum(s.value for s in found if s.at > now - 50 * HOUR) == sum(range(600, 3600))


@pytest.mark.parametrize("hours", [2, 26, 50])
def test_a_counter_grows_in_a_long_window_as_it_did(past, hours: int) -> None:
    store, now = past

    found = store.samples(criterion("increase", hours * HOUR), until=now)

    inside = [s.value for s in found if s.at > now - hours * HOUR]
    assert derive.counter_increase(inside) == pytest.approx(60 * hours, abs=2)


def test_the_hours_of_a_gauge_are_told_by_their_medians(past) -> None:
    store, now = past

    found = store.medians("heat", (), since=now - 55 * HOUR, until=now)

    hours = [s for s in found if s.span == 900.0]
    assert len(hours) >= 50
    assert all(s.value == (s.at - 1_800_000_000.0) / 60 - 30.5 for s in hours)


@pytest.mark.parametrize("ago", [0, 3 * HOUR, 55 * HOUR])
def test_history_is_found_at_any_age(past, ago: float) -> None:
    store, now = past

    found = store.series("heat", (), since=now - ago - 2 * HOUR, until=now - ago)

    assert found
    assert now - ago - HOUR <= found[-1].at <= now - ago


def test_committed_telemetry_is_told_and_moves_the_cursor() -> None:
    told: list[int] = []
    with opened(None) as store:
        store.commit_telemetry("s", 7, [fold(1)], told.append)
        store.flush()

        assert (told, store.cursor("s"), store.cursor("other")) == ([7], 7, 0)


def test_telemetry_sent_twice_is_committed_once(tmp_path: Path) -> None:
    with opened(tmp_path / "dvfd.db") as store:
        for sequence in (1, 2, 2, 1):
            store.commit_telemetry("s", sequence, [fold(sequence)], lambda _: None)
        store.flush()

    assert rows(tmp_path / "dvfd.db", "SELECT sequence FROM folds") == [(1,), (2,)]


def test_the_steps_of_a_session_beyond_a_sequence_are_told_as_long_as_any_is_kept() -> None:
    with opened(None) as store:
        store.commit_telemetry("s", 4, [replace(fold(1), sequence=3)], lambda _: None)
        store.commit_telemetry("s", 5, (), lambda _: None)  # an event
        store.commit_telemetry("s", 9, [replace(fold(2), sequence=8)], lambda _: None)
        store.flush()
        each = fold(1).count

        assert store.steps_after("s", 0) == 2 * each
        assert store.steps_after("s", 3) == each
        assert store.steps_after("s", 8) == 0
        assert store.steps_after("other", 0) is None


def test_rows_that_the_tables_refuse_are_dropped_alone_and_counted() -> None:
    told: list[int] = []
    with opened(None) as store:
        store.commit_telemetry("bad", 1, [fold(2**70)], told.append)
        store.commit_telemetry("good", 2, [fold(1)], told.append)
        store.flush()

        assert (told, store.health().refused, store.cursor("bad")) == ([2], 1, 0)


def test_a_report_is_kept_with_every_result_and_both_sides() -> None:
    with opened(None) as store:
        store.keep(report(NOW), scheduled=NOW - 60)

        last = store.last_report("live")
        assert last is not None
        assert last.document == report_document(report(NOW))
        assert store.last_run("live") == NOW - 60
        result = last.document["results"][0]
    assert (result["observed"], result["comparison"], result["limit"]) == (70.0, "<=", 75.0)


def test_the_watch_is_kept_when_a_verdict_changed_and_once_an_hour() -> None:
    with opened(None) as store:
        for after, verdict in (
            (0, "PASS"),
            (5, "PASS"),
            (10, "FAIL"),
            (15, "FAIL"),
            (3610, "FAIL"),
        ):
            store.keep(report(NOW + after, Verdict(verdict), watch=True))

        assert [r.at - NOW for r in store.reports("live", 9)] == [3610, 10, 0]


def test_states_cover_time_without_a_hole_and_the_same_state_is_no_news() -> None:
    with opened(None) as store:
        for at, state in ((10, "up"), (20, "up"), (30, "down")):
            store.transition("job", state, NOW + at)

        found = store.transitions("job", NOW, NOW + 40)

    assert found == [
        Interval("job", "unobserved", NOW, NOW + 10),
        Interval("job", "up", NOW + 10, NOW + 30),
        Interval("job", "down", NOW + 30, NOW + 40),
    ]


def test_an_alert_put_again_takes_its_own_place() -> None:
    with opened(None) as store:
        store.outbox_put("a", {"n": 1}, {"state": "raised"})
        store.outbox_put("b", {"n": 2}, {"state": "raised"})
        store.outbox_put("a", {"n": 3}, {"state": "clear"})
        store.outbox_done("b")

        assert store.outbox() == [{"n": 3}]
        assert store.load_alarms() == {"a": {"state": "clear"}, "b": {"state": "raised"}}


def test_records_are_found_by_kind_and_key_until_forgotten() -> None:
    with opened(None) as store:
        store.put("log", "a", {"offset": 1})
        store.put("log", "b", {"offset": 2})
        store.forget("log", "a")

        assert (store.get("log", "a"), store.all("log")) == (None, {"b": {"offset": 2}})


def test_a_store_opened_to_read_only_refuses_to_write(tmp_path: Path) -> None:
    with opened(tmp_path / "dvfd.db") as store:
        store.write([sample(1.0, NOW)])
    reader = Store.read_only(tmp_path / "dvfd.db", METRICS, FakeClock())

    with pytest.raises(StoreError, match="read only"):
        reader.write([sample(2.0, NOW)])

    assert reader.latest("heat") == [sample(1.0, NOW)]
    reader.stop()


def test_a_course_of_before_the_clock_was_set_back_is_told_as_it_was_written(
    tmp_path: Path,
) -> None:
    written = [sample(float(n), NOW - 100 + n) for n in range(100)]
    with opened(tmp_path / "dvfd.db") as store:
        store.write(written)
    clock = FakeClock()
    clock.step(-40 * 24 * HOUR)
    reader = Store.read_only(tmp_path / "dvfd.db", METRICS, clock)

    assert reader.series("heat", (), since=NOW - 50, until=NOW) == written[50:]
    reader.stop()


def test_reading_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        Store.read_only(tmp_path / "dvfd.db", METRICS, FakeClock())
