"""Windows of ranks put together: what all of them did in one collection interval. Pure."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvfd.runs.rows import Window

Key = tuple[int, int]
"""Which life of its ranks (0, and one more after each restart), and the interval's number."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One collection interval of the whole job: run seconds, and sums over its ranks.

    It begins when the last rank ended the interval before, so that intervals follow each other
    without a hole and their times add up. `allreduce` is the slowest rank's mean time of one.
    """

    key: Key
    began: float
    ended: float
    samples: float | None
    loss: float | None
    norm: float | None
    seen: float | None  # samples seen by all ranks together since step 0
    communication: float | None  # exposed, of the time of the steps that told it
    allreduce: float | None
    moved: float  # bytes of one rank's reductions a step, times their number

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
    """The compute sections of one rank, a pair of a sum and a count for each window."""

    sums: array[float] = field(default_factory=lambda: array("d"))
    count: int = 0

    def add(self, window: Window) -> None:
        """Take a window that will not grow."""
        self.sums.append(window.compute)
        self.count += window.computes


class Grid:
    """Windows by rank, and the intervals that all expected ranks have finished.

    What is put together is let go, so that two days of sixteen ranks take a few MiB. A rank's
    first session is life 0, the next life 1: after a restart all ranks are in their next life.
    """

    def __init__(self, *, every: int, ranks: int) -> None:
        """*every* batches make an interval; *ranks* is how many there are in the whole job."""
        self._every = every
        self._ranks = ranks
        self._lives: dict[int, dict[str, int]] = {}  # by rank: sessions in the order they came
        self._open: dict[int, dict[tuple[int, int], Window]] = {}  # by life: (number, rank)
        self._sections: dict[tuple[str, int], Sections] = {}  # by node and rank
        self._steps: dict[int, int] = {}  # the newest step by rank
        self.intervals: list[Interval] = []
        self.first = 1  # the first step that any rank did

    def add(self, window: Window) -> None:
        """Take a window, or one that grew."""
        self.first = min(self.first, window.first_step) if self._lives else window.first_step
        lives = self._lives.setdefault(window.rank, {})
        life = lives.setdefault(window.session, len(lives))
        self._open.setdefault(life, {})[window.window, window.rank] = window
        self._steps[window.rank] = max(window.last_step, self._steps.get(window.rank, 0))
        if window.last_step == (window.window + 1) * self._every:
            self._settle(life, window.window)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that made a step."""
        return tuple(sorted(self._lives))

    @property
    def steps(self) -> dict[int, int]:
        """The newest step of each rank."""
        return dict(self._steps)

    def sections(self) -> dict[tuple[str, int], tuple[float, int]]:
        """By node and rank: the mean compute section of a step in seconds, and of how many."""
        still: dict[tuple[str, int], list[Window]] = {}
        for windows in self._open.values():
            for window in windows.values():
                still.setdefault((window.node, window.rank), []).append(window)
        found = {}
        for place in sorted(self._sections.keys() | still.keys()):
            done, rest = self._sections.get(place, Sections()), still.get(place, [])
            if count := done.count + sum(w.computes for w in rest):
                total = math.fsum([*done.sums, *(w.compute for w in rest)])
                found[place] = (total / count, count)
        return found

    def _settle(self, life: int, number: int) -> None:
        """Put interval *number* together if every rank has all of it, and of the one before."""
        windows = self._open[life]
        here = [w for rank in self._lives if (w := windows.get((number, rank)))]
        if len(here) < self._ranks or any(not self._whole(w) for w in here):
            return
        before = [w for w in (windows.get((number - 1, w.rank)) for w in here) if w is not None]
        ends = [w.ended for w in before if w.last_step == number * self._every]
        if len(ends) == len(here):
            self.intervals.append(self._made((life, number), here, max(ends)))
        for old in before:
            del windows[old.window, old.rank]
            self._sections.setdefault((old.node, old.rank), Sections()).add(old)

    def _whole(self, window: Window) -> bool:
        first = window.window * self._every + 1
        return (window.first_step, window.last_step) == (first, first + self._every - 1)

    def _made(self, key: Key, own: list[Window], began: float) -> Interval:
        told = [w.samples for w in own if w.samples is not None]
        samples = math.fsum(told) if len(told) == len(own) else None
        stepping = math.fsum(w.stepping for w in own)
        exposed = math.fsum(w.communication for w in own)
        reductions = [w.allreduce / w.allreduces for w in own if w.allreduces]
        return Interval(
            key=key,
            began=began,
            ended=max(w.ended for w in own),
            samples=samples,
            loss=_mean([(w.loss, w.losses) for w in own]),
            norm=_mean([(w.norm, w.norms) for w in own]),
            seen=None if samples is None else samples * (key[1] + 1),
            communication=exposed / stepping if stepping > 0 else None,
            allreduce=max(reductions) if len(reductions) == len(own) else None,
            moved=max(w.moved for w in own),
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
        decay = 0.5 ** ((place - last) / half_life) if half_life > 0 else 0.0
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
