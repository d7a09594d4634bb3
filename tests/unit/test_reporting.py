"""A job's report: what is told of its hours, and never more than the store knows."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import pytest
from fakes_reporting import PRICE, Desk, came_back, twice
from fakes_spent import AT, LOOK
from hypothesis import given
from hypothesis import strategies as st

from dvfd.config import Cost
from dvfd.errors import DvfdError
from dvfd.model import Sample
from dvfd.reporting.document import document, headline
from dvfd.reporting.reading import HOUR, Fine, pieces
from dvfd.reporting.shares import apportioned, hours, shown
from dvfd.reporting.stragglers import Watcher
from dvfd.spent import forward


def part(report, name):
    return next(p for p in report["time"]["parts"] if p["part"] == name)


# --- Time and money -------------------------------------------------------------------------------


def test_a_healthy_job_is_productive_all_the_time_and_the_headline_says_so():
    report = Desk().report()
    assert part(report, "productive")["seconds"] == 100
    assert report["headline"] == (
        "gpt has run 1 min 40 s, 100 % of it productive; nothing was lost; 0.00278 kWh, 1.00 EUR."
    )


def test_the_headline_names_the_worst_loss():
    report = came_back().report()
    assert "80 % of it productive; 20 s were lost, all of it to recovery" in report["headline"]


def test_time_in_which_nobody_looked_is_a_range_and_not_a_loss():
    desk = Desk()
    desk.put("job_observed_seconds_total", [min(50.0, LOOK * n) for n in range(21)])
    for rank in (0, 1):
        desk.steps(rank, [min(100.0, 10.0 * n) for n in range(21)])
    report = desk.report()
    assert (
        "50 % to 100 % of it productive; nothing that was seen was lost; for 50 s nobody looked"
        in (report["headline"])
    )
    assert report["coverage"]["observed"] == 0.5
    assert report["marks"]["gaps"] == [[50.0, 100.0]]


def test_without_a_price_there_is_no_money_anywhere():
    report = Desk().report(Cost())
    assert report["cost"] is None
    assert {p["money"] for p in report["time"]["parts"]} == {None}
    assert "EUR" not in report["headline"]
    assert any("[cost] per_hour" in line for line in report["unknown"])


COUNTS = st.lists(st.none() | st.floats(0, 1e4), min_size=21, max_size=21)


@given(COUNTS, COUNTS, COUNTS, st.floats(1e-3, 1e4))
def test_for_any_course_every_second_and_every_cent_is_in_one_part(steps, up, observed, price):
    desk = Desk()
    desk.steps(0, steps)
    desk.put("job_up_seconds_total", up)
    desk.put("job_observed_seconds_total", [0.0, *(o or 0.0 for o in observed[1:])])
    report = desk.report(Cost(per_hour=price, currency="EUR"))
    parts = report["time"]["parts"]
    assert all(p["seconds"] >= 0 for p in parts)
    assert math.isclose(sum(p["seconds"] for p in parts), report["period"]["seconds"])
    assert math.isclose(sum(p["money"] for p in parts), report["cost"]["total"])
    told = shown(report["time"])
    assert sum(p.seconds for p in told) == pytest.approx(report["period"]["seconds"], abs=10)
    json.dumps(report, allow_nan=False)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9), st.sampled_from([1.0, 60.0, 0.01]))
def test_rounded_parts_add_up_to_the_rounded_whole(parts, unit):
    found = apportioned(parts, unit)
    assert round(sum(found) / unit) == round(math.fsum(parts) / unit)
    assert all(abs(a - b) <= unit * 1.001 for a, b in zip(found, parts, strict=True))


@given(st.lists(st.floats(0, 1e5), min_size=9, max_size=9), st.booleans())
def test_what_is_read_of_any_time_adds_up_to_all_of_it(seconds, short):
    seconds = [s / 1e4 for s in seconds] if short else seconds
    whole = math.fsum(seconds)
    parts = [
        {"part": "productive" if n == 0 else str(n), "words": "", "seconds": s,
         "share": s / whole if whole else None, "money": s / 100}
        for n, s in enumerate(seconds)
    ]  # fmt: skip
    told = shown({"seconds": whole, "parts": parts})
    if whole > 0.05:
        assert sum(p.percent for p in told) == pytest.approx(100)
        assert hours(sum(p.seconds for p in told)) == hours(whole)
    assert sum(p.money or 0.0 for p in told) == pytest.approx(round(whole / 100, 2), abs=0.011)


def test_times_are_told_to_the_minute_only_where_a_minute_is_little():
    assert [hours(s) for s in (0.4, 59.6, 3725.0, 14_430.0, 151_000.0)] == [
        "0.4 s", "59.6 s", "1 h 2 min 5 s", "4 h", "41 h 57 min",
    ]  # fmt: skip


# --- Which job, which run -------------------------------------------------------------------------


def test_an_unknown_job_is_refused_with_the_one_that_was_meant():
    with pytest.raises(
        DvfdError, match="no job 'gpt-lage' was looked at here; did you mean 'gpt-l"
    ):
        Desk().story("gpt-lage")


def test_a_known_job_out_of_the_period_says_how_to_ask_for_more():
    with pytest.raises(DvfdError, match="'gpt-large' is known, but nobody looked at it from 2027"):
        Desk().story("gpt-large")


def test_one_look_is_too_little_to_tell():
    with pytest.raises(DvfdError, match="looked at once in that time, at 2027-01-15"):
        Desk().story(until=AT + 2)


def test_two_runs_of_one_name_are_told_apart_and_the_newest_is_meant():
    report = twice().report()
    assert [(r["since"] - AT, r["until"] - AT) for r in report["run"]["runs"]] == [
        (0, 45), (50, 100),
    ]  # fmt: skip
    assert (report["run"]["number"], report["work"]["steps"]) == (2, 100)
    assert twice().report(number=1)["work"]["steps"] == 90


def test_a_run_that_is_not_there_is_refused():
    with pytest.raises(DvfdError, match="run 3 of job 'gpt': there are 2"):
        twice().story(number=3)


def test_ranks_that_came_back_are_a_restart_and_no_new_run():
    desk = twice()
    desk.put("rank_restarts_total", [0.0] * 10 + [2.0] * 11)
    assert len(desk.story().spans) == 1


def test_a_job_that_had_ended_while_the_node_was_watched_began_anew():
    desk = Desk(60)
    away = range(20, 40)
    for key in list(desk.series_):
        if "job" in dict(key[1]):
            desk.series_[key] = [s for s in desk.series_[key] if (s.at - AT) / LOOK not in away]
    assert [(a - AT, b - AT) for a, b in desk.story().spans] == [(0, 95), (200, 295)]


def test_a_daemon_that_was_away_splits_no_run():
    desk = Desk(60)
    desk.series_ = {
        key: [s for s in course if (s.at - AT) / LOOK not in range(20, 40)]
        for key, course in desk.series_.items()
    }
    assert len(desk.story().spans) == 1


# --- Restarts, stragglers, checkpoints ------------------------------------------------------------


def test_a_restart_is_told_with_the_time_without_steps_around_it():
    (restart,) = came_back().report()["restarts"]["listed"]
    assert (restart["t"], restart["ranks"], restart["seconds"]) == (55, 2, 20)
    assert (restart["steps_again"], restart["at_most"]) == (None, False)


def test_between_looks_that_lie_far_apart_a_restart_cost_at_most_so_much():
    desk = came_back()
    for key, course in desk.series_.items():
        slow = 12.0 if key[0] == "rank_step_seconds" else 1.0
        desk.series_[key] = [
            Sample(s.metric, s.value * slow, AT + 12 * (s.at - AT), s.labels, span=60.0)
            for s in course
        ]
    (restart,) = desk.report()["restarts"]["listed"]
    assert (restart["seconds"], restart["at_most"]) == (240.0, True)


def test_a_restart_that_is_not_over_has_no_length():
    desk = came_back()
    for rank in (0, 1):
        desk.steps(rank, [10.0 * n for n in range(9)] + [80.0] * 12)
    report = desk.report()
    assert report["restarts"]["listed"][0]["seconds"] is None
    assert report["restarts"]["seconds"] is None


def test_the_rank_that_computes_longest_is_named_with_what_it_cost():
    desk = Desk(ranks=4)
    desk.put("rank_compute_seconds", [0.48] * 21, rank=3)
    found = desk.report()["stragglers"]
    worst = found["ranks"][0]
    assert (worst["rank"], worst["slowest"]) == (3, 1.0)
    assert found["turns"] is False
    assert found["seconds"] == pytest.approx(200 * 0.08)
    assert found["money"] == pytest.approx(0.16)


def test_ranks_that_take_turns_are_no_stragglers():
    desk = Desk()
    desk.put("rank_compute_seconds", [0.4 + 0.1 * (n % 2) for n in range(21)], rank=0)
    desk.put("rank_compute_seconds", [0.5 - 0.1 * (n % 2) for n in range(21)], rank=1)
    found = desk.report()["stragglers"]
    assert found["seconds"] == pytest.approx(20.0)
    assert found["turns"] is True


def test_even_ranks_hold_nobody_up():
    found = Desk(ranks=4).report()["stragglers"]
    assert found["seconds"] == 0
    assert {rank["slowest"] for rank in found["ranks"]} == {0}


def test_without_compute_sections_stragglers_are_not_known():
    desk = Desk()
    desk.without("rank_compute_seconds")
    found = desk.report()["stragglers"]
    assert found["seconds"] is None
    assert "compute=SECONDS" in found["reason"]


def test_one_rank_alone_is_no_straggler():
    assert "no other to hold it against" in Desk(ranks=1).report()["stragglers"]["reason"]


def test_what_a_straggler_cost_never_exceeds_the_time_of_the_steps():
    watcher = Watcher()
    watcher.add({(0, "n"): 1.0, (1, "n"): 1e9}, steps=10.0, stepping=12.0)
    assert watcher.found(2).cost == 12.0


def test_checkpoints_are_where_two_looks_at_their_age_agree():
    desk = Desk()
    desk.put("checkpoint_age_seconds", [2.0 + LOOK * (n % 8) for n in range(21)])
    found = desk.report()
    assert found["marks"]["checkpoints"] == [38.0, 78.0]
    assert found["checkpoints"]["all"] is False


# --- Energy ---------------------------------------------------------------------------------------


def test_energy_adds_up_its_sources_and_says_how_much_of_the_time_was_read():
    desk = Desk()
    desk.bare("gpu_energy_joules_total", [None] * 10 + [1000.0 * n for n in range(11)], gpu=0)
    found = desk.report()["energy"]
    assert found["joules"] == 10_000 + 10_000
    assert [(m["source"], m["name"]) for m in found["meters"]] == [
        ("processor package", "0"), ("GPU", "0"),
    ]  # fmt: skip
    assert found["covered"] == pytest.approx(0.55)


def test_energy_that_nobody_measured_is_null_and_never_nothing():
    desk = Desk()
    desk.without("cpu_package_energy_joules_total")
    report = desk.report()
    assert report["energy"]["kwh"] is None
    assert "energy not measured" in report["headline"]


def test_part_of_the_energy_is_at_least_so_much():
    desk = Desk()
    desk.bare(
        "cpu_package_energy_joules_total", [500.0 * n if n < 10 else None for n in range(21)],
        package=0,
    )  # fmt: skip
    assert "at least 0.00125 kWh" in desk.report()["headline"]


@pytest.mark.parametrize(("at", "told"), [(50, True), (500, False)])
def test_another_job_that_ran_on_the_node_meanwhile_is_named(at, told):
    desk, other = Desk(), (("job", "gpt-large"),)
    looks = [Sample("job_observed_seconds_total", 1.0, AT + at, other)]
    desk.series_["job_observed_seconds_total", other] = looks
    assert any("shared with gpt-large" in line for line in desk.report()["unknown"]) is told


# --- How the past is read -------------------------------------------------------------------------


def test_a_week_is_read_by_the_hour_and_its_last_two_days_by_the_minute():
    now = 1e6 * HOUR + 1234.0
    old, new = pieces(now - 168 * HOUR, now, now)
    assert (old.grain, new.grain) == (HOUR, 60.0)
    assert old.until == new.since == math.ceil((now - 47.5 * HOUR) / HOUR) * HOUR


def test_two_hours_are_read_look_by_look():
    now = 1e9
    found = pieces(now - 2 * HOUR, now, now)
    assert [p.until - p.since for p in found] == [HOUR, HOUR]


def test_no_moment_of_the_period_is_read_twice_or_left_out():
    chance = random.Random(1)
    for _ in range(200):
        now = chance.uniform(1e9, 2e9)
        since = now - chance.uniform(1, 400) * HOUR
        until = chance.uniform(since + 1, now)
        found = pieces(since, until, now)
        assert (found[0].since, found[-1].until) == (since, until)
        assert all(a.until == b.since for a, b in pairwise(found))


def test_a_clock_that_was_set_back_makes_no_growth():
    counter = [Sample("c", value, at) for at, value in
               [(0, 0.0), (5, 5.0), (6, 15.0), (10, 10.0), (11, 20.0), (16, 25.0)]]  # fmt: skip
    assert [s.value for s in forward(counter)] == [0.0, 5.0, 15.0, 20.0, 25.0]


def test_a_counter_that_began_again_is_left_as_it_is():
    counter = [Sample("c", float(value), at) for at, value in enumerate([8, 9, 10, 1, 2, 3, 4])]
    assert forward(counter) == counter


def test_hours_in_which_a_counter_began_again_are_not_taken_for_a_clock():
    counter = [Sample("c", float(v), at, span=3600.0) for at, v in enumerate([900, 50, 4000])]
    assert forward(counter) == counter


def set_back(desk):
    """From the 21st look on the clock was 52.5 s behind."""
    for key, course in desk.series_.items():
        moved = [
            s if n < 21 else Sample(s.metric, s.value, s.at - 52.5, s.labels)
            for n, s in enumerate(course)
        ]
        desk.series_[key] = sorted(moved, key=lambda s: s.at)


def test_a_job_whose_clock_was_set_back_is_not_productive_for_it():
    desk = Desk(41)
    for rank in (0, 1):
        desk.put("rank_step_seconds", [0.25] * 41, rank=rank)  # half of the time
    set_back(desk)
    report = desk.report()
    assert report["period"]["seconds"] == 147.5
    assert part(report, "productive")["seconds"] == pytest.approx(100)
    assert any("clock was set back" in note for note in report["time"]["notes"])


def test_time_that_a_clock_jumped_over_is_unobserved():
    desk = Desk(41)
    for key, course in desk.series_.items():
        desk.series_[key] = [
            s if n < 21 else Sample(s.metric, s.value, s.at + 3600.0, s.labels)
            for n, s in enumerate(course)
        ]
    report = desk.report()
    assert part(report, "unobserved")["seconds"] == pytest.approx(3600.0)
    assert part(report, "productive")["seconds"] == pytest.approx(200.0)


def test_a_counter_that_a_killed_daemon_took_up_a_little_lower_is_no_clock():
    desk = Desk()
    looks = [LOOK * n - (7.0 if n == 10 else 0.0) for n in range(21)]
    desk.put("job_observed_seconds_total", looks)
    assert not any("clock" in note for note in desk.report()["time"]["notes"])


def test_each_series_is_read_once():
    desk, asked = Desk(), []
    plain = desk.series
    desk.series = lambda *a, **k: (asked.append((a, k["since"])), plain(*a, **k))[1]  # type: ignore[method-assign]
    desk.story()
    assert len(asked) == len(set(asked))


def test_a_name_is_told_as_it_is():
    desk = Desk()
    name = "<b>ü\n💥"
    desk.series_ = {
        (metric, tuple((k, name if k == "job" else v) for k, v in own)): [
            Sample(s.metric, s.value, s.at, tuple((k, name if k == "job" else v) for k, v in own))
            for s in course
        ]
        for (metric, own), course in desk.series_.items()
    }
    report = desk.report(job=name)
    assert report["job"] == name
    assert headline(report).startswith(name)


def test_the_same_story_gives_the_same_document():
    story = came_back().story()
    assert document(story, PRICE, made_at=AT) == document(story, PRICE, made_at=AT)


def test_a_past_reads_only_its_period():
    desk = Desk()
    fine = Fine(desk, since=AT + 10, until=AT + 20, now=AT + 100)  # type: ignore[arg-type]
    found = fine.whole("job_observed_seconds_total", (("job", "gpt"),))
    assert [s.at - AT for s in found] == [10, 15, 20]
