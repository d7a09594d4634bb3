"""Samples folded into minutes of a run, against the plainest way to do it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.model import Kind, Metric
from dvfd.runs.folding import Folds
from dvfd.runs.rows import Minute

AGE = 15.0
METRICS = {
    name: Metric(name=name, unit=unit, help="", kind=kind, max_age=AGE)
    for name, unit, kind in (
        ("heat", "celsius", Kind.GAUGE),
        ("errors_total", "errors", Kind.COUNTER),
        ("energy_total", "joules", Kind.COUNTER),
    )
}


class Pen:
    """A run's file, as a list."""

    def __init__(self) -> None:
        self.minutes: list[Minute] = []

    def add(self, rows: list[Minute]) -> None:
        self.minutes.extend(rows)


def folded(
    metric: str, samples: list[tuple[float, float]], *, end: float | None = None
) -> list[Minute]:
    """*samples*, (t, value) each, as minutes."""
    pen = Pen()
    folds = Folds("n0", METRICS, pen)
    for t, value in samples:
        folds.add(metric, (), value, t)
    folds.flush() if end is None else folds.close(end)
    return pen.minutes


courses = st.lists(
    st.tuples(st.floats(0.01, 200.0), st.integers(0, 1000)), min_size=1, max_size=60
).map(lambda pairs: [(sum(d for d, _ in pairs[: n + 1]), float(v))
                     for n, (_, v) in enumerate(pairs)])  # fmt: skip


@given(courses)
def test_each_minute_holds_the_samples_of_it(course: list[tuple[float, float]]) -> None:
    minutes = folded("heat", course)
    assert sum(minute.count for minute in minutes) == len(course)
    for minute in minutes:
        inside = [v for t, v in course if math.floor(t / 60) == minute.minute]
        assert minute.count == len(inside)
        assert (minute.low, minute.high, minute.last) == (min(inside), max(inside), inside[-1])
        assert minute.sum == pytest.approx(sum(inside))


@given(courses)
def test_covered_is_what_the_samples_stand_for(course: list[tuple[float, float]]) -> None:
    end = course[-1][0] + 7.0
    ends = [t for t, _ in course[1:]] + [end]
    naive = sum(min(after - t, AGE) for (t, _), after in zip(course, ends, strict=True))
    assert sum(m.covered for m in folded("heat", course, end=end)) == pytest.approx(naive)


@given(courses)
def test_a_counter_grows_as_much_as_it_did_resets_included(
    course: list[tuple[float, float]],
) -> None:
    counts = [v for _, v in course]
    naive = sum(b - a if b >= a else b for a, b in pairwise(counts))
    assert sum(m.grown for m in folded("errors_total", course)) == naive


@given(courses)
def test_written_early_it_adds_up_to_the_same(course: list[tuple[float, float]]) -> None:
    pen = Pen()
    folds = Folds("n0", METRICS, pen)
    for t, value in course:
        folds.add("errors_total", (), value, t)
        folds.write("errors_total", ())
    whole = folded("errors_total", course)
    assert sum(m.grown for m in pen.minutes) == sum(m.grown for m in whole)
    assert sum(m.covered for m in pen.minutes) == pytest.approx(sum(m.covered for m in whole))


def test_a_gauge_grows_never() -> None:
    assert [m.grown for m in folded("heat", [(1, 5.0), (2, 9.0)])] == [0.0]


def test_a_gap_is_covered_for_as_long_as_a_sample_stands() -> None:
    assert [m.covered for m in folded("heat", [(0, 1.0), (10, 1.0), (50, 1.0)])] == [10.0 + AGE]


def test_what_is_not_finite_is_no_sample() -> None:
    minutes = folded("heat", [(1, 5.0), (2, math.nan), (3, math.inf), (4, 6.0)])
    assert [(m.count, m.sum, m.covered) for m in minutes] == [(2, 11.0, 3.0)]


def test_events_in_a_gap_count_whole_and_energy_in_it_as_far_as_it_was_seen() -> None:
    gap = [(0.0, 0.0), (10.0, 100.0), (110.0, 1100.0)]
    assert sum(m.grown for m in folded("errors_total", gap)) == 1100
    assert sum(m.grown for m in folded("energy_total", gap)) == 100 + 1000 * AGE / 100


def test_a_counter_goes_on_from_what_it_stood_at() -> None:
    pen = Pen()
    folds = Folds("n0", METRICS, pen)
    folds.seed("errors_total", (), 40.0)
    folds.seed("energy_total", (), 40.0)
    folds.add("errors_total", (), 42.0, 5.0)
    folds.add("energy_total", (), 42.0, 5.0)
    folds.flush()
    assert [(m.metric, m.grown, m.covered) for m in pen.minutes] == [
        ("errors_total", 2.0, 0.0), ("energy_total", 0.0, 0.0),
    ]  # fmt: skip


def test_a_minute_is_written_when_it_is_over_and_not_before() -> None:
    pen = Pen()
    folds = Folds("n0", METRICS, pen)
    folds.add("heat", (), 1.0, 30.0)
    folds.flush(0)
    assert pen.minutes == []
    folds.flush(1)
    assert [m.minute for m in pen.minutes] == [0]
    folds.flush(2)
    assert len(pen.minutes) == 1
