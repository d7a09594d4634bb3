"""Reduce the samples of each series to one value over time, and say how well it is known. Pure.

What is not known is an interval here, not a special case. A series that fell silent, or of which
too little was seen, is *blind*: it never passes, and its bounds are what may still be true. So it
can fail only where no missing sample would mend it: a maximum that is too high already, an event
that was counted already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from sys import float_info
from typing import TYPE_CHECKING, NamedTuple

from dvfd import derive
from dvfd.model import Range

if TYPE_CHECKING:
    from dvfd.model import Criterion, Labels, Sample

TOLERANCE = 2.0
"""Seconds that a sample may lie ahead of now. Samples are stamped after a pass began, and the
clocks of a cluster differ by milliseconds; more than this is a clock that was stepped."""

FINITE = Range(-float_info.max, float_info.max)
"""Where every value lies that is a number: NaN and the infinities do not."""

GROWING = frozenset({"max", "increase", "count"})
"""Reducers that one sample more can only raise: what was seen is a lower bound."""


Statistic = Callable[[Sequence[float], Sequence[float] | None], float]
"""Values, and the weight of each where they differ, to one value."""


class Interval(NamedTuple):
    """A value between two bounds; all three are equal where it is known exactly."""

    value: float
    low: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether the bounds leave no doubt."""
        return self.low == self.high


ANYTHING = Interval(math.nan, -math.inf, math.inf)
"""What is known of a value of which nothing is known."""


class Unreduced(Exception):
    """There is no value, and the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one series says, or a group of them. A `blind` one cannot pass; it says why. One that
    `began` is blind for nothing but that: its first sample lies within the window.
    """

    labels: Labels
    value: Interval = ANYTHING
    count: int = 0
    newest: float = -math.inf
    coverage: float | None = None
    blind: str = ""
    began: bool = False


def exactly(value: float) -> Interval:
    """*value* without a doubt."""
    return Interval(value, value, value)


def read(criterion: Criterion, samples: Iterable[Sample], at: float) -> list[Reading]:
    """One reading at Unix time *at* for each series that *criterion* is about, by labels."""
    series, future = _series(criterion, samples, at)
    wanted = set(criterion.where)
    reader = _latest if criterion.reduce == "latest" else _window
    return [
        reader(criterion, series[labels], at) if labels not in future else _ahead(labels)
        for labels in sorted(series.keys() | future)
        if wanted <= set(labels)
    ]


def _series(
    criterion: Criterion, samples: Iterable[Sample], at: float
) -> tuple[dict[Labels, list[Sample]], set[Labels]]:
    """The samples of each series, and the series that have one in the future."""
    horizon = at + TOLERANCE
    series: dict[Labels, list[Sample]] = {}
    future: set[Labels] = set()
    for sample in samples:
        if sample.metric != criterion.metric:
            continue
        if not sample.at <= horizon:  # a time that is no number is not before anything either
            future.add(sample.labels)
        elif (known := series.get(sample.labels)) is not None:
            known.append(sample)
        else:
            series[sample.labels] = [sample]
    return series, future


def _ahead(labels: Labels) -> Reading:
    return Reading(labels, blind="implausible: sampled in the future; was the clock stepped?")


def _latest(criterion: Criterion, samples: Sequence[Sample], at: float) -> Reading:
    """The newest sample, if it is fresh."""
    newest = samples[0]
    for sample in samples:
        if sample.at > newest.at:
            newest = sample
    if silence := _silence(criterion, newest, at):
        return Reading(newest.labels, newest=newest.at, blind=silence)
    instant = [s for s in samples if s.at == newest.at]
    if len(instant) > 1:
        # A rollup that ends at the instant of a raw sample is the mean of a minute, not the latest.
        shortest = min(s.span for s in instant)
        instant = [s for s in instant if s.span == shortest]
    if doubt := _doubt(criterion, instant):
        return Reading(newest.labels, newest=newest.at, blind=doubt)
    return Reading(newest.labels, _at_once(instant), 1, newest.at)


def _at_once(samples: Sequence[Sample]) -> Interval:
    """Samples of one instant: if they contradict each other, each may be the true one."""
    values = [_interval(s) for s in samples]
    if len(values) == 1:
        return values[0]
    value = max(v.value for v in values)
    return Interval(value, min(v.low for v in values), max(v.high for v in values))


def _window(criterion: Criterion, samples: list[Sample], at: float) -> Reading:
    """The samples of the window, reduced to one value; too few of them leave it blind."""
    samples.sort(key=attrgetter("at", "value"))
    newest = samples[-1]
    start = at - criterion.window
    inside = [s for s in samples if s.at >= start]
    silence = _silence(criterion, newest, at)
    if not inside:
        blind = silence or f"no sample in the last {seconds(criterion.window)}"
        return Reading(newest.labels, newest=newest.at, blind=blind)
    coverage = _coverage(samples, start, at, criterion.max_age)
    try:
        value = _reduce(criterion, samples, inside, start)
    except Unreduced as error:
        return Reading(newest.labels, ANYTHING, len(inside), newest.at, coverage, str(error))
    blind = silence or _too_little(criterion, coverage)
    if blind:
        value = widened(criterion, value)
    began = bool(blind) and not silence and len(inside) == len(samples)
    return Reading(newest.labels, value, len(inside), newest.at, coverage, blind, began)


# --- What is wrong with samples ---------------------------------------------------------------


def _silence(criterion: Criterion, newest: Sample, at: float) -> str:
    """Why *newest* is too old to speak of now, or an empty string."""
    age = at - newest.at
    if age <= criterion.max_age:
        return ""
    return f"silent for {seconds(age)}, wanted a sample every {seconds(criterion.max_age)}"


def _too_little(criterion: Criterion, coverage: float) -> str:
    """Why the window was not seen enough, or an empty string."""
    if coverage >= criterion.coverage:
        return ""
    seen, whole = seconds(coverage * criterion.window), seconds(criterion.window)
    return f"{seen} of {whole} observed ({coverage:.1%}), wanted {100 * criterion.coverage:.4g}%"


def widened(criterion: Criterion, value: Interval) -> Interval:
    """*value* if any number of samples may be missing from it."""
    reduce, possible = criterion.reduce, criterion.possible
    adds_up = reduce == "sum" and possible is not None and possible.low >= 0
    if reduce in GROWING or adds_up:
        return value._replace(high=math.inf)
    if reduce == "min":
        return value._replace(low=-math.inf)
    return Interval(value.value, -math.inf, math.inf)


def _doubt(criterion: Criterion, samples: Sequence[Sample]) -> str:
    """The first value that cannot be true, in words, or an empty string."""
    possible = criterion.possible or FINITE
    low, high = max(possible.low, FINITE.low), min(possible.high, FINITE.high)
    for s in samples:
        if not low <= s.value <= high:
            within = f", possible {possible.low:g} to {possible.high:g}"
            return f"implausible value {s.value:g}{within if criterion.possible else ''}"
        if s.low is not None or s.high is not None:
            bounds = _interval(s)
            if not FINITE.low <= bounds.low <= s.value <= bounds.high <= FINITE.high:
                return f"implausible interval {bounds.low:g} to {bounds.high:g} of {s.value:g}"
    return ""


def _interval(sample: Sample) -> Interval:
    value = sample.value
    low = value if sample.low is None else sample.low
    return Interval(value, low, value if sample.high is None else sample.high)


def _coverage(samples: Sequence[Sample], start: float, at: float, max_age: float) -> float:
    """The share of [start, at] that the samples stand for, overlaps counted once.

    A raw sample stands for max_age after it, a rollup for its span before it.
    """
    pieces = [(s.at - s.span, s.at) if s.span else (s.at, s.at + max_age) for s in samples]
    pieces.sort()
    covered, reached = 0.0, start
    for begin, end in pieces:
        if end > reached and begin < at:
            until = min(end, at)
            covered += until - max(begin, reached)
            reached = until
    return min(1.0, covered / (at - start))  # sums of pieces may round to above the whole


# --- Reducers ---------------------------------------------------------------------------------


def _reduce(
    criterion: Criterion, samples: Sequence[Sample], inside: Sequence[Sample], start: float
) -> Interval:
    """The value of the samples *inside* the window, which are the last of *samples*.

    Raises Unreduced if there is none.
    """
    before = samples[-len(inside) - 1 : -len(inside)] if criterion.reduce in _COUNTERS else ()
    if doubt := _doubt(criterion, [*before, *inside]):
        raise Unreduced(doubt)
    try:
        value = _apply(criterion, before, inside, start)
    except (OverflowError, ValueError) as error:
        raise Unreduced(f"{criterion.reduce} of {len(inside)} samples: {error}") from None
    if not all(end in FINITE for end in value):
        raise Unreduced(f"{criterion.reduce} of {len(inside)} samples is beyond any number")
    return value


def _apply(
    criterion: Criterion, before: Sequence[Sample], inside: Sequence[Sample], start: float
) -> Interval:
    name = criterion.reduce
    if name == "count":
        return exactly(float(len(inside)))
    weights = _weights(inside, criterion.max_age)
    if statistic := _MONOTONE.get(name) or _quantile(name):
        return _by_ends(statistic, inside, weights)
    if any(not _interval(s).exact for s in (*before, *inside)):
        raise Unreduced(f"{name} of values that are known only as intervals says nothing")
    if counter := _COUNTERS.get(name):
        return counter(before, inside, start - criterion.max_age)
    if name == "stdev":
        return _of_two(derive.stdev([s.value for s in inside], weights), name)
    if name == "fraction_within" and criterion.band is not None:
        share = derive.fraction_within([s.value for s in inside], criterion.band, weights)
        return _of_two(share, name)
    raise Unreduced(f"there is no reducer {name!r}, or it lacks its band")


def _weights(samples: Sequence[Sample], max_age: float) -> Sequence[float] | None:
    """The seconds that each sample stands for where they differ, for rollups are among them.

    A raw sample then stands for the time since the one before it, as in a rollup.
    """
    if not any(s.span for s in samples):
        return None
    weights, before = [], -math.inf
    for s in samples:
        weights.append(s.span or min(s.at - before, max_age))
        before = s.at
    return weights if min(weights) < max(weights) else None


def _by_ends(
    statistic: Statistic, samples: Sequence[Sample], weights: Sequence[float] | None
) -> Interval:
    """A statistic that never falls when a value rises: an interval goes through it by its ends."""
    value = statistic([s.value for s in samples], weights)
    if all(s.low is None and s.high is None for s in samples):
        return exactly(value)
    bounds = [_interval(s) for s in samples]
    low = statistic([b.low for b in bounds], weights)
    return Interval(value, low, statistic([b.high for b in bounds], weights))


def _quantile(name: str) -> Statistic | None:
    """The statistic that *name*, like p99 or p99.9, stands for."""
    digits = name[1:].replace(".", "", 1)
    if not (name.startswith("p") and digits.isdecimal() and float(name[1:]) <= 100):
        return None
    return lambda values, weights: derive.percentile(values, float(name[1:]), weights)


def _of_two(value: float | None, name: str) -> Interval:
    if value is None:
        raise Unreduced(f"{name} needs two samples, there is one")
    return exactly(value)


def _increase(before: Sequence[Sample], inside: Sequence[Sample], fresh: float) -> Interval:
    """How much a counter grew in the window.

    It is counted from the last sample before the window if that one still stood for its start
    (is not older than *fresh*). An older one leaves open when its growth happened: it may all be
    outside, or all inside. A series that begins in the window is counted from its first sample,
    since a source that counts events itself gives 0 before the first of them. One look says
    nothing of growth.
    """
    values = [s.value for s in inside]
    if not before and len(values) < 2:
        raise Unreduced("increase needs two samples, there is one")
    grown = derive.counter_increase(values)
    most = derive.counter_increase([*(s.value for s in before), *values])
    if not before or before[0].at >= fresh:
        return exactly(most)
    return Interval(grown, grown, most)


def _rate(before: Sequence[Sample], inside: Sequence[Sample], fresh: float) -> Interval:
    """Growth of a counter per second, between the first and the last sample that count."""
    points = [*(s for s in before if s.at >= fresh), *inside]
    elapsed = points[-1].at - points[0].at
    if elapsed <= 0:
        raise Unreduced("rate needs two samples at two times, there is one")
    return exactly(derive.counter_increase([s.value for s in points]) / elapsed)


_MONOTONE: dict[str, Statistic] = {
    "mean": derive.mean,
    "median": derive.median,
    "min": lambda values, _weights: min(values),
    "max": lambda values, _weights: max(values),
    "sum": lambda values, _weights: math.fsum(values),
}
_COUNTERS = {"increase": _increase, "rate": _rate}


def seconds(duration: float) -> str:
    """A duration in words that a person compares at a glance."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if duration >= 3 * size:
            return f"{duration / size:.3g} {unit}"
    return f"{duration:.3g} s"
