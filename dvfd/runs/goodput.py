"""Where the time of a run went: every second is in one part, and in no other. Pure.

Time counts as steps while every rank is between two of its own: a job is as slow as its slowest
rank. In it, waiting for data is that of the rank that waits least for the others, since they wait
for it. A checkpoint that is being written, by whichever rank, takes the time of all. A step whose
number an earlier process of its rank had done is done again, and so are those of the other ranks
beside it. What is no step is initialisation before the first one, recovery if processes were lost
or replaced in it, unobserved if nobody looked or rows are missing, else `other`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dvfd.runs.availability import stretches
from dvfd.runs.rows import Event, What, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.runs.rows import Row
    from dvfd.runs.run import Plan


class Part(StrEnum):
    """What a second was spent on. The value is its name for people."""

    PRODUCTIVE = "productive steps"
    DATA = "waiting for data"
    SAVE = "saving checkpoints"
    RESTORE = "loading checkpoints"
    AGAIN = "steps done again"
    INITIALISATION = "initialisation"
    RECOVERY = "recovery"
    UNOBSERVED = "unobserved"
    OTHER = "other"


LOST = frozenset({What.FAILURE, What.PLANNED, What.RESTART, What.INJECTED})
"""Events after which the next step is a recovery."""

NO_DATA = (
    "waiting for data is part of the steps: no rank tells both its compute section and its "
    "communication in every step"
)
NO_RESTORE = (
    "loading checkpoints is part of initialisation and recovery: "
    "Reporter.checkpoint_loaded would tell it apart"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """The parts of one run's time, or of one job's; seconds."""

    run: str
    job: str
    since: float  # run seconds, or Unix seconds for a job without a run
    until: float
    parts: dict[Part, float]
    steps: int = 0  # of the rank that did least, those done again not counted
    again: int = 0
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> float:
        """What the parts add up to."""
        return self.until - self.since

    @property
    def ratio(self) -> tuple[float, float] | None:
        """Productive steps over the whole: at least, and at most if all unseen time was so."""
        if self.whole <= 0:
            return None
        productive = self.parts[Part.PRODUCTIVE]
        most = productive + self.parts[Part.UNOBSERVED]
        return productive / self.whole, min(1.0, most / self.whole)

    def to_document(self) -> dict[str, Any]:
        """As JSON; the losses worst first."""
        ratio = self.ratio
        return {
            "run": self.run,
            "job": self.job,
            "since": self.since,
            "until": self.until,
            "seconds": self.whole,
            "goodput": None if ratio is None else ratio[0],
            "goodput_at_most": None if ratio is None else ratio[1],
            "parts": [
                {"part": part.name.lower(), "words": part.value, "seconds": seconds}
                for part, seconds in ordered(self.parts)
            ],
            "steps": self.steps,
            "steps_again": self.again,
            "notes": list(self.notes),
        }


def ordered(parts: dict[Part, float]) -> list[tuple[Part, float]]:
    """Productive steps, then the losses, the largest first."""
    return sorted(parts.items(), key=lambda each: (each[0] is not Part.PRODUCTIVE, -each[1]))


def account(
    rows: Iterable[Row], *, since: float, until: float, plan: Plan, run: str = ""
) -> Goodput:
    """Split [since, until], run seconds, by the windows and events among *rows*."""
    lanes: dict[tuple[int, str], Lane] = defaultdict(Lane)
    events: list[Event] = []
    for row in rows:
        if isinstance(row, Window):
            lanes[row.rank, row.session].add(row)
        elif isinstance(row, Event):
            events.append(row)
    tracks = _tracks(lanes)
    scene = Scene(tracks, events, plan, since, max(since, until))
    return Goodput(
        run=run,
        job=plan.job,
        since=since,
        until=max(since, until),
        parts=scene.parts(),
        steps=min((track.steps for track in tracks.values()), default=0),
        again=max((track.again for track in tracks.values()), default=0),
        notes=tuple(scene.notes()),
    )


# --- Steps of a rank ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps of one rank that followed each other. `wait` and `exchange` are the shares of their
    time that went into waiting for data and for the other ranks; None if it does not tell.
    """

    since: float
    until: float
    again: bool = False
    wait: float | None = None
    exchange: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Sums of what windows tell of their steps: seconds."""

    stepping: float = 0.0
    compute: float = 0.0
    communication: float = 0.0


WIDTH = 8
"""Numbers that a lane keeps of a window: two days of sixteen ranks are then about 20 MB."""


class Lane:
    """The windows of one process, in any order."""

    def __init__(self) -> None:
        self._rows = array("d")

    def add(self, window: Window) -> None:
        """Take one."""
        whole = window.computes == window.steps and window.steps > 0
        told = window.stepping if whole else math.nan
        self._rows.extend((
            window.began, window.ended, window.first_step, window.last_step, window.steps, told,
            window.compute, window.communication,
        ))  # fmt: skip

    @property
    def began(self) -> float:
        """When the first step of it ended."""
        return min(self._rows[0::WIDTH])

    @property
    def last(self) -> int:
        """The number of its last step."""
        return int(max(self._rows[3::WIDTH]))

    def windows(self) -> Iterator[tuple[float, ...]]:
        """What it holds, by time."""
        found = range(0, len(self._rows), WIDTH)
        yield from sorted(tuple(self._rows[n : n + WIDTH]) for n in found)


@dataclass(slots=True)
class Track:
    """One rank over the whole run: what it did when, and where rows of it are missing."""

    stretches: list[Stretch] = field(default_factory=list)
    holes: list[tuple[float, float]] = field(default_factory=list)
    began: list[float] = field(default_factory=list)  # each process's first step
    steps: int = 0
    again: int = 0

    def at(self, t: float) -> Stretch | None:
        """The steps under way at *t*."""
        place = bisect_right(self.stretches, t, key=lambda stretch: stretch.since) - 1
        found = self.stretches[place] if place >= 0 else None
        return found if found and t < found.until else None

    def missing(self, t: float) -> bool:
        """Whether rows are missing at *t*."""
        return any(since <= t < until for since, until in self.holes)


def _tracks(lanes: dict[tuple[int, str], Lane]) -> dict[int, Track]:
    """By rank. Of two processes at once, the later one counts."""
    tracks: dict[int, Track] = {}
    done: dict[int, int] = {}
    for (rank, _), lane in sorted(lanes.items(), key=lambda each: (each[1].began, each[0])):
        track = tracks.setdefault(rank, Track())
        _follow(track, lane, done.get(rank, 0))
        done[rank] = max(done.get(rank, 0), lane.last)
    for track in tracks.values():
        track.stretches = _disjoint(track.stretches)
    return tracks


def _follow(track: Track, lane: Lane, before: int) -> None:
    """Add a process's windows; steps up to number *before* were done already."""
    track.began.append(lane.began)
    ended: float | None = None
    newest = -1
    for began, until, first, last, steps, *told in lane.windows():
        follows = ended is not None and first == newest + 1 and began >= ended
        if ended is not None and not follows and began > ended:
            track.holes.append((ended, began))
        since = ended if follows and ended is not None else began
        again = int(min(max(0, before - first + 1), steps))
        track.again += again
        track.steps += int(steps) - again
        cut = _cut(since, until, again, int(steps), follows=follows)
        wait, exchange = _shares(*told)
        _append(track.stretches, Stretch(since, cut, True, wait, exchange))
        _append(track.stretches, Stretch(cut, until, False, wait, exchange))
        ended, newest = max(until, ended or until), int(last)


def _append(found: list[Stretch], new: Stretch) -> None:
    """Add *new*, to the last one if it goes on with it; what has no length is left out."""
    if new.until <= new.since:
        return
    last = found[-1] if found else None
    same = last and (last.until, last.again) == (new.since, new.again)
    if last is None or not same or (last.wait is None) != (new.wait is None):
        found.append(new)
        return
    wait, exchange = _mean(last, new, "wait"), _mean(last, new, "exchange")
    found[-1] = Stretch(last.since, new.until, last.again, wait, exchange)


def _mean(one: Stretch, other: Stretch, name: str) -> float | None:
    """A share over both, by their lengths."""
    a, b = getattr(one, name), getattr(other, name)
    if a is None or b is None:
        return None
    lengths = one.until - one.since, other.until - other.since
    return float((a * lengths[0] + b * lengths[1]) / (lengths[0] + lengths[1]))


def _cut(since: float, until: float, again: int, steps: int, *, follows: bool) -> float:
    """Where the steps that are done again end: steps of a window take equally long. The first one
    of a process began at a time that nobody knows, so that only those after it have a length.
    """
    timed = steps if follows else steps - 1
    past = again if follows else again - 1
    if timed <= 0:
        return until if again else since
    return since + (until - since) * min(1.0, max(0, past) / timed)


def _shares(stepping: float, compute: float, exchange: float) -> tuple[float | None, float | None]:
    """Shares of waiting for data and for others, of the steps that tell both sections."""
    if math.isnan(stepping) or stepping <= 0:
        return None, None
    others = min(1.0, max(0.0, exchange / stepping))
    busy = min(1.0, max(0.0, compute / stepping))
    return max(0.0, 1.0 - busy - others), others


def _disjoint(found: Sequence[Stretch]) -> list[Stretch]:
    """Sorted, each cut off where the next begins."""
    ways = sorted(found, key=lambda s: (s.since, s.until, s.again))
    ends = [*(s.since for s in ways), math.inf][1:]
    cut = [
        Stretch(s.since, min(s.until, end), s.again, s.wait, s.exchange)
        for s, end in zip(ways, ends, strict=True)
    ]
    return [s for s in cut if s.until > s.since]


# --- The whole job ------------------------------------------------------------------------------


class Scene:
    """Everything that says what a second was spent on."""

    def __init__(
        self,
        tracks: dict[int, Track],
        events: Sequence[Event],
        plan: Plan,
        since: float,
        until: float,
    ) -> None:
        self._tracks = list(tracks.values())
        self._plan = plan
        self._ends = (since, until)
        self._saves = _union([*_sections(events, What.SAVED), *_failures(events)])
        self._loads = _union(_sections(events, What.RESTORED))
        self._restores = any(event.what is What.RESTORED for event in events)
        self._losses = sorted(event.t for event in events if event.what in LOST)
        self._births = sorted(t for track in self._tracks for t in track.began)
        seen = stretches(events, nodes=plan.nodes, since=since, until=max(since, until))
        self._unseen = [(s.since, s.until) for s in seen if s.what is What.UNSEEN]
        self._down = [(s.since, s.until) for s in seen if s.what is What.DOWN]
        self._untold = False

    def parts(self) -> dict[Part, float]:
        """Seconds of each part."""
        found: dict[Part, list[float]] = {part: [] for part in Part}
        for since, until, part, share in self._slices():
            length = until - since
            waited = length * share
            found[part].append(length - waited)
            found[Part.DATA].append(waited)
        return {part: math.fsum(lengths) for part, lengths in found.items()}

    def notes(self) -> Iterator[str]:
        """What could not be told apart. To be asked after `parts`."""
        known, wanted = len(self._tracks), self._plan.processes
        if known < wanted:
            yield f"{known} of {wanted} ranks told steps: the others may have done none"
        if self._untold:
            yield NO_DATA
        if not self._restores:
            yield NO_RESTORE

    def _slices(self) -> Iterator[tuple[float, float, Part, float]]:
        """Pieces of the whole without a hole: what each was, and the share of waiting for data."""
        pieces = [(a, b, self._steps(a, b)) for a, b in pairwise(self._boundaries())]
        gaps = _union([(a, b) for a, b, steps in pieces if steps is None])
        first = next((a for a, _, steps in pieces if steps is not None), math.inf)
        for since, until, steps in pieces:
            middle = (since + until) / 2
            if _inside(self._loads, middle):
                yield since, until, Part.RESTORE, 0.0
            elif _inside(self._saves, middle):
                yield since, until, Part.SAVE, 0.0
            elif steps is not None:
                yield (since, until, *self._stepping(steps, middle))
            else:
                yield since, until, self._idle(middle, gaps, first), 0.0

    def _boundaries(self) -> list[float]:
        since, until = self._ends
        spans = [*self._saves, *self._loads, *self._unseen, *self._down]
        for track in self._tracks:
            spans += [(s.since, s.until) for s in track.stretches]
            spans += track.holes
        inside = {t for span in spans for t in span if since < t < until}
        return sorted({since, until} | inside)

    def _steps(self, since: float, until: float) -> list[Stretch] | None:
        """The steps of every rank between two boundaries; None if one makes none."""
        middle = (since + until) / 2
        found = [track.at(middle) for track in self._tracks]
        known = [stretch for stretch in found if stretch is not None]
        return known if known and len(known) == len(found) else None

    def _stepping(self, steps: list[Stretch], t: float) -> tuple[Part, float]:
        """What steps are worth. All ranks were down in the midst of them: they hung."""
        hung = next((span for span in self._down if span[0] <= t < span[1]), None)
        if hung and all(s.since < hung[0] and hung[1] < s.until for s in steps):
            return Part.OTHER, 0.0
        if any(stretch.again for stretch in steps):
            return Part.AGAIN, 0.0
        return Part.PRODUCTIVE, self._waited(steps)

    def _waited(self, steps: list[Stretch]) -> float:
        """The share of waiting for data, of the rank that the others wait for."""
        told = [
            (s.exchange, s.wait) for s in steps if s.exchange is not None and s.wait is not None
        ]
        if len(told) < len(steps):
            self._untold = True
            return 0.0
        return min(told)[1]

    def _idle(self, t: float, gaps: Sequence[tuple[float, float]], first: float) -> Part:
        """What time without steps was."""
        if _inside(self._unseen, t) or any(track.missing(t) for track in self._tracks):
            return Part.UNOBSERVED
        if t < first:
            return Part.INITIALISATION
        since, until = next(gap for gap in gaps if gap[0] <= t < gap[1])
        replaced = any(since < birth <= until for birth in self._births)
        lost = any(since <= loss <= until for loss in self._losses)
        return Part.RECOVERY if replaced or lost else Part.OTHER


def _sections(events: Iterable[Event], end: What) -> Iterator[tuple[float, float]]:
    """From when to when something took place whose end is told with its length."""
    for event in events:
        if event.what is end and event.value is not None and 0 < event.value < math.inf:
            yield event.t - event.value, event.t


def _failures(events: Sequence[Event]) -> Iterator[tuple[float, float]]:
    """From when to when a checkpoint was written in vain."""
    for event in events:
        if event.what is What.FAILED:
            began = [
                e.t
                for e in events
                if e.what is What.BEGUN and (e.rank, e.step) == (event.rank, event.step)
            ]
            before = [t for t in began if t < event.t]
            if before:
                yield max(before), event.t


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sorted and disjoint."""
    found: list[tuple[float, float]] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((since, until))
    return found


def _inside(spans: Sequence[tuple[float, float]], t: float) -> bool:
    """Whether *t* is in one of the sorted, disjoint *spans*."""
    place = bisect_right(spans, (t, math.inf)) - 1
    return place >= 0 and spans[place][0] <= t < spans[place][1]
