"""Windows of ranks put together: what all of them did in one collection interval. Pure."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dvfd.runs.rows import Window

Seat = tuple[int, str]
"""A rank and its session."""

OPEN = 3.0
"""Usual lengths that may be under way at either end of what was seen, or pass between two probes,
before that time counts as unseen."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One collection interval of the whole job: run seconds, and sums over its ranks.

    It begins when the last rank ended the interval before, so that intervals follow each other
    without a hole and their times add up. `allreduce` is the slowest rank's mean time of one.
    """

    key: int  # its number: a restart makes some of them again
    began: float
    ended: float
    samples: float | None
    loss: float | None
    norm: float | None
    seen: float | None  # samples seen by all ranks together since step 0
    communication: float | None  # exposed, of the time of the steps that told it
    allreduce: float | None
    rate: float | None  # bytes a second of the rank whose reductions moved fewest
    computed: bool  # all ranks told their compute sections

    @property
    def length(self) -> float:
        """Seconds."""
        return self.ended - self.began

    @property
    def throughput(self) -> float | None:
        """Samples a second of all ranks together; None where a rank does not tell any."""
        if self.samples is None or self.length <= 0:
            return None
        return self.samples / self.length


@dataclass(slots=True)
class Sections:
    """The compute sections of one rank: a sum for each window, and how many steps they are."""

    sums: array[float] = field(default_factory=lambda: array("d"))
    count: int = 0

    def add(self, window: Window) -> None:
        """Take a window that will not grow."""
        if window.computes:
            self.sums.append(window.compute)
            self.count += window.computes


@dataclass(slots=True)
class Kept:
    """A whole window, until it was put together with the others and ended the one before."""

    window: Window
    joined: bool = False
    begun: bool = False


class Grid:
    """Windows by rank, and the intervals that all expected ranks have finished.

    What is put together is let go, so that two days of sixteen ranks take a few MiB. Windows may
    come in any order. After a restart the same interval is done again by new sessions; those belong
    together that overlap in time, so a rank that died twice leaves the others where they are.
    """

    def __init__(self, *, every: int, ranks: int) -> None:
        """*every* batches make an interval; *ranks* is how many there are in the whole job."""
        self._every = every
        self._ranks = ranks
        self._open: dict[tuple[int, Seat], Window] = {}  # by number: may still grow
        self._whole: dict[int, dict[Seat, Kept]] = {}
        self._sections: dict[tuple[str, int], Sections] = {}  # by node and rank
        self._steps: dict[int, int] = {}  # the newest step by rank
        self._ends: dict[Seat, float] = {}  # when a session's newest step ended
        self._nonfinite = 0
        self.intervals: list[Interval] = []
        self.first = 1  # the first step that any rank did

    def add(self, window: Window) -> None:
        """Take a window, or one that grew."""
        number, seat = window.window, (window.rank, window.session)
        self.first = min(self.first, window.first_step) if self._steps else window.first_step
        self._steps[window.rank] = max(window.last_step, self._steps.get(window.rank, 0))
        self._ends[seat] = max(window.ended, self._ends.get(seat, window.ended))
        if not self._is_whole(window):
            self._open[number, seat] = window
            return
        self._open.pop((number, seat), None)
        self._sections.setdefault((window.node, window.rank), Sections()).add(window)
        self._nonfinite += window.nonfinite
        self._whole.setdefault(number, {})[seat] = Kept(window)
        self._join(number, seat)
        self._join(number + 1, seat)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that made a step."""
        return tuple(sorted(self._steps))

    @property
    def steps(self) -> dict[int, int]:
        """The newest step of each rank."""
        return dict(self._steps)

    @property
    def nonfinite(self) -> int:
        """Losses and norms of all windows that were no numbers."""
        return self._nonfinite + sum(w.nonfinite for w in self._open.values())

    def returned(self, since: float) -> int:
        """Processes that took a rank over from another one after run second *since*."""
        found: dict[int, set[str]] = {}
        for (rank, session), ended in self._ends.items():
            if ended >= since:
                process = session.rpartition("-")[0]  # the rest is one reporter of a process
                found.setdefault(rank, set()).add(process or session)
        return sum(len(each) - 1 for each in found.values())

    def sections(self) -> dict[tuple[str, int], tuple[float, int]]:
        """By node and rank: the mean compute section of a step in seconds, and of how many."""
        still: dict[tuple[str, int], list[Window]] = {}
        for window in self._open.values():
            still.setdefault((window.node, window.rank), []).append(window)
        found = {}
        for place in sorted(self._sections.keys() | still.keys()):
            done, rest = self._sections.get(place, Sections()), still.get(place, [])
            if count := done.count + sum(w.computes for w in rest):
                total = math.fsum([*done.sums, *(w.compute for w in rest)])
                found[place] = (total / count, count)
        return found

    def _is_whole(self, window: Window) -> bool:
        """Whether all its steps came, each reported or each n-th: every report stands for as many
        steps as lie before the first one.
        """
        before = window.window * self._every
        reported = window.steps * (window.first_step - before)
        return window.last_step == before + self._every and reported == self._every

    def _join(self, number: int, seat: Seat) -> None:
        """Put interval *number* of *seat* together with that of all other ranks, if they are here:
        whole, and with the interval before, which says when this one began.
        """
        own, before = self._whole.get(number, {}), self._whole.get(number - 1, {})
        if len(own) < self._ranks or len(before) < self._ranks:
            return
        if seat not in own or seat not in before:
            return
        since, until = before[seat].window.ended, own[seat].window.ended
        seats: dict[int, Seat] = {}
        for other in sorted(own.keys() & before.keys(), key=lambda s: own[s].window.ended):
            overlaps = before[other].window.ended < until and own[other].window.ended > since
            if overlaps and not own[other].joined:
                seats[other[0]] = other
        if len(seats) < self._ranks:
            return
        chosen = sorted(seats.values())
        ends = [before[s].window.ended for s in chosen]
        self.intervals.append(self._made(number, [own[s].window for s in chosen], max(ends)))
        for each in chosen:
            own[each].joined = before[each].begun = True
            self._let_go(number, each)
            self._let_go(number - 1, each)

    def _let_go(self, number: int, seat: Seat) -> None:
        kept = self._whole[number][seat]
        if kept.joined and kept.begun:
            del self._whole[number][seat]

    def _made(self, number: int, own: list[Window], began: float) -> Interval:
        told = [w.samples for w in own if w.samples is not None]
        samples = math.fsum(told) if len(told) == len(own) else None
        stepping = math.fsum(w.stepping for w in own)
        exposed = math.fsum(w.communication for w in own)
        reductions = [w.allreduce / w.allreduces for w in own if w.allreduces]
        rates = [w.moved / w.steps * w.allreduces / w.allreduce for w in own if w.allreduce > 0]
        return Interval(
            key=number,
            began=began,
            ended=max(w.ended for w in own),
            samples=samples,
            loss=_mean([(w.loss, w.losses) for w in own]),
            norm=_mean([(w.norm, w.norms) for w in own]),
            seen=None if samples is None else samples * (number + 1),
            communication=exposed / stepping if stepping > 0 else None,
            allreduce=max(reductions) if len(reductions) == len(own) else None,
            rate=min(rates) if len(rates) == len(own) else None,
            computed=all(w.computes == w.steps for w in own),
        )


def covered(found: Iterable[Interval], since: float, until: float) -> float:
    """Seconds of [since, until] that intervals stand for. What is under way at either end counts,
    up to three usual lengths.
    """
    known = list(found)
    if not known:
        return 0.0
    lengths = sorted([interval.ended - interval.began for interval in known])
    allowed = OPEN * lengths[len(lengths) // 2]
    first, last = min(i.began for i in known), max(i.ended for i in known)
    edges = (first - since, until - last)
    return math.fsum([*lengths, *(edge for edge in edges if 0 < edge <= allowed)])


def stood(moments: Iterable[float], since: float, until: float) -> float:
    """Seconds of [since, until] that moments stand for: each gap, up to three mean ones. What
    several ranks tell within a second is one moment.
    """
    inside = sorted(moment for moment in set(map(round, moments)) if since <= moment <= until)
    most = OPEN * (until - since) / (len(inside) + 1)
    return (
        math.fsum(min(b - a, most) for a, b in pairwise([since, *inside, until])) if inside else 0.0
    )


def _mean(parts: list[tuple[float, int]]) -> float | None:
    count = sum(number for _, number in parts)
    return math.fsum(total for total, _ in parts) / count if count else None


def smoothed(points: list[tuple[float, float]], half_life: float) -> list[tuple[float, float]]:
    """Exponential mean of (place, value) whose half-life is *half_life* places; the start is not
    pulled to zero. As in dvfd.analysis, which numpy does.
    """
    found, total, weight = [], 0.0, 0.0
    last = points[0][0] if points else 0.0
    for place, value in points:
        decay = 0.5 ** (max(0.0, place - last) / half_life) if half_life > 0 else 0.0
        total, weight = total * decay + value, weight * decay + 1.0
        found.append((place, total / weight))
        last = place
    return found


def interpolated(curve: list[tuple[float, float]], place: float) -> float | None:
    """The curve at *place*, linearly; None outside of it."""
    if not curve or not curve[0][0] <= place <= curve[-1][0]:
        return None
    after = bisect_left(curve, (place, -math.inf))
    if curve[after][0] == place or after == 0:
        return curve[after][1]
    (left, low), (right, high) = curve[after - 1], curve[after]
    return low + (high - low) * (place - left) / (right - left)
