"""Windows of ranks put together: what all of them did in one collection interval. Pure."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import compress, islice, repeat
from operator import lt, sub
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from dvfd.runs.rows import Window

Seat = tuple[int, str]
"""A rank and its session."""

SKEWED = 1
"""Steps between ranks of one step; more is a synchronisation issue (reading 40)."""

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
    ahead: float | None  # steps that a rank had made of it when the last one began it
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


TOLD = (
    "samples",
    "loss",
    "norm",
    "seen",
    "communication",
    "allreduce",
    "rate",
    "ahead",
    "throughput",
)
"""Figures of an interval that some rank may not tell."""


class Columns:
    """Intervals in order of time, as a column of numbers for each figure: NaN where it is not told.

    Two days are 3456 intervals of which every criterion asks one figure or two.
    """

    def __init__(self, of: Iterable[Interval] = ()) -> None:
        self.keys = array("q")
        self.began = array("d")
        self.ended = array("d")
        self._figures = {name: array("d") for name in (*TOLD, "computed")}
        for interval in of:
            self.add(interval)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, name: str) -> array[float]:
        """The column of a figure; that of `computed` holds 1 or NaN."""
        return self._figures[name]

    def __iter__(self) -> Iterator[Interval]:
        """Every interval again as a whole."""
        names = [name for name in TOLD if name != "throughput"]
        told = zip(*(map(_told, self[name]) for name in names), strict=True)
        edges = zip(self.keys, self.began, self.ended, self["computed"], strict=True)
        for (key, began, ended, computed), values in zip(edges, told, strict=True):
            named = dict(zip(names, values, strict=True))
            yield Interval(key, began, ended, **named, computed=not math.isnan(computed))

    def add(self, interval: Interval) -> None:
        """Put one in its place: it mostly is the newest."""
        at = bisect_right(self.ended, interval.ended)
        while at and self.ended[at - 1] == interval.ended and self.keys[at - 1] > interval.key:
            at -= 1
        self.keys.insert(at, interval.key)
        self.began.insert(at, interval.began)
        self.ended.insert(at, interval.ended)
        for name in TOLD:
            value = getattr(interval, name)
            self._figures[name].insert(at, math.nan if value is None else value)
        self._figures["computed"].insert(at, 1.0 if interval.computed else math.nan)

    def inside(self, since: float, until: float) -> Columns:
        """Those that began and ended between two run seconds."""
        first, last = bisect_left(self.ended, since), bisect_right(self.ended, until)
        while first < last and self.began[first] < since:
            first += 1
        part = self._cut(slice(first, last))
        if part.began and min(part.began) < since:  # of ranks that went on through a restart
            return part._picked([began >= since for began in part.began])
        return part

    def telling(self, name: str) -> Columns:
        """Those that tell a figure."""
        if not any(map(math.isnan, self[name])):
            return self
        return self._picked([not math.isnan(value) for value in self[name]])

    def once(self) -> Columns:
        """By number; of one that was made again the last."""
        if all(map(lt, self.keys, islice(self.keys, 1, None))):
            return self
        newest = {key: place for place, key in enumerate(self.keys)}
        return self._taken([newest[key] for key in sorted(newest)])

    def covered(self, since: float, until: float) -> float:
        """Seconds of [since, until] that they stand for. What is under way at either end counts,
        up to three usual lengths.
        """
        if not self:
            return 0.0
        lengths = sorted(map(sub, self.ended, self.began))
        allowed = OPEN * lengths[len(lengths) // 2]
        edges = (min(self.began) - since, until - self.ended[-1])
        return math.fsum([*lengths, *(edge for edge in edges if 0 < edge <= allowed)])

    def _cut(self, part: slice) -> Columns:
        return self._each(lambda column: column[part])

    def _picked(self, which: Sequence[bool]) -> Columns:
        return self._each(lambda column: array(column.typecode, compress(column, which)))

    def _taken(self, places: Sequence[int]) -> Columns:
        return self._each(lambda column: array(column.typecode, [column[n] for n in places]))

    def _each(self, make: Callable[[array[Any]], array[Any]]) -> Columns:
        found = Columns()
        found.keys, found.began = make(self.keys), make(self.began)
        found.ended = make(self.ended)
        found._figures = {name: make(column) for name, column in self._figures.items()}
        return found


def _told(value: float) -> float | None:
    return None if math.isnan(value) else value


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
        self._whole: defaultdict[int, dict[Seat, Kept]] = defaultdict(dict)
        self._sections: defaultdict[tuple[str, int], Sections] = defaultdict(Sections)  # node, rank
        self._steps: dict[int, int] = {}  # the newest step by rank
        self._ends: dict[Seat, float] = {}  # when a session's newest step ended
        self._nonfinite = 0
        self.intervals = Columns()
        self.first = 1  # the first step that any rank did

    def add(self, window: Window) -> None:
        """Take a window, or one that grew."""
        number, rank = window.window, window.rank
        seat = (rank, window.session)
        if window.first_step < self.first or not self._steps:
            self.first = window.first_step
        if window.last_step > self._steps.get(rank, -1):
            self._steps[rank] = window.last_step
        if window.ended > self._ends.get(seat, -math.inf):
            self._ends[seat] = window.ended
        if not self._is_whole(window):
            self._open[number, seat] = window
            return
        self._open.pop((number, seat), None)
        self._sections[window.node, rank].add(window)
        self._nonfinite += window.nonfinite
        beside = self._whole[number]
        beside[seat] = Kept(window)
        if len(beside) >= self._ranks:
            self._join(number, seat)
        if number + 1 in self._whole:
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
    def told(self) -> float:
        """The run second up to which all ranks that told of steps have told of them."""
        newest: dict[int, float] = {}
        for (rank, _), ended in self._ends.items():
            newest[rank] = max(ended, newest.get(rank, ended))
        return min(newest.values(), default=-math.inf)

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
        self.intervals.add(self._made(number, [own[s].window for s in chosen], max(ends)))
        for each in chosen:
            own[each].joined = before[each].begun = True
            self._let_go(number, each)
            self._let_go(number - 1, each)

    def _let_go(self, number: int, seat: Seat) -> None:
        beside = self._whole[number]
        if beside[seat].joined and beside[seat].begun:
            del beside[seat]
        if not beside:
            del self._whole[number]

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
            ahead=float(max(self._ahead(w, began) for w in own)),
            computed=all(w.computes == w.steps for w in own),
        )

    def _ahead(self, window: Window, moment: float) -> int:
        """Steps of *window* that were made by *moment*: those between its first and its last one
        evenly. Ranks that wait for each other have made none, or one, when the last one begins it.
        """
        if window.began > moment:
            return 0
        before = window.window * self._every
        first, last = window.first_step - before, window.last_step - before
        if window.ended <= moment:
            return last
        part = (moment - window.began) / (window.ended - window.began)
        return first + math.floor(part * (last - first) + 1e-3)  # of a step: floats are inexact


def stood(moments: Iterable[float], since: float, until: float) -> float:
    """Seconds of [since, until] that moments stand for: each gap, up to three mean ones. What
    several ranks tell within a second is one moment.
    """
    inside = sorted(moment for moment in set(map(round, moments)) if since <= moment <= until)
    if not inside:
        return 0.0
    most = OPEN * (until - since) / (len(inside) + 1)
    gaps = map(sub, [*inside, until], [since, *inside])
    return math.fsum(map(min, gaps, repeat(most)))


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


class Curve:
    """A curve of (place, value), places ascending, to be read at any place."""

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        known = list(points)
        self.places = array("d", [place for place, _ in known])
        self._values = array("d", [value for _, value in known])

    def at(self, place: float) -> float | None:
        """The value at *place*, linearly; None outside of it."""
        places, found = self.places, self._values
        if not places or not places[0] <= place <= places[-1]:
            return None
        after = bisect_left(places, place)
        right, high = places[after], found[after]
        if right == place or after == 0:
            return high
        left, low = places[after - 1], found[after - 1]
        return low + (high - low) * (place - left) / (right - left)
