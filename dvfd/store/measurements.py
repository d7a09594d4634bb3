"""Samples, in and out: the ring for what is recent, the disk for what is not."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from dvfd.model import Kind, Labels, Sample, labels
from dvfd.store.operations import EndSeries, PutSamples
from dvfd.store.recent import KEPT, RECENT, Recent
from dvfd.store.windows import LONG_AGO, Past, Stretch, resolution, tail_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dvfd.model import Clock, Criterion, Metric
    from dvfd.store.database import Database
    from dvfd.store.pending import Pending
    from dvfd.store.retention import Retention

    T = TypeVar("T")

LATEST_TIME = 1e11
"""Unix seconds beyond which a time is none: the year 5138, and milliseconds given as seconds."""


PASSED = 60.0
"""Seconds for which the end of a series is remembered: a look that began before it is written by
then. More would make those mute whom a clock that was set back lets live again."""


class Ask(Protocol):
    """Put a question to the database; without one, or if it fails, the answer is *otherwise*."""

    def __call__(self, question: Callable[[Database], T], otherwise: T) -> T:
        """The answer."""
        ...


class Measurements:
    """Every series. Thread-safe."""

    def __init__(
        self,
        *,
        ask: Ask,
        pending: Pending,
        metrics: Mapping[str, Metric],
        clock: Clock,
        retention: Retention,
    ) -> None:
        self._ask = ask
        self._pending = pending
        self._metrics = metrics
        self._clock = clock
        self._retention = retention
        self._recent = Recent(clock)
        self._ends: deque[EndSeries] = deque(maxlen=1024)  # of 16 jobs of 64 ranks
        self._order = threading.Lock()
        self.dropped: Counter[str] = Counter(nonfinite=0, series=0)

    def load(self, database: Database) -> float | None:
        """Fill the ring from the file; return when its newest sample was taken.

        Of every live series the newest sample is there, however old. Raises sqlite3.Error.
        """
        ended = list(self._pending.of(EndSeries))
        newest: list[float] = []
        for series, metric, text in database.read(
            "SELECT id, metric, labels FROM series WHERE ended_at IS NULL"
        ):
            known = labels(**json.loads(text))
            if any(over.covers(metric, known) for over in ended):
                continue
            found = _last_of(database, series, metric, known)
            self._recent.remember(found)
            newest += [found[-1].at] if found else []
        return max(newest, default=None)

    def write(self, samples: Iterable[Sample], *, looked: bool = False) -> None:
        """Take samples in: seen at once, on the disk soon. What is no number is counted. What was
        *looked* for before its series ended does not bring it back.
        """
        given = list(samples)
        sound = [s for s in given if _is_sound(s)]
        with self._order:  # the ring and the disk hear of an end and a new life in one order
            self.dropped["nonfinite"] += len(given) - len(sound)
            if looked and self._ends:
                sound = [s for s in sound if not self._is_over(s)]
            if sound:
                self.dropped["series"] += self._recent.add(sound)
                self._pending.add(PutSamples(sound))

    def end(self, where: Mapping[str, str], at: float, metric: str = "") -> None:
        """The series with these labels, of *metric* alone if given, are over at *at*: their silence
        means nothing any more.
        """
        with self._order:
            self._recent.end(where, metric)
            over = EndSeries(dict(where), at, metric)
            self._pending.add(over)
            self._ends.append(over)
            while at - self._ends[0].at > PASSED:
                self._ends.popleft()

    def _is_over(self, sample: Sample) -> bool:
        """Whether the series of *sample* has ended since, and nobody has begun it anew."""
        return not self._recent.has(sample.metric, sample.labels) and any(
            0 <= over.at - sample.at <= PASSED and over.covers(sample.metric, sample.labels)
            for over in self._ends
        )

    def samples(self, criterion: Criterion, until: float) -> list[Sample]:
        """What *criterion* is judged on: its window and its age before it, and every newest one."""
        found = self._window(criterion, until)
        other = criterion.limit.metric
        if other and other != criterion.metric:
            found += self._recent.newest(other, until)
        return found

    def latest(self, metric: str) -> list[Sample]:
        """The newest sample of each live series."""
        return self._recent.newest(metric)

    @property
    def live(self) -> int:
        """How many series are live."""
        return len(self._recent)

    def rewrite(self) -> None:
        """Write the newest sample of each live series again: a new file must know of it."""
        for metric in self._recent.metrics():
            self._pending.add(PutSamples(self._recent.newest(metric)))

    def series(
        self, metric: str, known: Labels, since: float, until: float, reduce: str = ""
    ) -> list[Sample]:
        """The course of one series, live or ended, as fine as its length allows; rollups by
        *reduce*, or as their kind asks. Of a series that is silent since the clock was set back it
        is as it was written down: of a failure before that, too, there is evidence.
        """
        if self._is_recent(since, until) and self._recent.dated(metric, known):
            near = self._recent.window(metric, since, until, known)
            return [s for own, inside, _ in near if own == known for s in inside if s.at >= since]
        kind = self._metrics[metric].kind if metric in self._metrics else Kind.GAUGE
        reduce = reduce or ("latest" if kind is Kind.COUNTER else "mean")
        now = self._clock.now()
        newest = min(until, now) if now - until < self._retention.raw else until + LONG_AGO
        level = resolution(reduce, since, until, now, self._retention)
        found = self._past(metric, known, Stretch(level, reduce, since, until + 0.001, newest))
        return [s for s in found if s.at <= until]

    def _window(self, criterion: Criterion, until: float) -> list[Sample]:
        metric, reduce = criterion.metric, criterion.reduce
        since = until - criterion.window - criterion.max_age if criterion.window else until
        ring = self._recent.window(metric, since, until, criterion.where)
        if self._is_recent(until - criterion.window, until):
            return [sample for _, inside, _ in ring for sample in inside]
        now = self._clock.now()
        level = resolution(reduce, until - criterion.window, until, now, self._retention)
        found: list[Sample] = []
        for known, inside, first in ring:
            newest = min(inside[-1].at, until)
            start = max(first, tail_start(level, newest))
            stretch = Stretch(level, reduce, since, min(start, until), newest)
            found += self._past(metric, known, stretch)
            found += [s for s in inside if s.at >= start]
        return found

    def _is_recent(self, since: float, until: float) -> bool:
        """Whether the ring holds all of [since, until]."""
        return since >= until or since >= self._clock.now() - RECENT - _JUDGED_LATE

    def _past(self, metric: str, known: Labels, stretch: Stretch) -> list[Sample]:
        none: list[Sample] = []
        return self._ask(lambda database: Past(database, metric, known).samples(stretch), none)


_JUDGED_LATE = 5.0
"""Seconds that a pass may lie behind the clock and still be served by the ring."""


def _is_sound(s: Sample) -> bool:
    return (
        math.isfinite(s.value)
        and 0 <= s.at < LATEST_TIME
        and (s.low is None or math.isfinite(s.low))
        and (s.high is None or math.isfinite(s.high))
    )


def _last_of(database: Database, series: int, metric: str, known: Labels) -> list[Sample]:
    rows = database.read(
        "SELECT at / 1000.0, value, low, high FROM samples WHERE series = ?1 AND at >="
        " (SELECT max(at) FROM samples WHERE series = ?1) - ?2 ORDER BY at",
        series, int(KEPT * 1000),
    )  # fmt: skip
    return [Sample(metric, value, at, known, low, high) for at, value, low, high in rows]
