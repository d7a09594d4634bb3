"""How long a job was up over days, between two bounds, from its two counters. Pure.

The counters say how many seconds were seen and how many of them the job was up; what is in neither
was unobserved, and counts as down in the worst bound and as up in the best (reading 21).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.derive import counter_increase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.model import Sample

HOUR = 3600.0

Stretch = tuple[float, float]
"""From and until, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Uptime:
    """Seconds: `whole` is what counts of the period, `least` and `most` how long the job was up."""

    whole: float
    seen: float
    least: float
    most: float

    @property
    def low(self) -> float:
        """The worst bound as a share."""
        return self.least / self.whole

    @property
    def high(self) -> float:
        """The best bound as a share."""
        return self.most / self.whole

    @property
    def coverage(self) -> float:
        """The share that was observed."""
        return self.seen / self.whole


def uptime(
    up: Sequence[Sample],
    observed: Sequence[Sample],
    *,
    since: float,
    until: float,
    excused: Sequence[Stretch] = (),
) -> Uptime | None:
    """Of [since, until] without what was *excused* in advance; None if nothing is left of it.

    *since* is a whole hour: older values of the counters are kept for the ends of hours.
    """
    whole = seen = least = most = 0.0
    for begin, end, free in pieces(since, until, excused):
        if free <= 0.0:
            continue
        away = end - begin - free  # it may have been up in all of that
        looked, well = grown(observed, begin, end), grown(up, begin, end)
        whole += free
        seen += min(free, max(0.0, looked - away))
        least += min(free, max(0.0, well - away))
        most += min(free, well + max(0.0, end - begin - looked))
    return Uptime(whole, seen, min(least, most), most) if whole > 0.0 else None


def grown(counter: Sequence[Sample], since: float, until: float) -> float:
    """How much a counter grew in [since, until]; one that begins inside, from its first value."""
    first = bisect_right(counter, since, key=_at)
    last = bisect_right(counter, until, key=_at)
    return counter_increase([sample.value for sample in counter[max(0, first - 1) : last]])


def _at(sample: Sample) -> float:
    return sample.at


def pieces(
    since: float, until: float, excused: Sequence[Stretch]
) -> Iterator[tuple[float, float, float]]:
    """Begin, end and the seconds that count: each hour that an excuse touches, and what is between.

    A counter that is known by the hour does not tell how much of it grew in a part of one.
    """
    windows = merged([(max(a, since), min(b, until)) for a, b in excused])
    hours = {hour for a, b in windows for hour in range(math.floor(a / HOUR), math.ceil(b / HOUR))}
    at = since
    for hour in sorted(hours):
        begin, end = max(hour * HOUR, since), min((hour + 1) * HOUR, until)
        if begin > at:
            yield at, begin, begin - at
        covered = math.fsum(max(0.0, min(b, end) - max(a, begin)) for a, b in windows)
        yield begin, end, end - begin - covered
        at = end
    if until > at:
        yield at, until, until - at


def merged(windows: Sequence[Stretch]) -> list[Stretch]:
    """*windows* in order, those that overlap as one, without the empty ones."""
    found: list[Stretch] = []
    for begin, end in sorted(w for w in windows if w[0] < w[1]):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
