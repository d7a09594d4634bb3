"""Rows of a run as readings for the judge: how each of its metrics is made. Pure.

Nothing here depends on the order in which rows came: sums are exact (fsum), the rest is counted or
sorted. What was not seen makes a reading blind, with bounds that say what may still be true.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dvfd import derive
from dvfd.reduce import ANYTHING, FINITE, Interval, Reading, exactly, seconds, widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.model import Criterion, Labels
    from dvfd.runs.rows import Minute

MINUTE = 60.0


def _column() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Course:
    """One probe series over the run, a place for each minute: a mean, an extreme, or a growth."""

    covered: array[float] = field(default_factory=_column)
    weighted: array[float] = field(default_factory=_column)  # the mean times the seconds covered
    low: array[float] = field(default_factory=_column)
    high: array[float] = field(default_factory=_column)
    grown: array[float] = field(default_factory=_column)

    def add(self, row: Minute) -> None:
        """Take a minute, or a further piece of one: a daemon may have been restarted in it."""
        at = row.minute
        while len(self.covered) <= at:
            self._extend()
        mean = row.sum / row.count if row.count else row.last
        self.covered[at] += row.covered
        self.weighted[at] += row.covered * mean
        self.grown[at] += row.grown
        self.low[at] = min(self.low[at], row.low)
        self.high[at] = max(self.high[at], row.high)

    def _extend(self) -> None:
        self.covered.append(0.0)
        self.weighted.append(0.0)
        self.grown.append(0.0)
        self.low.append(math.inf)
        self.high.append(-math.inf)

    def inside(self, since: float, until: float) -> Course:
        """The minutes that begin in [since, until), run seconds; the one that *since* is in too."""
        part = slice(math.floor(since / MINUTE), math.ceil(until / MINUTE))
        return Course(
            self.covered[part], self.weighted[part], self.low[part], self.high[part],
            self.grown[part],
        )  # fmt: skip

    def due(self, span: Span) -> Span:
        """The part of *span* that could have come: while a run is on, a minute comes once it is
        over, and the one that is open is no gap.
        """
        end = len(self.covered) * MINUTE
        on_time = span.since < end <= span.until < end + 2 * MINUTE
        return Span(span.since, end, over=False) if on_time and not span.over else span

    @property
    def count(self) -> int:
        """Minutes of which there is a sample."""
        return len(self.low) - self.low.count(math.inf)


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a run that a figure is about: run seconds, and whether the run is over."""

    since: float
    until: float
    over: bool

    @property
    def length(self) -> float:
        """Seconds; at least a little, so that it may be divided by."""
        return max(1e-9, self.until - self.since)


def gauge(criterion: Criterion, labels: Labels, course: Course, span: Span) -> Reading:
    """The mean, the largest or the smallest value of a series of a probe."""
    span = course.due(span)
    part = course.inside(span.since, span.until)
    covered, count = math.fsum(part.covered), part.count
    if not count or covered <= 0:
        return Reading(labels, blind="no sample of it in this run")
    extremes = (min(part.low), max(part.high))
    if criterion.reduce == "max":
        value = extremes[1]
    elif criterion.reduce == "min":
        value = extremes[0]
    else:
        value = min(max(math.fsum(part.weighted) / covered, extremes[0]), extremes[1])
    return closed(criterion, labels, value, count, covered=covered, span=span, extremes=extremes)


def increase(
    criterion: Criterion, labels: Labels, course: Course, span: Span, *, least: float = 0.0
) -> Reading:
    """How much a counter grew; *least* is what is known of its growth from elsewhere."""
    span = course.due(span)
    part = course.inside(span.since, span.until)
    covered, count = math.fsum(part.covered), part.count
    value = max(math.fsum(part.grown), least)
    if not count:
        value_of = Interval(value, value, math.inf) if value else ANYTHING
        return Reading(labels, value_of, blind="no sample of it in this run")
    return closed(
        criterion, labels, value, count, covered=covered, span=span, extremes=(value, value)
    )


def values(
    criterion: Criterion,
    labels: Labels,
    found: Sequence[float],
    covered: float,
    span: Span,
    *,
    fewest: int = 1,
) -> Reading:
    """One value for each collection interval, reduced as the criterion says."""
    if len(found) < fewest:
        lack = f"{len(found)} intervals so far, wanted at least {fewest}"
        return Reading(labels, ANYTHING, len(found), blind=lack)
    ordered = array("d", sorted(found))
    value = reduced(criterion, ordered)
    if value is None:
        return Reading(
            labels, ANYTHING, len(found), blind=f"{criterion.reduce} needs two intervals"
        )
    extremes = (ordered[0], ordered[-1])
    return closed(
        criterion, labels, value, len(found), covered=covered, span=span, extremes=extremes
    )


def reduced(criterion: Criterion, found: Sequence[float]) -> float | None:
    """Values as one; None for too few. Raises ValueError for a reduction that no run has."""
    name = criterion.reduce
    simple = {"mean": derive.mean, "median": derive.median}
    if name in simple:
        return simple[name](found)
    if name in {"max", "min"}:
        return max(found) if name == "max" else min(found)
    if name == "stdev":
        return derive.stdev(found)
    if name == "fraction_within":
        return derive.fraction_within(found, criterion.band or 0.0)
    if name.startswith("p"):
        return derive.percentile(found, float(name[1:]))
    raise ValueError(f"a run has no reduction {name!r}")


def closed(
    criterion: Criterion,
    labels: Labels,
    value: float,
    count: int,
    *,
    covered: float,
    span: Span,
    extremes: tuple[float, float],
) -> Reading:
    """A reading with its coverage: implausible values and too little seen leave it blind."""
    coverage = min(1.0, max(0.0, covered / span.length))
    low, high = extremes
    possible = criterion.possible or FINITE
    if not (possible.low <= low and high <= possible.high) or not math.isfinite(value):
        odd = low if low < possible.low else high
        words = f"implausible value {odd:g}, possible {possible.low:g} to {possible.high:g}"
        return Reading(labels, ANYTHING, count, coverage=coverage, blind=words)
    bounds, blind = exactly(value), ""
    if coverage < criterion.coverage:
        blind = (
            f"{seconds(coverage * span.length)} of {seconds(span.length)} observed "
            f"({coverage:.2%}), wanted {criterion.coverage:.4g}"
        )
        bounds = widened(criterion, bounds)
    return Reading(labels, bounds, count, span.until, coverage, blind)


def one(labels: Labels, value: float | None, why: str, *, count: int = 1) -> Reading:
    """A figure that is there or is not."""
    if value is None:
        return Reading(labels, ANYTHING, blind=why)
    return Reading(labels, exactly(value), count)


def bounded(labels: Labels, value: float, low: float, high: float, *, count: int) -> Reading:
    """A figure between two bounds."""
    return Reading(labels, Interval(value, low, high), count)
