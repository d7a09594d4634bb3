"""The past of a series at the resolution that its length asks for: raw, minutes or hours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.model import Labels, Sample
from dvfd.store.operations import label_text, milliseconds
from dvfd.store.rollups import HOURS, MINUTES, Level, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from dvfd.store.database import Database
    from dvfd.store.retention import Retention

RAW_WINDOW = 3600.0
"""Seconds of raw samples that are read at once: 720 rows a series at 5 s."""

MINUTE_WINDOW = 48 * 3600.0
"""Up to here minutes are read, 2880 rows a series: hours would blur the ends of a day's window."""

TAIL = 120
"""Seconds before the newest minute that are read raw: by then a minute is surely closed."""

HOUR_TAIL = 300
"""Seconds before the raw tail in which the hour may not be closed yet."""

COUNTERS = frozenset({"rate", "increase"})

LONG_AGO = 7200.0
"""Seconds beyond a window that ended long ago up to which its rollups are surely closed."""


def resolution(
    reduce: str, since: float, until: float, now: float, kept: Retention
) -> Level | None:
    """The rollups that serve a window; None: raw samples, while they are kept.

    Counts and quantiles need every sample: a mean of a minute hides its tail.
    """
    wanted = kept.raw if needs_all(reduce) else RAW_WINDOW
    if until - since <= wanted and now - since <= kept.raw:
        return None
    return MINUTES if now - since <= min(MINUTE_WINDOW, kept.minutes) else HOURS


def needs_all(reduce: str) -> bool:
    """Whether this reduction has no exact stand-in for many samples."""
    return reduce in {"count", "fraction_within"} or (
        reduce.startswith("p") and reduce[1:].replace(".", "", 1).isdecimal()
    )


def tail_start(level: Level | None, newest: float) -> float:
    """From when on samples are read raw if the newest was taken at *newest*."""
    return -math.inf if level is None else _floor(newest, MINUTES) - TAIL


@dataclass(frozen=True, slots=True)
class Stretch:
    """What to read: [since, until) at *level* for *reduce*, from `tail_start(newest)` on raw."""

    level: Level | None
    reduce: str
    since: float
    until: float
    newest: float


class Past:
    """One series on the disk."""

    def __init__(self, database: Database, metric: str, labels: Labels) -> None:
        self._database = database
        self._metric = metric
        self._labels = labels
        found = database.read(
            "SELECT id FROM series WHERE metric = ? AND labels = ?", metric, label_text(labels)
        )
        self._series: int | None = found[0][0] if found else None

    def samples(self, asked: Stretch) -> list[Sample]:
        """The samples of a stretch, oldest first; a bucket that straddles its start is in.

        Raises sqlite3.Error.
        """
        if self._series is None:
            return []
        level, since, until = asked.level, asked.since, asked.until
        tail = tail_start(level, asked.newest)
        hours = _floor(tail - HOUR_TAIL, HOURS) if level is HOURS else -math.inf
        found = self._rollups(HOURS, asked.reduce, since, min(hours, until))
        found += self._rollups(MINUTES, asked.reduce, max(since, hours), min(tail, until))
        return found + self._raw(max(since, tail), until)

    def _raw(self, since: float, until: float) -> list[Sample]:
        rows = self._database.read(
            "SELECT at / 1000.0, value, low, high FROM samples"
            " WHERE series = ? AND at >= ? AND at < ? ORDER BY at",
            self._series, milliseconds(since), milliseconds(until),
        )  # fmt: skip
        return [Sample(self._metric, v, at, self._labels, low, high) for at, v, low, high in rows]

    def _rollups(self, level: Level, reduce: str, since: float, until: float) -> list[Sample]:
        if since >= until:
            return []
        median = "median" if level.median else "NULL"
        rows = self._database.read(
            "SELECT start, count, sum, sumsq, min, max, last, covered, low, high,"  # noqa: S608
            f" {median} FROM {level.table} WHERE series = ? AND start > ? AND start < ?"
            " ORDER BY start",
            self._series, since - level.size, until,
        )  # fmt: skip
        found: list[Sample] = []
        for row in rows:
            found += self._stand_in(level, reduce, Rollup(*row))
        return found

    def _stand_in(self, level: Level, reduce: str, rollup: Rollup) -> list[Sample]:
        """Samples whose reduction is that of the samples in the rollup, or bounds it."""
        values = stand_in(reduce, rollup)
        low, high = rollup.low, rollup.high
        if needs_all(reduce) and reduce != "count":
            low, high = rollup.min, rollup.max
        span = rollup.covered / len(values)
        end = rollup.start + level.size
        places = range(len(values) - 1, -1, -1)
        return [
            Sample(self._metric, value, end - span * place, self._labels, low, high, span)
            for place, value in zip(places, values, strict=True)
        ]


def stand_in(reduce: str, rollup: Rollup) -> tuple[float, ...]:
    """The values that reduce as the samples of *rollup* would.

    A spread sees mean and deviation: two values that far on either side of the mean have both. A
    counter shows its way through the bucket: from its least to its last, or, if it began again
    there, its peak and its last. What has no stand-in gets the mean, between its bounds.
    """
    if reduce == "count":
        return (rollup.mean,) * rollup.count
    if reduce in _ONE:
        return (_ONE[reduce](rollup),)
    if rollup.count == 1 or rollup.covered <= 0 or needs_all(reduce):
        return (rollup.mean,)
    if reduce in COUNTERS:
        return (rollup.max if rollup.max > rollup.last else rollup.min, rollup.last)
    return (rollup.mean - rollup.deviation, rollup.mean + rollup.deviation)


_ONE: dict[str, Callable[[Rollup], float]] = {
    "max": lambda rollup: rollup.max,
    "min": lambda rollup: rollup.min,
    "latest": lambda rollup: rollup.last,
    "sum": lambda rollup: rollup.sum,
    "mean": lambda rollup: rollup.mean,
    "median": lambda rollup: rollup.mean if rollup.median is None else rollup.median,
}


def _floor(at: float, level: Level) -> int:
    return math.floor(at / level.size) * level.size
