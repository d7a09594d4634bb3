"""The courses of metrics over one period, as samples: every node that is asked for at once.

Counters come as the newest value of each hour, and raw where they began again within one, so that
nothing is extrapolated and no reset is lost; gauges as an hour's median or mean. Which hours were
observed is counted in minutes that hold a sample. What contradicts itself raises HistoryError.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.errors import HistoryError
from dvfd.history.question import (
    EXPOSED,
    FRESH,
    HOUR,
    LAST,
    MINUTES,
    RESETS,
    exactly,
    selector,
)
from dvfd.model import Labels, Sample, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dvfd.history.answer import Line, Point
    from dvfd.history.engine import Engine
    from dvfd.model import Metric

MINUTE = 60.0

EDGES = 2
"""Minutes in which a gap begins and ends."""

AGAIN_HOURS = 48
"""Hours in which a counter began again whose samples are read one by one; more of them is no job
that restarts but two that share a name."""


@dataclass(frozen=True, slots=True)
class Key:
    """Which series: the node, as the engine calls it, and dvfd's own labels."""

    node: str
    labels: Labels

    @property
    def words(self) -> str:
        """For a complaint."""
        return ", ".join([*(f"{name}={value}" for name, value in self.labels), self.node])


@dataclass(frozen=True, slots=True)
class Where:
    """Which nodes: matchers that all questions bear, and the label that names a node."""

    matchers: str
    node_label: str


@dataclass(frozen=True, slots=True)
class Period:
    """[since, until] in Unix seconds, and the ends of the whole hours in it."""

    since: float
    until: float

    @property
    def first(self) -> float:
        """The end of the first hour that ends inside."""
        return math.ceil(self.since / HOUR) * float(HOUR)

    @property
    def last(self) -> float:
        """The end of the last one."""
        return math.floor(self.until / HOUR) * float(HOUR)


Courses = dict[Key, list[Sample]]


class Reading:
    """What an engine has of one period. Each question is asked once. One thread."""

    def __init__(
        self, engine: Engine, metrics: Mapping[str, Metric], where: Where, period: Period
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._where = where
        self.period = period
        self._known: dict[tuple[str, str], Courses] = {}

    def counter(self, metric: str) -> Courses:
        """The newest value of each hour, at its end; every sample where it began again, and after
        the last whole hour.
        """
        return self._once(metric, "counter", self._counter)

    def gauge(self, metric: str, question: str) -> Courses:
        """What *question* makes of each hour, with the seconds that were observed of it, and every
        sample after the last whole hour.
        """
        return self._once(metric, question, lambda named: self._gauge(named, question))

    def spanned(self, metric: str, question: str = LAST) -> Courses:
        """Whole hours alone, each with the seconds that were observed of it."""
        return self._once(metric, f"spanned {question}", lambda m: self._spanned(m, question))

    @property
    def newest(self) -> float | None:
        """When the newest sample was taken of all that was asked for so far."""
        known = (samples for courses in self._known.values() for samples in courses.values())
        return max((samples[-1].at for samples in known if samples), default=None)

    def _once(self, metric: str, question: str, ask: Callable[[str], Courses]) -> Courses:
        known = metric, question
        if known not in self._known:
            self._known[known] = ask(metric)
        return self._known[known]

    def _counter(self, metric: str) -> Courses:
        found = self._fresh(metric)
        last = self.period.last
        tail = self._raw(metric, last, self.period.until)
        old = {key for key, samples in found.items() if not samples or samples[-1].at != last}
        newest = self._raw(metric, last - HOUR, last) if old else {}
        tail |= {key: [*newest[key], *tail.get(key, [])] for key in old & newest.keys()}
        for key, began in self._resets(metric).items():
            if began:
                found[key] = self._mended(metric, key, found.get(key, []), began)
        for key, samples in tail.items():
            found.setdefault(key, []).extend(samples)
        return found

    def _fresh(self, metric: str) -> Courses:
        """The newest value of each hour, where it is of its end: a counter bridges others."""
        fresh = {
            key: {sample.at for sample in samples}
            for key, samples in self._hours(metric, FRESH, together=True).items()
        }
        return {
            key: [sample for sample in samples if sample.at in fresh.get(key, ())]
            for key, samples in self._hours(metric, LAST).items()
        }

    def _gauge(self, metric: str, question: str) -> Courses:
        found = self._spanned(metric, question)
        for key, samples in self._raw(metric, self.period.last, self.period.until).items():
            found.setdefault(key, []).extend(samples)
        return found

    def _spanned(self, metric: str, question: str) -> Courses:
        minutes = {
            key: {sample.at: covered(sample.value) for sample in samples}
            for key, samples in self._hours(metric, MINUTES, together=True).items()
        }
        return {
            key: [replace(s, span=minutes.get(key, {}).get(s.at, 0.0)) for s in samples]
            for key, samples in self._hours(metric, question).items()
        }

    def _hours(self, metric: str, question: str, *, together: bool = False) -> Courses:
        """What *question* comes to at the end of each whole hour."""
        period = self.period
        if period.first > period.last:
            return {}
        asked = question.format(self._selector(metric))
        lines = self._engine.range(
            asked,
            since=period.first,
            until=period.last,
            step=HOUR,
            inner=int(HOUR / MINUTE) if question is MINUTES else 1,
        )
        return self._courses(metric, lines, together=together)

    def _raw(self, metric: str, since: float, until: float, more: str = "") -> Courses:
        if until <= since:
            return {}
        lines = self._engine.raw(self._selector(metric, more), since=since, until=until)
        return self._courses(metric, lines)

    def _selector(self, metric: str, more: str = "") -> str:
        return selector(metric, self._where.matchers, more)

    def _resets(self, metric: str) -> dict[Key, float]:
        """How often each counter began again in the whole hours of the period, at the least."""
        period, found = self.period, dict[Key, float]()
        ends = list(_ends(period.first - HOUR, period.last, self._engine.longest))
        for since, until in pairwise(ends):
            for key, count in self._began(metric, since, until).items():
                found[key] = found.get(key, 0.0) + count
        for seam in ends[1:-1]:  # a drop between two questions is in neither
            for key, count in self._began(metric, seam - HOUR, seam + HOUR).items():
                found[key] = max(found.get(key, 0.0), min(count, 1.0))
        return found

    def _began(self, metric: str, since: float, until: float) -> dict[Key, float]:
        """How often each counter began again in a stretch."""
        asked = RESETS.format(self._selector(metric)) % int(until - since)
        found: dict[Key, float] = defaultdict(float)
        for line in self._engine.instant(asked, at=until):
            found[self._key(metric, line)] += line.points[0][1]
        return found

    def _mended(self, metric: str, key: Key, hours: list[Sample], began: float) -> list[Sample]:
        """*hours* with the samples themselves where the counter began again.

        Raises HistoryError if fewer drops are found than there are.
        """
        own = exactly({self._where.node_label: key.node, **self._exposed(key)})
        # Two hours, so that a drop between two of them is seen; a longer gap shows in the hours.
        asked = RESETS.format(self._selector(metric, own)) % (2 * HOUR)
        period = self.period
        lines = self._engine.range(asked, since=period.first, until=period.last, step=HOUR)
        marked = {at for line in lines for at, value in line.points if value > 0}
        marked |= {b.at for a, b in pairwise(hours) if b.at - a.at > HOUR}  # it may be in the gap
        if len(marked) > 2 * AGAIN_HOURS:
            raise HistoryError(
                f"{metric} of {key.words} began again in {len(marked) // 2} hours or more, "
                f"wanted at most {AGAIN_HOURS}: do two jobs or two targets share its name?"
            )
        marked |= {at - HOUR for at in marked if at > period.first}  # the last before it fell
        found = [sample for sample in hours if sample.at not in marked]
        for at in sorted(marked):
            found += self._raw(metric, at - HOUR, at, own).get(key, [])
        found.sort(key=lambda sample: sample.at)
        drops = sum(after.value < before.value for before, after in pairwise(found))
        if drops < began:
            raise HistoryError(
                f"{metric} of {key.words} began again {began:.0f} times, {drops} of them are "
                "found: what it grew by cannot be told"
            )
        return found

    def _exposed(self, key: Key) -> dict[str, str]:
        return {EXPOSED.get(name, name): value for name, value in key.labels}

    def _courses(self, metric: str, lines: Iterable[Line], *, together: bool = False) -> Courses:
        """Samples by series; lines of one series that follow each other are one."""
        grouped: dict[Key, list[Line]] = defaultdict(list)
        for line in lines:
            grouped[self._key(metric, line)].append(line)
        return {
            key: [
                Sample(metric, value, at, key.labels)
                for at, value in (
                    summed(group) if together else joined(f"{metric} of {key.words}", group)
                )
            ]
            for key, group in grouped.items()
        }

    def _key(self, metric: str, line: Line) -> Key:
        """Raises HistoryError for a series that lacks one of dvfd's labels or the node's."""
        own = {name: line.labels.get(EXPOSED.get(name, name)) for name in self._own(metric)}
        node = line.labels.get(self._where.node_label)
        missing = [EXPOSED.get(n, n) for n, value in own.items() if value is None]
        missing += [self._where.node_label] if node is None else []
        if missing or node is None:
            has = ", ".join(sorted(line.labels)) or "none"
            raise HistoryError(
                f"a series of {metric} has no label {', '.join(missing)}, its labels are {has}: "
                "[history] node_label names the one that tells nodes apart; do relabelings drop it?"
            )
        return Key(node, labels(**own))

    def _own(self, metric: str) -> Sequence[str]:
        known = self._metrics.get(metric)
        return known.labels if known else ()


def _ends(since: float, until: float, longest: float) -> Iterator[float]:
    """The ends of stretches of whole hours, none longer than *longest*."""
    if until <= since:
        return
    yield since
    while until - since > longest:
        since += max(float(HOUR), longest // HOUR * HOUR)
        yield since
    yield until


def covered(minutes: float) -> float:
    """Seconds of an hour that were observed for sure if so many of its minutes hold a sample: the
    minutes at both ends of a gap are counted whole.
    """
    whole = HOUR / MINUTE
    return float(HOUR) if minutes >= whole else max(0.0, MINUTE * (minutes - EDGES))


def joined(words: str, lines: Sequence[Line]) -> list[Point]:
    """The points of lines that are one series under changed labels, one after the other.

    Raises HistoryError if two of them are there at once: a pair of engines, or two targets.
    """
    found: list[Point] = []
    ordered = sorted(lines, key=lambda line: (line.points[0][0], line.points[-1][0]))
    for line in ordered:
        seam = sum(at >= line.points[0][0] for at, _ in found)
        if seam and (seam > 1 or min(len(found), len(line.points)) < 2):
            raise HistoryError(
                f"{words} is there {len(lines)} times at once, with {_differing(lines)}: wanted "
                "one; [history] matchers selects it, or ask an engine that removes duplicates"
            )
        found = found[: len(found) - seam] + list(line.points)
    return found


def summed(lines: Sequence[Line]) -> list[Point]:
    """The points of all lines by time: minutes that either saw."""
    found: dict[float, float] = defaultdict(float)
    for line in lines:
        for at, value in line.points:
            found[at] += value
    return sorted(found.items())


def _differing(lines: Sequence[Line]) -> str:
    """The labels in which they differ, in words."""
    names = sorted({name for line in lines for name in line.labels})
    told = {name: sorted({line.labels.get(name, "(none)") for line in lines}) for name in names}
    return ", ".join(f"{n}={' and '.join(v[:3])}" for n, v in told.items() if len(v) > 1)
