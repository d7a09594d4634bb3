"""The lists ask the engine that was chosen, hold it against this node, and never guess."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from fakes import FakeClock
from fakes_history import FakeEngine
from fakes_reviews import CATALOGUE, NOW, FakePast, Standing, accepted, in_here

from dvfd.config import parse
from dvfd.errors import HistoryError
from dvfd.history.chosen import Chosen
from dvfd.history.course import HOUR
from dvfd.judgements import Judgements
from dvfd.model import Verdict
from dvfd.reviews.review import COMPARED, DIFFERED, OBSERVED, PROCESSES, THROUGHPUT, UP, Reviews

FAIL, UNKNOWN, PASS = Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS
CONFIG = '[node]\nname = "n1"\n[history]\nurl = "http://engine"\n'
N1 = {"instance": "n1:9109", "training_job": "gpt"}
COMMUNICATION = "job_communication_ratio"


class Local(FakePast):
    """A node's store: hourly courses, and what windows are judged on."""

    def samples(self, criterion, *, until):
        since = until - criterion.window
        course = self.courses.get(criterion.metric, ())
        return [s for s in course if since - criterion.max_age <= s.at <= until]

    def keep(self, report, *, scheduled=None):
        pass


def local(**keys):
    made = Local(**keys)
    for sample in [*made.courses[OBSERVED]]:
        made.add(COMMUNICATION, 0.08, sample.at)
    return made


def engine(past, *, every=600, labels=N1, days=31):
    """One that scraped what *past* has, so often."""
    since = NOW - days * 24 * HOUR
    series = []
    for metric in (UP, OBSERVED, COMPARED, DIFFERED, PROCESSES, THROUGHPUT, COMMUNICATION):
        points = []
        course = [s for s in past.courses[metric] if s.at >= since]
        for sample, later in pairwise([*course, course[-1]]):
            steps = range(0, HOUR, every) if sample.at < NOW else (0,)
            slope = (later.value - sample.value) / HOUR if metric in (UP, OBSERVED) else 0.0
            points += [(sample.at + t, sample.value + slope * t) for t in steps]
        series.append((metric, labels, points))
    return FakeEngine(*series)


def listed(store, made, check="weekly", config=CONFIG):
    chosen = Chosen(parse(config), CATALOGUE.metrics, store, lambda: made)
    reviews = Reviews(
        store, Standing(accepted()), FakeClock(NOW), run=in_here,
        history=chosen if chosen.asks else None,
    )  # fmt: skip
    judgements = Judgements(
        CATALOGUE, store=store, clock=FakeClock(NOW), reviewed=reviews.of, windows=chosen.windows
    )
    report = judgements.run_check(CATALOGUE.checks[check])
    results = {r.criterion.id.partition(".")[2]: r for r in report.results}
    return results, dict(report.run.facts)


FIGURES = ("uptime", "trend_floor", "efficiency", "gradient_sync")
WINDOWS = ("corruption", "hashes_compared", "communication")


def test_a_sound_engine_passes_what_the_store_would():
    past = local()
    results, facts = listed(past, engine(past, every=60))
    assert {name: results[name].verdict for name in (*FIGURES, *WINDOWS)} == dict.fromkeys(
        (*FIGURES, *WINDOWS), PASS
    ), [(n, results[n].reason) for n in (*FIGURES, *WINDOWS)]
    assert facts["source of 7d"].startswith("the engine at http://engine, ")


def test_what_only_tells_the_cost_takes_no_verdict_with_it():
    past = local()
    past.add("job_samples_total", 1.0, NOW)
    made = engine(past, every=60)
    points = [(NOW - 600.0, 1.0), (NOW - 60.0, 2.0)]
    twice = [("job_samples_total", {**N1, "replica": name}, points) for name in ("a", "b")]
    made.series = (*made.series, *twice)
    results, facts = listed(past, made)
    assert results["uptime"].verdict is PASS
    assert facts["cost of gpt"].startswith("not known: job_samples_total of job=gpt, n1:9109 is")


def down(past):
    made = engine(past)
    made.off = HistoryError("http://engine: Connection refused")
    return made


def test_an_engine_that_is_down_leaves_a_young_store_unknown_with_the_reason():
    past = local(hours=50)
    results, facts = listed(past, down(past))
    for name in (*FIGURES, *WINDOWS):
        assert results[name].verdict is UNKNOWN, name
        assert "http://engine: Connection refused" in results[name].reason, name
    assert facts["source of 7d"].startswith("none: http://engine: Connection refused")


def test_a_store_that_holds_the_whole_period_answers_for_an_engine_that_is_down_and_says_so():
    past = local()
    results, facts = listed(past, down(past))
    for name in (*FIGURES, *WINDOWS):
        assert results[name].verdict is PASS, (name, results[name].reason)
    assert facts["source of 7d"].startswith("this node's store, which holds all of it; not http")
    assert "of this node's store, which holds all of it" in results["corruption"].note


def test_an_engine_that_has_nothing_of_a_job_here_is_no_quiet_week():
    past = local(hours=50)
    results, _ = listed(past, FakeEngine())
    for name in (*FIGURES, *WINDOWS):
        assert results[name].verdict is UNKNOWN, name
    assert "knows nothing of job gpt, which was observed here for" in results["uptime"].reason
    assert "does it scrape this node?" in results["corruption"].reason


def test_another_node_s_past_is_not_this_one_s():
    past = local(hours=50)
    past.courses[OBSERVED][-1] = replace(past.courses[OBSERVED][-1], span=0.0)
    other = FakePast(hours=40)
    for sample in [*other.courses[OBSERVED]]:
        other.add(COMMUNICATION, 0.08, sample.at)
    results, _ = listed(past, engine(other))
    assert results["uptime"].verdict is UNKNOWN
    assert "was observed for 144000 s, this node counted 180000 s" in results["uptime"].reason


def test_a_node_of_the_same_job_that_was_observed_as_long_is_found_out_by_what_was_up():
    mine = local(down=range(20, 28))
    results, facts = listed(mine, engine(local(), every=60))
    assert results["uptime"].verdict is FAIL  # by its own store, which holds the week
    assert "says that job gpt was up for" in facts["source of 7d"]


@pytest.mark.parametrize("others", [range(171, 179), range(160, 168)])
def test_one_that_was_down_as_long_is_found_out_by_the_hours_between(others):
    mine = local(down=range(20, 28))
    results, facts = listed(mine, engine(local(down=others), every=60))
    assert results["uptime"].verdict is FAIL
    assert "says that job gpt was up for" in facts["source of 7d"]
    assert " s until 20" in facts["source of 7d"]


def test_windows_are_not_of_another_node_s_past_either():
    mine = local(hours=50, down=range(20, 28))
    results, _ = listed(mine, engine(local(hours=50), every=60))
    assert "says that job gpt was up for" in results["corruption"].reason
    assert results["corruption"].verdict is UNKNOWN


def test_a_counter_that_began_anew_within_an_hour_is_the_node_s_own():
    """The node's hour has what came after, the engine's end of that hour what came before."""
    mine = local(hours=200)
    theirs = engine(mine, every=60)
    for metric in (UP, OBSERVED):
        course = mine.courses[metric]
        course[:-100] = [replace(s, value=s.value + 5e5) for s in course[:-100]]
        series = next(points for name, _, points in theirs.series if name == metric)
        moment = course[-100].at + 30.0
        series[:] = [(at, value + 5e5 if at < moment else value) for at, value in series]
    _, facts = listed(mine, theirs)
    assert facts["source of 7d"].startswith("the engine at"), facts["source of 7d"]


def test_an_engine_that_began_two_days_ago_has_no_week():
    past = local()
    results, _ = listed(past, engine(past, every=60, days=2))
    for name in ("uptime", "trend_floor", "efficiency", "gradient_sync", "corruption"):
        assert results[name].verdict is UNKNOWN, name


def test_a_node_that_was_installed_anew_two_hours_ago_has_its_week_still():
    past, before = local(hours=2), local(hours=800)
    made = engine(before, every=60)
    new = engine(past, every=60)
    since = NOW - 2 * HOUR
    made.series = [
        (metric, own, [p for p in points if p[0] <= since] + [p for p in later if p[0] > since])
        for (metric, own, points), (_, _, later) in zip(made.series, new.series, strict=True)
    ]
    results, _ = listed(past, made)
    assert results["uptime"].verdict is PASS, results["uptime"].reason
    assert results["uptime"].observed > 0.9999
    assert results["trend_floor"].verdict is PASS


def test_an_hour_that_the_engine_and_the_node_missed_is_unobserved():
    past = local(lost=[50])
    results, _ = listed(past, engine(past, every=60))
    assert results["uptime"].verdict is UNKNOWN
    assert results["uptime"].observed == pytest.approx(167 / 168, abs=1e-6)


def test_an_engine_for_the_fleet_alone_is_not_asked_for_this_node_s_lists():
    past = local()
    results, facts = listed(past, down(past), config=CONFIG + 'use = "asked"\n')
    assert results["uptime"].verdict is PASS
    assert "source of 7d" not in facts


def test_a_node_without_history_asks_its_store():
    past = local()
    results, _ = listed(past, down(past), config='[node]\nname = "n1"\n')
    assert results["uptime"].verdict is PASS


def test_only_lists_ask_an_engine_and_no_run_of_two_days_does():
    past = local()
    chosen = Chosen(parse(CONFIG), CATALOGUE.metrics, past, lambda: down(past))
    for check in CATALOGUE.checks.values():
        assert bool(chosen.windows(check, NOW)) == (check.id == "weekly"), check.id
