"""Judging through the store: whole and partial passes, maintenance, crashes that stay alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes import FakeClock
from fakes_sinks import NOW, check, criterion, sample

from dvfd import judgements as module
from dvfd.config import Maintenance
from dvfd.judgements import Judgements
from dvfd.model import Catalogue, Check, Criterion, Labels, Limit, Report, Sample, Verdict


class Shelf:
    """A store of one sample a metric; keeps reports."""

    def __init__(self, *samples: Sample) -> None:
        self.held = list(samples)
        self.kept: list[Report] = []

    def samples(self, wanted: Criterion, *, until: float) -> list[Sample]:
        return [s for s in self.held if s.metric == wanted.metric]

    def keep(self, report: Report, *, scheduled: float | None = None) -> None:
        self.kept.append(report)


ALIVE = criterion("live.responding", requires=("job",), source="ranks")
LIVE = check("live", ALIVE, watch=True)


def judging(live: Check, shelf: Shelf, **options: object) -> Judgements:
    catalogue = Catalogue({}, {live.id: live}, {}, "hash")
    clock = FakeClock(now=NOW)
    return Judgements(catalogue, store=shelf, clock=clock, **options)  # type: ignore[arg-type]


def window(hours: float) -> Maintenance:
    begin = datetime.fromtimestamp(NOW, UTC) + timedelta(hours=hours)
    return Maintenance(since=begin, until=begin + timedelta(hours=1), reason="new switches")


def test_a_report_is_kept_and_told() -> None:
    shelf, told = Shelf(sample(value=1.0, at=NOW)), []

    class Ear:
        tell = staticmethod(told.append)

    report = judging(LIVE, shelf, sinks=[Ear()]).run_check(LIVE)
    assert report.verdict is Verdict.PASS
    assert shelf.kept == told == [report]


@pytest.mark.parametrize(("value", "told"), [(0.0, True), (1.0, False)])
def test_a_source_has_the_last_word_where_a_line_fails(value: float, told: bool) -> None:
    shelf = Shelf(sample(value=value, at=NOW))
    report = judging(LIVE, shelf, words=lambda metric, where: "3 % left").run_check(LIVE)
    assert report.results[0].reason.endswith("; it says: 3 % left") is told


@pytest.mark.parametrize(("value", "verdict"), [(1.0, Verdict.UNKNOWN), (0.0, Verdict.FAIL)])
def test_some_of_the_series_are_no_pass_while_others_could_not_be_told(
    value: float, verdict: Verdict
) -> None:
    def unseen(metric: str, where: Labels) -> str:
        return "gpu1.prom: line 2" if (metric, where) == (ALIVE.metric, ALIVE.where) else ""

    shelf = Shelf(sample(value=value, at=NOW))
    [result] = judging(LIVE, shelf, unseen=unseen).run_check(LIVE).results
    assert result.verdict is verdict
    assert ("gpu1.prom: line 2" in result.reason) is (verdict is Verdict.UNKNOWN)


def test_without_a_sample_it_says_what_could_not_be_told() -> None:
    [result] = (
        judging(LIVE, Shelf(), unseen=lambda metric, _: "a: there twice").run_check(LIVE).results
    )
    assert result.reason.endswith("; its source: a: there twice")


def test_a_limit_of_which_not_all_could_be_told_makes_no_pass() -> None:
    wanted = criterion("live.hot", source="ranks", limit=Limit(of="metric.top"))
    hot = check("live", wanted, watch=True)
    shelf = Shelf(sample(value=1.0, at=NOW), replace(sample(value=1.0, at=NOW), metric="top"))
    shelf.samples = lambda wanted, *, until: shelf.held  # type: ignore[method-assign]
    told = {ALIVE.metric: "", "top": "the other one"}
    [known] = judging(hot, shelf).run_check(hot).results
    [result] = judging(hot, shelf, unseen=lambda m, _: told[m]).run_check(hot).results
    assert (known.verdict, result.verdict) == (Verdict.PASS, Verdict.UNKNOWN)


def test_without_a_sample_it_is_unknown() -> None:
    [result] = judging(LIVE, Shelf()).run_check(LIVE).results
    assert (result.verdict, result.absent) == (Verdict.UNKNOWN, True)


@pytest.mark.parametrize(
    ("hours", "verdict"), [(-0.5, Verdict.NOT_APPLICABLE), (0.5, Verdict.FAIL)]
)
def test_maintenance_excuses_a_job_inside_its_window_only(hours: float, verdict: Verdict) -> None:
    shelf = Shelf(sample(value=0.0, at=NOW))
    report = judging(LIVE, shelf, maintenance=[window(hours)]).run_check(LIVE)
    assert report.results[0].verdict is verdict
    assert report.verdict is not Verdict.PASS


def test_maintenance_of_a_job_excuses_no_hardware() -> None:
    heat = check("live", criterion("live.heat", source="ranks"), watch=True)
    shelf = Shelf(sample(value=0.0, at=NOW))
    report = judging(heat, shelf, maintenance=[window(-0.5)]).run_check(heat)
    assert report.verdict is Verdict.FAIL


def test_a_criterion_that_crashes_is_unknown_and_the_rest_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = criterion("live.good", source="ranks")
    both = check("live", ALIVE, good, watch=True)
    real: Callable[..., object] = module.judge

    def judge(wanted: Criterion, *args: object, **options: object) -> object:
        return 1 / 0 if wanted is ALIVE else real(wanted, *args, **options)

    monkeypatch.setattr(module, "judge", judge)
    report = judging(both, Shelf(sample(value=1.0, at=NOW))).run_check(both)
    assert [r.verdict for r in report.results] == [Verdict.UNKNOWN, Verdict.PASS]
    assert "ZeroDivisionError" in report.error


def test_asking_the_engine_that_crashes_leaves_the_store_and_is_said() -> None:
    def windows(check: Check, at: float) -> object:
        raise ZeroDivisionError

    shelf = Shelf(sample(value=1.0, at=NOW))
    report = judging(LIVE, shelf, windows=windows).run_check(LIVE)
    assert report.verdict is Verdict.PASS
    assert "engine of [history]: ZeroDivisionError()" in report.error


def test_a_partial_pass_keeps_what_the_others_were() -> None:
    good = criterion("live.good", source="ranks")
    both = check("live", ALIVE, good, watch=True)
    shelf = Shelf(sample(value=1.0, at=NOW))
    bench = judging(both, shelf)
    bench.run_check(both)
    shelf.held = [sample(value=0.0, at=NOW)]
    report = bench.run_check(both, [good])
    assert [r.verdict for r in report.results] == [Verdict.PASS, Verdict.FAIL]


def test_a_sink_that_fails_is_not_the_others_trouble() -> None:
    told: list[Report] = []

    class Deaf:
        def tell(self, report: Report) -> None:
            raise OSError("no")

    class Ear:
        tell = staticmethod(told.append)

    judging(LIVE, Shelf(), sinks=[Deaf(), Ear()]).run_check(LIVE)
    assert len(told) == 1


def test_a_scheduled_run_says_how_late_it_is() -> None:
    report = judging(LIVE, Shelf()).run_check(LIVE, scheduled=NOW - 90)
    assert (report.late, report.scheduled) == (90, NOW - 90)
