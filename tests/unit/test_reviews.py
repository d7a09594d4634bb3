"""The weekly and monthly figures: what they come to, and that what was not seen never passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fakes import FakeClock
from fakes_reviews import CATALOGUE, NOW, Bare, FakePast, accepted, found, judged, noisy, reviews
from fakes_scaling import source

from dvfd.config import Cost, Maintenance
from dvfd.errors import ToolError
from dvfd.judgements import Judgements
from dvfd.model import NONE_YET, Sample, Verdict, labels
from dvfd.reviews.capacity import capacity
from dvfd.reviews.period import Period
from dvfd.reviews.review import AVAILABILITY
from dvfd.reviews.uptime import HOUR, grown, pieces, uptime

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
MONTH = 30 * 24 + 30


def one(findings, metric):
    [sample] = [s for s in findings.samples if s.metric == metric]
    return sample


def test_nothing_of_the_lists_is_left_unmeasured():
    for check in ("daily", "weekly", "monthly"):
        assert not [c.id for c in CATALOGUE.checks[check].criteria if c.source == NONE_YET]


# --- Uptime -------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", ["weekly", "monthly"])
def test_a_job_that_was_up_all_the_time_passes(check):
    assert judged(FakePast(), check=check)["uptime"].verdict is PASS


def test_an_hour_down_in_a_week_fails():
    result = judged(FakePast(down=[50]))["uptime"]
    assert result.verdict is FAIL
    assert result.observed == pytest.approx(167 / 168)


def test_an_hour_that_nobody_saw_is_unknown_between_its_two_bounds():
    sample = one(found(FakePast(lost=[50])), AVAILABILITY)
    assert (sample.low, sample.high) == (pytest.approx(167 / 168), 1.0)
    assert judged(FakePast(lost=[50]))["uptime"].verdict is UNKNOWN


def test_what_nobody_saw_cannot_hide_that_it_was_down_too_long():
    assert judged(FakePast(lost=[50], down=[20]))["uptime"].verdict is FAIL


def test_a_job_of_two_days_has_no_uptime_of_a_week():
    result = judged(FakePast(hours=48))["uptime"]
    assert result.verdict is UNKNOWN
    assert "unobserved for 5 d" in result.note


def test_no_job_at_all_is_unknown():
    assert judged(FakePast(hours=-1))["uptime"].verdict is UNKNOWN


def window(since, until):
    ends = (datetime.fromtimestamp(at, UTC) for at in (since, until))
    return Maintenance(since=next(ends), until=next(ends), reason="a new switch")


def test_maintenance_that_was_declared_in_advance_is_no_downtime():
    planned = window(NOW - 51 * HOUR, NOW - 50 * HOUR)
    assert judged(FakePast(down=[50]), excused=[planned])["uptime"].verdict is PASS


def test_maintenance_of_a_part_of_an_hour_excuses_no_more_than_that_part():
    planned = window(NOW - 51 * HOUR, NOW - 50.5 * HOUR)
    sample = one(found(FakePast(down=[50]), excused=[planned]), AVAILABILITY)
    assert sample.high == pytest.approx(167 / 167.5)


def test_half_an_hour_up_beside_half_an_hour_of_maintenance_may_be_the_one_or_the_other():
    def counter(*values):
        return [Sample("m", value, NOW + n * HOUR) for n, value in enumerate(values)]

    found = uptime(
        counter(0.0, 1800.0), counter(0.0, 3600.0),
        since=NOW, until=NOW + HOUR, excused=[(NOW, NOW + 1800.0)],
    )  # fmt: skip
    assert (found.whole, found.least, found.most) == (1800.0, 0.0, 1800.0)


def test_a_period_that_is_all_maintenance_says_nothing():
    planned = window(NOW - 800 * HOUR, NOW + HOUR)
    assert not [s for s in found(FakePast(), excused=[planned]).samples if s.metric == AVAILABILITY]


def test_a_counter_that_began_again_counts_from_there():
    past = FakePast(hours=0)
    for at, value in ((1, 100.0), (2, 160.0), (3, 20.0), (4, 50.0)):
        past.add("m", value, NOW + at)
    assert grown(past.courses["m"], NOW + 1.5, NOW + 4) == 60 + 20 + 30


def test_the_pieces_of_a_period_cover_it_once():
    windows = [(NOW + 90, NOW + 3700), (NOW + 3500, NOW + 5000)]
    got = list(pieces(NOW, NOW + 5 * HOUR, windows))
    assert [begin for begin, _, _ in got] == [NOW, *(end for _, end, _ in got[:-1])]
    assert sum(free for _, _, free in got) == 5 * HOUR - (5000 - 90)


def test_a_period_begins_at_a_whole_hour_and_is_no_shorter_than_its_name():
    period = Period.ending("7d", NOW + 1234.0)
    assert period.since % HOUR == 0
    assert 7 * 86400 <= period.until - period.since < 7 * 86400 + HOUR


# --- Trend --------------------------------------------------------------------------------------


def test_a_steady_throughput_passes_and_one_that_falls_fails():
    steady, falls = (
        judged(FakePast(200, pace=noisy(1, 200, slope=slope)))["trend_floor"]
        for slope in (0.0, -0.05)
    )
    assert (steady.verdict, falls.verdict) == (PASS, FAIL)
    assert falls.observed == pytest.approx(-0.05, abs=0.01)


def test_an_interval_wider_than_the_margin_is_unknown():
    result = judged(FakePast(200, pace=noisy(1, 200, noise=0.1)))["trend_floor"]
    assert result.verdict is UNKNOWN
    assert "straddles" in result.reason


def test_a_rise_is_a_warning_and_no_failure_of_the_list():
    results = judged(FakePast(200, pace=noisy(1, 200, slope=0.08)))
    assert (results["trend_floor"].verdict, results["trend_ceiling"].verdict) == (PASS, FAIL)


def test_too_few_hours_are_unknown_and_said():
    result = judged(FakePast(100))["trend_floor"]
    assert result.verdict is UNKNOWN
    assert "of 101 of 168 hours on 4 processes, wanted at least 118" in result.reason


def test_too_little_to_say_ends_no_alert_and_no_job_does():
    assert not judged(FakePast(100))["trend_floor"].absent
    assert judged(FakePast(hours=-1))["trend_floor"].absent


def test_hours_on_another_number_of_processes_do_not_count():
    past = FakePast(200)
    grew = [replace(s, value=2.0) for s in past.courses["job_processes"][:150]]
    past.courses["job_processes"][:150] = grew
    assert judged(past)["trend_floor"].verdict is UNKNOWN


def test_statistics_that_fail_leave_the_trend_unknown_and_the_rest_judged():
    def broken(*_args, **_keys):
        raise ToolError("dvfd.reviews.slopes: killed")

    results = judged(FakePast(), run=broken)
    assert results["trend_floor"].verdict is UNKNOWN
    assert "killed" in results["trend_floor"].reason
    assert results["uptime"].verdict is PASS


# --- Against what was accepted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pace", "verdict"), [(239.0, PASS), (236.0, PASS), (234.0, FAIL), (250.0, PASS)]
)
def test_efficiency_is_maintained_at_98_percent_of_what_was_accepted(pace, verdict):
    past = FakePast(200, pace=lambda hour: pace + hour % 3 / 100)
    assert judged(past, accepted())["efficiency"].verdict is verdict


def test_without_an_accepted_run_efficiency_is_unknown_and_says_what_to_type():
    result = judged(FakePast(), accepted(processes=8))["efficiency"]
    assert result.verdict is UNKNOWN
    assert "with 4 processes is accepted; there are accepted ones with 8" in result.reason
    assert "dvfd stability accept" in result.reason


def test_a_run_of_another_job_is_no_yardstick():
    assert judged(FakePast(), accepted(job="bert"))["efficiency"].verdict is UNKNOWN


def test_an_efficiency_above_one_is_not_clamped_but_said():
    past = FakePast(200, pace=lambda hour: 260.0 + hour % 3)
    result = judged(past, accepted())["efficiency"]
    assert result.observed == pytest.approx(261 / 250)
    assert "super-linear: verify the baseline" in result.note


def test_the_accepted_communication_is_the_limit_of_the_week():
    samples = {s.metric: s.value for s in found(FakePast(), accepted()).samples}
    assert samples["accepted_communication_ratio"] == 0.08
    assert "accepted" in judged(FakePast())["communication"].reason


class Exchanging(Bare):
    """A store in which a week of communication shares lies."""

    def __init__(self, share):
        self.share = share

    def samples(self, criterion, *, until):
        if criterion.metric != "job_communication_ratio":
            return ()
        hours = range(168, -1, -1)
        return [
            Sample(criterion.metric, self.share, NOW - ago * HOUR, labels(job="gpt"), span=HOUR)
            for ago in hours
        ]


@pytest.mark.parametrize(("share", "verdict"), [(0.09, PASS), (0.11, FAIL)])
def test_communication_is_stable_within_two_points_of_what_was_accepted(share, verdict):
    report = Judgements(
        CATALOGUE,
        store=Exchanging(share),
        clock=FakeClock(NOW),
        reviewed=reviews(FakePast(), accepted()).of,
    ).run_check(CATALOGUE.checks["weekly"])
    found = {r.criterion.id: r for r in report.results}["weekly.communication"]
    assert found.verdict is verdict, found.reason
    assert "against run r1, accepted by Ann Lee" in found.note


# --- Gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("differed", "verdict"), [(0, PASS), (60, PASS), (61, FAIL)])
def test_the_share_of_hashes_that_agreed_is_held_against_the_limit(differed, verdict):
    assert judged(FakePast(differed=differed))["gradient_sync"].verdict is verdict


def test_hashes_of_a_week_that_was_hardly_seen_prove_nothing():
    result = judged(FakePast(lost=range(10, 30)))["gradient_sync"]
    assert result.verdict is UNKNOWN
    assert "was observed, wanted at least 95%" in result.reason


@pytest.mark.parametrize(
    ("hours", "verdict"), [(167, PASS), (160, PASS), (159, UNKNOWN), (1, UNKNOWN)]
)
def test_hashes_that_were_compared_in_few_of_its_hours_prove_nothing(hours, verdict):
    past = FakePast()
    made = past.courses["job_hash_comparisons_total"]
    most = made[-168].value + 360.0 * (hours - 1)
    past.courses["job_hash_comparisons_total"] = [
        replace(sample, value=min(sample.value, most)) for sample in made
    ]
    result = judged(past)["gradient_sync"]
    assert result.verdict is verdict
    if verdict is UNKNOWN:
        assert f"hashes were compared in {hours} of 168 hours, wanted in 95%" in result.reason


def test_hashes_are_not_wanted_of_the_hours_in_which_the_job_was_down():
    down = range(3, 40)
    past = FakePast(down=down)
    made = past.courses["job_hash_comparisons_total"]
    for number, sample in enumerate(made):
        idle = sum(ago >= len(made) - 1 - number for ago in down)
        made[number] = replace(sample, value=sample.value - 360.0 * idle)
    assert judged(past)["gradient_sync"].verdict is PASS


def test_no_hash_compared_is_unknown():
    past = FakePast()
    past.courses.pop("job_hash_comparisons_total")
    result = judged(past)["gradient_sync"]
    assert result.verdict is UNKNOWN
    assert "no hash was compared in 7d" in result.reason


# --- The checkpoint -----------------------------------------------------------------------------


@pytest.mark.parametrize(("equal", "verdict"), [(True, PASS), (False, FAIL), (None, UNKNOWN)])
def test_the_newest_checkpoint_is_restored_when_the_weekly_list_is_judged(equal, verdict):
    result = judged(FakePast(), restored=lambda job: (equal, f"of {job}"))["checkpoint_restored"]
    assert result.verdict is verdict
    assert "of gpt" in result.reason + result.note


@pytest.mark.slow
def test_a_monthly_list_restores_nothing():
    asked = []
    found(FakePast(), check="monthly", restored=asked.append)
    assert not asked


# --- The whole ----------------------------------------------------------------------------------


def test_figures_are_of_the_moment_at_which_the_review_ended_and_are_kept():
    kept = []
    made = found(FakePast(), accepted(), keep=kept.extend)
    assert kept == list(made.samples)
    assert {s.at for s in kept} == {made.ended}


def test_a_check_that_rests_on_no_review_gets_none():
    assert reviews(FakePast()).of(CATALOGUE.checks["daily"]) is None


# --- What reviews by people stand on ------------------------------------------------------------


def told(past, *runs, check="monthly", **more):
    return {fact.name: fact.text for fact in found(past, *runs, check=check, **more).facts}


def trained(past, *, samples=720e6, joules=0.0):
    """The month with so many samples and so much energy in it, a little every hour."""
    looks = [s.at for s in past.courses["job_observed_seconds_total"]]
    for n, at in enumerate(looks):
        share = max(0.0, n - (len(looks) - 1 - 720)) / 720
        past.add("job_samples_total", samples * share, at)
        if joules:
            past.add("cpu_package_energy_joules_total", joules * share, at)
    return past


def test_a_million_samples_cost_the_hours_that_were_paid_over_the_samples():
    facts = told(trained(FakePast()), price=Cost(per_hour=12.5, currency="EUR"))
    assert facts["cost of gpt"].startswith("12.5 EUR per million samples: 12.5 EUR/h for 720.0 h")


def test_energy_is_told_for_each_sample():
    facts = told(trained(FakePast(), joules=7.2e9))
    assert facts["energy of gpt"].startswith("10 J a sample: 2000 kWh")


def test_what_costs_and_counters_do_not_say_is_not_invented():
    facts = told(FakePast())
    assert facts["energy of gpt"].startswith("not known: no energy counter")
    assert facts["cost of gpt"].startswith("not known: [cost]")
    free = told(FakePast(), price=Cost(per_hour=12.5, currency="EUR"))
    assert free["cost of gpt"] == "not known: no rank here reported samples"


def test_the_quarters_of_a_month_stand_beside_each_other():
    facts = told(FakePast(pace=lambda hour: 200.0 if hour < 400 else 240.0))
    assert facts["performance of gpt"].startswith("200, 200, 238, 240 samples/s in the quarters")


def test_where_the_time_went_is_told():
    assert "productive steps" in told(stepping(FakePast()))["time of gpt"]


def stepping(past):
    """A rank that makes ten steps a second, of 90 ms each."""
    for n, look in enumerate(list(past.courses["job_observed_seconds_total"])):
        for metric, value in (("rank_steps_total", 36e3 * n), ("rank_step_seconds", 0.09)):
            sample = Sample(metric, value, look.at, labels(job="gpt", rank=0), span=HOUR)
            past.courses.setdefault(metric, []).append(sample)
    past.courses["job_processes"] = [replace(s, value=1.0) for s in past.courses["job_processes"]]
    return past


class FewPoints:
    """A ledger of these points."""

    def __init__(self, *points):
        self._points = points

    def points(self):
        return list(self._points)


def test_capacity_is_an_extrapolation_and_says_so():
    facts = list(capacity(FewPoints(*source((1, 4, 8))), CATALOGUE))
    assert [fact.name for fact in facts] == ["capacity at 32", "capacity at 64"]
    assert facts[0].text.startswith("extrapolation, 4 times the largest measured count; 32 proc")
    assert "wanted at most 2" in facts[0].text


@pytest.mark.parametrize("points", [(), source((4,))])
def test_without_two_counts_there_is_no_capacity(points):
    [fact] = capacity(FewPoints(*points), CATALOGUE)
    assert "samples/s" not in fact.text


def test_facts_stand_in_the_report_and_decide_nothing():
    report = Judgements(
        CATALOGUE, store=Bare(), clock=FakeClock(NOW), reviewed=reviews(FakePast()).of
    ).run_check(CATALOGUE.checks["monthly"])
    assert "cost of gpt" in dict(report.run.facts)
