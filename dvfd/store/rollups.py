"""Minutes and hours: the numbers of a rollup, and closing them once, also across crashes."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dvfd.model import Metric
    from dvfd.store.database import Database

Row = tuple[float, float, float | None, float | None]
"""at, value, low, high."""

GRACE = 5.0
"""Seconds after its end at which a minute is closed: the writer commits twice a second."""

AGAIN = 600.0
"""Seconds closed again after a start: a crash may have lost which late samples were waiting."""

MAX_AGE = 15.0
"""Seconds that a sample of a metric outside the catalogue stands for; model.Metric's default."""

LATE_LIMIT = 20_000
"""Closed buckets that wait to be computed again: an hour of 300 series, with the hour itself."""

CHUNK = 8
"""Series in one transaction: 8 hours of 720 rows take 8 ms, so telemetry never waits longer."""


@dataclass(frozen=True, slots=True)
class Level:
    """A table of rollups and the seconds of its bucket."""

    table: str
    size: int
    median: bool


MINUTES = Level("minutes", 60, median=False)
HOURS = Level("hours", 3600, median=True)
LEVELS = (MINUTES, HOURS)


@dataclass(frozen=True, slots=True)
class Span:
    """Whole buckets of one level: Unix seconds [since, until)."""

    level: Level
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Rollup:
    """What is kept of the samples of one bucket.

    `sumsq` is the sum of squared distances from the mean: plain squares of a large counter would
    leave nothing of its spread. `covered` is how many seconds the samples stand for. `low` and
    `high` bound all of them, where they had an interval.
    """

    start: int
    count: int
    sum: float
    sumsq: float
    min: float
    max: float
    last: float
    covered: float
    low: float | None
    high: float | None
    median: float | None = None

    @property
    def mean(self) -> float:
        """The mean of the samples."""
        return self.sum / self.count

    @property
    def deviation(self) -> float:
        """The standard deviation of the samples about their mean."""
        return math.sqrt(self.sumsq / self.count)


def fold(
    start: int, rows: Sequence[Row], before: float | None, max_age: float, level: Level
) -> Rollup:
    """Fold *rows*, oldest first, of the bucket at *start*; *before* is the `at` of the row before.

    A sample stands for the time since the one before it, at most *max_age* seconds of it.
    """
    values = [row[1] for row in rows]
    total = _finite(sum(values))
    mean = total / len(values)
    ats = ([] if before is None else [before]) + [row[0] for row in rows]
    covered = sum(min(later - earlier, max_age) for earlier, later in pairwise(ats))
    return Rollup(
        start=start,
        count=len(values),
        sum=total,
        sumsq=_finite(sum((v - mean) * (v - mean) for v in values)),
        min=min(values),
        max=max(values),
        last=values[-1],
        covered=min(covered, float(level.size)),
        low=_bound(rows, 2, min),
        high=_bound(rows, 3, max),
        median=_finite(median(values)) if level.median else None,
    )


def median(values: Sequence[float]) -> float:
    """The middle value. (The statistics module is a MiB for these lines.)"""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _bound(rows: Sequence[Row], column: int, outermost: Callable[..., float]) -> float | None:
    """The outermost low or high of the rows; a row without one is its own bound."""
    if all(row[column] is None for row in rows):
        return None
    return outermost(row[1] if row[column] is None else row[column] for row in rows)


def _finite(value: float) -> float:
    """Sums of huge values overflow; SQLite would keep the infinity and nobody could judge it."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))


class Rollups:
    """Closes buckets when their time is over, from the raw samples, so that doing it twice is safe.

    For the writing thread only.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._until: dict[Level, int] = {}
        self._late: set[tuple[Level, int, int]] = set()

    def opened(self, database: Database, now: float) -> None:
        """Find how far the buckets of this file are closed."""
        known = {
            str(key): int(value)
            for key, value in database.read("SELECT key, value FROM meta WHERE key LIKE 'closed %'")
        }
        for level in LEVELS:
            if _key(level) not in known:
                _mark(database, level, _floor(now, level))
            until = known.get(_key(level), _floor(now, level) + int(AGAIN))
            self._until[level] = _floor(until - AGAIN, level)

    def closed(self, level: Level) -> int:
        """Unix seconds before which all buckets of *level* are closed."""
        return self._until[level]

    def note(self, series: int, at: float) -> None:
        """A sample of *series* was stored; if its bucket is closed, it will be closed again."""
        for level in LEVELS:
            if at < self._until[level] and len(self._late) < LATE_LIMIT:
                self._late.add((level, series, _floor(at, level)))

    def close(self, database: Database, now: float, keep_from: float) -> Iterator[None]:
        """Close what is over at Unix time *now*, one small transaction a turn.

        Late samples before *keep_from* change nothing: their bucket's raw rows are partly gone.
        """
        for level in LEVELS:
            until = _floor(now - GRACE, level)
            since = self._until[level] = min(self._until[level], until)
            if since < until:
                yield from self._close(database, level, since, until)
        yield from self._close_late(database, keep_from)

    def _close(self, database: Database, level: Level, since: int, until: int) -> Iterator[None]:
        live = database.read(
            "SELECT id, metric FROM series WHERE ended_at IS NULL OR ended_at >= ?", since
        )
        for first in range(0, len(live), CHUNK):
            with database.transaction() as connection:
                for series, metric in live[first : first + CHUNK]:
                    self._write(connection, series, metric, Span(level, since, until))
            yield
        _mark(database, level, until)
        self._until[level] = until

    def _close_late(self, database: Database, keep_from: float) -> Iterator[None]:
        late = [bucket for bucket in self._late if bucket[2] >= keep_from]
        for first in range(0, len(late), CHUNK):
            with database.transaction() as connection:
                for level, series, start in late[first : first + CHUNK]:
                    # An open bucket is closed in its time, with all of its samples.
                    if start < self._until[level]:
                        metric = _metric(connection, series)
                        span = Span(level, start, start + level.size)
                        self._write(connection, series, metric, span)
            yield
        self._late.difference_update(late)
        self._late = {bucket for bucket in self._late if bucket[2] >= keep_from}

    def _write(self, connection: sqlite3.Connection, series: int, metric: str, span: Span) -> None:
        """Compute the buckets of one series in *span* from its raw samples."""
        known = self._metrics.get(metric)
        max_age = known.max_age if known else MAX_AGE
        rows = _raw(connection, series, span.since - max_age, span.until)
        before = next((row[0] for row in reversed(rows) if row[0] < span.since), None)
        inside = [row for row in rows if row[0] >= span.since]
        for start, bucket in groupby(inside, key=lambda row: _floor(row[0], span.level)):
            members = list(bucket)
            rollup = fold(start, members, before, max_age, span.level)
            _insert(connection, span.level, series, rollup)
            before = members[-1][0]


def _raw(connection: sqlite3.Connection, series: int, since: float, until: float) -> list[Row]:
    return connection.execute(
        "SELECT at / 1000.0, value, low, high FROM samples"
        " WHERE series = ? AND at >= ? AND at < ? ORDER BY at",
        (series, int(since * 1000), int(until * 1000)),
    ).fetchall()


def _insert(connection: sqlite3.Connection, level: Level, series: int, rollup: Rollup) -> None:
    values = (
        rollup.start, rollup.count, rollup.sum, rollup.sumsq, rollup.min, rollup.max,
        rollup.last, rollup.covered, rollup.low, rollup.high,
    )  # fmt: skip
    if level.median:
        values = (*values, rollup.median)  # type: ignore[assignment]
    marks = ", ".join("?" * (len(values) + 1))
    connection.execute(f"INSERT OR REPLACE INTO {level.table} VALUES ({marks})", (series, *values))  # noqa: S608


def _metric(connection: sqlite3.Connection, series: int) -> str:
    found = connection.execute("SELECT metric FROM series WHERE id = ?", (series,)).fetchone()
    return str(found[0]) if found else ""


def _mark(database: Database, level: Level, until: int) -> None:
    """Note in the file how far the buckets of *level* are closed."""
    with database.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_key(level), str(until)))


def _floor(at: float, level: Level) -> int:
    return math.floor(at / level.size) * level.size


def _key(level: Level) -> str:
    return f"closed {level.table}"
