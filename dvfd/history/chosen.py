"""Whom the lists ask: the engine where [history] says so, and then this node's store beside it.

Which jobs live is what the store knows, and what they counted is what the engine is held against:
an engine that was asked for another node's past would answer as readily.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from dvfd.errors import HistoryError
from dvfd.history.course import Courses, Period, Reading
from dvfd.history.engine import Engine
from dvfd.history.past import EnginePast, patterns, where
from dvfd.history.question import HOUR, LAST, LEAST, MEAN, MEDIAN, MOST
from dvfd.model import ATTESTATION, DRILL, REVIEW, RUN
from dvfd.reduce import seconds
from dvfd.words import minute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dvfd.config import Config
    from dvfd.model import Check, Criterion, Labels, Metric, Sample
    from dvfd.state import Run

OBSERVED, UP = "job_observed_seconds_total", "job_up_seconds_total"

LONG = 48 * 3600.0
"""Seconds of a window from which on the store too reads hours, and an engine is asked instead."""

PATIENCE = 120.0
"""Seconds for the questions of one list's figures, and for those of its windows: all of it may take
ten minutes, and it restores a checkpoint too."""

BEFORE = 2 * 3600.0
"""Seconds before a window in which the store must have a sample so that it holds all of it."""

CANNOT = 'an engine is asked by the hour; [history] use = "asked" leaves the lists to the store'

YOUNG = 600.0
"""Seconds that a job was looked at until an engine that knows nothing of it is asked why."""

APART = 120.0
"""Seconds by which engine and node may differ about one counter: the longest scrape interval that
still has a sample in every other minute, twice."""

HOURS_APART = APART + 60.0
"""Seconds by which they may differ at the end of an hour: it is that of their own clocks."""

BY_HOUR = {
    "increase": LAST,
    "rate": LAST,
    "mean": MEAN,
    "median": MEDIAN,
    "max": MOST,
    "min": LEAST,
}
"""What is asked of each hour so that the hours reduce as their samples would."""

OWN = frozenset({ATTESTATION, DRILL, REVIEW, RUN})
"""Sources that are no series."""


class Local(Protocol):
    """What is asked of this node's store."""

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each live series of *metric*."""
        ...

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series."""
        ...

    def samples(self, criterion: Criterion, *, until: float) -> Sequence[Sample]:
        """What *criterion* is judged on."""
        ...

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """The newest kept runs of a check."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """What a criterion of a long window is judged on; why it is not, or what to know of it."""

    samples: Sequence[Sample] = ()
    trouble: str = ""
    note: str = ""


class Beside:
    """The past of the jobs that live here, from the engine. Raises HistoryError."""

    def __init__(self, store: Local, past: EnginePast, engine: Engine, until: float) -> None:
        self._store = store
        self._past = past
        self._engine = engine
        self._until = until

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each live series, by the store."""
        return self._store.latest(metric)

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series, by the engine."""
        return self._past.series(metric, labels, since=since, until=until)

    def medians(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of a gauge, whole hours as their medians, by the engine."""
        return self._past.medians(metric, labels, since=since, until=until)

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """Kept runs, by the store."""
        return self._store.reports(check_id, limit)

    @property
    def words(self) -> str:
        """Whose figures these are."""
        newest = self._past.newest
        age = (
            "no sample" if newest is None else f"newest sample {seconds(self._until - newest)} old"
        )
        asked = self._engine.asked
        words = f"{asked} question{'' if asked == 1 else 's'}"
        return f"the engine at {self._engine.words}, {words}, {age}"

    def held(self, since: float) -> None:
        """Raises HistoryError if the engine counted something else than this node did, in what was
        observed or was up, now or at the end of any hour that both know.
        """
        for mine in self._store.latest(OBSERVED):
            found = self._past.series(OBSERVED, mine.labels, since=since, until=self._until)
            job = dict(mine.labels)["job"]
            if found:
                self._agrees(job, found[-1])
                self._agree_by_hour(job, found, since)
            elif mine.value > YOUNG:
                raise HistoryError(
                    f"{self._engine.words}: knows nothing of job {job}, which was observed here "
                    f"for {seconds(mine.value)}: does it scrape this node? "
                    "see [history] matchers, node"
                )
        for mine in self._store.latest(UP):
            found = self._past.series(UP, mine.labels, since=since, until=self._until)
            if found:
                self._agrees(dict(mine.labels)["job"], found[-1])
                self._agree_by_hour(dict(mine.labels)["job"], found, since)

    def _agrees(self, job: str, theirs: Sample) -> None:
        near = self._store.series(
            theirs.metric, theirs.labels, since=theirs.at - APART, until=theirs.at + 1.0
        )
        ours = next((s for s in reversed(near) if not s.span), None)
        if ours is not None and abs(ours.value - theirs.value) > APART + theirs.at - ours.at:
            raise self._differs(job, theirs, ours, "by then")

    def _agree_by_hour(self, job: str, theirs: Sequence[Sample], since: float) -> None:
        known = self._store.series(
            theirs[0].metric, theirs[0].labels, since=since, until=self._until
        )
        by_time = {sample.at: sample for sample in _steady(known)}
        for their in theirs:
            ours = by_time.get(their.at)
            if ours is not None and abs(ours.value - their.value) > HOURS_APART:
                when = f"until {minute(their.at)}"
                raise self._differs(job, their, ours, when)

    def _differs(self, job: str, theirs: Sample, ours: Sample, when: str) -> HistoryError:
        what = "observed" if theirs.metric == OBSERVED else "up"
        return HistoryError(
            f"{self._engine.words}: says that job {job} was {what} for {theirs.value:.0f} s, "
            f"this node counted {ours.value:.0f} s {when}: another node's series, or another "
            "clock; see [history] matchers, node"
        )


def _steady(course: Sequence[Sample]) -> Iterator[Sample]:
    """The whole hours of a counter that were looked at to their end, but for its first and those
    around a fall: an hour has one value, and the counter began anew at any moment of it.
    """
    hours = [s for s in course if s.at % HOUR == 0.0 and s.span]
    for place, sample in enumerate(hours[1:], 1):
        around = [s.value for s in hours[place - 1 : place + 2]]
        if sample.span > HOUR - APART and around == sorted(around):
            yield sample


class Chosen:
    """The lists' source as [history] chooses it. Any thread."""

    def __init__(
        self,
        config: Config,
        metrics: Mapping[str, Metric],
        store: Local,
        engine: Callable[[], Engine] | None = None,
    ) -> None:
        """*engine* makes one for each list."""
        self._config = config
        self._metrics = metrics
        self._store = store
        settings = config.history
        self._make = engine or (lambda: Engine(settings, end=time.monotonic() + PATIENCE))

    @property
    def asks(self) -> bool:
        """Whether the lists ask an engine at all."""
        return bool(self._config.history.url) and self._config.history.use == "lists"

    def over(self, since: float, until: float) -> Beside:
        """The past of this node in [since, until]. Raises HistoryError."""
        engine = self._make()
        engine.in_time()
        made = Beside(self._store, self._past(engine, since, until)[0], engine, until)
        made.held(since)
        return made

    def windows(self, check: Check, until: float) -> dict[str, Window]:
        """By its id, what each criterion of *check* with a long window is judged on."""
        if not self.asks or not check.schedule:  # a run's windows are in its own file
            return {}
        asked = [c for c in check.criteria if c.window >= LONG and c.source not in OWN]
        windows = dict.fromkeys(criterion.window for criterion in asked)
        try:
            engine = self._make()
            engine.in_time()
            readings = {w: self._read(engine, until - w - HOUR, until) for w in windows}
        except HistoryError as error:
            return {c.id: self._instead(c, until, str(error)) for c in asked}
        return {c.id: self._window(readings[c.window], c, until) for c in asked}

    def _read(self, engine: Engine, since: float, until: float) -> Reading:
        """What the engine has of this node, which is held against it. Raises HistoryError."""
        past, reading = self._past(engine, since, until)
        Beside(self._store, past, engine, until).held(since)
        return reading

    def _past(self, engine: Engine, since: float, until: float) -> tuple[EnginePast, Reading]:
        """One node's past, and what it is read from."""
        name, called = self._config.node.name, patterns(self._config)
        nodes = where(self._config.history, called)
        reading = Reading(engine, self._metrics, nodes, Period(since, until))
        return EnginePast(reading, self._metrics, name, called), reading

    def _window(self, reading: Reading, criterion: Criterion, until: float) -> Window:
        try:
            return Window(list(self._samples(reading, criterion, until)))
        except HistoryError as error:
            return self._instead(criterion, until, str(error))

    def _samples(self, reading: Reading, criterion: Criterion, until: float) -> Iterator[Sample]:
        """Whole hours by the engine, what came after them by the store. Raises HistoryError."""
        if criterion.reduce not in BY_HOUR:
            raise HistoryError(f"{criterion.reduce} over days needs every sample: {CANNOT}")
        last = reading.period.last
        hours = self._hours(reading, criterion)
        for newest in self._store.latest(criterion.metric):
            if not set(criterion.where) <= set(newest.labels):
                continue
            mine = [samples for key, samples in hours.items() if key.labels == newest.labels]
            if len(mine) != 1:
                own = ", ".join(f"{name}={value}" for name, value in newest.labels)
                raise HistoryError(
                    f"{len(mine)} targets of the engine have {criterion.metric} of {own}, wanted "
                    "1: [history] node, matchers; does it scrape this node?"
                )
            yield from (sample for sample in mine[0] if sample.at <= last)
        yield from (s for s in self._store.samples(criterion, until=until) if s.at > last)

    def _hours(self, reading: Reading, criterion: Criterion) -> Courses:
        """Each with the seconds that were observed of it."""
        question = BY_HOUR[criterion.reduce]
        spanned = reading.spanned(criterion.metric, question)
        if question is not LAST:
            return spanned
        return {
            key: _with_spans(samples, spanned.get(key, ()))
            for key, samples in reading.counter(criterion.metric).items()
        }

    def _instead(self, criterion: Criterion, until: float, why: str) -> Window:
        """What the store has, if it holds the whole window; else *why* there is nothing."""
        since = until - criterion.window
        if all(
            self._reaches(newest, since, until) for newest in self._store.latest(criterion.metric)
        ):
            samples = self._store.samples(criterion, until=until)
            return Window(samples, note=f"of this node's store, which holds all of it: {why}")
        return Window(trouble=why)

    def _reaches(self, newest: Sample, since: float, until: float) -> bool:
        course = self._store.series(newest.metric, newest.labels, since=since - BEFORE, until=until)
        return bool(course) and course[0].at <= since


def _with_spans(samples: Sequence[Sample], spanned: Sequence[Sample]) -> list[Sample]:
    spans = {sample.at: sample.span for sample in spanned}
    return [replace(sample, span=spans.get(sample.at, 0.0)) for sample in samples]
