"""State: verdicts lapse, nothing is green before it was judged."""

import pytest
from fakes import FakeClock
from fakes_sinks import (
    NOW,
    Health,
    check,
    criterion,
    result,
    sample,
    samples,
    snapshot,
    sources,
    state,
)

from dvfd.model import Report, Severity, Verdict
from dvfd.state import Loop, breaches, standing


def test_a_criterion_that_was_never_judged_is_unknown():
    taken = state().snapshot()

    assert taken.results["live.responding"].verdict is Verdict.UNKNOWN
    assert taken.results["live.responding"].reason == "not judged yet"
    assert taken.verdict is Verdict.UNKNOWN


def test_a_fresh_verdict_stands():
    assert snapshot(result(Verdict.PASS)).verdict is Verdict.PASS


def test_a_live_verdict_lapses_when_the_watch_is_stuck():
    clock = FakeClock()
    held = state(clock=clock)
    held.judged([result(Verdict.PASS)])

    clock.advance(61)
    lapsed = held.snapshot().results["live.responding"]

    assert lapsed.verdict is Verdict.UNKNOWN
    assert lapsed.reason.startswith("not judged for 61 s, wanted every 60 s; was PASS")


def test_a_step_of_the_wall_clock_does_not_renew_a_verdict():
    clock = FakeClock()
    held = state(clock=clock)
    held.judged([result(Verdict.PASS)])

    clock.advance(61)
    clock.step(-3600)

    assert held.snapshot().verdict is Verdict.UNKNOWN


def test_a_daily_verdict_stands_for_a_day_and_lapses_after():
    daily = check("daily", criterion("daily.errors"), schedule="0 6 * * *")
    clock = FakeClock()
    held = state(daily, clock=clock)
    held.tell(Report(daily, (result(of=daily.criteria[0]),), NOW))

    clock.advance(86_400)
    assert held.snapshot().checks["daily"].verdict is Verdict.PASS
    clock.advance(3 * 3600)
    assert held.snapshot().checks["daily"].verdict is Verdict.UNKNOWN


def test_a_result_that_is_told_again_is_not_younger_for_it():
    clock = FakeClock()
    held = state(clock=clock)
    old = result(Verdict.PASS)
    held.judged([old])

    clock.advance(61)
    clock.step(-3600)
    held.judged([old])

    assert held.snapshot().verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("cron", "days"),
    [("0 6 * * *", 1), ("0 7 * * 1", 7), ("0 8 1 * *", 31), ("*/5 * * * *", 1), ("0 0 1 6 *", 366)],
)
def test_how_long_a_verdict_stands_follows_from_its_schedule(cron, days):
    assert standing(check("a", schedule=cron), jitter=300) == days * 86_400 + 300 + 7200


def test_a_report_remembered_from_long_ago_is_as_old_as_it_says():
    daily = check("daily", criterion("daily.errors"), schedule="0 6 * * *")
    held = state(daily)
    held.tell(Report(daily, (result(of=daily.criteria[0], at=NOW - 5 * 86_400),), NOW - 5 * 86_400))

    assert held.snapshot().checks["daily"].verdict is Verdict.UNKNOWN


def test_a_verdict_of_a_check_without_a_schedule_stands_until_it_is_run_again():
    once = check("phase1", criterion("phase1.cores"))
    clock = FakeClock()
    held = state(once, clock=clock)
    held.tell(Report(once, (result(of=once.criteria[0]),), NOW))

    clock.advance(40 * 86_400)

    assert held.snapshot().checks["phase1"].verdict is Verdict.PASS


def test_a_crash_shows_its_error_and_keeps_the_last_pass():
    live = check("live", criterion(), watch=True)
    held = state(live)
    held.tell(Report(live, (result(),), NOW))

    crashed = result(verdict=Verdict.UNKNOWN)
    held.tell(Report(live, (crashed,), NOW + 5, error="ZeroDivisionError", duration=0.5))

    found = held.snapshot().checks["live"]
    assert (found.verdict, found.error) == (Verdict.UNKNOWN, "ZeroDivisionError")
    assert (found.last_run, found.last_pass, found.duration) == (NOW + 5, NOW, 0.5)


def test_a_run_that_fails_does_not_move_the_last_pass():
    live = check("live", criterion(), watch=True)
    held = state(live)
    held.tell(Report(live, (result(Verdict.FAIL),), NOW))

    assert held.snapshot().checks["live"].last_run == NOW
    assert held.snapshot().checks["live"].last_pass is None


def test_a_node_without_a_live_check_is_unknown():
    assert state(check("daily", criterion("daily.x"))).snapshot().verdict is Verdict.UNKNOWN


def test_a_sample_older_than_its_maximum_age_is_left_out():
    of = samples(sample(at=NOW - 15, rank=0, job="a"), sample(at=NOW - 16, rank=1, job="a"))

    assert [s.labels for s in snapshot(of=of).samples["rank_responding"]] == [
        (("job", "a"), ("rank", "0"))
    ]


def test_a_sample_from_the_future_is_left_out():
    assert "rank_responding" not in snapshot(of=samples(sample(at=NOW + 3600))).samples


def test_troubles_name_the_late_loop_and_the_broken_store():
    of = sources(
        loops=lambda: {"sampler": Loop(age=31, limit=20), "http": Loop(age=1, limit=20)},
        store=lambda: Health(ok=False, reason="disk full"),
    )

    assert snapshot(of=of).troubles == (
        "loop sampler: no progress for 31 s, wanted every 20 s",
        "store: disk full",
    )


def test_a_store_that_was_never_opened_is_trouble():
    assert state(of=sources(store=type(state()._sources)().store)).snapshot().troubles


def test_a_store_that_was_lost_is_a_notice_and_no_trouble_once_it_works_again():
    health = Health(ok=True, reason="dvfd.db was corrupt; moved to dvfd.db.corrupt-1")
    told = snapshot(of=sources(store=lambda: health))
    assert told.troubles == ()
    assert told.notices == ("store: dvfd.db was corrupt; moved to dvfd.db.corrupt-1",)


def test_breaches_come_worst_first():
    warning = criterion("live.b", severity=Severity.WARNING)
    found = [
        result(Verdict.UNKNOWN, criterion("live.a")),
        result(Verdict.FAIL, warning),
        result(Verdict.PASS, criterion("live.c")),
        result(Verdict.FAIL, criterion("live.d")),
    ]

    assert [r.criterion.id for r in breaches(found)] == ["live.d", "live.b", "live.a"]


def test_a_warning_never_decides_the_verdict():
    warning = criterion(severity=Severity.WARNING)
    live = check("live", warning, criterion("live.ok"), watch=True)
    held = state(live)
    held.judged([result(Verdict.FAIL, warning), result(of=live.criteria[1])])

    assert held.snapshot().verdict is Verdict.PASS


@pytest.mark.parametrize("source", ["gates", "evidence"])
def test_a_source_of_words_that_crashes_is_a_notice_and_the_rest_is_told(source):
    def crash():
        raise KeyError("expires")

    taken = snapshot(result(Verdict.PASS), of=sources(**{source: crash}))

    (notice,) = taken.notices
    assert "cannot be told" in notice
    assert "KeyError('expires')" in notice
    assert taken.verdict is Verdict.PASS


def test_a_password_that_a_job_said_in_an_exception_is_not_in_the_snapshot():
    ranks = [{"rank": 0, "exception": "ValueError: cannot reach http://u:geheim@h/x?token=geheim"}]
    taken = state(of=sources(jobs=lambda: [{"job": "gpt", "ranks": ranks}])).snapshot()

    assert taken.jobs[0]["ranks"][0]["exception"].endswith("http://***@h/x?token=***")
    assert "geheim" not in str(taken)
