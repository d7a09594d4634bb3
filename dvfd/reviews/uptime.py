"""How long a job was up over days, between two bounds, from its two counters. Pure.

The counters say how many seconds were seen and how many of them the job was up; what is in neither
was unobserved, and counts as down in the worst bound and as up in the best (reading 21). What grew
between two samples around an end of the period may all have grown outside of it. Each second of
downtime counts, also of a time that came twice because the clock was set back.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.derive import counter_increase
from dvfd.spent import ROUNDING, forward

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.model import Sample

HOUR = 3600.0

LATE = 15.0
"""Seconds by which a look may be later than its sample says."""

JITTER = 90.0
"""Seconds by which counters may seem to gain on the clock, since a sample stands for what was
looked at before it: a scrape and a half. More is a clock that was set back."""

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


@dataclass(frozen=True, slots=True)
class Growth:
    """What both counters grew by, at the least, between two samples. Of what is more than the clock
    says, because it was set back, `seen` seconds at the most were other moments than that.
    """

    since: float
    until: float
    observed: float
    up: float
    seen: float = math.inf

    @property
    def gained(self) -> float:
        """Seconds more than the clock says; negative where nobody looked for some."""
        return self.observed - (self.until - self.since)

    @property
    def hidden(self) -> float:
        """Seconds that came twice besides those that were gained: as many were not seen."""
        return max(0.0, self.until - self.since - self.seen) if self.gained > LATE else 0.0

    @property
    def twice(self) -> float:
        """Seconds that the clock was set back by, at the least."""
        return max(0.0, self.gained) + self.hidden

    def outside(self, begin: float, end: float) -> float:
        """Seconds of it that may not be of [begin, end], by a clock that was set back too."""
        return max(0.0, begin - self.since + self.twice) + max(0.0, self.until + self.twice - end)

    def reaches(self, begin: float, end: float) -> bool:
        """Whether any of it may be of [begin, end]."""
        return self.until + self.twice > begin and self.since - self.twice < end


@dataclass(frozen=True, slots=True)
class Known:
    """Seconds of a stretch, at the least up and down, and those that came twice; in `doubt` down
    as well, if they were in it.
    """

    up: float
    down: float
    twice: float
    doubt: float


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
    growths = grew(up, observed)
    whole = seen = least = most = 0.0
    for begin, end, free in pieces(since, until, excused):
        if free <= 0.0:
            continue
        away = end - begin - free  # it may have been up, or down, in all of that
        found = known(growths, begin, end)
        up_for = max(0.0, found.up - found.twice - found.doubt - away)
        down = min(free, max(0.0, found.down - away))
        whole += free
        seen += min(free, max(0.0, found.up + found.down - found.twice - away))
        least += max(0.0, min(free - down - found.doubt, up_for))
        most += free - down
    return Uptime(whole, seen, min(least, most), most) if whole > 0.0 else None


def grew(up: Sequence[Sample], observed: Sequence[Sample]) -> list[Growth]:
    """From sample to sample that both have. What a clock that was set back put between samples of
    a later time is left out, and so is all until a counter that fell has grown as far again; one
    that began anew counts from there. Where it fell below all that is known, that is forgotten.
    """
    rows = _rows(up, observed)
    found: list[Growth] = []
    first = last = rows[0] if rows else None
    since, jump = 0, -1  # in *found*: where this life begins, and where the clock was set back
    for before, row in pairwise(rows):
        if first is None or last is None:
            first = last = row
            continue
        more, more_up = row.seen - last.seen, row.up - last.up
        if more >= 0.0 and 0.0 <= more_up <= more + ROUNDING:
            found.append(Growth(last.at, row.at, more, min(more, more_up)))
            if found[-1].gained > LATE:
                jump = len(found) - 1
            if found[-1].gained > JITTER and row.at - last.at > JITTER:
                found[-1] = replace(found[-1], seen=row.span)
        elif 0.0 <= row.up <= row.seen + ROUNDING and row.seen <= row.at - before.at + LATE:
            found.append(Growth(last.at, row.at, row.seen, min(row.seen, row.up)))
            first, since, jump = row, len(found), -1
        elif more >= 0.0:
            found.append(Growth(last.at, row.at, 0.0, 0.0))
        elif row.seen < first.seen:
            del found[since:]
            first, last, jump = None, None, -1
            continue
        else:
            if jump >= 0:
                found[jump] = _set_back(found[jump], row.at)
            continue
        last = row
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """Both counters at one moment, and how much of the time before it the looks stand for."""

    at: float
    seen: float
    up: float
    span: float


def _rows(up: Sequence[Sample], observed: Sequence[Sample]) -> list[Row]:
    ups, both = _by_time(up), _by_time(observed)
    return [
        Row(at, both[at].value, ups[at].value, both[at].span)
        for at in sorted(both.keys() & ups.keys())
    ]


def _set_back(growth: Growth, last: float) -> Growth:
    """*growth*, in which the clock was set back from *last* or later."""
    seen = growth.observed - (last - growth.until)
    return replace(growth, seen=max(0.0, min(growth.seen, seen)))


def _by_time(counter: Sequence[Sample]) -> dict[float, Sample]:
    """Its samples; the greatest where a moment came twice."""
    return {sample.at: sample for sample in sorted(counter, key=lambda s: s.value)}


def known(growths: Sequence[Growth], begin: float, end: float) -> Known:
    """What is known of [begin, end]."""
    inside = [growth for growth in growths if growth.reaches(begin, end)]
    out = [growth.outside(begin, end) for growth in inside]
    down = [growth.observed - growth.up for growth in inside]
    sure = [max(0.0, each - o) for each, o in zip(down, out, strict=True)]
    return Known(
        math.fsum(max(0.0, g.up - o) for g, o in zip(inside, out, strict=True)),
        math.fsum(sure),
        _twice(g.gained for g in inside) + math.fsum(g.hidden for g in inside),
        math.fsum(
            d - each for g, d, each in zip(inside, down, sure, strict=True) if g.twice > LATE
        ),
    )


def _twice(gained: Iterable[float]) -> float:
    """Seconds that came twice: what was gained on the clock beyond what jitters."""
    ahead = found = 0.0
    for each in gained:
        ahead = max(0.0, ahead + each)
        if ahead > JITTER:
            found += ahead
            ahead = 0.0
    return found


def grown(counter: Sequence[Sample], since: float, until: float) -> float:
    """How much a counter grew in [since, until] by the samples of it and the newest one before;
    one that begins inside, from its first value.
    """
    return counter_increase([sample.value for sample in _around(counter, since, until)])


def counted(counter: Sequence[Sample], since: float, until: float) -> tuple[float, float]:
    """How much a counter of events grew in [since, until], at the least and at the most: around an
    end, and where it fell, it is not known.
    """
    inside = forward([s for s in counter if since <= s.at <= until])
    least = math.fsum(max(0.0, b.value - a.value) for a, b in pairwise(inside))
    return least, max(least, grown(counter, since, until))


def _around(counter: Sequence[Sample], since: float, until: float) -> Sequence[Sample]:
    first = bisect_right(counter, since, key=_at)
    last = bisect_right(counter, until, key=_at)
    return counter[max(0, first - 1) : last]


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
